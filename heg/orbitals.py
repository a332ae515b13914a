r"""Single-particle states of the periodic box: plane waves k = (2 pi / L)(n + twist), in order of energy k^2 / 2."""

from typing import NamedTuple

import numpy as np

from heg.system import System

ENERGY_TOLERANCE = 1e-9  # relative; levels closer than this belong to one shell


class Orbitals(NamedTuple):
    """Plane waves below a cutoff, sorted by energy; ties by n, so that the order is the same everywhere.

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
