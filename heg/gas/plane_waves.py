r"""Plane waves of the periodic box, k = (2 pi / L)(n + twist), in order of energy k^2 / 2."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float, Int

from heg.gas.system import System

ENERGY_TOLERANCE = 1e-9  # relative; levels closer than this belong to one shell


class Orbitals(NamedTuple):
    """Plane waves below a cutoff, sorted by energy; ties by n, so that the order never changes.

    Attributes:
      n: integer vectors.                                   [M, d]
      k: wavevectors, 1/bohr.                               [M, d]
      energy: k^2 / 2, hartree, non-decreasing.             [M]
    """

    n: Int[np.ndarray, "orbitals dim"]
    k: Float[np.ndarray, "orbitals dim"]
    energy: Float[np.ndarray, " orbitals"]

    def first(self, count: int) -> "Orbitals":
        """The lowest `count` plane waves."""
        return Orbitals(self.n[:count], self.k[:count], self.energy[:count])

    def at_density(self, rs: float) -> "Orbitals":
        """Those of the gas of the given r_s (bohr, may be traced), from those of r_s = 1."""
        return Orbitals(self.n, self.k / rs, self.energy / rs**2)


def integer_vectors(dim: int, highest: int) -> Int[np.ndarray, "vectors dim"]:
    """All integer vectors with components up to `highest` in size, the last one changing first."""
    axes = [np.arange(-highest, highest + 1)] * dim
    grids = np.meshgrid(*axes, indexing="ij")
    return np.stack(grids, axis=-1).reshape(-1, dim)


class HalfLattice(NamedTuple):
    """Integer vectors with |n_a| <= highest and n_d >= 0, in the order of `density_waves`.

    Where n_d = 0 both n and -n are there; elsewhere n stands for both, as a density wave
    of -n is the conjugate of that of n.

    Attributes:
      n: vectors by n_1 ... n_{d-1} and n_d.  [(2 highest + 1)^(d - 1), highest + 1, d]
      multiplicity: 2 where -n is left out, 1 where it is not.
        [(2 highest + 1)^(d - 1), highest + 1]
    """

    n: Int[np.ndarray, "rows columns dim"]
    multiplicity: Int[np.ndarray, "rows columns"]


def half_lattice(dim: int, highest: int) -> HalfLattice:
    """The vectors of `density_waves`, and how many of the whole lattice each stands for."""
    # the last component of `integer_vectors` changes first
    lines = integer_vectors(dim, highest).reshape(-1, 2 * highest + 1, dim)
    n = lines[:, highest:]
    return HalfLattice(n=n, multiplicity=np.where(n[..., -1] > 0, 2, 1))


def plane_waves(system: System, cutoff: float) -> Orbitals:
    """All plane waves with k^2 / 2 <= cutoff.

    Args:
      system: gives L and the twist.
      cutoff: hartree.
    Returns:
      Whole shells, sorted by energy.
    """
    unit = system.wavevector_unit
    twist = np.asarray(system.twist)
    # one more than the radius, as the twist shifts the vectors
    radius = np.sqrt(2 * cutoff) / unit
    highest = int(np.ceil(radius)) + 1
    n = integer_vectors(system.dim, highest)
    square = np.sum((n + twist) ** 2, axis=1)
    energy = unit**2 * square / 2
    inside = energy <= cutoff * (1 + ENERGY_TOLERANCE)
    n = n[inside]
    # rounded, so that within a shell n alone decides the order
    level = np.round(square[inside] / ENERGY_TOLERANCE)
    # by level, then n_1, n_2 ...: the last key of lexsort counts first
    keys = (*n.T[::-1], level)
    order = np.lexsort(keys)
    n = n[order]
    k = unit * (n + twist)
    return Orbitals(
        n=n,
        k=k,
        energy=np.sum(k**2, axis=1) / 2,
    )


def lowest_plane_waves(system: System, count: int) -> Orbitals:
    """The `count` plane waves of lowest energy; ties in the order of `plane_waves`.

    Temperature does not enter.
    """
    # the shells of a small cell may begin above the Fermi energy of the infinite gas
    cutoff = system.fermi_energy
    waves = plane_waves(system, cutoff)
    while len(waves.energy) < count:
        cutoff *= 1.5
        waves = plane_waves(system, cutoff)
    return waves.first(count)


def shell_ends(energy: Float[np.ndarray, " orbitals"]) -> Int[np.ndarray, " shells"]:
    """Numbers of orbitals after which a shell is complete: 1, 7, 19, 27, 33 … in 3D without twist.

    Args:
      energy: sorted levels.
    Returns:
      Counts, the last one that of all orbitals.
    """
    larger = np.maximum(energy[1:], energy[:-1])
    gaps = np.diff(energy) > 10 * ENERGY_TOLERANCE * larger
    return np.append(np.flatnonzero(gaps) + 1, len(energy))


def powers(angle: Float[Array, "*batch"], highest: int) -> Complex[Array, "*batch powers"]:
    """e^{i n angle} for n = -highest, ..., highest, by doubling: one sine and one cosine for all.

    Args:
      angle: radians.
      highest: the largest n, at least 1.
    Returns:
      By n, 2 highest + 1 of them.
    Accuracy: rounding, about 1e-16 highest.
    """
    # n = 1
    cosine = jnp.cos(angle)
    sine = jnp.sin(angle)
    wave = lax.complex(cosine, sine)
    positive = wave[..., None]
    while positive.shape[-1] < highest:
        # from n = 1 ... m to n = 1 ... 2m
        highest_yet = positive[..., -1:]
        doubled = positive * highest_yet
        positive = jnp.concatenate([positive, doubled], axis=-1)
    positive = positive[..., :highest]
    # e^{-i n angle} is the conjugate, and n = 0 gives one
    negative = jnp.conj(positive[..., ::-1])
    one = jnp.ones((*angle.shape, 1))
    table = jnp.concatenate([negative, one, positive], axis=-1)
    # without the barrier XLA computes the powers anew for each use
    return lax.optimization_barrier(table)


def density_waves(
    angle: Float[Array, "electrons dim"], highest: int
) -> Complex[Array, "rows columns"]:
    """rho_n = sum_i e^{i n . angle_i} for the vectors n of `half_lattice`.

    The waves of the directions factor, so that this is a product of matrices.

    Args:
      angle: 2 pi x / L of the electrons.
      highest: the largest component of n.
    Returns:
      By n_1 ... n_{d-1} and n_d.                           [(2 highest + 1)^(d - 1), highest + 1]
    """
    # the rows combine all directions except the last
    by_direction = powers(angle, highest).swapaxes(0, 1)
    *others, last = by_direction
    rows = others[0]
    for waves in others[1:]:
        # einsum("ia,ib->iab"), n_1 and n_2 then one index
        products = rows[:, :, None] * waves[:, None]
        rows = products.reshape(len(angle), -1)
    # einsum("ia,ib->ab"), the sum over the electrons; n_d >= 0 alone
    return rows.T @ last[:, highest:]


def make_waves(system: System, orbitals: Orbitals) -> Callable:
    """The matrix of plane waves e^{2 pi i n_b . z_a / L} as a function of z and a state.

    The factor e^{2 pi i twist . z / L}, the same for all orbitals, is left out: determinants give
    it back as a phase.

    Args:
      system: gives L.
      orbitals: the plane waves that states choose from.
    Returns:
      A function of positions z (bohr, [P, d]) and occupied orbitals [N]; complex, [P, N].
    """
    n = jnp.asarray(orbitals.n)
    highest = int(np.max(np.abs(orbitals.n)))
    axes = range(system.dim)

    def waves(
        z: Float[Array, "points dim"], state: Int[Array, " electrons"]
    ) -> Complex[Array, "points electrons"]:
        table = powers(system.wavevector_unit * z, highest)
        # the table begins at n = -highest
        column = n[state] + highest
        factors = []
        for axis in axes:
            along_axis = table[:, axis]
            factors.append(along_axis[:, column[:, axis]])
        return functools.reduce(jnp.multiply, factors)

    return waves
