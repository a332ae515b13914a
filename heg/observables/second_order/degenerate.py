r"""States of one energy that a pair operator mixes: their free energy beyond second order.

In a shell of m determinants of one kinetic energy, with the matrix V of the known elements and the
energies e,

.. math:: -T \Big[\ln \mathrm{tr}\, e^{-\beta(e + V)} - \ln \sum_K e^{-\beta e_K}\Big]

takes the place of the second order within the shell. Shells are averaged as if each changed the
partition function by little: exact where one shell holds all of p(K), and to fourth order in V
else.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from heg.observables.second_order.doubles import DoublesOf
from heg.observables.second_order.perturbation import thermal_denominator

MAX_STATES = 64  # of a shell that is diagonalised
MIN_SHELL_SHARE = 0.01  # of the second-order sum; smaller shells are not diagonalised


class ShellCorrection(NamedTuple):
    """What degenerate states add to the sum of W^2 h of one K, hartree.

    Attributes:
      value: of the shell of K and of all pairs outside of it.
      unsure: size of the part of it that pairs stand for instead of the shell.
    """

    value: float
    unsure: float


def pair_correction(
    elements: Float[np.ndarray, "*doubles"], gap: Float[np.ndarray, "*doubles"], beta: float
) -> Float[np.ndarray, "*doubles"]:
    """Exact free energy of each pair of states beyond second order, hartree.

    It is T ln[cosh(beta sqrt(gap^2 / 4 + W^2)) / cosh(beta gap / 2)] - W^2 h(gap).

    Args:
      elements: W, hartree.
      gap: difference of the energies, hartree.
      beta: 1/hartree.
    """
    log_cosh = lambda x: np.logaddexp(x, -x)  # and ln 2, which drops out
    # half of the distance of the two levels, mixed and not
    mixed = np.hypot(gap / 2, elements)
    exact = log_cosh(beta * mixed) - log_cosh(beta * gap / 2)
    second_order = elements**2 * thermal_denominator(gap, beta)
    return exact / beta - second_order


def shell_correction(
    doubles_of: DoublesOf,
    state: Int[np.ndarray, "electrons dim"],
    known: Callable,
    gap: Callable,
    beta: float,
) -> ShellCorrection:
    """What degenerate states add to the sum of W^2 h of one K.

    Args:
      doubles_of: of the gas.
      state: integer vectors of K.
      known: Doubles -> elements, hartree.                  [D]
      gap: Doubles -> differences of the energies, hartree.    [D]
      beta: 1/hartree.
    """
    doubles = doubles_of.of_vectors(state)
    gaps = gap(doubles)
    elements = np.where(doubles.allowed, known(doubles), 0.0)
    by_pairs = pair_correction(elements, gaps, beta)
    second_order = elements**2 @ thermal_denominator(gaps, beta)

    # a shell costs many eigenvalues: pairs do where it adds little
    alike = doubles.alike
    pairs_of_shell = float(by_pairs[alike].sum())
    if abs(pairs_of_shell) <= MIN_SHELL_SHARE * second_order:
        return ShellCorrection(float(by_pairs.sum()), 0.0)
    shell = _connected_shell(doubles_of, state, known, gap)
    if shell is None:
        return ShellCorrection(float(by_pairs.sum()), abs(pairs_of_shell))

    other_pairs = by_pairs[~alike].sum()
    exact = shell.lowering(beta)
    # the second order of the shell is in the rows already
    in_rows = shell.lowering_to_second_order(beta)
    value = other_pairs + exact - in_rows
    return ShellCorrection(float(value), 0.0)


class _Shell(NamedTuple):
    """States of one kinetic energy that the known elements mix.

    Attributes:
      energies: relative to the first of them, hartree.     [m]
      matrix: known elements, zero on the diagonal, hartree.    [m, m]
    """

    energies: np.ndarray
    matrix: np.ndarray

    def lowering(self, beta):
        """How much mixing lowers the free energy, hartree."""
        hamiltonian = np.diag(self.energies) + self.matrix
        mixed = np.linalg.eigvalsh(hamiltonian)
        # T ln of the ratio of the partition functions
        log_z = logsumexp(-beta * mixed)
        log_z_unmixed = logsumexp(-beta * self.energies)
        return (log_z - log_z_unmixed) / beta

    def lowering_to_second_order(self, beta):
        """The same to second order in the matrix, hartree."""
        log_z = logsumexp(-beta * self.energies)
        probabilities = np.exp(-beta * self.energies - log_z)
        gaps = self.energies[:, None] - self.energies
        h = thermal_denominator(gaps, beta)
        by_state = np.sum(self.matrix**2 * h, axis=1)
        return probabilities @ by_state


@dataclasses.dataclass
class _Search:
    """The states of a shell as they are found.

    Attributes:
      states: integer vectors, ordered within each spin.    [N, d] each
      energies: relative to the first state, hartree.
      index: number of each state by its `_name`.
      elements: by the numbers of the two states, hartree.
    """

    states: list[np.ndarray]
    energies: list[float]
    index: dict[tuple, int]
    elements: dict[tuple[int, int], float]

    @classmethod
    def from_state(cls, state):
        return cls(states=[state], energies=[0.0], index={_name(state): 0}, elements={})

    def connect(self, number, state, energy, element):
        """Add a state, new or known already, and its element with the state of a number."""
        name = _name(state)
        if name not in self.index:
            self.index[name] = len(self.states)
            self.states.append(state)
            self.energies.append(energy)
        # the other half of the matrix comes from the search at that state
        column = self.index[name]
        self.elements[number, column] = element

    def shell(self):
        # states that no double connects have no element
        matrix = np.zeros((len(self.states), len(self.states)))
        for pair, element in self.elements.items():
            matrix[pair] = element
        return _Shell(np.array(self.energies), matrix)


def _connected_shell(doubles_of, state, known, gap):
    """All states that doubles of the kinetic energy of K lead to, one after the other.

    None if there are more than MAX_STATES.
    """
    state, _ = doubles_of.ordered(state)
    search = _Search.from_state(state)
    number = 0
    while number < len(search.states):  # the list grows as doubles of its states are found
        state = search.states[number]
        doubles = doubles_of.of_vectors(state)
        elements = known(doubles)
        gaps = gap(doubles)
        energies = search.energies[number] + gaps
        of_same_energy = np.flatnonzero(doubles.alike)
        for double in of_same_energy:
            excited = doubles_of.excited(state, double)
            # the same determinant may come with its electrons in another order
            other, sign = doubles_of.ordered(excited)
            element = sign * elements[double]
            search.connect(number, other, energies[double], element)
        if len(search.states) > MAX_STATES:
            return None
        number += 1
    return search.shell()


def _name(state):
    return tuple(map(tuple, state))
