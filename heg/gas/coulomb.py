r"""Coulomb energy of N electrons on a uniform background in a periodic square or cubic cell of side
L.

.. math:: V = \sum_{i<j} \psi(x_i - x_j) + \tfrac{N}{2} v_M, \qquad
   \psi(r) = \sum_R \frac{\mathrm{erfc}(\kappa|r+R|)}{|r+R|} + \sum_{G \ne 0} w_G \cos(G\cdot r) -
   w_0

with, for three dimensions, w_G = (4 pi / L^3) e^{-G^2 / 4 kappa^2} / G^2 and w_0 = pi / (kappa^2
L^3); for two, where the interaction stays 1/r, w_G = (2 pi / L^2) erfc(G / 2 kappa) / G and w_0 = 2
sqrt(pi) / (kappa L^2).  psi averages to zero over the cell, so the background needs no term of its
own; v_M = lim psi(r) - 1/r is what an electron feels of its own images.

Sources: three dimensions, Fraser et al., Phys. Rev. B 53, 1814 (1996),
doi:10.1103/PhysRevB.53.1814; two, Parry, Surf. Sci. 49, 433 (1975),
doi:10.1016/0039-6028(75)90362-3, in the plane of the charges.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc

from heg.gas.plane_waves import density_waves
from heg.gas.system import System

SPLITTING = {2: 12.0, 3: 5.0}  # kappa L: balances the two sums
DIGITS = 5.9  # terms below erfc(DIGITS), 7e-17, are left out


class Lattice(NamedTuple):
    """The two sums in units of L.

    Attributes:
      kappa: splitting.
      images: lattice vectors R of the sum in real space.   [R, d]
      highest: component n_a of G = 2 pi n in the reciprocal sum.
      weight: w_G by n_1 ... n_{d-1} and n_d >= 0, doubled where -n_d is left out, zero beyond the
        cutoff.
                                                            [(2 highest + 1)^(d - 1), highest + 1]
      background: w_0.
      madelung: v_M.
    """

    kappa: float
    images: np.ndarray
    highest: int
    weight: np.ndarray
    background: float
    madelung: float


@functools.lru_cache
def lattice(dim: int, kappa: float | None = None) -> Lattice:
    """The sums of the Ewald potential in a cell of side 1; kappa is in units of 1/L.

    Accuracy: terms left out are below 1e-15 relative
      (tests/test_ewald.py::test_independent_of_splitting).
    """
    kappa = SPLITTING[dim] if kappa is None else kappa
    reach = DIGITS / kappa
    # an image counts if some r of the central cell, |r_a| <= 1/2, comes within reach of it
    vectors = _integers(dim, int(np.ceil(reach)) + 1)
    images = vectors[np.linalg.norm(np.maximum(np.abs(vectors) - 0.5, 0), axis=1) < reach]
    highest = int(DIGITS * kappa / np.pi)
    axes = [np.arange(-highest, highest + 1)] * (dim - 1) + [np.arange(highest + 1)]
    n = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    norm = 2 * np.pi * np.linalg.norm(n, axis=-1)
    inside = (norm > 0) & (norm < 2 * kappa * DIGITS)
    norm = np.where(inside, norm, 1.0)
    if dim == 3:
        weight, background = (
            4 * np.pi * np.exp(-((norm / (2 * kappa)) ** 2)) / norm**2,
            np.pi / kappa**2,
        )
    else:
        weight, background = (
            2 * np.pi * _erfc(norm / (2 * kappa)) / norm,
            2 * np.sqrt(np.pi) / kappa,
        )
    weight = (inside * np.where(n[..., -1] > 0, 2, 1) * weight).reshape(-1, highest + 1)
    # distances at r = 0, where the central cell itself is the electron
    distance = np.linalg.norm(vectors[np.any(vectors != 0, axis=1)], axis=1)
    madelung = (
        np.sum(_erfc(kappa * distance) / distance)
        + np.sum(weight)
        - background
        - 2 * kappa / np.sqrt(np.pi)
    )
    return Lattice(kappa, images, highest, weight, background, float(madelung))


def madelung(system: System) -> float:
    """v_M of the cell, hartree: -2.8372974795 / L in three dimensions, -3.9002649200 / L in two."""
    return lattice(system.dim).madelung / system.box


def fourier_transform(q: jax.Array, dim: int) -> jax.Array:
    """Of the interaction 1/r: v(q) = 4 pi / q^2 in three and 2 pi / q in two dimensions, hartree
    bohr^d; q in 1/bohr.

    Source: Giuliani and Vignale, Quantum Theory of the Electron Liquid (Cambridge, 2005), chapter
      1.
    """
    return 4 * np.pi / q**2 if dim == 3 else 2 * np.pi / q


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
    density = density_waves(2 * np.pi * s, sums.highest)
    squared = jnp.real(density) ** 2 + jnp.imag(density) ** 2
    long = jnp.sum(sums.weight * (squared - electrons)) / 2
    constant = electrons / 2 * sums.madelung - len(first) * sums.background
    return (short + long + constant) / system.box


def _erfc(x):
    with jax.ensure_compile_time_eval():
        return np.asarray(erfc(jnp.asarray(x)))


def _integers(dim, radius):
    axes = [np.arange(-radius, radius + 1)] * dim
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dim)
