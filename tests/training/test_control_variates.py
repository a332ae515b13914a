import functools

import jax
import numpy as np
import pytest
from known_systems import (
    POLARIZED_2D,
    SPINS_2D,
    SPINS_3D,
    assert_equal_within_errors,
    controls_of_lowest,
    exact_draws,
    generator,
    mean_and_error,
)

from heg.model.local_energy import LocalEnergy
from heg.training import control_variates
from heg.training.control_variates import SHELLS, Controls, first_regression
from heg.training.free_energy import evaluate

baseline = jax.jit(control_variates.baseline)
coefficients = jax.jit(control_variates.coefficients)
controlled = jax.jit(control_variates.controlled)
update_regression = jax.jit(control_variates.update_regression)

some_gases = pytest.mark.parametrize(
    "gas", [POLARIZED_2D, SPINS_2D, SPINS_3D], ids=["2D-polarized", "2D-spins", "3D-spins"]
)


@functools.cache
def evaluation(gas):
    """Samples as a function of (params, walkers), compiled."""
    model, _, _, _ = exact_draws(gas, 9, 2000)
    controls = controls_of_lowest(gas, 9)
    return jax.jit(lambda params, walkers: evaluate(model, controls, params, walkers, chunk=500))


@functools.cache
def draws_and_controls(gas):
    _, params, walkers, _ = exact_draws(gas, 9, 2000)
    return walkers, jax.device_get(evaluation(gas)(params, walkers))


@some_gases
def test_deviations_vanish_on_average_for_a_flow_with_weights(gas):
    _, samples = draws_and_controls(gas)
    deviations = np.asarray(samples.controls.deviations)
    mean, error = mean_and_error(deviations)
    assert np.all(np.std(deviations, axis=0) > 1e-3)
    assert_equal_within_errors(mean / error, 1.0, 0.0, bound=1.1)


def test_deviations_vanish_in_each_state():
    walkers, samples = draws_and_controls(POLARIZED_2D)
    states, number, count = np.unique(
        walkers.state, axis=0, return_inverse=True, return_counts=True
    )
    worst = []
    for state in np.flatnonzero(count > 100):
        mean, error = mean_and_error(samples.controls.deviations[number == state])
        worst.append(mean / error)
    assert len(worst) >= 3
    assert_equal_within_errors(np.array(worst), 1.0, 0.0, bound=1.1)


def test_b_is_nearly_the_mean_energy_of_each_state():
    walkers, samples = draws_and_controls(POLARIZED_2D)
    # fitted on some, judged on the others
    some, others = (
        jax.tree.map(lambda leaf: leaf[part], samples) for part in (slice(500), slice(500, None))
    )
    regression = update_regression(first_regression(), some.controls, some.energy, 0)
    b = np.asarray(baseline(regression, others.controls))
    quiet = np.real(controlled(regression, others.controls, others.energy).total)
    _, number, count = np.unique(
        walkers.state[500:], axis=0, return_inverse=True, return_counts=True
    )
    of_states, excess, errors = [], [], []
    for state in np.flatnonzero(count > 25):
        of_states.append(b[number == state][0])
        mean, error = mean_and_error(quiet[number == state] - b[number == state])
        excess.append(mean)
        errors.append(error)
    assert len(errors) > 6
    assert_equal_within_errors(excess, errors, 0.0, bound=0.5 * np.std(of_states))


@pytest.mark.parametrize("gas", [POLARIZED_2D, SPINS_3D], ids=["2D-polarized", "3D-spins"])
def test_first_regression_leaves_no_noise_without_a_flow(gas):
    _, params, walkers, _ = exact_draws(gas, 9, 2000)
    without = params._replace(flow=jax.tree.map(np.zeros_like, params.flow))
    samples = jax.device_get(evaluation(gas)(without, walkers))
    energy = controlled(first_regression(), samples.controls, samples.energy)
    of_state = samples.controls.of_state
    np.testing.assert_allclose(energy.kinetic.real, of_state[:, 1], rtol=1e-9)
    np.testing.assert_allclose(energy.potential, of_state[:, 2], rtol=1e-9)
    assert np.std(samples.energy.potential) > 0.01
    np.testing.assert_allclose(
        baseline(first_regression(), samples.controls), of_state[:, 1:].sum(axis=1), rtol=1e-9
    )


@some_gases
def test_control_leaves_the_mean_and_takes_noise_away(gas):
    _, samples = draws_and_controls(gas)
    first, second = (
        jax.tree.map(lambda leaf: leaf[part], samples) for part in (slice(1000), slice(1000, None))
    )
    regression = update_regression(first_regression(), first.controls, first.energy, 0)
    energy = jax.device_get(controlled(regression, second.controls, second.energy))
    assert np.var(energy.potential) < 0.7 * np.var(second.energy.potential)
    for quiet, noisy in zip(energy, second.energy):
        difference, error = mean_and_error(np.real(quiet - noisy))
        assert_equal_within_errors(difference, error, 0.0, bound=0.1 * np.std(noisy))


def test_regression_recovers_a_linear_law(key):
    laws = np.linspace(-1, 1, 2 * (4 + SHELLS)).reshape(4 + SHELLS, 2)
    regression = first_regression()
    rng = generator(key)
    for number in range(3):
        regressors = rng.normal(size=(400, 4 + SHELLS))
        regressors[:, 0] = 1.0
        kinetic, potential = (regressors @ laws).T
        controls = Controls(regressors[:, :3], regressors[:, 3:])
        energy = LocalEnergy(kinetic + 0.1j, potential)
        regression = update_regression(regression, controls, energy, number)
    np.testing.assert_allclose(coefficients(regression), laws, atol=1e-4)


def test_what_falls_from_batch_to_batch_does_not_follow_from_what_falls_beside_it(key):
    slopes = np.linspace(-1, 1, 2 * (3 + SHELLS)).reshape(3 + SHELLS, 2)
    regression = first_regression()
    rng = generator(key)
    for number in range(30):
        regressors = rng.normal(size=(400, 3 + SHELLS)) - number
        kinetic, potential = (regressors @ slopes).T - 10 * number
        constant = np.ones((400, 1))
        controls = Controls(np.hstack([constant, regressors[:, :2]]), regressors[:, 2:])
        energy = LocalEnergy(kinetic + 0.1j, potential)
        regression = update_regression(regression, controls, energy, number)
    np.testing.assert_allclose(coefficients(regression)[1:], slopes, atol=1e-4)


def test_regressors_that_do_not_vary_do_no_harm():
    # one state and no coupling: nothing but the constant is left
    controls = Controls(np.tile([1.0, 0.7, 0.0], (8, 1)), np.zeros((8, 1 + SHELLS)))
    energy = LocalEnergy(np.full(8, 0.7 + 0j), np.zeros(8))
    regression = update_regression(first_regression(), controls, energy, 0)
    np.testing.assert_allclose(baseline(regression, controls), 0.7, rtol=1e-5)
    np.testing.assert_allclose(controlled(regression, controls, energy).kinetic, 0.7, rtol=1e-12)
