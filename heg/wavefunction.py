r"""ln Psi_K(x): plane-wave determinants of the flowed coordinates, with the Jacobian of the flow.

.. math:: \Psi_K(x) = \prod_\sigma \frac{\det[e^{i k_a \cdot z_b}]_\sigma}{\sqrt{N_\sigma!\, L^{d N_\sigma}}}
          \,\Big|\det\frac{\partial z}{\partial x}\Big|^{1/2}, \qquad z = f(x)

The same bijection f for every K makes the Psi_K orthonormal.
Source: Xie, Zhang and Wang, SciPost Phys. 14, 154 (2023), doi:10.21468/SciPostPhys.14.6.154.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from heg.flow import Flow
from heg.orbitals import Orbitals
from heg.system import System


def log_determinant(z: jax.Array, k: jax.Array) -> jax.Array:
    """ln det[exp(i k_a . z_b)] of one spin.

    Args:
      z: coordinates, bohr.                                 [N, d]
      k: occupied wavevectors, 1/bohr.                      [N, d]
    Returns:
      Complex logarithm, its imaginary part modulo 2 pi.    []
    """
    sign, log = jnp.linalg.slogdet(jnp.exp(1j * z @ k.T))
    return log + jnp.log(sign)


def log_determinant_gradient(z: jax.Array, k: jax.Array) -> jax.Array:
    """Its gradient by z, complex.  [N, d]"""
    matrix = jnp.exp(1j * z @ k.T)
    return (matrix * jnp.linalg.inv(matrix).T) @ (1j * k)


def make_log_psi(system: System, orbitals: Orbitals, flow: Flow) -> Callable:
    """ln Psi as a function of (flow params, x [N, d], state [N]); complex scalar, normalised in the box."""
    wavevectors = jnp.asarray(orbitals.k)
    log_norm = sum(math.lgamma(count + 1) for count in system.spins) / 2
    log_norm += system.dim * system.electrons / 2 * math.log(system.box)

    def log_psi(params, x, state):
        z, jacobians = flow.forward(params, x)
        k = wavevectors[state]
        up = system.n_up
        log_slater = sum(
            log_determinant(z[part], k[part]) for part in (slice(0, up), slice(up, None))[: len(system.spins)]
        )
        log_jacobian = jnp.sum(jnp.linalg.slogdet(jacobians)[1])
        return log_slater + log_jacobian / 2 - log_norm

    return log_psi


def make_score(system: System, orbitals: Orbitals, flow: Flow) -> Callable:
    """Derivative of ln Psi by the parameters, as a function of (flow params, x [N, d], state [N]).

    It returns params with a new first axis for the real and the imaginary part.  The derivative by the coordinates is
    carried from the determinants back through the layers, each of which adds that of its ln det J / 2 in closed form.
    """
    wavevectors = jnp.asarray(orbitals.k)

    def score(params, x, state):
        z, inputs = lax.scan(lambda x, layer: (flow.apply(layer, x)[0], x), x, flow.layers(params))
        parts = (slice(0, system.n_up), slice(system.n_up, None))[: len(system.spins)]
        k = wavevectors[state]
        gradient = jnp.concatenate([log_determinant_gradient(z[part], k[part]) for part in parts])
        back = lambda gradient, inputs: flow.pull_back(*inputs, gradient)
        _, of_params = lax.scan(back, gradient, (flow.layers(params), inputs), reverse=True)
        return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), of_params)

    return score
