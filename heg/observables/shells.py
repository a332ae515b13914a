"""Shells of vectors of equal length, over which functions of a vector are averaged."""

import dataclasses

import numpy as np
from jaxtyping import Float

from heg.gas.system import System

WIDTH = 1 / 25  # vectors whose lengths agree to WIDTH k_F share a shell


@dataclasses.dataclass(frozen=True, eq=False)
class Shells:
    """Vectors grouped by length.

    Attributes:
      length: mean length in each shell, 1/bohr.            [S]
      count: vectors in each shell.                         [S]
      index: shell of each vector; -1 for those left out.   [vectors] int
    """

    length: np.ndarray
    count: np.ndarray
    index: np.ndarray

    def at_density(self, rs: float) -> "Shells":
        """Shells of the gas of the given r_s (bohr, may be traced), from those of r_s = 1."""
        return dataclasses.replace(self, length=self.length / rs)

    @property
    def members(self) -> np.ndarray:
        """Which vectors belong to each shell.  [S, vectors] bool"""
        numbers = np.arange(len(self.count))
        return self.index == numbers[:, None]

    def mean(self, values: Float[np.ndarray, " vectors"]) -> Float[np.ndarray, " shells"]:
        """Mean over each shell of a value of each vector; no vector may be left out."""
        return np.bincount(self.index, values) / self.count


def group_by_length(length: Float[np.ndarray, " vectors"], system: System) -> Shells:
    """Shells of vectors whose lengths agree to WIDTH k_F.

    Without twist the lowest shells are those of the lattice.

    Args:
      length: of each vector, 1/bohr; inf for one that is left out.
      system: gives k_F.
    """
    kept = np.isfinite(length)
    width = WIDTH * system.fermi_wavevector
    # in steps of the width; those of one step share a shell
    rounded = np.round(length[kept] / width)
    # steps that hold no vector get no number
    _, shell = np.unique(rounded, return_inverse=True)
    index = np.full(len(length), -1)
    index[kept] = shell
    count = np.bincount(shell)
    total_length = np.bincount(shell, length[kept])
    return Shells(
        length=total_length / count,
        count=count,
        index=index,
    )
