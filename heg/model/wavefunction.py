r"""ln Psi_K(x): plane-wave determinants of the flowed coordinates, with the Jacobian of the flow.

.. math:: \Psi_K(x) = \prod_\sigma
          \frac{\det[e^{i k_a \cdot z_b}]_\sigma}{\sqrt{N_\sigma!\, L^{d N_\sigma}}}
          \,\Big|\det\frac{\partial z}{\partial x}\Big|^{1/2}, \qquad z = f(x)

The same bijection f for every K makes the Psi_K orthonormal.
Source: Xie, Zhang and Wang, SciPost Phys. 14, 154 (2023), doi:10.21468/SciPostPhys.14.6.154.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex

from heg.gas.plane_waves import Orbitals, make_waves
from heg.gas.system import System
from heg.model.flow import Flow


def make_log_psi(system: System, orbitals: Orbitals, flow: Flow) -> Callable:
    """Complex logarithm of the normalised wavefunction.

    Returns:
      A function of (flow params, x [N, d], state [N]) whose value is a complex scalar.
    """
    waves = make_waves(system, orbitals)
    twist = system.wavevector_unit * np.asarray(system.twist)
    log_norm = _log_norm(system)

    def log_psi(params, x, state):
        z, jacobians = flow.forward(params, x)
        # ln det[e^{i k_a z_b}] of each spin, its sign a complex phase
        signs = []
        logs = []
        for spin in system.parts:
            matrix = waves(z[spin], state[spin])
            sign, log = jnp.linalg.slogdet(matrix)
            signs.append(sign)
            logs.append(log)
        log_modulus = sum(logs)
        phase = sum(jnp.log(sign) for sign in signs)
        # the matrices have no twist, which all plane waves share: its phase goes here
        twist_phase = 1j * jnp.sum(z @ twist)
        log_slater = log_modulus + phase + twist_phase
        _, log_jacobians = jnp.linalg.slogdet(jacobians)
        log_jacobian = jnp.sum(log_jacobians)
        return log_slater + log_jacobian / 2 - log_norm

    return log_psi


def _log_norm(system):
    """ln of the norm of the determinants of plane waves in the box."""
    # the product of sqrt(N_s! L^(d N_s)) over the spins
    permutations = sum(math.lgamma(count + 1) for count in system.spins)
    coordinates = system.dim * system.electrons
    return permutations / 2 + coordinates / 2 * jnp.log(system.box)


def make_log_slater(system: System, orbitals: Orbitals) -> Callable:
    """ln |det| of the plane waves of all spins as a function of (z [N, d], state [N])."""
    waves = make_waves(system, orbitals)

    def log_slater(z, state):
        logs = []
        for part in system.parts:
            matrix = waves(z[part], state[part])
            _, log = jnp.linalg.slogdet(matrix)
            logs.append(log)
        return sum(logs)

    return log_slater


class Score(NamedTuple):
    """Derivatives of ln Psi.

    Attributes:
      x: by the coordinates, 1/bohr.
      params: by the flow's parameters, real and imaginary part along a new first axis.
    """

    x: Complex[Array, "electrons dim"]
    params: dict


def make_score(system: System, orbitals: Orbitals, flow: Flow) -> Callable:
    """Score of ln Psi as a function of (flow params, x [N, d], state [N]).

    The derivative by the coordinates is carried from the determinants back through the layers.
    Each layer adds the derivative of its ln det J / 2 in closed form (docs/derivations.md,
    section 6).
    """
    waves = make_waves(system, orbitals)
    wavevectors = jnp.asarray(orbitals.k)

    def log_slater_gradient(z, state):
        # derivations, section 7: the diagonal of Q, "im,mi,ma->ia"
        matrix = waves(z, state)
        inverse = jnp.linalg.inv(matrix)
        weights = matrix * inverse.T  # of the wavevectors, for each electron
        return weights @ (1j * wavevectors[state])

    def gradient_by_z(z, state):
        parts = [log_slater_gradient(z[spin], state[spin]) for spin in system.parts]
        return jnp.concatenate(parts)

    return score_through_flow(flow, gradient_by_z)


def score_through_flow(flow: Flow, gradient_by_z: Callable) -> Callable:
    """Score of ln Psi = g(f(x)) + ln|det df/dx| / 2, a function of (flow params, x, state).

    Args:
      flow: f.
      gradient_by_z: of g, complex, a function of (z [N, d], state [N]).    [N, d]
    """

    def back_through_layer(gradient, layer_and_input):
        layer, x = layer_and_input
        return flow.pull_back(layer, x, gradient)

    def score(params, x, state):
        if not params:
            return Score(gradient_by_z(x, state), {})
        z, inputs = flow.layer_inputs(params, x)
        gradient = gradient_by_z(z, state)
        layers_and_inputs = (flow.layers(params), inputs)
        gradient, by_params = lax.scan(
            back_through_layer, gradient, layers_and_inputs, reverse=True
        )
        # the layers come first in the parameters, the two parts first in a score
        return Score(gradient, jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), by_params))

    return score
