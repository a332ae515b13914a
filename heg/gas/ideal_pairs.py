r"""Occupations of pairs of orbitals in the canonical ideal gas, in two exact forms.

By shells, from the occupations of single orbitals (`shell_pairs`); and as a sum of few products,
from grand canonical gases of complex chemical potential (`projections`), which suits convolutions.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float, Int
from scipy.optimize import brentq
from scipy.special import expit

from heg.gas.ideal import occupation_numbers, padded
from heg.gas.plane_waves import shell_ends

NEVER_FILLED = 60.0  # beta (energy - mu) of a level that is empty to all digits
MORE_NODES = 30  # than electrons: 30 electrons too many have a weight below 1e-16 of theirs
NEGLIGIBLE = 1e-18  # weight of a node that no double sees


class ShellPairs(NamedTuple):
    """<n_i n_j>, i != j, which depends on the shells of i and j alone.

    Attributes:
      shell: of each orbital.                               [M]
      occupation: <n_i> of an orbital of each shell.        [S]
      pairs: of two orbitals; on the diagonal of two of one shell.    [S, S]
    """

    shell: Int[np.ndarray, " orbitals"]
    occupation: Float[np.ndarray, " shells"]
    pairs: Float[np.ndarray, "shells shells"]


def shell_pairs(levels: Float[np.ndarray, " orbitals"], electrons: int) -> ShellPairs:
    """Occupations of pairs of orbitals in the ideal gas, by shells.

    From <n_i (1 - n_j)> e^{beta eps_i} = <n_j (1 - n_i)> e^{beta eps_j}, which holds as the levels
    are filled in any order; between orbitals of one shell, from sum_j <n_i n_j> = N <n_i>.

    Args:
      levels: beta * energy, sorted.
      electrons: of the spin.
    Accuracy: 1e-9 (tests/observables/test_structure.py, against second derivatives of ln Z).
    """
    ends = shell_ends(levels)
    size = np.diff(ends, prepend=0)
    # one orbital stands for its shell: the last one
    every = np.asarray(occupation_numbers(padded(levels), electrons))
    level = np.asarray(levels)[ends - 1]
    occupation = every[ends - 1]
    # one row for each shell of i, one column for each of j; the diagonal comes last
    same = np.eye(len(size), dtype=bool)
    difference = level[:, None] - level
    gap = np.where(same, 1.0, difference)
    # solved for <n_i n_j> with e^{-|gap|}, which cannot overflow
    boltzmann = np.exp(-np.abs(gap))
    column = occupation[:, None]
    upper = np.where(gap > 0, column, occupation)
    lower = np.where(gap > 0, occupation, column)
    pairs = (upper - lower * boltzmann) / (1 - boltzmann)
    pairs = np.where(same, 0.0, pairs)
    # the sum rule leaves the rest to the other orbitals of the same shell
    within = (electrons - 1) * occupation - pairs @ size
    # shared by the size - 1 others; a shell of one orbital has no pair
    others = np.maximum(size - 1, 1)
    pairs = pairs + np.diag(within / others)
    return ShellPairs(
        shell=np.repeat(np.arange(len(size)), size),
        occupation=occupation,
        pairs=pairs,
    )


def pair_occupations(
    levels: Float[np.ndarray, " orbitals"], electrons: int
) -> Float[np.ndarray, "orbitals orbitals"]:
    """<n_i n_j> of the ideal gas, n_i on the diagonal; arguments and accuracy as `shell_pairs`."""
    shell, occupation, by_shell = shell_pairs(levels, electrons)
    pairs = by_shell[np.ix_(shell, shell)]
    np.fill_diagonal(pairs, occupation[shell])
    return pairs


class Projection(NamedTuple):
    """One grand canonical gas of those that add up to a canonical one.

    Attributes:
      weight: w_m; that of two conjugate nodes is given to one of them.
      occupation: n(phi_m), complex.                        [M]
    """

    weight: complex
    occupation: Complex[np.ndarray, " orbitals"]


def projections(levels: Float[np.ndarray, " orbitals"], electrons: int) -> Iterator[Projection]:
    r"""Weighted grand canonical gases of complex chemical potential that add up to the canonical.

    .. math:: \langle n_i n_j \rangle_N
              = \mathrm{Re} \sum_m w_m\, n_i(\phi_m)\, n_j(\phi_m) \quad (i \ne j), \qquad
              n_i(\phi) = \frac{1}{e^{l_i - \mu - i \phi} + 1}

    It is Cauchy's integral for the coefficient Z_N of the grand partition function, on the circle
    |z| = e^mu where the mean number is N, by the trapezoidal rule.

    Args:
      levels: beta * energy, sorted.
      electrons: N.
    Accuracy: rounding, as N and N + nodes electrons are all that the rule confuses
      (tests/gas/test_ideal_pairs.py).
    Source: Ormand et al., Phys. Rev. C 49, 1422 (1994), doi:10.1103/PhysRevC.49.1422: projection on
      particle number.
    """
    levels = np.asarray(levels)
    mu = _chemical_potential(levels, electrons)
    gas = _grand_canonical(levels - mu)
    # an odd number: no node lies at phi = pi, where a level may have a pole
    nodes = 2 * ((electrons + MORE_NODES) // 2) + 1
    half = nodes // 2 + 1  # the others are conjugates of these
    angles = 2 * np.pi * np.arange(half) / nodes
    logs = np.array([gas.log_weight(angle, electrons) for angle in angles])
    # relative to phi = 0, which is the largest
    weights = np.exp(logs - logs[0])
    conjugates = np.where(angles > 0, 2, 1)
    weights *= conjugates
    # together they are one, as the gas has N electrons for certain
    weights /= np.sum(weights.real)
    least = NEGLIGIBLE * abs(weights[0])
    for angle, weight in zip(angles, weights):
        if abs(weight) > least:
            yield Projection(weight, gas.occupation(angle))


class _GrandCanonical(NamedTuple):
    """Levels about a chemical potential, through numbers below 1 alone.

    Attributes:
      size: e^{-|l - mu|}.                                  [M]
      filled: whether the level is below mu.                [M]
    """

    size: np.ndarray
    filled: np.ndarray

    def _boltzmann(self, angle):
        """e^{-|l - mu|} turned by the phase: e^{mu + i phi - l}, or its inverse where filled."""
        return self.size * np.exp(1j * np.where(self.filled, -angle, angle))

    def log_weight(self, angle, electrons):
        """ln of the grand partition function times e^{-i N phi}; a real constant is left out."""
        boltzmann = self._boltzmann(angle)
        logs = np.sum(np.log1p(boltzmann))
        # each filled level has given its factor e^{i phi}
        excess = np.count_nonzero(self.filled) - electrons
        return logs + 1j * angle * excess

    def occupation(self, angle):
        """n(phi) of each level.  [M]"""
        boltzmann = self._boltzmann(angle)
        return np.where(self.filled, 1, boltzmann) / (1 + boltzmann)


def _grand_canonical(above):
    """The gas of levels `above` its chemical potential, l - mu."""
    return _GrandCanonical(np.exp(-np.abs(above)), above < 0)


def _chemical_potential(levels, electrons):
    """beta mu of the grand canonical gas of so many electrons on average."""
    low = levels[0] - NEVER_FILLED
    high = levels[-1] + NEVER_FILLED
    if electrons >= len(levels):
        return high
    excess = lambda mu: np.sum(expit(mu - levels)) - electrons
    return brentq(excess, low, high)
