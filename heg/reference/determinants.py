r"""Slater determinants of plane waves of one total momentum, and the Hamiltonian between them.

A shift of all plane waves changes the energy of the centre of mass alone.  So a block holds the
determinants of relative kinetic energy up to a cutoff.  With v(q) = 4 pi / q^2 in three and
2 pi / q in two dimensions,

.. math:: V = \frac{\lambda}{2 L^d} \sum_{q \ne 0} v(q) \sum_{k k' s s'}
          c^+_{k+q,s} c^+_{k'-q,s'} c_{k',s'} c_{k,s} + \frac{\lambda N v_M}{2}

(Fetter and Walecka, Quantum Theory of Many-Particle Systems, section 3; the Madelung term as in
`heg.gas.coulomb`).
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from heg.gas.coulomb import fourier_transform, madelung
from heg.gas.plane_waves import integer_vectors
from heg.gas.system import System

MAX_DETERMINANTS = 8000  # in a block: 0.5 GB of matrix
BEYOND = 4  # times the cutoff: up to there second-order perturbation theory reaches
ROUNDING = 1e-9  # absolute, of kinetic energies in units of (2 pi / L)^2 / 2
LEVELS_AT_ONCE = 64  # of the second order, to bound the memory


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
      ValueError: no determinant is left, or more than MAX_DETERMINANTS.
    """
    n = _determinants(system, np.asarray(total), cutoff / _energy_unit(system))
    count = len(n)
    if not 0 < count <= MAX_DETERMINANTS:
        raise ValueError(
            f"a cutoff of {cutoff:g} Ha gives {count} determinants: "
            f"choose one that gives 1 to {MAX_DETERMINANTS}"
        )
    squares = np.sum(n**2, axis=(1, 2))
    kinetic = system.electrons * squares - np.sum(np.square(total))
    hamiltonian = system.coupling * _interaction(system, n, kinetic)
    on_diagonal = _kinetic_energy(system, kinetic) + _image_energy(system)
    hamiltonian[np.diag_indices(count)] += on_diagonal
    return Block(n, kinetic, hamiltonian)


def level_corrections(
    system: System, block: Block, levels: np.ndarray, vectors: np.ndarray
) -> np.ndarray:
    """Changes of the levels of a block by the determinants above its cutoff, to second order.

    Epstein's and Nesbet's denominators; determinants up to BEYOND times the cutoff.  Levels higher
    than the lowest by more than half of the cutoff are left alone.

    Args:
      system: the gas.
      block: determinants and Hamiltonian.
      levels: its eigenvalues, sorted, hartree.             [D]
      vectors: its eigenvectors, in columns.                [D, D]
    Returns:
      Corrections, hartree, zero or negative.               [D]
    Source: Huron, Malrieu and Rancurel, J. Chem. Phys. 58, 5745 (1973), doi:10.1063/1.1679199.
    """
    highest = block.kinetic.max()
    # from the block to the determinants above its cutoff
    couplings = _couplings(system, block.n, block.kinetic, BEYOND * highest)
    couplings = couplings.where(couplings.kinetic > highest)
    word, first, index = np.unique(
        couplings.word,
        return_index=True,
        return_inverse=True,
    )
    # <D|H|D> of the determinants outside
    words = _words_up_to(system, BEYOND * highest)
    exchange = _exchange(system, words.decode(word))
    energy = _kinetic_energy(system, couplings.kinetic[first])
    energy = energy + system.coupling * exchange
    energy += _image_energy(system)
    # <D|V|K> between those outside and those of the block; the matrix adds terms of equal indices
    elements = system.coupling * couplings.value
    shape = (len(word), len(block.n))
    matrix = csr_array((elements, (index, couplings.row)), shape=shape)
    reach = _kinetic_energy(system, highest) / 2
    # high levels may lie above determinants outside, where perturbation theory fails
    chosen = np.flatnonzero(levels < levels[0] + reach)
    lowered = np.zeros(len(levels))
    parts = -(-len(chosen) // LEVELS_AT_ONCE)
    for part in np.array_split(chosen, parts):
        amplitude = matrix @ vectors[:, part]
        denominator = energy[:, None] - levels[part]
        lowered[part] = -np.sum(amplitude**2 / denominator, axis=0)
    return lowered


def _energy_unit(system):
    """(2 pi / L)^2 / 2, hartree."""
    return system.wavevector_unit**2 / 2


def _kinetic_energy(system, kinetic):
    """Relative kinetic energy, hartree, from that of Block."""
    return _energy_unit(system) * kinetic / system.electrons


def _image_energy(system):
    """lambda N v_M / 2, the energy of the electrons in the field of their images, hartree."""
    return system.coupling * system.electrons * madelung(system) / 2


def _determinants(system, total, highest):
    """All sets of plane waves of one total momentum up to a relative kinetic energy.

    They are built electron by electron; the last one is what the total leaves.

    Args:
      system: the gas.
      total: sum of n.                                      [d] int
      highest: bound of the sum of |n - P/N|^2.
    Returns:
      n, in order within a spin.                            [D, N, d] int
    """
    electrons = system.electrons
    centre = total / electrons
    reach = int(np.sqrt(highest)) + 2
    # the two more hold the distance of the centre from n = 0
    grid = integer_vectors(system.dim, reach)
    distance = np.sum((grid - centre) ** 2, axis=1)
    # the others cost at least what undoes the momentum of one
    cost = distance * electrons / (electrons - 1)
    candidates = np.flatnonzero(cost <= highest + ROUNDING)
    sets = np.zeros((1, 0), int)  # one without electrons; then indices of the grid
    for electron in range(electrons):
        left = electrons - 1 - electron
        if left:
            sets = _with_each(sets, candidates)
        else:
            sets = _with_rest(sets, grid, total)
        if electron not in (0, system.n_up):  # in order after another one of its spin
            sets = sets[sets[:, -2] < sets[:, -1]]
        relative = grid[sets] - centre
        kinetic = np.sum(relative**2, axis=(1, 2))
        # those to come cost at least what undoes the momentum so far
        momentum = np.sum(relative, axis=1)
        recoil = np.sum(momentum**2, axis=1)
        cost = kinetic + recoil / max(left, 1)
        sets = sets[cost <= highest + ROUNDING]
    return grid[sets]


def _with_each(sets, candidates):
    """Each set with each of the candidates added."""
    added = np.tile(candidates, len(sets))
    repeated = np.repeat(sets, len(candidates), axis=0)
    return np.column_stack([repeated, added])


def _with_rest(sets, grid, total):
    """The sets with the plane wave added that makes the sum of n the total, if the grid has it."""
    reach = grid.max()
    rest = total - np.sum(grid[sets], axis=1)
    inside = np.all(np.abs(rest) <= reach, axis=1)
    sides = (2 * reach + 1,) * grid.shape[1]
    index = np.ravel_multi_index((rest[inside] + reach).T, sides)
    return np.column_stack([sets[inside], index])


class _Words(NamedTuple):
    """Plane waves and determinants as integers.

    A plane wave is a number of base `side` with the components of n as digits; a determinant one
    of base side^d with its plane waves as digits, in their order.

    Attributes:
      reach: largest component of n.
      electrons, dim: as in System.
    """

    reach: int
    electrons: int
    dim: int

    @property
    def _side(self):
        return 2 * self.reach + 1

    @property
    def _wave_digits(self):
        return self._side ** np.arange(self.dim)[::-1]

    @property
    def _determinant_digits(self):
        return (self._side**self.dim) ** np.arange(self.electrons)

    def encode_waves(self, n):
        """[..., d] -> [...]"""
        # digits from 0 on
        return (n + self.reach) @ self._wave_digits

    def encode_determinants(self, waves):
        """[..., N] -> [...]"""
        return waves @ self._determinant_digits

    def decode(self, words):
        """n of determinants.  [D] -> [D, N, d]"""
        waves = words[:, None] // self._determinant_digits % self._side**self.dim
        return waves[..., None] // self._wave_digits % self._side - self.reach


def _words_up_to(system, highest):
    """Words for all determinants whose kinetic energy, as in Block, is at most `highest`."""
    reach = int(np.sqrt(highest / system.electrons)) + 2
    return _Words(reach, system.electrons, system.dim)


class _Couplings(NamedTuple):
    """Non-zero terms of V between a determinant of a block and any other, or itself.

    Several terms may belong to the same two.

    Attributes:
      row: index of the determinant in the block.           [C]
      word: of the other determinant.                       [C]
      value: of V without lambda and the Madelung term.     [C]
      kinetic: of the other determinant, as in Block.       [C]
    """

    row: np.ndarray
    word: np.ndarray
    value: np.ndarray
    kinetic: np.ndarray

    def where(self, mask):
        """The chosen terms."""
        return _Couplings(*(array[mask] for array in self))


def _couplings(system, n, kinetic, highest):
    """Couplings to all determinants whose kinetic energy, as in Block, is at most `highest`.

    Args:
      system: the gas.
      n, kinetic: of the determinants of the block.
      highest: the bound, on those of the block too.
    """
    # every pair of electrons may exchange every momentum
    transfers = _transfers(system, n, highest / system.electrons)
    parts = []
    for pair in itertools.combinations(range(system.electrons), 2):
        parts.append(_couplings_of_pair(system, n, kinetic, highest, transfers, pair))
    return _Couplings(*map(np.concatenate, zip(*parts)))


def _couplings_of_pair(system, n, kinetic, highest, transfers, pair):
    """The couplings in which the electrons of one pair exchange momentum."""
    first, second = pair
    q = transfers.q
    words = _words_up_to(system, highest)
    # |k + q|^2 + |k' - q|^2 less |k|^2 + |k'|^2, times N
    apart = n[:, first] - n[:, second]
    change = np.sum(q**2, axis=1) + apart @ q.T
    cost = 2 * system.electrons * change
    # rows of the block and transfers that stay below the bound
    row, index = np.nonzero(kinetic[:, None] + cost <= highest)
    # k + q and k' - q in the places of k and k'
    waves = words.encode_waves(n)[row]
    transfer = q[index]
    raised = n[row, first] + transfer
    lowered = n[row, second] - transfer
    waves[:, first] = words.encode_waves(raised)
    waves[:, second] = words.encode_waves(lowered)
    # c+ c+ c c brings the plane waves out of order
    sign = _bring_in_order(system, waves)
    couplings = _Couplings(
        row=row,
        word=words.encode_determinants(waves),
        value=sign * transfers.strength[index],
        kinetic=kinetic[row] + cost[row, index],
    )
    return couplings.where(sign != 0)


def _bring_in_order(system, waves):
    """Sort the plane waves within each spin, in place; return the signs of the permutations.

    The sign is 0 where two electrons of one spin are in one plane wave.  [D, N] -> [D]
    """
    electrons = range(system.electrons)
    sign = np.ones(len(waves))
    for part in system.parts:
        # one factor -1 for each pair in the wrong order
        for i, j in itertools.combinations(electrons[part], 2):
            difference = waves[:, j] - waves[:, i]
            sign *= np.sign(difference)
        waves[:, part] = np.sort(waves[:, part], axis=1)
    return sign


class _Transfers(NamedTuple):
    """Momentum transfers.

    Attributes:
      q: in units of 2 pi / L.                              [Q, d] int
      strength: v(q) / L^d, hartree.                        [Q]
    """

    q: np.ndarray
    strength: np.ndarray


def _transfers(system, n, highest):
    """The transfers, not zero, that keep the sum of |n - P/N|^2 up to `highest`."""
    separation = n[:, :, None] - n[:, None]
    apart = np.linalg.norm(separation, axis=-1)
    widest = np.max(apart)
    # 2 q^2 - 2 q |n_a - n_b| <= highest
    longest = (widest + np.sqrt(widest**2 + 2 * highest)) / 2
    q = integer_vectors(system.dim, int(longest))
    size = np.linalg.norm(q, axis=1)
    inside = (0 < size) & (size <= longest)
    return _Transfers(
        q=q[inside],
        strength=_strength(system, size[inside]),
    )


def _strength(system, size):
    """v(q) / L^d of transfers of length 2 pi / L times `size`, hartree."""
    q = system.wavevector_unit * size
    return fourier_transform(q, system.dim) / system.volume


def _exchange(system, n):
    """<K|V|K> without the Madelung term and lambda.  [D, N, d] -> [D]"""
    electrons = range(system.electrons)
    energy = np.zeros(len(n))
    for part in system.parts:
        for i, j in itertools.combinations(electrons[part], 2):
            transfer = n[:, i] - n[:, j]
            distance = np.linalg.norm(transfer, axis=1)
            energy -= _strength(system, distance)
    return energy


def _interaction(system, n, kinetic):
    """V of the module's formula without its last term and lambda.  [D, D]"""
    highest = kinetic.max()
    words = _words_up_to(system, highest)
    couplings = _couplings(system, n, kinetic, highest)
    # columns of the words, by a sorted list of those of the block
    waves = words.encode_waves(n)
    known = words.encode_determinants(waves)
    order = np.argsort(known)
    rank = np.searchsorted(known, couplings.word, sorter=order)
    column = order[rank]
    # several terms may belong to the same two determinants: they add
    matrix = np.zeros((len(n), len(n)))
    np.add.at(matrix, (couplings.row, column), couplings.value)
    return matrix
