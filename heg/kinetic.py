r"""Kinetic energy from ln Psi: E_kin = -1/2 (laplacian ln Psi + grad ln Psi . grad ln Psi).

The generic path, forward over forward: exact for any real -> complex function, no random traces.
"""

from typing import Callable

import jax
import jax.numpy as jnp


def gradient_and_laplacian(f: Callable, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """grad f [like x] and the sum of its second derivatives [] of a real -> complex function."""
    basis = jnp.eye(x.size).reshape(-1, *x.shape)
    first = lambda y, v: jax.jvp(f, (y,), (v,))[1]
    both = lambda v: jax.jvp(lambda y: first(y, v), (x,), (v,))
    gradient, second = jax.vmap(both)(basis)
    return gradient.reshape(x.shape), second.sum()


def kinetic_energy(log_psi: Callable, x: jax.Array) -> jax.Array:
    """Local kinetic energy of one configuration, hartree, complex.

    Args:
      log_psi: x [N, d] -> ln Psi.
      x: bohr.                                              [N, d]
    """
    gradient, laplacian = gradient_and_laplacian(log_psi, x)
    return -(laplacian + jnp.sum(gradient**2)) / 2
