r"""Slater determinants of plane waves of one total momentum, and the Hamiltonian between them.

A shift of all plane waves changes the energy of the centre of mass alone; so a block holds the
determinants of relative kinetic energy up to a cutoff.  With v(q) = 4 pi / q^2 in three and 2 pi /
q in two dimensions,

.. math:: V = \frac{\lambda}{2 L^d} \sum_{q \ne 0} v(q) \sum_{k k' s s'}
          c^+_{k+q,s} c^+_{k'-q,s'} c_{k',s'} c_{k,s} + \frac{\lambda N v_M}{2}

(Fetter and Walecka, Quantum Theory of Many-Particle Systems, section 3; the Madelung term as in
heg.gas.coulomb).
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from heg.gas.coulomb import fourier_transform, madelung
from heg.gas.system import System

MOST = 8000  # determinants in a block: 0.5 GB of matrix
BEYOND = 4  # times the cutoff: what second-order perturbation theory adds


class Block(NamedTuple):
    """Determinants of one total momentum and the Hamiltonian of relative motion between them.

    Attributes:
      n: occupied plane waves, in order within a spin.      [D, N, d] int
      kinetic: relative kinetic energy in units of (2 pi / L)^2 / 2, times N: an integer.    [D] int
      hamiltonian: hartree.                                 [D, D]
    """

    n: np.ndarray
    kinetic: np.ndarray
    hamiltonian: np.ndarray


def block_of(system: System, total: np.ndarray, cutoff: float) -> Block:
    """The determinants of one total momentum and their Hamiltonian.

    Args:
      system: the gas, 2 to 4 electrons.
      total: sum of n.                                      [d] int
      cutoff: highest relative kinetic energy, hartree.
    Raises:
      ValueError: no determinant is left, or more than MOST.
    """
    unit = (2 * np.pi / system.box) ** 2 / 2
    n = _determinants(system, np.asarray(total), cutoff / unit)
    if not 0 < len(n) <= MOST:
        raise ValueError(
            f"a cutoff of {cutoff:g} Ha gives {len(n)} determinants: choose one that gives 1 to {MOST}"
        )
    kinetic = system.electrons * np.sum(n**2, axis=(1, 2)) - np.sum(np.square(total))
    hamiltonian = system.coupling * _interaction(system, n, kinetic)
    diagonal = (
        unit * kinetic / system.electrons
        + system.coupling * system.electrons * madelung(system) / 2
    )
    hamiltonian[np.diag_indices(len(n))] += diagonal
    return Block(n, kinetic, hamiltonian)


def second_order(
    system: System, block: Block, levels: np.ndarray, vectors: np.ndarray
) -> np.ndarray:
    """What the determinants above the cutoff lower the levels of a block by, to second order.

    Epstein's and Nesbet's denominators; determinants up to BEYOND times the cutoff.  Levels higher
    than the lowest by more than half of the cutoff are left alone.

    Args:
      system: the gas.
      block: with levels and vectors of its Hamiltonian.    [D], [D, D]
    Returns:
      Corrections, hartree, zero or negative.               [D]
    Source: Huron, Malrieu and Rancurel, J. Chem. Phys. 58, 5745 (1973), doi:10.1063/1.1679199.
    """
    unit = (2 * np.pi / system.box) ** 2 / 2
    highest = block.kinetic.max()
    couplings, words = _couplings(system, block.n, block.kinetic, BEYOND * highest)
    row, word, value, kinetic = (array[couplings.kinetic > highest] for array in couplings)
    word, first, column = np.unique(word, return_index=True, return_inverse=True)
    outside, kinetic = words.read(word), kinetic[first]
    energy = unit * kinetic / system.electrons + system.coupling * _exchange(system, outside)
    energy += system.coupling * system.electrons * madelung(system) / 2
    chosen = np.flatnonzero(levels < levels[0] + unit * highest / system.electrons / 2)
    matrix = csr_array((system.coupling * value, (column, row)), shape=(len(word), len(block.n)))
    lowered = np.zeros(len(levels))
    for part in np.array_split(chosen, -(-len(chosen) // 64)):
        lowered[part] = -np.sum(
            (matrix @ vectors[:, part]) ** 2 / (energy[:, None] - levels[part]), axis=0
        )
    return lowered


def _determinants(system, total, highest):
    """Sets of plane waves with sum of n = `total` and sum of |n - P/N|^2 up to `highest`, in order
    within a spin.

    Built electron by electron; the last one is what the total leaves, and those to come cost at
    least what undoes the momentum so far.  [D, N, d]
    """
    electrons, centre = system.electrons, total / system.electrons
    reach = int(np.sqrt(highest)) + 2
    grid = np.indices((2 * reach + 1,) * system.dim).reshape(system.dim, -1).T - reach
    candidates = np.flatnonzero(
        np.sum((grid - centre) ** 2, axis=1) * electrons / (electrons - 1) <= highest + 1e-9
    )
    sets = np.zeros((1, 0), int)
    for place in range(electrons):
        left = electrons - 1 - place
        if left:
            new = np.tile(candidates, len(sets))
            sets = np.repeat(sets, len(candidates), axis=0)
        else:
            rest = total - np.sum(grid[sets], axis=1)
            sets, rest = (array[np.all(np.abs(rest) <= reach, axis=1)] for array in (sets, rest))
            new = np.ravel_multi_index((rest + reach).T, (2 * reach + 1,) * system.dim)
        sets = np.column_stack([sets, new])
        if place and place != system.n_up:
            sets = sets[sets[:, -2] < sets[:, -1]]
        kappa = grid[sets] - centre
        recoil = np.sum(np.sum(kappa, axis=1) ** 2, axis=1)
        sets = sets[np.sum(kappa**2, axis=(1, 2)) + recoil / max(left, 1) <= highest + 1e-9]
    return grid[sets]


class _Words(NamedTuple):
    """Determinants as integers: digits in base (side^d)^N, those of a plane wave in base side, in
    the order of n."""

    reach: int
    electrons: int
    dim: int

    @property
    def side(self):
        return 2 * self.reach + 1

    def of_waves(self, n):
        return (n + self.reach) @ self.side ** np.arange(self.dim)[::-1]

    def of_determinants(self, waves):
        return waves @ (self.side**self.dim) ** np.arange(self.electrons)

    def read(self, words):
        waves = (
            words[:, None]
            // (self.side**self.dim) ** np.arange(self.electrons)
            % self.side**self.dim
        )
        return waves[..., None] // self.side ** np.arange(self.dim)[::-1] % self.side - self.reach


class _Couplings(NamedTuple):
    """Non-zero terms of V between a determinant of a block (row) and any other, or itself (word).

    Several terms may belong to the same two.
    """

    row: np.ndarray
    word: np.ndarray
    value: np.ndarray
    kinetic: np.ndarray  # of the other, as in Block


def _couplings(system, n, kinetic, highest):
    """To all determinants whose kinetic energy, as in Block, is at most `highest`, and how their
    words are read."""
    electrons, dim = system.electrons, system.dim
    words = _Words(int(np.sqrt(highest / electrons)) + 2, electrons, dim)
    transfer, strength = _transfers(system, n, highest / electrons)
    waves, found = words.of_waves(n), []
    same = [
        (i, j)
        for part in system.parts
        for i, j in itertools.combinations(range(electrons)[part], 2)
    ]
    for a, b in itertools.combinations(range(electrons), 2):
        cost = 2 * electrons * (np.sum(transfer**2, axis=1) + (n[:, a] - n[:, b]) @ transfer.T)
        row, q = np.nonzero(kinetic[:, None] + cost <= highest)
        moved = waves[row]
        moved[:, a] = words.of_waves(n[row, a] + transfer[q])
        moved[:, b] = words.of_waves(n[row, b] - transfer[q])
        # two electrons in one plane wave: none; others are brought in order, with the sign of that
        sign = np.ones(len(row))
        for i, j in same:
            sign *= np.sign(moved[:, j] - moved[:, i])
        for part in system.parts:
            moved[:, part] = np.sort(moved[:, part], axis=1)
        terms = row, words.of_determinants(moved), sign * strength[q], kinetic[row] + cost[row, q]
        found.append([term[sign != 0] for term in terms])
    return _Couplings(*map(np.concatenate, zip(*found))), words


def _transfers(system, n, highest):
    """Momentum transfers q, not zero, that keep sum of |n - P/N|^2 up to `highest`, and v(q) / L^d
    in hartree."""
    apart = np.max(np.linalg.norm(n[:, :, None] - n[:, None], axis=-1))
    longest = (apart + np.sqrt(apart**2 + 2 * highest)) / 2  # 2 q^2 - 2 q |n_a - n_b| <= highest
    reach = int(longest)
    q = np.indices((2 * reach + 1,) * system.dim).reshape(system.dim, -1).T - reach
    size = np.linalg.norm(q, axis=1)
    q, size = q[(0 < size) & (size <= longest)], size[(0 < size) & (size <= longest)]
    return q, _strength(system, size)


def _strength(system, size):
    """v(q) / L^d of transfers of length 2 pi / L times `size`, hartree."""
    return fourier_transform(2 * np.pi / system.box * size, system.dim) / system.box**system.dim


def _exchange(system, n):
    """<K|V|K> without the Madelung term and lambda.  [D, N, d] -> [D]"""
    energy = np.zeros(len(n))
    for part in system.parts:
        for i, j in itertools.combinations(range(system.electrons)[part], 2):
            energy -= _strength(system, np.linalg.norm(n[:, i] - n[:, j], axis=1))
    return energy


def _interaction(system, n, kinetic):
    """V of the module's formula without its last term and lambda.  [D, D]"""
    couplings, words = _couplings(system, n, kinetic, kinetic.max())
    known = words.of_determinants(words.of_waves(n))
    order = np.argsort(known)
    column = order[np.searchsorted(known, couplings.word, sorter=order)]
    v = np.zeros((len(n), len(n)))
    np.add.at(v, (couplings.row, column), couplings.value)
    return v
