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

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from heg.gas.plane_waves import ENERGY_TOLERANCE, Orbitals, integer_vectors, make_waves
from heg.gas.system import System
from heg.observables.second_order.pair_operators import PairElements, interaction_strength


def transfers(dim: int, largest: int) -> Int[np.ndarray, "transfers dim"]:
    """Integer vectors with 0 < |n|^2 <= `largest`, in lexicographic order.

    Reversed, the list holds the opposite of each vector in its place.
    """
    n = integer_vectors(dim, int(np.sqrt(largest)))
    squared = np.sum(n**2, axis=1)
    return n[(0 < squared) & (squared <= largest)]


def count_doubles(system: System, largest: int) -> int:
    """Length of the list of doubles, those that Pauli forbids included."""
    equal = sum(count * (count - 1) // 2 for count in system.spins)
    opposite = system.n_up * system.n_down
    return (equal + opposite) * len(transfers(system.dim, largest))


def make_ratios(system: System, orbitals: Orbitals, largest: int) -> Callable:
    """Phi_K' / Phi_K of all doubles, as a function of (z [N, d], state [N]).  [D] complex"""
    unit = system.wavevector_unit
    wavevectors = unit * transfers(system.dim, largest)
    plane_wave_matrix = make_waves(system, orbitals)

    def replacements(z, state):
        """R: orbital j of one spin replaced by k_i + q, for every i, j and q.  [N, N, Q]

        With e^{ik_a z} = e^{ik_i z} e^{iqz} all of them are one product of matrices.
        """
        count = len(state)
        # Phi_bi = e^{ik_i z_b}, and R_ia = sum_b (Phi^-1)_ib e^{ik_a z_b}
        matrix = plane_wave_matrix(z, state)
        inverse = jnp.linalg.inv(matrix)
        weights = matrix.T[:, None] * inverse
        # e^{iqz}; then "im,bi->imb" and "imb,bq->imq"
        waves = jnp.exp(1j * (z @ wavevectors.T))
        table = weights.reshape(count**2, count) @ waves
        return table.reshape(count, count, -1)

    def ratios(z, state):
        tables = [replacements(z[part], state[part]) for part in system.parts]
        parts = [_equal_spin_ratios(table) for table in tables]  # up, and down
        # opposite spins come first in the list of doubles
        if len(tables) == 2:
            parts.insert(0, _opposite_spin_ratios(*tables))
        return jnp.concatenate([part.ravel() for part in parts])

    return ratios


def _opposite_spin_ratios(up, down):
    """R_ia R_jb, where only the orbitals of i and j themselves are replaced.  [N_up, N_down, Q]"""
    first = jnp.einsum("iiq->iq", up)
    second = jnp.einsum("jjq->jq", down)
    return first[:, None] * second[None, :, ::-1]  # the second electron takes -q


def _equal_spin_ratios(table):
    """R_ia R_jb - R_ib R_ja for i < j.  [pairs, Q]"""
    first, second = np.triu_indices(len(table), 1)
    # i and j keep their places, or trade them; the second electron takes -q in both
    direct = table[first, first] * table[second, second, ::-1]
    crossed = table[first, second] * table[second, first, ::-1]
    return direct - crossed


class Doubles(NamedTuple):
    """Energies and momentum transfers of the doubles of one K.

    Attributes:
      allowed: whether a and b are empty and the determinant is counted here.    [D] bool
      ideal: difference of the kinetic energies, hartree.   [D]
      fock: difference of the Hartree-Fock interaction energies, hartree.    [D]
      transfer: |n|^2 of q.                                 [D]
      exchanged: |n|^2 of q', 0 for opposite spins.         [D]
    """

    allowed: Bool[np.ndarray, "*doubles"]
    ideal: Float[np.ndarray, "*doubles"]
    fock: Float[np.ndarray, "*doubles"]
    transfer: Int[np.ndarray, "*doubles"]
    exchanged: Int[np.ndarray, "*doubles"]

    @property
    def kind(self) -> Int[np.ndarray, "*doubles"]:
        """0 for equal, 1 for opposite spins."""
        return (self.exchanged == 0).astype(int)

    @property
    def alike(self) -> Bool[np.ndarray, "*doubles"]:
        """Allowed doubles of the kinetic energy of K."""
        # rounding must not part equal energies, whatever their unit
        scale = np.max(np.abs(self.ideal), initial=1e-300)
        return self.allowed & (np.abs(self.ideal) < ENERGY_TOLERANCE * scale)

    def where(self, kept: Bool[np.ndarray, " doubles"]) -> "Doubles":
        """The doubles for which `kept` is true."""
        return Doubles(*(values[kept] for values in self))

    def elements(self, operator: PairElements) -> Float[np.ndarray, "*doubles"]:
        """Matrix elements of a pair operator between K and its doubles, hartree."""
        # Slater and Condon: u(q) - u(q'), the second term for equal spins alone
        is_equal = self.exchanged > 0
        of_equal = operator.between(0, self.transfer, self.ideal)
        of_opposite = operator.between(1, self.transfer, self.ideal)
        direct = np.where(is_equal, of_equal, of_opposite)
        of_exchanged = operator.between(0, self.exchanged, self.ideal)
        crossed = np.where(is_equal, of_exchanged, 0.0)
        return direct - crossed


class DoublesOf:
    """The doubles of any K of a gas.

    Args:
      system: the gas.
      orbitals: its plane waves.
      largest: |n|^2 of the largest transfer.

    Attributes:
      n: integer vectors of the plane waves.                [M, d]
      transfers: integer vectors q.                         [Q, d]
      pairs: first and second electron of every pair, in the order of the doubles.    [2, pairs]
      strength: coupling times v(q) / L^d by |n|^2, hartree.
    """

    def __init__(self, system: System, orbitals: Orbitals, largest: int):
        self.system = system
        self.n = np.asarray(orbitals.n)
        self.transfers = transfers(system.dim, largest)
        self.strength = interaction_strength(system, self._farthest(largest))
        self.pairs = _electron_pairs(system)
        self._squared = np.sum(self.transfers**2, axis=1)

    def __call__(self, state: Int[np.ndarray, " electrons"]) -> Doubles:
        """The doubles of K, given by its occupied orbitals."""
        return self.of_vectors(self.n[np.asarray(state)])

    def of_vectors(self, n: Int[np.ndarray, "electrons dim"]) -> Doubles:
        """The doubles of K, given by its integer vectors."""
        spins = [self._spin(n[part]) for part in self.system.parts]
        # in the order of the module: opposite spins first
        parts = [self._equal_spins(spin) for spin in spins]
        if len(spins) == 2:
            parts.insert(0, self._opposite_spins(*spins))
        return jax.tree.map(_concatenated, *parts)

    def excited(
        self, n: Int[np.ndarray, "electrons dim"], index: int | Int[np.ndarray, " doubles"]
    ) -> Int[np.ndarray, "*doubles electrons dim"]:
        """Integer vectors of one or some doubles, in the order of the electrons of K."""
        # q runs fastest
        pair, transfer = np.divmod(index, len(self.transfers))
        q = self.transfers[transfer]
        first, second = self.pairs[:, pair]
        electron = np.arange(len(n))
        # +q for the first electron, -q for the second
        gains = electron == np.expand_dims(first, -1)
        loses = electron == np.expand_dims(second, -1)
        times = gains.astype(int) - loses.astype(int)
        return n + times[..., None] * q[..., None, :]

    def ordered(
        self, n: Int[np.ndarray, "electrons dim"]
    ) -> tuple[Int[np.ndarray, "electrons dim"], int]:
        """The same determinant with the vectors of each spin in order.

        Returns:
          The integer vectors, and the sign of the permutation.
        """
        parts = []
        sign = 1
        for part in self.system.parts:
            spin = n[part]
            order = np.lexsort(spin.T[::-1])  # the first component counts most
            parts.append(spin[order])
            # Phi changes its sign with each exchange of two orbitals
            permutation = np.eye(len(order))[order]
            sign *= round(np.linalg.det(permutation))
        return np.concatenate(parts), sign

    def _farthest(self, largest):
        """Bound on the |n|^2 that separates two electrons of a double of a double.

        In a state of the kinetic energy of K two electrons are apart by sqrt(2 sum n^2) at most.
        """
        longest = np.max(np.linalg.norm(self.n, axis=1))
        electrons = max(self.system.electrons, 2)
        reach = np.sqrt(2 * electrons) * longest
        # then each of the two moves by q, twice
        farthest = reach + 4 * np.sqrt(largest)
        return int(farthest**2) + 1

    def _spin(self, n):
        """Where the electrons of one spin may go, given their integer vectors [N, d]."""
        # v(k_i - k_j) summed over the others, before and after; exchange lowers the energy
        moved = n[:, None] + self.transfers
        apart_before = _squared_distances(n, n)
        apart_after = _squared_distances(moved, n)
        before = np.sum(self.strength[apart_before], axis=-1)
        after = np.sum(self.strength[apart_after], axis=-1)
        # an electron does not interact with the place that it left
        with_itself = self.strength[self._squared]
        with_others = after - with_itself
        raised = before[:, None] - with_others
        empty = np.all(apart_after > 0, axis=-1)
        return _Spin(n, empty, raised)

    def _opposite_spins(self, up, down):
        """Doubles of an up and a down electron.  [N_up, N_down, Q]"""
        apart = up.n[:, None] - down.n
        ideal = self._kinetic(apart)
        transfer = np.broadcast_to(self._squared, ideal.shape)
        opposite = down.opposite
        return Doubles(
            allowed=up.empty[:, None] & opposite.empty,
            ideal=ideal,
            fock=up.raised[:, None] + opposite.raised,
            transfer=transfer,
            exchanged=np.zeros_like(transfer),
        )

    def _equal_spins(self, spin):
        """Doubles of two electrons of one spin.  [pairs, Q]"""
        first, second = np.triu_indices(len(spin.n), 1)
        apart = spin.n[first] - spin.n[second]
        ideal = self._kinetic(apart)
        transfer = np.broadcast_to(self._squared, ideal.shape)

        # q and q' end in the same determinant, which counts at the smaller one
        other_transfer = -apart[:, None] - self.transfers
        exchanged = _squared_length(other_transfer)
        is_shorter = transfer < exchanged
        is_equal = transfer == exchanged
        is_first = _precedes(self.transfers, other_transfer)
        is_smaller = is_shorter | (is_equal & is_first)
        opposite = spin.opposite
        both_empty = spin.empty[first] & opposite.empty[second]

        # `raised` of each electron has the other one still at its old place
        raised = spin.raised[first] + opposite.raised[second]
        apart_after = apart[:, None] + 2 * self.transfers
        before = self.strength[_squared_length(apart)]
        after = self.strength[_squared_length(apart_after)]
        # from a to j and from b to i the distance is q', counted twice in `raised`
        counted_twice = 2 * self.strength[exchanged]
        fock = raised + counted_twice - after - before[:, None]
        return Doubles(
            allowed=both_empty & is_smaller,
            ideal=ideal,
            fock=fock,
            transfer=transfer,
            exchanged=exchanged,
        )

    def _kinetic(self, apart):
        """Change of the kinetic energy, q^2 + q (k_i - k_j), hartree.  [..., Q]"""
        # the twist drops out of the difference
        unit = self.system.wavevector_unit**2
        along = apart @ self.transfers.T
        return unit * (self._squared + along)


class _Spin(NamedTuple):
    """The electrons of one spin of K and where they may go.

    Attributes:
      n: integer vectors.                                   [N, d]
      empty: whether k_i + q is empty.                      [N, Q]
      raised: exchange energy of k_i + q with the others, less that of k_i, hartree.    [N, Q]
    """

    n: np.ndarray
    empty: np.ndarray
    raised: np.ndarray

    @property
    def opposite(self):
        """The same for the opposite of each q, which the second electron of a double takes."""
        return _Spin(self.n, self.empty[:, ::-1], self.raised[:, ::-1])


def _electron_pairs(system):
    """Electrons of every pair, in the order of the doubles.  [2, pairs]"""
    pairs = []
    # opposite spins first; down spins follow after the up ones
    if system.n_down:
        up, down = np.indices((system.n_up, system.n_down))
        first = up.ravel()
        second = system.n_up + down.ravel()
        pairs.append([first, second])
    for part in system.parts:
        count = part.stop - part.start
        first, second = np.triu_indices(count, 1)
        pairs.append([part.start + first, part.start + second])
    return np.concatenate(pairs, axis=1)


def _concatenated(*tables):
    """All values of several tables in one list."""
    return np.concatenate([np.ravel(table) for table in tables])


def _squared_length(n):
    return np.sum(n**2, axis=-1)


def _squared_distances(n, others):
    """|n - n_j|^2 to each of the others.  [..., d], [N, d] -> [..., N]"""
    return _squared_length(n[..., None, :] - others)


def _precedes(n, other):
    """Whether n comes before `other` in lexicographic order."""
    radix = 2**15 ** np.arange(n.shape[-1])[::-1]  # far above all components
    return n @ radix < other @ radix
