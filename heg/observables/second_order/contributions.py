"""What single states contribute to the free energy to second order.

`contribution` samples one K; `known_part` and `beyond_second_order` are means over many K, from the
known elements alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

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
    ThirdOrder,
    thermal_denominator,
    unbiased_square,
)
from heg.observables.second_order.relaxation import Relaxation
from heg.statistics import independent

MAX_KNOWN_DOUBLES = 10**8  # of all K together whose known elements are computed
MIN_KNOWN_STATES = 64  # K whose known elements are computed, however many doubles they have


class Amplitudes(NamedTuple):
    """W of the allowed doubles of one K from its samples.

    Attributes:
      doubles: those that are allowed.
      known: the part of W that is known, hartree.          [D]
      first: sum over the samples of a, whose mean is W - known.    [D]
      second: sum over the samples of a^2.                  [D]
      samples: how many there are.
    """

    doubles: Doubles
    known: Float[np.ndarray, " doubles"]
    first: Float[np.ndarray, " doubles"]
    second: Float[np.ndarray, " doubles"]
    samples: int

    @property
    def squares(self) -> Float[np.ndarray, " doubles"]:
        """W^2 without bias, hartree^2."""
        return unbiased_square(self.known, self.first, self.second, self.samples)

    @property
    def sampled(self) -> Float[np.ndarray, " doubles"]:
        """W, hartree."""
        return self.known + self.first / self.samples


class Rows(NamedTuple):
    """What is known of the states of a run.

    Attributes:
      levels: energies of the states.
      known: the sum of W^2 h of the known elements over many K.
      beyond: what degenerate states add.
      relaxation: of p(K).
      third: what the third order of the known elements says.
      rows: with the states along the first axis.
    """

    levels: Levels
    known: Known
    beyond: Correction
    relaxation: Relaxation
    third: ThirdOrder
    rows: Row


def contribution(
    excitations: Excitations,
    levels: Levels,
    state: Int[np.ndarray, " electrons"],
    key: jax.Array,
) -> Row:
    """The contribution of one K, from `excitations.count` samples of x.

    Args:
      excitations: of the run.
      levels: of heg.observables.second_order.calibration.
      state: occupied orbitals.
      key: of the random numbers.
    Raises:
      RunError: draws failed.
    """
    state = np.asarray(state)
    looked = _look(excitations, state, key)
    halves = _half_sums(excitations, levels, state, looked)
    # all samples together, for W^2
    whole = jax.tree.map(np.add, *halves)

    # the programs compute all doubles of the list, as its length is the same for every K
    doubles = excitations.doubles_of(state)
    allowed = doubles.allowed
    known = doubles.elements(known_elements(excitations, levels))
    amplitudes = Amplitudes(
        doubles=doubles.where(allowed),
        known=known[allowed],
        first=whole.first[allowed],
        second=whole.second[allowed],
        samples=excitations.count,
    )

    # W h of each double from one half of the samples, for the observables of the other half
    h = thermal_denominator(levels.gap(doubles), excitations.system.beta)
    half_count = excitations.count / 2
    weights = []
    for half in halves:
        sampled = known + half.first / half_count
        weights.append(np.where(allowed, sampled * h, 0.0))
    response = _response(excitations, state, looked, weights)
    return _row(excitations, levels, amplitudes, looked, response)


def known_elements(excitations: Excitations, levels: Levels) -> PairElements:
    """Matrix elements of the part of H that the operators explain."""
    return pair_elements(excitations.system, levels.operators, excitations.doubles_of.strength)


def known_part(
    excitations: Excitations, levels: Levels, states: Int[np.ndarray, "batch electrons"]
) -> Known:
    """The sum of W^2 h of the known elements over many K.

    Args:
      excitations: of the run.
      levels: of heg.observables.second_order.calibration.
      states: draws of K; of large gases the first of them, MAX_KNOWN_DOUBLES over the number of
        doubles.
    """
    elements = known_elements(excitations, levels)
    doubles_of_one = count_doubles(excitations.system, excitations.largest)
    affordable = MAX_KNOWN_DOUBLES // doubles_of_one
    count = max(MIN_KNOWN_STATES, affordable)
    used = states[:count]
    # cold gases draw few states, each of them often
    distinct, counts = np.unique(used, axis=0, return_counts=True)
    sums = [_known_sum(excitations, levels, elements, state) for state in distinct]
    values = np.repeat(sums, counts)
    estimate = independent(values)
    return Known(
        mean=estimate.mean,
        error=estimate.error,
        variance=float(np.var(values)),
    )


def beyond_second_order(
    excitations: Excitations,
    levels: Levels,
    alike: Float[np.ndarray, "3 2 transfers"],
    states: Int[np.ndarray, "batch electrons"],
) -> Correction:
    """What degenerate states add, mean over many K.

    The known elements are scaled to those that were sampled, for each momentum transfer.

    Args:
      excitations: of the run.
      levels: of heg.observables.second_order.calibration.
      alike: mean of `Row.alike`.
      states: draws of K.
    """
    elements = known_elements(excitations, levels)
    _, mixed, squared = alike
    # slope of the sampled elements against the known ones; 1 where there are none
    scale = np.divide(mixed, squared, out=np.ones_like(mixed), where=squared > 0)

    def scaled_elements(doubles):
        by_transfer = scale[doubles.kind, doubles.transfer]
        # the slope was seen among the doubles of the kinetic energy of K alone
        factor = np.where(doubles.alike, by_transfer, 1.0)
        return doubles.elements(elements) * factor

    doubles_of = excitations.doubles_of
    beta = excitations.system.beta
    # cold gases draw few states, each of them often
    distinct, counts = np.unique(states, axis=0, return_counts=True)
    values = []
    unsure = []
    for state in distinct:
        n = doubles_of.n[state]
        correction = shell_correction(
            doubles_of,
            n,
            known=scaled_elements,
            gap=levels.gap,
            beta=beta,
        )
        values.append(correction.value)
        unsure.append(correction.unsure)
    estimate = independent(np.repeat(values, counts))
    return Correction(
        value=estimate.mean,
        spread=estimate.error,
        unsure=float(np.mean(np.repeat(unsure, counts))),
    )


def _look(excitations: Excitations, state, key) -> Looked:
    """Samples of x at one K, with a random double of it as their guide."""
    # the guide is drawn from the key as well, so that a row can be repeated
    seed = np.asarray(jax.random.key_data(key))
    generator = np.random.default_rng(seed)
    guide = excitations.excite(state, generator)
    states = np.tile(state, (excitations.count, 1))
    guides = np.tile(guide, (excitations.count, 1))
    return excitations.look(states, guides, key)


def _known_sum(excitations: Excitations, levels: Levels, elements: PairElements, state) -> float:
    """Sum of W^2 h of the known elements of one K, hartree."""
    doubles = excitations.doubles_of(state)
    of_all = doubles.elements(elements)
    known = np.where(doubles.allowed, of_all, 0.0)
    h = thermal_denominator(levels.gap(doubles), excitations.system.beta)
    return known**2 @ h


def _halves_of(count: int) -> tuple[slice, slice]:
    """The first and the second half of the samples."""
    return slice(0, count // 2), slice(count // 2, None)


def _half_sums(excitations: Excitations, levels: Levels, state, looked: Looked) -> list[Sums]:
    """Sums of the amplitudes over the first and over the second half of the samples."""
    # b: any number will do, and the one that E_loc follows closely leaves the least noise
    of_state = looked.of_state @ levels.weights
    of_operators = looked.operators @ levels.operators
    unexplained = looked.energy - (of_state + of_operators)
    deviation = looked.weight * unexplained
    project = excitations.programs.project
    system = excitations.system
    halves = []
    for half in _halves_of(excitations.count):
        sums = project(system, looked.z[half], state, deviation[half])
        on_host = Sums(np.asarray(sums.first), np.asarray(sums.second))
        halves.append(on_host)
    return halves


def _response(
    excitations: Excitations, state, looked: Looked, weights: Sequence[np.ndarray]
) -> dict[str, np.ndarray | float]:
    """Changes of observables, each half of the samples with the weights that the other gave.

    Weights and observables of the same samples would be correlated, and their product biased.
    """
    first, second = _halves_of(excitations.count)
    covariances = []
    for half_weights, other in zip(weights, (second, first)):
        covariance = excitations.programs.respond(
            excitations.system,
            looked.x[other],
            looked.z[other],
            looked.potential[other],
            looked.weight[other],
            state,
            half_weights,
        )
        covariances.append(covariance)
    # the change is -2 W O h, and each half gives W O h
    one, other = covariances
    return {
        "potential": -np.asarray(one.potential + other.potential) / excitations.system.electrons,
        "S_q": -np.asarray(one.s + other.s),
        "g_r": -np.asarray(one.g + other.g),
    }


def _row(
    excitations: Excitations,
    levels: Levels,
    amplitudes: Amplitudes,
    looked: Looked,
    response: dict[str, np.ndarray | float],
) -> Row:
    system = excitations.system
    doubles = amplitudes.doubles
    # W^2 of each double, without bias
    squares = amplitudes.squares
    sizes = excitations.largest + 1  # |n|^2 from 0 to the largest
    gap = levels.gap(doubles)
    h = thermal_denominator(gap, system.beta)
    lowered = squares * h
    known = amplitudes.known**2 @ h
    products = np.array([lowered.sum(), known]) * known
    return Row(
        variance=_variance(np.asarray(looked.energy), np.asarray(looked.weight)),
        squared=np.bincount(doubles.transfer, squares, sizes),
        lowered=np.bincount(doubles.transfer, lowered, sizes),
        known=np.asarray(known),
        products=products,
        moved=_moved(levels, doubles, squares, system.beta),
        alike=_alike(amplitudes, sizes),
        response=response,
    )


def _moved(levels: Levels, doubles: Doubles, squares, beta):
    """Sum of W^2 h with the energies one standard error away.  [2]"""
    gap = levels.gap(doubles)
    sums = []
    for alpha, gamma in levels.directions():
        moved_gap = gap + alpha * doubles.ideal + gamma * doubles.fock
        h = thermal_denominator(moved_gap, beta)
        sums.append(squares @ h)
    return np.array(sums)


def _alike(amplitudes: Amplitudes, sizes: int):
    """Sums over the doubles of the kinetic energy of K, as in Row.alike.  [3, 2, Q]"""
    doubles = amplitudes.doubles
    known = amplitudes.known
    alike = doubles.alike
    index = doubles.kind * sizes + doubles.transfer

    def by_transfer(values):
        sums = np.bincount(index, alike * values, 2 * sizes)
        return sums.reshape(2, sizes)

    return np.stack(
        [
            by_transfer(amplitudes.squares),
            by_transfer(amplitudes.sampled * known),
            by_transfer(known**2),
        ]
    )


def _variance(energy, weight):
    """Variance of complex energies with weights of mean 1."""
    # the weights make up for the guide
    mean = np.average(energy, weights=weight)
    deviation = energy - mean
    squares = np.abs(deviation) ** 2
    return weight @ squares / (len(weight) - 1)
