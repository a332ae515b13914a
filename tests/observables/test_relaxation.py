"""What p(K) has not relaxed to, beside sums over all states."""

import numpy as np
import pytest
from known_systems import (
    GASES,
    all_states,
    controls_of_lowest,
    lowest_shells,
    random_positions,
)

from heg.observables.second_order.levels import Levels
from heg.observables.second_order.relaxation import relaxation, state_energies

COUNT = 20_000


@pytest.mark.parametrize("system", GASES.values(), ids=GASES)
def test_the_energies_of_states_are_those_of_the_control_variates(system, key):
    orbitals = lowest_shells(system, 6)
    states = all_states(system.spins, len(orbitals.energy))[:5]
    z = random_positions(system, key)
    controls = controls_of_lowest(system, 6)
    expected = [np.asarray(controls(z, state).of_state)[1:] for state in states]
    found = state_energies(system, orbitals, states)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("system", GASES.values(), ids=GASES)
@pytest.mark.parametrize("alpha, gamma", [(1.0, 0.0), (1.1, 0.0), (1.0, 0.3)])
def test_the_best_probabilities_lower_the_free_energy_by_the_relative_entropy(system, alpha, gamma):
    # p(K) is that of the ideal gas, the energies are others
    orbitals = lowest_shells(system, 6)
    states = all_states(system.spins, len(orbitals.energy))
    ideal, fock = state_energies(system, orbitals, states).T
    log_p = -system.beta * ideal
    log_p -= np.log(np.sum(np.exp(log_p)))
    p = np.exp(log_p)
    energy = alpha * ideal + gamma * fock
    lowest = energy.min()
    best = lowest - system.temperature * np.log(np.sum(np.exp(-system.beta * (energy - lowest))))
    expected = best - p @ (energy + system.temperature * log_p)
    drawn = np.random.default_rng(1).choice(len(states), COUNT, p=p)
    levels = Levels(np.array([0.0, alpha, gamma]), np.zeros((2, 2)), np.zeros(0))
    found = relaxation(system, orbitals, levels, states[drawn], log_p[drawn])
    assert expected <= 1e-12
    assert abs(found.value - expected) < 4 * found.error + 1e-10
    assert found.error < 0.2 * abs(expected) + 1e-10
    p_best = np.exp(-system.beta * (energy - best))
    entropy = -p_best @ np.log(p_best)
    assert abs(found.entropy - entropy) < 4 * found.entropy_error + 1e-10
    assert found.entropy_error < 0.05 * entropy


def test_the_noise_of_the_energies_does_not_count_as_relaxation():
    system = GASES["2D-polarized"]
    orbitals = lowest_shells(system, 6)
    states = all_states(system.spins, len(orbitals.energy))
    ideal = state_energies(system, orbitals, states)[:, 0]
    log_p = -system.beta * ideal
    log_p -= np.log(np.sum(np.exp(log_p)))
    rng = np.random.default_rng(2)
    drawn = rng.choice(len(states), 4000, p=np.exp(log_p))
    covariance = np.diag([1e-3, 0.0])
    values, errors = [], []
    for alpha in rng.normal(1.0, np.sqrt(covariance[0, 0]), 100):
        levels = Levels(np.array([0.0, alpha, 0.0]), covariance, np.zeros(0))
        value, error, *_ = relaxation(system, orbitals, levels, states[drawn], log_p[drawn])
        values.append(value)
        errors.append(error)
    pull = np.mean(values) / (np.std(values) / 10)
    noise = system.beta / 2 * covariance[0, 0] * np.var(ideal[drawn])
    assert abs(pull) < 4 and np.std(values) / 10 < 0.2 * noise
    assert np.mean(np.abs(values) < 3 * np.array(errors)) > 0.95
