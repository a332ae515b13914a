r"""States of one energy that a pair operator mixes: their free energy beyond second order.

In a shell of m determinants of one kinetic energy, with the matrix V of the known elements and the
energies e,

.. math:: -T \Big[\ln \mathrm{tr}\, e^{-\beta(e + V)} - \ln \sum_K e^{-\beta e_K}\Big]

takes the place of the second order within the shell. Shells are averaged as if each changed the
partition function by
little: exact where one shell holds all of p(K), and to fourth order in V else.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp

from heg.observables.second_order.doubles import DoublesOf
from heg.observables.second_order.perturbation import thermal_denominator

MAX_STATES = 64  # of a shell that is diagonalised
MATTERS = 0.01  # share of the second-order sum above which the shell is diagonalised


def pair_correction(elements: np.ndarray, gap: np.ndarray, beta: float) -> np.ndarray:
    """T ln[cosh(beta sqrt(gap^2 / 4 + W^2)) / cosh(beta gap / 2)] - W^2 h(gap) of each pair.  [D],
    hartree

    It is the exact free energy of two states beyond second order.
    """
    log_cosh = lambda x: np.logaddexp(x, -x)
    exact = log_cosh(beta * np.hypot(gap / 2, elements)) - log_cosh(beta * gap / 2)
    return exact / beta - elements**2 * thermal_denominator(gap, beta)


def shell_correction(
    doubles_of: DoublesOf,
    state: np.ndarray,
    known: Callable,
    gap: Callable,
    beta: float,
) -> tuple[float, float]:
    """What degenerate states add to the sum of W^2 h of one K, hartree, and the part of it that
    pairs stand for.

    Args:
      doubles_of: of the gas.
      state: integer vectors of K.                          [N, d]
      known: Doubles -> elements, hartree.                  [D]
      gap: Doubles -> differences of the energies, hartree.    [D]
      beta: 1/hartree.
    """
    doubles = doubles_of.of_vectors(state)
    elements = np.where(doubles.allowed, known(doubles), 0.0)
    by_pairs = pair_correction(elements, gap(doubles), beta)
    alike = doubles.alike
    total = elements**2 @ thermal_denominator(gap(doubles), beta)
    if np.abs(by_pairs[alike].sum()) <= MATTERS * total:
        return float(by_pairs.sum()), 0.0
    shell = _shell(doubles_of, state, known, gap)
    if shell is None:
        of_alike = float(by_pairs[alike].sum())
        return float(by_pairs.sum()), abs(of_alike)
    energies, matrix = shell
    levels = np.linalg.eigvalsh(np.diag(energies) + matrix)
    exact = (logsumexp(-beta * levels) - logsumexp(-beta * energies)) / beta
    weights = np.exp(-beta * energies - logsumexp(-beta * energies))
    between = thermal_denominator(energies[:, None] - energies, beta)
    second = weights @ np.sum(matrix**2 * between, axis=1)
    return float(by_pairs[~alike].sum() + exact - second), 0.0


def _shell(doubles_of, state, known, gap):
    """Energies relative to K and known elements of all states that doubles of its kinetic energy
    lead to.

    None if there are more than MAX_STATES.
    """
    state, _ = doubles_of.ordered(state)
    names = {_name(state): 0}
    states, energies, entries = [state], [0.0], []
    for number in range(MAX_STATES + 1):
        if number == len(states):
            break
        doubles = doubles_of.of_vectors(states[number])
        elements, gaps = known(doubles), gap(doubles)
        for place in np.flatnonzero(doubles.alike):
            other, sign = doubles_of.ordered(doubles_of.excited(states[number], place))
            name = _name(other)
            if name not in names:
                names[name] = len(states)
                states.append(other)
                energies.append(energies[number] + gaps[place])
            entries.append((number, names[name], sign * elements[place]))
        if len(states) > MAX_STATES:
            return None
    matrix = np.zeros((len(states), len(states)))
    for row, column, element in entries:
        matrix[row, column] = element
    return np.array(energies), matrix


def _name(state):
    return tuple(map(tuple, state))
