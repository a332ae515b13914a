"""Energies of the states, and what the known operators explain of the local energy.

Both come from a regression on samples of x at drawn states and at their doubles.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from heg.observables.second_order.excitations import Excitations
from heg.observables.second_order.levels import Levels
from heg.observables.second_order.pair_operators import usable_operators

REPEATED = 16  # samples of x at each state
STATES = 128  # drawn, and as many excited
LEAST_SPREAD = 1e-9  # relative; a regressor that varies less among the states is constant


class _Samples(NamedTuple):
    """Samples of x at several states.

    Attributes:
      energy: E_loc, hartree.                               [S, REPEATED] complex
      operators: local values of the known operators.       [S, REPEATED, O] complex
      of_state: 1, ideal and Hartree-Fock interaction energy, hartree.    [S, 3]
      drawn: whether the state was drawn from p(K).         [S] bool
    """

    energy: np.ndarray
    operators: np.ndarray
    of_state: np.ndarray
    drawn: np.ndarray


def calibrate(
    excitations: Excitations, states: Int[np.ndarray, "batch electrons"], key: jax.Array
) -> Levels:
    """Fit e_K = c + alpha epsilon_K + gamma U_K, and the operators to what is left.

    Args:
      excitations: of the run.
      states: draws of K, of which STATES are used.
      key: of the random numbers.
    Raises:
      RunError: draws failed.
    """
    # drawn states of one call of the program, which takes as many excited ones beside them
    together = excitations.count // REPEATED // 2
    calls = -(-STATES // together)
    seed = np.asarray(jax.random.key_data(key))
    generator = np.random.default_rng(seed)
    parts = []
    for number in range(calls):
        start = number * together
        drawn = states[start : start + together]
        excited = np.stack([excitations.excite(state, generator) for state in drawn])
        part_key = jax.random.fold_in(key, number)
        parts.append(_sample(excitations, drawn, excited, part_key))
    samples = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return _fit(samples, usable_operators(excitations.system))


def _sample(excitations, drawn, excited, key):
    distinct = np.concatenate([drawn, excited])
    states = np.repeat(distinct, REPEATED, axis=0)
    count, electrons = states.shape
    # the program takes a fixed number of states: the last call is filled up with some of them
    filled = np.resize(states, (excitations.count, electrons))
    looked = excitations.look(filled, filled, key)

    def by_state(leaf):
        kept = np.asarray(leaf)[:count]
        return kept.reshape(-1, REPEATED, *kept.shape[1:])

    # the energies of a state are the same at each of its x
    of_state = by_state(looked.of_state)
    return _Samples(
        energy=by_state(looked.energy),
        operators=by_state(looked.operators),
        of_state=of_state[:, 0],
        drawn=np.arange(len(distinct)) < len(drawn),
    )


def _fit(samples, usable):
    """Levels from samples of states.

    The operators are fitted within the drawn states alone. The flow was trained on these, and
    leaves another local energy in excited ones.
    """
    operators = samples.operators[samples.drawn]
    energy = samples.energy[samples.drawn]
    # within the states, so that differences between them do not count as noise
    regressors = _centred(operators[..., usable])
    deviations = _centred(energy)
    weights = np.zeros(usable.shape)
    weights[usable] = _least_squares(regressors, deviations)

    # what the operators leave of E_loc has the mean e_K in each state
    explained = samples.operators @ weights
    unexplained = samples.energy - explained
    left = np.real(unexplained)
    energies = left.mean(axis=1)
    coefficients, covariance = _linear_fit(samples.of_state, energies)
    # the constant drops out of all differences
    of_alpha_and_gamma = covariance[1:, 1:]
    return Levels(
        weights=coefficients,
        covariance=of_alpha_and_gamma,
        operators=weights,
    )


def _centred(values):
    """Samples less the mean of their state, all states one after the other.

    [states, REPEATED, ...] -> [samples, ...]
    """
    deviations = values - values.mean(axis=1, keepdims=True)
    return deviations.reshape(-1, *values.shape[2:])


def _least_squares(regressors, values):
    """Real weights of complex regressors [S, R] for complex values [S]."""
    mean_squares = np.mean(np.abs(regressors) ** 2, axis=0)
    scale = np.sqrt(mean_squares)
    scale = np.where(scale > 0, scale, 1.0)
    # real and imaginary parts are two samples of each
    design = np.concatenate([regressors.real, regressors.imag]) / scale
    target = np.concatenate([values.real, values.imag])
    solution, *_ = np.linalg.lstsq(design, target, rcond=1e-6)
    return solution / scale


def _linear_fit(regressors, values):
    """Coefficients and their covariance.  [states, 3], [states] -> [3], [3, 3]

    The fit is to the difference from the ideal and Hartree-Fock energies (alpha = gamma = 1), which
    remain where a regressor does not vary.
    """
    prior = np.array([0.0, 1.0, 1.0])
    target = values - regressors @ prior
    # the first regressor is the constant, which has no spread
    deviations = regressors - regressors.mean(axis=0)
    variance = np.mean(deviations**2, axis=0)
    spread = np.sqrt(variance)
    largest = np.abs(regressors).max(axis=0)
    used = spread > LEAST_SPREAD * largest

    # a constant, and the regressors that vary, in units of their spread
    scale = spread[used]
    scaled = deviations[:, used] / scale
    constant = np.ones(len(values))
    design = np.column_stack([constant, scaled])
    solution, scaled_covariance = _ordinary_least_squares(design, target)

    coefficients = prior.copy()
    coefficients[used] += solution[1:] / scale
    # back in the units of the regressors
    covariance = np.zeros((3, 3))
    scales = np.outer(scale, scale)
    block = np.ix_(used, used)
    covariance[block] = scaled_covariance[1:, 1:] / scales
    # the constant of the design belongs to the mean of the regressors, c to zero
    ideal_and_fock = regressors[:, 1:] @ coefficients[1:]
    coefficients[0] = np.mean(values - ideal_and_fock)
    return coefficients, covariance


def _ordinary_least_squares(design, target):
    """Coefficients and their covariance.  [states, R], [states] -> [R], [R, R]"""
    count, regressors = design.shape
    degrees_of_freedom = max(count - regressors, 1)
    # pseudo, as ideal and Hartree-Fock energies may go along with each other
    normal = design.T @ design
    inverse = np.linalg.pinv(normal, rcond=1e-10)
    solution = inverse @ design.T @ target
    residual = target - design @ solution
    variance = residual @ residual / degrees_of_freedom
    return solution, variance * inverse
