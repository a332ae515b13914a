r"""Coulomb energy of N electrons on a uniform background in a periodic cell of side L.

.. math:: V = \sum_{i<j} \psi(x_i - x_j) + \tfrac{N}{2} v_M, \qquad
   \psi(r) = \sum_R \frac{\mathrm{erfc}(\kappa|r+R|)}{|r+R|} + \sum_{G \ne 0} w_G \cos(G\cdot r) -
   w_0

In three dimensions w_G = (4 pi / L^3) e^{-G^2 / 4 kappa^2} / G^2 and w_0 = pi / (kappa^2 L^3).  In
two, where the interaction stays 1/r, w_G = (2 pi / L^2) erfc(G / 2 kappa) / G and
w_0 = 2 sqrt(pi) / (kappa L^2).  psi averages to zero over the cell, so that the background needs no
term of its own.  v_M = lim psi(r) - 1/r is what an electron feels of its own images.

Sources: three dimensions, Fraser et al., Phys. Rev. B 53, 1814 (1996),
doi:10.1103/PhysRevB.53.1814; two, Parry, Surf. Sci. 49, 433 (1975),
doi:10.1016/0039-6028(75)90362-3, in the plane of the charges.
"""

import functools
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc
from jaxtyping import Array, Float, Int

from heg.gas.plane_waves import density_waves, half_lattice, integer_vectors
from heg.gas.system import System

Wavevectors = TypeVar("Wavevectors", float, np.ndarray, jax.Array)

SPLITTING = {2: 12.0, 3: 5.0}  # kappa L: balances the two sums
BLOCK = 2048  # numbers of which erfc is taken at once outside of programs
DIGITS = 5.9  # terms below erfc(DIGITS), 7e-17, are left out


class Lattice(NamedTuple):
    """The two sums of the Ewald potential in units of L.

    Attributes:
      kappa: splitting.
      images: lattice vectors R of the sum in real space.   [R, d]
      highest: component n_a of G = 2 pi n in the reciprocal sum.
      weight: w_G by n_1 ... n_{d-1} and n_d >= 0, doubled where -n_d is left out, zero beyond the
        cutoff.                                             [(2 highest + 1)^(d - 1), highest + 1]
      background: w_0.
      madelung: v_M.
    """

    kappa: float
    images: Int[np.ndarray, "images dim"]
    highest: int
    weight: Float[np.ndarray, "rows columns"]
    background: float
    madelung: float


@functools.lru_cache
def lattice(dim: int, kappa: float | None = None) -> Lattice:
    """The sums of the Ewald potential in a cell of side 1.

    Args:
      dim: 2 or 3.
      kappa: splitting, in units of 1/L; None takes SPLITTING.
    Accuracy: terms left out are below 1e-15 relative
      (tests/gas/test_coulomb.py::test_independent_of_splitting).
    """
    kappa = SPLITTING[dim] if kappa is None else kappa
    reach = DIGITS / kappa
    vectors = integer_vectors(dim, int(np.ceil(reach)) + 1)
    # an image counts if some r of the central cell, |r_a| <= 1/2, comes within reach of it
    outside = np.maximum(np.abs(vectors) - 0.5, 0)
    within_reach = np.linalg.norm(outside, axis=1) < reach
    highest = int(DIGITS * kappa / np.pi)
    weight = _reciprocal_weights(dim, kappa, highest)
    if dim == 3:
        background = np.pi / kappa**2
    else:
        background = 2 * np.sqrt(np.pi) / kappa
    # v_M = lim psi(r) - 1/r: the electron's own cell gives (erfc(kappa r) - 1) / r -> -2 kappa /
    # sqrt(pi), all others what they give at r = 0, where each wave has w_G
    is_image = np.any(vectors != 0, axis=1)
    distance = np.linalg.norm(vectors[is_image], axis=1)
    screening = _erfc(kappa * distance)
    of_images = np.sum(screening / distance)
    of_waves = np.sum(weight)
    of_own_cell = 2 * kappa / np.sqrt(np.pi)
    madelung = of_images + of_waves - background - of_own_cell
    return Lattice(
        kappa=kappa,
        images=vectors[within_reach],
        highest=highest,
        weight=weight,
        background=background,
        madelung=float(madelung),
    )


def _reciprocal_weights(dim, kappa, highest):
    """w_G as in Lattice.  [(2 highest + 1)^(d - 1), highest + 1]"""
    half = half_lattice(dim, highest)
    norm = np.linalg.norm(half.n, axis=-1)
    length = 2 * np.pi * norm  # |G|
    last = 2 * kappa * DIGITS
    inside = (length > 0) & (length < last)
    length = np.where(inside, length, 1.0)  # no division by zero where the weight is none
    reduced = length / (2 * kappa)
    if dim == 3:
        gaussian = np.exp(-(reduced**2))
        weight = 4 * np.pi * gaussian / length**2
    else:
        screening = _erfc(reduced)
        weight = 2 * np.pi * screening / length
    return inside * half.multiplicity * weight


def madelung(system: System) -> float:
    """v_M of the cell, hartree: -2.8372974795 / L in three dimensions, -3.9002649200 / L in two."""
    return lattice(system.dim).madelung / system.box


def image_energy(system: System) -> float:
    """N v_M / 2, what the electrons feel of their own images, without the coupling; hartree."""
    return system.electrons * madelung(system) / 2


def fourier_transform(q: Wavevectors, dim: int) -> Wavevectors:
    """v(q) of the interaction 1/r: 4 pi / q^2 in three and 2 pi / q in two dimensions.

    Args:
      q: 1/bohr; a number or an array of NumPy or JAX.
      dim: 2 or 3.
    Returns:
      Hartree bohr^d, in the shape of q.
    Source: Giuliani and Vignale, Quantum Theory of the Electron Liquid (Cambridge, 2005),
      chapter 1.
    """
    return 4 * np.pi / q**2 if dim == 3 else 2 * np.pi / q


def coulomb_energy(
    x: Float[Array, "electrons dim"], system: System, kappa: float | None = None
) -> Float[Array, ""]:
    """Coulomb energy of one configuration, the Madelung term included, the coupling not.

    Args:
      x: electron positions, bohr.
      system: gives L.
      kappa: Ewald splitting in units of 1/L.  The result does not depend on it.
    Returns:
      Energy of the cell, hartree.
    Accuracy: 1e-10 relative for any kappa between 4 and 10.
    """
    # asked for as `madelung` does: the cache knows lattice(2) and lattice(2, None) as two
    sums = lattice(system.dim) if kappa is None else lattice(system.dim, kappa)
    s = x / system.box
    electrons = len(s)
    first, second = np.triu_indices(electrons, 1)
    # of each pair the nearest image, and around it all images within reach
    r = s[first] - s[second]
    nearest = r - jnp.round(r)
    images = nearest[:, None] + sums.images
    distance = jnp.linalg.norm(images, axis=-1)
    screening = erfc(sums.kappa * distance)
    short = jnp.sum(screening / distance)
    # the sum of cos(G r_ij) over pairs, by the density waves rho_G = sum_i e^{i G r_i}
    angle = 2 * np.pi * s
    rho = density_waves(angle, sums.highest)
    squared = jnp.real(rho) ** 2 + jnp.imag(rho) ** 2
    # |rho|^2 holds each pair twice and each electron with itself once
    pairs_twice = squared - electrons
    long = jnp.sum(sums.weight * pairs_twice) / 2
    # N v_M / 2, and -w_0 of each pair
    own_images = electrons / 2 * sums.madelung
    background = len(first) * sums.background
    constant = own_images - background
    return (short + long + constant) / system.box


def _erfc(x):
    """erfc of a NumPy array, also while a function that needs it is traced."""
    x = np.asarray(x)
    # whole blocks, so that few lengths occur and few programs are compiled
    blocks = -(-x.size // BLOCK)  # rounded up
    padded = np.zeros(blocks * BLOCK)
    padded[: x.size] = x.ravel()
    with jax.ensure_compile_time_eval():
        values = np.asarray(erfc(jnp.asarray(padded)))
    return values[: x.size].reshape(x.shape)
