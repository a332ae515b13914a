r"""Single-particle states of the periodic box: plane waves k = (2 pi / L)(n + twist), in order of
energy k^2 / 2."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from heg.gas.system import System

ENERGY_TOLERANCE = 1e-9  # relative; levels closer than this belong to one shell


class Orbitals(NamedTuple):
    """Plane waves below a cutoff, sorted by energy; ties by n, so that the order is the same
    everywhere.

    Attributes:
      n: integer vectors.                                   [M, d]
      k: wavevectors, 1/bohr.                               [M, d]
      energy: k^2 / 2, hartree, non-decreasing.             [M]
    """

    n: np.ndarray
    k: np.ndarray
    energy: np.ndarray

    def first(self, count: int) -> "Orbitals":
        """The lowest `count` plane waves."""
        return Orbitals(*(array[:count] for array in self))

    def at_density(self, rs: float) -> "Orbitals":
        """Those of the gas of the given r_s (bohr, may be traced), from those of r_s = 1."""
        return Orbitals(self.n, self.k / rs, self.energy / rs**2)


def plane_waves(system: System, cutoff: float) -> Orbitals:
    """All plane waves with k^2 / 2 <= cutoff.

    Args:
      system: gives L and the twist.
      cutoff: hartree.
    Returns:
      Whole shells, sorted by energy.
    """
    unit = 2 * np.pi / system.box
    radius = int(np.ceil(np.sqrt(2 * cutoff) / unit)) + 1
    axes = [np.arange(-radius, radius + 1)] * system.dim
    n = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, system.dim)
    reduced = np.sum((n + np.asarray(system.twist)) ** 2, axis=1)
    inside = unit**2 * reduced / 2 <= cutoff * (1 + ENERGY_TOLERANCE)
    n, reduced = n[inside], np.round(reduced[inside] / ENERGY_TOLERANCE) * ENERGY_TOLERANCE
    order = np.lexsort((*n.T[::-1], reduced))
    k = unit * (n[order] + np.asarray(system.twist))
    return Orbitals(n[order], k, np.sum(k**2, axis=1) / 2)


def shell_ends(energy: np.ndarray) -> np.ndarray:
    """Numbers of orbitals after which a shell is complete: 1, 7, 19, 27, 33 … in 3D without twist.

    Args:
      energy: sorted levels.                                [M]
    Returns:
      Counts, the last one M.                               [shells]
    """
    gaps = np.diff(energy) > 10 * ENERGY_TOLERANCE * np.maximum(energy[1:], energy[:-1])
    return np.append(np.flatnonzero(gaps) + 1, len(energy))


def powers(angle: jax.Array, highest: int) -> jax.Array:
    """e^{i n angle} for n = -highest, ..., highest, by doubling: a sine and a cosine make all
    powers.

    Args:
      angle: radians.                                       [...]
      highest: power.
    Returns:
      Complex.                                              [..., 2 highest + 1]
    Accuracy: rounding, about 1e-16 highest.
    """
    table = lax.complex(jnp.cos(angle), jnp.sin(angle))[..., None]
    while table.shape[-1] < highest:
        table = jnp.concatenate([table, table * table[..., -1:]], axis=-1)
    table = table[..., :highest]
    table = jnp.concatenate(
        [jnp.conj(table[..., ::-1]), jnp.ones((*angle.shape, 1)), table], axis=-1
    )
    return lax.optimization_barrier(table)  # lest XLA compute the powers anew for each use


def density_waves(angle: jax.Array, highest: int) -> jax.Array:
    """rho_n = sum_i e^{i n . angle_i} for the vectors n with |n_a| <= highest and n_d >= 0.

    The waves of the directions factor, so that this is a product of matrices.

    Args:
      angle: 2 pi x / L of the electrons.                   [N, d]
      highest: component of n.
    Returns:
      By n_1 ... n_{d-1} and n_d.                           [(2 highest + 1)^(d - 1), highest + 1]
      complex
    """
    *waves, last = powers(angle, highest).swapaxes(0, 1)
    rows = functools.reduce(
        lambda a, b: (a[:, :, None] * b[:, None]).reshape(len(angle), -1), waves
    )
    return rows.T @ last[:, highest:]


def make_waves(system: System, orbitals: Orbitals) -> Callable:
    """The matrix of plane waves e^{2 pi i n_b . z_a / L} as a function of (z [P, d], state [N]).
    [P, N] complex

    The factor e^{2 pi i twist . z / L}, the same for all orbitals, is left out: determinants give
    it back as a phase.
    """
    numbers, highest = jnp.asarray(orbitals.n), int(np.max(np.abs(orbitals.n)))

    def waves(z, state):
        table = powers(2 * np.pi / system.box * z, highest)
        place = numbers[state] + highest
        factors = [table[:, axis][:, place[:, axis]] for axis in range(system.dim)]
        return functools.reduce(jnp.multiply, factors)

    return waves
