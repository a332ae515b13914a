"""What single states contribute to the free energy to second order."""

from typing import NamedTuple

import jax
import numpy as np

from heg.observables.second_order.amplitudes import Looked, Sums
from heg.observables.second_order.degenerate import shell_correction
from heg.observables.second_order.doubles import Doubles, count_doubles
from heg.observables.second_order.excitations import Excitations
from heg.observables.second_order.levels import Levels
from heg.observables.second_order.pair_operators import PairElements, pair_elements
from heg.observables.second_order.perturbation import (
    Correction,
    Known,
    Row,
    spectrum_energies,
    spectrum_of,
    thermal_denominator,
    unbiased_square,
)
from heg.observables.second_order.relaxation import Relaxation
from heg.statistics import independent

KNOWN_DOUBLES = 10**8  # of all K together whose known elements are computed
FEWEST_KNOWN = 64  # K at least


class Amplitudes(NamedTuple):
    """W of the allowed doubles of one K from its samples.  [D] each

    Attributes:
      doubles: those that are allowed.
      known: the part of W that is known, hartree.
      first, second: sums of a and a^2 over the samples, a having the mean W - known.
      count: of the samples.
    """

    doubles: Doubles
    known: np.ndarray
    first: np.ndarray
    second: np.ndarray
    count: int

    @property
    def squares(self) -> np.ndarray:
        """W^2 without bias, hartree^2."""
        return unbiased_square(self.known, self.first, self.second, self.count)

    @property
    def sampled(self) -> np.ndarray:
        """W, hartree."""
        return self.known + self.first / self.count


class Rows(NamedTuple):
    """What is known of the states of a run.

    Attributes:
      levels: energies of the states.
      known, beyond: of `heg.observables.second_order.perturbation.second_order`.
      relaxation: of p(K).
      rows: with the states along the first axis.
    """

    levels: Levels
    known: Known
    beyond: Correction | None
    relaxation: Relaxation | None
    rows: Row | None


def contribution(
    excitations: Excitations, levels: Levels, state: np.ndarray, key: jax.Array
) -> Row:
    """The contribution of one K, from `excitations.count` samples of x.

    Args:
      excitations: of the run.
      levels: of heg.observables.second_order.calibration.
      state: occupied orbitals.                             [N]
      key: of the random numbers.
    Raises:
      RunError: draws failed.
    """
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    state = np.asarray(state)
    both = (state, excitations.excite(state, generator))
    looked = excitations.look(*(np.tile(each, (excitations.count, 1)) for each in both), key)
    halves = _halves(excitations, levels, state, looked)
    whole = Sums(*(a + b for a, b in zip(*halves)))
    doubles = excitations.doubles_of(state)
    allowed = doubles.allowed
    known = doubles.elements(known_elements(excitations, levels))
    amplitudes = Amplitudes(
        doubles=Doubles(*(values[allowed] for values in doubles)),
        known=known[allowed],
        first=whole.first[allowed],
        second=whole.second[allowed],
        count=excitations.count,
    )
    h = thermal_denominator(levels.gap(doubles), excitations.system.beta)
    weights = [
        np.where(allowed, (known + 2 * half.first / excitations.count) * h, 0.0) for half in halves
    ]
    response = _response(excitations, state, looked, weights)
    return _row(excitations, levels, amplitudes, looked, response)


def known_elements(excitations: Excitations, levels: Levels) -> PairElements:
    """Elements of the part of H that the operators explain."""
    return pair_elements(excitations.system, levels.operators, excitations.doubles_of.strength)


def known_part(excitations: Excitations, levels: Levels, states: np.ndarray) -> Known:
    """The sum of W^2 h of the known elements over many K.

    Args:
      excitations: of the run.
      levels: of heg.observables.second_order.calibration.
      states: draws of K; of large gases the first of them, KNOWN_DOUBLES over the number of doubles.    [B, N]
    """
    elements = known_elements(excitations, levels)
    affordable = KNOWN_DOUBLES // count_doubles(excitations.system, excitations.largest)
    distinct, counts = np.unique(
        states[: max(FEWEST_KNOWN, affordable)], axis=0, return_counts=True
    )
    values = []
    for state in distinct:
        doubles = excitations.doubles_of(state)
        squares = np.where(doubles.allowed, doubles.elements(elements), 0.0) ** 2
        h = thermal_denominator(levels.gap(doubles), excitations.system.beta)
        values.append(squares @ h)
    values = np.repeat(values, counts)
    mean = independent(values)
    return Known(mean.mean, mean.error, float(np.var(values)))


def beyond_second_order(
    excitations: Excitations, levels: Levels, alike: np.ndarray, states: np.ndarray
) -> Correction:
    """What degenerate states add, mean over many K.

    The known elements are scaled to those that were sampled, for each momentum transfer.

    Args:
      excitations: of the run.
      levels: of heg.observables.second_order.calibration.
      alike: mean of `Row.alike`.
      states: draws of K.                                   [B, N]
    """
    system, doubles_of = excitations.system, excitations.doubles_of
    elements = known_elements(excitations, levels)
    _, mixed, squared = alike
    scale = np.divide(mixed, squared, out=np.ones_like(mixed), where=squared > 0)

    def scaled(doubles):
        by_transfer = scale[doubles.kind, doubles.transfer]
        return doubles.elements(elements) * np.where(doubles.alike, by_transfer, 1.0)

    distinct, counts = np.unique(states, axis=0, return_counts=True)
    found = [
        shell_correction(doubles_of, doubles_of.n[state], scaled, levels.gap, system.beta)
        for state in distinct
    ]
    values, unsure = np.repeat(found, counts, axis=0).T
    return Correction(float(values.mean()), independent(values).error, float(unsure.mean()))


def _halves(excitations, levels, state, looked):
    """Sums over the first and the second half of the samples."""
    explained = looked.of_state @ levels.weights + looked.operators @ levels.operators
    deviation = looked.weight * (looked.energy - explained)
    half = excitations.count // 2
    sums = []
    for part in (slice(0, half), slice(half, None)):
        found = excitations.programs.project(looked.z[part], state, deviation[part])
        sums.append(jax.tree.map(np.asarray, found))
    return sums


def _response(excitations, state, looked: Looked, weights):
    """Changes of observables: each half of the samples with the weights that the other gave."""
    half = excitations.count // 2
    found = []
    for weight, other in zip(weights, (slice(half, None), slice(0, half))):
        samples = (looked.x[other], looked.z[other], looked.potential[other], looked.weight[other])
        found.append(excitations.programs.respond(*samples, state, weight))
    return jax.tree.map(lambda a, b: -np.asarray(a + b), *found)


def _row(excitations, levels, amplitudes, looked, response):
    system, doubles = excitations.system, amplitudes.doubles
    places = excitations.largest + 1
    gap, squares = levels.gap(doubles), amplitudes.squares
    h = thermal_denominator(gap, system.beta)
    known = amplitudes.known**2 @ h
    lowered = squares * h
    moved = []
    for direction in levels.directions():
        shifted = gap + direction[0] * doubles.ideal + direction[1] * doubles.fock
        moved.append(squares @ thermal_denominator(shifted, system.beta))
    return Row(
        variance=_variance(np.asarray(looked.energy), np.asarray(looked.weight)),
        squared=np.bincount(doubles.transfer, squares, places),
        lowered=np.bincount(doubles.transfer, lowered, places),
        known=np.asarray(known),
        products=np.array([lowered.sum(), known]) * known,
        moved=np.array(moved),
        alike=_alike(amplitudes, places),
        spectrum=spectrum_of(squares, gap, spectrum_energies(system)),
        response={
            "potential": response.potential / system.electrons,
            "S_q": response.s,
            "g_r": response.g,
        },
    )


def _alike(amplitudes, places):
    """`Row.alike`."""
    doubles, known = amplitudes.doubles, amplitudes.known
    near = doubles.alike
    place = doubles.kind * places + doubles.transfer
    products = (amplitudes.squares, amplitudes.sampled * known, known**2)
    sums = [np.bincount(place, near * values, 2 * places) for values in products]
    return np.reshape(sums, (3, 2, places))


def _variance(energy, weight):
    """Of complex energies with weights of mean 1."""
    deviation = energy - np.average(energy, weights=weight)
    return weight @ np.abs(deviation) ** 2 / (len(weight) - 1)
