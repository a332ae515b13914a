import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import (
    POLARIZED_2D,
    SPINS_2D,
    SPINS_3D,
    assert_equal_within_errors,
    controls_of_lowest,
    exact_draws,
    mean_and_error,
)

from heg.model.local_energy import LocalEnergy
from heg.training.control_variates import (
    SHELLS,
    Controls,
    baseline,
    coefficients,
    controlled,
    first_regression,
    update_regression,
)
from heg.training.free_energy import evaluate

some_gases = pytest.mark.parametrize(
    "gas", [POLARIZED_2D, SPINS_2D, SPINS_3D], ids=["2D-polarized", "2D-spins", "3D-spins"]
)


@functools.cache
def draws_and_controls(gas):
    model, params, walkers, _ = exact_draws(gas, 9, 2000)
    controls = controls_of_lowest(gas, 9)
    samples = jax.jit(lambda params, walkers: evaluate(model, controls, params, walkers, chunk=500))
    return walkers, samples(params, walkers)


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


@pytest.mark.parametrize("gas", [POLARIZED_2D, SPINS_3D], ids=["2D-polarized", "3D-spins"])
def test_first_regression_leaves_no_noise_without_a_flow(gas):
    model, params, walkers, _ = exact_draws(gas, 9, 2000)
    without = params._replace(flow=jax.tree.map(jnp.zeros_like, params.flow))
    few = jax.tree.map(lambda leaf: leaf[:50], walkers)
    samples = evaluate(model, controls_of_lowest(gas, 9), without, few, chunk=500)
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
    regression = update_regression(first_regression(), first.controls, first.energy)
    energy = controlled(regression, second.controls, second.energy)
    assert np.var(energy.potential) < 0.7 * np.var(second.energy.potential)
    for quiet, noisy in zip(energy, second.energy):
        difference, error = mean_and_error(jnp.real(quiet - noisy))
        assert_equal_within_errors(difference, error, 0.0, bound=0.1 * np.std(noisy))


def test_regression_recovers_a_linear_law(key):
    laws = np.linspace(-1, 1, 2 * (4 + SHELLS)).reshape(4 + SHELLS, 2)
    regression = first_regression()
    for part in jax.random.split(key, 3):
        regressors = jax.random.normal(part, (400, 4 + SHELLS)).at[:, 0].set(1.0)
        kinetic, potential = (regressors @ laws).T
        controls = Controls(regressors[:, :3], regressors[:, 3:])
        regression = update_regression(regression, controls, LocalEnergy(kinetic + 0.1j, potential))
    np.testing.assert_allclose(coefficients(regression), laws, atol=1e-4)


def test_regressors_that_do_not_vary_do_no_harm():
    # one state and no coupling: nothing but the constant is left
    controls = Controls(jnp.tile(jnp.array([1.0, 0.7, 0.0]), (8, 1)), jnp.zeros((8, 1 + SHELLS)))
    energy = LocalEnergy(jnp.full(8, 0.7 + 0j), jnp.zeros(8))
    regression = update_regression(first_regression(), controls, energy)
    np.testing.assert_allclose(baseline(regression, controls), 0.7, rtol=1e-5)
    np.testing.assert_allclose(controlled(regression, controls, energy).kinetic, 0.7, rtol=1e-12)
