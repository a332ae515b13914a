"""Operators of pairs: local values beside differentiation, matrix elements beside samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import GASES, ground_state, lowest_shells, random_positions

from heg.gas.plane_waves import make_waves
from heg.model.kinetic import generic_kinetic_energy
from heg.observables.second_order.doubles import DoublesOf, make_ratios
from heg.observables.second_order.pair_operators import (
    count_operators,
    make_pair_operators,
    pair_elements,
    waves_of,
)
from heg.sampling.exact_draws import draw_determinant

LARGEST = 4
each_gas = pytest.mark.parametrize("gas", GASES.values(), ids=GASES)


def log_slater(gas, orbitals, state):
    waves = make_waves(gas, orbitals)
    twist = 2 * np.pi / gas.box * np.asarray(gas.twist)

    def log(z):
        signs, logs = zip(*(jnp.linalg.slogdet(waves(z[part], state[part])) for part in gas.parts))
        return sum(logs) + sum(map(jnp.log, signs)) + 1j * jnp.sum(z @ twist)

    return log


@each_gas
def test_the_local_value_of_a_commutator_is_what_differentiation_gives(gas, key):
    orbitals, state = lowest_shells(gas, 9), ground_state(gas)
    operators = jax.jit(make_pair_operators(gas, orbitals))
    z = random_positions(gas, key)
    log_psi, shells = log_slater(gas, orbitals, state), len(waves_of(gas).size)

    def kinetic(shell):
        """(T A Phi) / (A Phi) with A shifted so that it does not vanish."""
        value = lambda z: jnp.real(operators(z, state)[1 + shell]) + 1000.0
        return value(z), generic_kinetic_energy(lambda z: log_psi(z) + jnp.log(value(z)), z)

    ideal = generic_kinetic_energy(log_psi, z)
    values = operators(z, state)
    for shell in range(2):
        shifted, energy = kinetic(shell)
        np.testing.assert_allclose(
            values[1 + shells + shell], shifted * (energy - ideal), rtol=1e-7, atol=1e-7
        )


@each_gas
def test_elements_are_the_means_that_samples_have(gas, key):
    """E[C* Phi_K' / Phi_K] by exact draws, in units of its errors: chi^2 over all doubles and
    operators."""
    orbitals, state = lowest_shells(gas, 9), ground_state(gas)
    operators, waves = make_pair_operators(gas, orbitals), make_waves(gas, orbitals)
    ratios = make_ratios(gas, orbitals, LARGEST)

    def sample(key):
        keys = jax.random.split(key, len(gas.spins))
        spins = [
            draw_determinant(lambda z: waves(z, state[part]), gas.box, (count, gas.dim), one)
            for part, count, one in zip(gas.parts, gas.spins, keys)
        ]
        z = jnp.concatenate(spins)
        return operators(z, state), ratios(z, state)

    values, ratio = map(np.asarray, jax.jit(jax.vmap(sample))(jax.random.split(key, 4000)))
    doubles_of = DoublesOf(gas, orbitals, LARGEST)
    doubles = doubles_of(np.asarray(state))
    pulls = []
    for number in range(count_operators(gas)):
        weights = np.zeros(count_operators(gas))
        weights[number] = 1.0
        expected = doubles.elements(pair_elements(gas, weights, doubles_of.strength))
        terms = np.real(np.conj(values[:, number, None]) * ratio)[:, doubles.allowed]
        error = terms.std(axis=0, ddof=1) / np.sqrt(len(terms))
        pulls.append((terms.mean(axis=0) - expected[doubles.allowed]) / error)
        assert abs(values[:, number].mean()) < 5 * values[:, number].std() / np.sqrt(len(values))
    pulls = np.concatenate(pulls)
    assert len(pulls) > 100
    assert 0.8 < np.mean(pulls**2) < 1.25
