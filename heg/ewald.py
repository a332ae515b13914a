r"""Coulomb energy of N electrons on a uniform background in a periodic square or cubic cell of side L.

.. math:: V = \sum_{i<j} \psi(x_i - x_j) + \tfrac{N}{2} v_M, \qquad
   \psi(r) = \sum_R \frac{\mathrm{erfc}(\kappa|r+R|)}{|r+R|} + \sum_{G \ne 0} w_G \cos(G\cdot r) - w_0

with, for three dimensions, w_G = (4 pi / L^3) e^{-G^2 / 4 kappa^2} / G^2 and w_0 = pi / (kappa^2 L^3); for two, where
the interaction stays 1/r, w_G = (2 pi / L^2) erfc(G / 2 kappa) / G and w_0 = 2 sqrt(pi) / (kappa L^2).  psi averages
to zero over the cell, so the background needs no term of its own; v_M = lim psi(r) - 1/r is what an electron feels
of its own images.

Sources: three dimensions, Fraser et al., Phys. Rev. B 53, 1814 (1996), doi:10.1103/PhysRevB.53.1814; two, Parry,
Surf. Sci. 49, 433 (1975), doi:10.1016/0039-6028(75)90362-3, in the plane of the charges.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc

from heg.system import System

SPLITTING = {2: 7.0, 3: 5.0}  # kappa L: balances the two sums
DIGITS = 5.9  # terms below erfc(DIGITS), 7e-17, are left out


class Lattice(NamedTuple):
    """The two sums in units of L.

    Attributes:
      kappa: splitting.
      images: lattice vectors R of the sum in real space.   [R, d]
      g: one of each pair G, -G of the reciprocal sum.      [G, d]
      weight: w_G, doubled for the -G left out.             [G]
      background: w_0.
      madelung: v_M.
    """

    kappa: float
    images: np.ndarray
    g: np.ndarray
    weight: np.ndarray
    background: float
    madelung: float


@functools.lru_cache
def lattice(dim: int, kappa: float | None = None) -> Lattice:
    """The sums of the Ewald potential in a cell of side 1; kappa is in units of 1/L.

    Accuracy: terms left out are below 1e-15 relative (tests/test_ewald.py::test_independent_of_splitting).
    """
    kappa = SPLITTING[dim] if kappa is None else kappa
    reach = DIGITS / kappa
    # an image counts if some r of the central cell, |r_a| <= 1/2, comes within reach of it
    vectors = _integers(dim, int(np.ceil(reach)) + 1)
    images = vectors[np.linalg.norm(np.maximum(np.abs(vectors) - 0.5, 0), axis=1) < reach]
    n = _integers(dim, int(np.ceil(DIGITS * kappa / np.pi)))
    g = 2 * np.pi * n[(np.linalg.norm(n, axis=1) * np.pi / kappa < DIGITS) & _is_upper_half(n)]
    norm = np.linalg.norm(g, axis=1)
    if dim == 3:
        weight, background = 4 * np.pi * np.exp(-((norm / (2 * kappa)) ** 2)) / norm**2, np.pi / kappa**2
    else:
        weight, background = 2 * np.pi * _erfc(norm / (2 * kappa)) / norm, 2 * np.sqrt(np.pi) / kappa
    # distances at r = 0, where the central cell itself is the electron
    distance = np.linalg.norm(vectors[np.any(vectors != 0, axis=1)], axis=1)
    madelung = np.sum(_erfc(kappa * distance) / distance) + 2 * np.sum(weight) - background - 2 * kappa / np.sqrt(np.pi)
    return Lattice(kappa, images, g, 2 * weight, background, float(madelung))


def madelung(system: System) -> float:
    """v_M of the cell, hartree: -2.8372974795 / L in three dimensions, -3.9002649200 / L in two."""
    return lattice(system.dim).madelung / system.box


def coulomb_energy(x: jax.Array, system: System, kappa: float | None = None) -> jax.Array:
    """Coulomb energy of one configuration, Madelung term included, coupling not.

    Args:
      x: electron positions, bohr.                          [N, d]
      system: gives L.
      kappa: Ewald splitting in units of 1/L.  The result does not depend on it.
    Returns:
      Energy of the cell, hartree.                          []
    Accuracy: 1e-10 relative for any kappa between 4 and 10.
    """
    sums = lattice(system.dim, kappa)
    s = x / system.box
    electrons = len(s)
    first, second = np.triu_indices(electrons, 1)
    r = s[first] - s[second]
    distance = jnp.linalg.norm((r - jnp.round(r))[:, None] + sums.images, axis=-1)
    short = jnp.sum(erfc(sums.kappa * distance) / distance)
    phase = s @ sums.g.T
    density = jnp.sum(jnp.cos(phase), axis=0) ** 2 + jnp.sum(jnp.sin(phase), axis=0) ** 2
    long = jnp.sum(sums.weight * (density - electrons)) / 2
    constant = electrons / 2 * sums.madelung - len(first) * sums.background
    return (short + long + constant) / system.box


def _erfc(x):
    with jax.ensure_compile_time_eval():
        return np.asarray(erfc(jnp.asarray(x)))


def _integers(dim, radius):
    axes = [np.arange(-radius, radius + 1)] * dim
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dim)


def _is_upper_half(n):
    """True for one of n and -n: the first component that is not zero is positive."""
    leading = np.take_along_axis(n, np.argmax(n != 0, axis=1)[:, None], axis=1)[:, 0]
    return leading > 0
