r"""Double excitations of a determinant: two electrons exchange a momentum q.

.. math:: k_a = k_i + q, \qquad k_b = k_j - q ,

a and b not occupied. These are all the determinants of the same momentum that a pair interaction
reaches (a single excitation would change the momentum). For equal spins the transfers q and q' =
k_j - k_i - q end in the same determinant; it is counted at the smaller of the two.

The ratio of the determinants at z needs nothing but the plane waves,

.. math:: \frac{\Phi_{K'}}{\Phi_K} = R_{ia} R_{jb} - R_{ib} R_{ja}, \qquad
          R_{ia} = \sum_b (\Phi^{-1})_{ib} e^{ik_a z_b} ,

the second term for equal spins alone: one product of matrices for each spin and sample.

Doubles come in one order everywhere: opposite spins by (i, j, q), then for each spin the pairs i <
j by (pair, q).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from heg.gas.plane_waves import ENERGY_TOLERANCE, Orbitals, make_waves
from heg.gas.system import System
from heg.observables.second_order.pair_operators import PairElements, interaction_strength


def transfers(dim: int, largest: int) -> np.ndarray:
    """Integer vectors with 0 < |n|^2 <= `largest`; the opposite of each has its place from the end.
    [Q, d]"""
    span = int(np.sqrt(largest))
    n = np.indices((2 * span + 1,) * dim).reshape(dim, -1).T - span
    squared = np.sum(n**2, axis=1)
    return n[(0 < squared) & (squared <= largest)]


def count_doubles(system: System, largest: int) -> int:
    """Places in the list of doubles, among them those that Pauli forbids."""
    pairs = sum(count * (count - 1) // 2 for count in system.spins)
    opposite = system.n_up * system.n_down
    return (pairs + opposite) * len(transfers(system.dim, largest))


def make_ratios(system: System, orbitals: Orbitals, largest: int) -> Callable:
    """Phi_K' / Phi_K of all doubles, as a function of (z [N, d], state [N]).  [D] complex"""
    angle = 2 * np.pi / system.box * transfers(system.dim, largest)
    plane_wave_matrix = make_waves(system, orbitals)

    def replaced(z, state):
        """The ratio when orbital j is replaced by k_i + q.  [i, j, Q]"""
        matrix = plane_wave_matrix(z, state)
        count = len(state)
        weight = matrix.T[:, None] * jnp.linalg.inv(matrix)
        waves = jnp.exp(1j * (z @ angle.T))
        return (weight.reshape(count**2, count) @ waves).reshape(count, count, -1)

    def equal_spins(table):
        first, second = np.triu_indices(len(table), 1)
        direct = table[first, first] * table[second, second, ::-1]
        return direct - table[first, second] * table[second, first, ::-1]

    def ratios(z, state):
        tables = [replaced(z[part], state[part]) for part in system.parts]
        parts = [equal_spins(table) for table in tables]
        if len(tables) == 2:
            up, down = (jnp.einsum("iiq->iq", table) for table in tables)
            parts.insert(0, up[:, None] * down[None, :, ::-1])
        return jnp.concatenate([part.ravel() for part in parts])

    return ratios


class Doubles(NamedTuple):
    """What is known of the doubles of one K.

    Attributes:
      allowed: are a and b empty, and is the determinant counted here?    [D] bool
      ideal: difference of the kinetic energies, hartree.   [D]
      fock: difference of the Hartree-Fock interaction energies, hartree.    [D]
      transfer: |n|^2 of q.                                 [D]
      exchanged: |n|^2 of q', 0 for opposite spins.         [D]
    """

    allowed: np.ndarray
    ideal: np.ndarray
    fock: np.ndarray
    transfer: np.ndarray
    exchanged: np.ndarray

    @property
    def kind(self) -> np.ndarray:
        """0 for equal, 1 for opposite spins.  [D] int"""
        return (self.exchanged == 0).astype(int)

    @property
    def alike(self) -> np.ndarray:
        """Allowed doubles of the kinetic energy of K.  [D] bool"""
        scale = np.max(np.abs(self.ideal), initial=1e-300)
        return self.allowed & (np.abs(self.ideal) < ENERGY_TOLERANCE * scale)

    def elements(self, of_pairs: PairElements) -> np.ndarray:
        """Matrix elements of a pair operator between K and its doubles, hartree.  [D]"""
        equal = self.exchanged > 0
        direct = np.where(
            equal,
            of_pairs.between(0, self.transfer, self.ideal),
            of_pairs.between(1, self.transfer, self.ideal),
        )
        crossed = of_pairs.between(0, self.exchanged, self.ideal)
        return direct - np.where(equal, crossed, 0.0)


class DoublesOf:
    """The doubles of any K of a gas.

    Args:
      system: the gas.
      orbitals: its plane waves.
      largest: |n|^2 of the largest transfer.
    """

    def __init__(self, system: System, orbitals: Orbitals, largest: int):
        self.system = system
        self.n = np.asarray(orbitals.n)
        self.transfers = transfers(system.dim, largest)
        self.squared = np.sum(self.transfers**2, axis=1)
        self.first, self.second = _pairs(system)
        self.unit = (2 * np.pi / system.box) ** 2
        # two electrons of a state of the kinetic energy of K are apart by no more than sqrt(2 sum
        # n^2)
        reach = np.sqrt(2 * max(system.electrons, 2)) * np.max(np.linalg.norm(self.n, axis=1))
        farthest = reach + 2 * np.sqrt(largest)
        self.strength = interaction_strength(system, int(farthest**2) + 1)

    def __call__(self, state: np.ndarray) -> Doubles:
        """Those of K, given by its occupied orbitals [N]."""
        return self.of_vectors(self.n[np.asarray(state)])

    def of_vectors(self, n: np.ndarray) -> Doubles:
        """Those of K, given by its integer vectors [N, d]."""
        spins = [_Spin(self, n[part]) for part in self.system.parts]
        parts = [self._equal(spin) for spin in spins]
        if len(spins) == 2:
            parts.insert(0, self._opposite(*spins))
        return Doubles(*(np.concatenate([np.ravel(x) for x in column]) for column in zip(*parts)))

    def excited(self, n: np.ndarray, place: int) -> np.ndarray:
        """Integer vectors of the double at a place of the list, in the order of the electrons of K.
        [N, d]"""
        n = n.copy()
        pair, q = divmod(place, len(self.transfers))
        n[self.first[pair]] += self.transfers[q]
        n[self.second[pair]] -= self.transfers[q]
        return n

    def ordered(self, n: np.ndarray) -> tuple[np.ndarray, int]:
        """The same determinant with the vectors of each spin in order, and the sign of that
        permutation."""
        parts, sign = [], 1
        for part in self.system.parts:
            order = np.lexsort(n[part].T[::-1])
            parts.append(n[part][order])
            sign *= round(np.linalg.det(np.eye(len(order))[order]))
        return np.concatenate(parts), sign

    def _opposite(self, up, down):
        apart = up.n[:, None] - down.n
        ideal = self._kinetic(apart)
        allowed = up.empty[:, None] & down.empty[None, :, ::-1]
        fock = up.raised[:, None] + down.raised[None, :, ::-1]
        transfer = np.broadcast_to(self.squared, ideal.shape)
        return allowed, ideal, fock, transfer, np.zeros_like(transfer)

    def _equal(self, spin):
        first, second = np.triu_indices(len(spin.n), 1)
        apart = spin.n[first] - spin.n[second]
        ideal = self._kinetic(apart)
        other = -apart[:, None] - self.transfers
        exchanged = np.sum(other**2, axis=-1)
        shorter = self.squared < exchanged
        alike = self.squared == exchanged
        earlier = _before(self.transfers, other)
        allowed = spin.empty[first] & spin.empty[second, ::-1] & (shorter | (alike & earlier))
        # what `raised` of each counts as if the other electron stayed
        new = self.strength[np.sum((apart[:, None] + 2 * self.transfers) ** 2, axis=-1)]
        old = self.strength[np.sum(apart**2, axis=1)][:, None]
        fock = spin.raised[first] + spin.raised[second, ::-1]
        fock = fock + 2 * self.strength[exchanged] - new - old
        return allowed, ideal, fock, np.broadcast_to(self.squared, ideal.shape), exchanged

    def _kinetic(self, apart):
        """q^2 + q (k_i - k_j), the twist drops out."""
        return self.unit * (self.squared + apart @ self.transfers.T)


class _Spin:
    """One spin of K and where its electrons may go.

    Attributes:
      n: integer vectors.                                   [N, d]
      empty: is k_i + q empty?                              [N, Q]
      raised: exchange energy of k_i + q with the others, less that of k_i, hartree.    [N, Q]
    """

    def __init__(self, doubles, n):
        moved = n[:, None] + doubles.transfers
        to_all = np.sum((moved[:, :, None] - n) ** 2, axis=-1)
        self.n = n
        self.empty = np.all(to_all > 0, axis=-1)
        before = np.sum(doubles.strength[np.sum((n[:, None] - n) ** 2, axis=-1)], axis=1)
        after = np.sum(doubles.strength[to_all], axis=-1) - doubles.strength[doubles.squared]
        self.raised = before[:, None] - after


def _pairs(system):
    """Electrons of every pair, in the order of the doubles.  [pairs], [pairs]"""
    first, second = np.indices((system.n_up, system.n_down)).reshape(2, -1)
    ends = [(first, system.n_up + second)] if system.n_down else []
    for part in system.parts:
        first, second = np.triu_indices(part.stop - part.start, 1)
        ends.append((part.start + first, part.start + second))
    return tuple(np.concatenate(end) for end in zip(*ends))


def _before(n, other):
    """Is n in front of `other`, component by component?"""
    code = lambda vectors: vectors @ (2**15 ** np.arange(vectors.shape[-1])[::-1])
    return code(n) < code(other)
