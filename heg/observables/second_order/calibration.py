"""Energies of the states, and what the known operators explain of the local energy, by regression
on samples."""

from typing import NamedTuple

import jax
import numpy as np

from heg.observables.second_order.excitations import Excitations
from heg.observables.second_order.levels import Levels
from heg.observables.second_order.pair_operators import usable_operators

REPEATED = 16  # samples of x at each state
STATES = 128  # drawn, and as many excited


class _Samples(NamedTuple):
    """Of states, REPEATED of each along the second axis."""

    energy: np.ndarray
    operators: np.ndarray
    of_state: np.ndarray
    drawn: np.ndarray  # of each state: was it drawn from p(K)?


def calibrate(excitations: Excitations, states: np.ndarray, key: jax.Array) -> Levels:
    """Fits e_K = c + alpha epsilon_K + gamma U_K, and the operators to what is left.

    Args:
      excitations: of the run.
      states: draws of K, of which STATES are used.         [B, N]
      key: of the random numbers.
    """
    together = excitations.count // REPEATED // 2
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    parts = []
    for number in range(-(-STATES // together)):
        drawn = states[number * together : (number + 1) * together]
        excited = np.stack([excitations.excite(state, generator) for state in drawn])
        parts.append(_sample(excitations, drawn, excited, jax.random.fold_in(key, number)))
    samples = _Samples(*(np.concatenate(column) for column in zip(*parts)))
    return _fit(samples, usable_operators(excitations.system))


def _sample(excitations, drawn, excited, key):
    states = np.repeat(np.concatenate([drawn, excited]), REPEATED, axis=0)
    # the programs take so many states and no others
    filled = np.resize(states, (excitations.count, states.shape[1]))
    looked = excitations.look(filled, filled, key)

    def by_state(leaf):
        kept = np.asarray(leaf)[: len(states)]
        return kept.reshape(-1, REPEATED, *kept.shape[1:])

    return _Samples(
        energy=by_state(looked.energy),
        operators=by_state(looked.operators),
        of_state=by_state(looked.of_state)[:, 0],
        drawn=np.arange(len(states) // REPEATED) < len(drawn),
    )


def _fit(samples, usable):
    """Levels from samples of states.

    The operators are fitted within the drawn states alone: these the flow serves, and couples
      others in another way.
    """
    operators = _centred(samples.operators[samples.drawn][..., usable])
    weights = np.zeros(len(usable))
    weights[usable] = _least_squares(operators, _centred(samples.energy[samples.drawn]))
    left = np.real(samples.energy - samples.operators @ weights)
    coefficients, covariance = _linear_fit(samples.of_state, left.mean(axis=1))
    return Levels(coefficients, covariance[1:, 1:], weights)


def _centred(values):
    """Less the mean of each state, all states one after the other.  [states, REPEATED, ...] ->
    [samples, ...]"""
    deviations = values - values.mean(axis=1, keepdims=True)
    return deviations.reshape(-1, *values.shape[2:])


def _least_squares(regressors, values):
    """Real weights of complex regressors [S, R] for complex values [S]."""
    scale = np.sqrt(np.mean(np.abs(regressors) ** 2, axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    both = np.concatenate([regressors.real, regressors.imag]) / scale
    target = np.concatenate([values.real, values.imag])
    return np.linalg.lstsq(both, target, rcond=1e-6)[0] / scale


def _linear_fit(regressors, values):
    """Coefficients and their covariance; without room for a fit, those of the ideal and
    Hartree-Fock energies."""
    prior = np.array([0.0, 1.0, 1.0])
    deviations = regressors - regressors.mean(axis=0)
    scale = np.sqrt(np.mean(deviations**2, axis=0))
    used = scale > 1e-9 * np.abs(regressors).max(axis=0)
    design = np.column_stack([np.ones(len(values)), deviations[:, used] / scale[used]])
    target = values - regressors @ prior
    inverse = np.linalg.pinv(design.T @ design, rcond=1e-10)
    solution = inverse @ design.T @ target
    residual = target - design @ solution
    spread = residual @ residual / max(len(values) - design.shape[1], 1)
    coefficients, covariance = prior.copy(), np.zeros((3, 3))
    coefficients[used] += solution[1:] / scale[used]
    covariance[np.ix_(used, used)] = spread * inverse[1:, 1:] / np.outer(scale[used], scale[used])
    coefficients[0] = np.mean(values - regressors[:, 1:] @ coefficients[1:])
    return coefficients, covariance
