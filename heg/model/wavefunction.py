r"""ln Psi_K(x): plane-wave determinants of the flowed coordinates, with the Jacobian of the flow.

.. math:: \Psi_K(x) = \prod_\sigma \frac{\det[e^{i k_a \cdot z_b}]_\sigma}{\sqrt{N_\sigma!\, L^{d N_\sigma}}}
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

from heg.gas.plane_waves import Orbitals, make_waves
from heg.gas.system import System
from heg.model.flow import Flow


def make_log_psi(system: System, orbitals: Orbitals, flow: Flow) -> Callable:
    """ln Psi as a function of (flow params, x [N, d], state [N]); complex scalar, normalised in the
    box."""
    waves, twist = make_waves(system, orbitals), 2 * np.pi / system.box * np.asarray(system.twist)
    log_norm = sum(math.lgamma(count + 1) for count in system.spins) / 2
    log_norm += system.dim * system.electrons / 2 * jnp.log(system.box)

    def log_psi(params, x, state):
        z, jacobians = flow.forward(params, x)
        signs, logs = zip(
            *(jnp.linalg.slogdet(waves(z[spin], state[spin])) for spin in system.parts)
        )
        log_slater = sum(logs) + sum(map(jnp.log, signs)) + 1j * jnp.sum(z @ twist)
        log_jacobian = jnp.sum(jnp.linalg.slogdet(jacobians)[1])
        return log_slater + log_jacobian / 2 - log_norm

    return log_psi


def make_log_slater(system: System, orbitals: Orbitals) -> Callable:
    """ln |det| of the plane waves of all spins as a function of (z [N, d], state [N])."""
    waves = make_waves(system, orbitals)

    def log_slater(z, state):
        return sum(jnp.linalg.slogdet(waves(z[part], state[part]))[1] for part in system.parts)

    return log_slater


class Score(NamedTuple):
    """Derivatives of ln Psi.

    Attributes:
      x: by the coordinates, complex, 1/bohr.               [N, d]
      params: by the flow's parameters, real and imaginary part along a new first axis.
    """

    x: jax.Array
    params: dict


def make_score(system: System, orbitals: Orbitals, flow: Flow) -> Callable:
    """Score of ln Psi as a function of (flow params, x [N, d], state [N]).

    The derivative by the coordinates is carried from the determinants back through the layers, each
    of which adds that of its ln det J / 2 in closed form.
    """
    waves, wavevectors = make_waves(system, orbitals), jnp.asarray(orbitals.k)

    def log_slater_gradient(z, state):
        matrix = waves(z, state)
        return (matrix * jnp.linalg.inv(matrix).T) @ (1j * wavevectors[state])

    def score(params, x, state):
        gradient_at = lambda z: jnp.concatenate(
            [log_slater_gradient(z[spin], state[spin]) for spin in system.parts]
        )
        if not params:
            return Score(gradient_at(x), {})
        z, inputs = lax.scan(lambda x, layer: (flow.apply(layer, x)[0], x), x, flow.layers(params))
        back = lambda gradient, inputs: flow.pull_back(*inputs, gradient)
        gradient, of_params = lax.scan(
            back, gradient_at(z), (flow.layers(params), inputs), reverse=True
        )
        return Score(gradient, jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), of_params))

    return score
