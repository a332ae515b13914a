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
