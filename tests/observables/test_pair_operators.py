"""Operators of pairs: local values beside differentiation, matrix elements beside samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import GASES, GASES_OF_TWO_SPINS, ground_state, lowest_shells, random_positions

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
each_gas_of_two_spins = pytest.mark.parametrize(
    "gas", GASES_OF_TWO_SPINS.values(), ids=GASES_OF_TWO_SPINS
)


def log_slater(gas, orbitals, state):
    """Complex ln Phi as a function of z, the twist included."""
    waves = make_waves(gas, orbitals)
    twist = 2 * np.pi / gas.box * np.asarray(gas.twist)

    def log(z):
        total = 1j * jnp.sum(z @ twist)
        for part in gas.parts:
            determinant = jnp.linalg.slogdet(waves(z[part], state[part]))
            total += determinant.logabsdet + jnp.log(determinant.sign)
        return total

    return log


@each_gas_of_two_spins
def test_the_local_value_of_a_commutator_is_what_differentiation_gives(gas, key):
    orbitals, state = lowest_shells(gas, 9), ground_state(gas)
    operators = make_pair_operators(gas, orbitals)
    z = random_positions(gas, key)
    log_psi = log_slater(gas, orbitals, state)
    shells = len(waves_of(gas).size)

    def commutator(shell):
        """(T A Phi - A T Phi) / Phi"""
        # shifted so that it does not vanish, which changes no commutator
        shifted = lambda z: jnp.real(operators(z, state)[1 + shell]) + 1000.0
        log_product = lambda z: log_psi(z) + jnp.log(shifted(z))
        ideal = generic_kinetic_energy(log_psi, z)
        return shifted(z) * (generic_kinetic_energy(log_product, z) - ideal)

    values = jax.jit(operators)(z, state)
    expected = jax.jit(lambda shells: jax.lax.map(commutator, shells))(jnp.arange(2))
    np.testing.assert_allclose(values[1 + shells :][:2], expected, rtol=1e-7, atol=1e-7)


@each_gas
def test_elements_are_the_means_that_samples_have(gas, key):
    """chi^2 of E[C* Phi_K' / Phi_K] by exact draws, over all doubles and operators."""
    orbitals, state = lowest_shells(gas, 9), ground_state(gas)
    operators = make_pair_operators(gas, orbitals)
    waves = make_waves(gas, orbitals)
    ratios = make_ratios(gas, orbitals, LARGEST)

    def sample(key):
        keys = jax.random.split(key, len(gas.spins))
        spins = []
        for part, count, spin_key in zip(gas.parts, gas.spins, keys):
            waves_of_spin = lambda z: waves(z, state[part])
            shape = (count, gas.dim)
            spins.append(draw_determinant(waves_of_spin, gas.box, shape, spin_key))
        z = jnp.concatenate(spins)
        return operators(z, state), ratios(z, state)

    samples = jax.jit(jax.vmap(sample))(jax.random.split(key, 4000))
    values, ratio = map(np.asarray, samples)
    doubles_of = DoublesOf(gas, orbitals, LARGEST)
    doubles = doubles_of(np.asarray(state))
    pulls = []
    for number in range(count_operators(gas)):
        weights = np.zeros(count_operators(gas))
        weights[number] = 1.0
        expected = doubles.elements(pair_elements(gas, weights, doubles_of.strength))
        terms = np.real(np.conj(values[:, number, None]) * ratio)
        terms = terms[:, doubles.allowed]
        error = terms.std(axis=0, ddof=1) / np.sqrt(len(terms))
        pulls.append((terms.mean(axis=0) - expected[doubles.allowed]) / error)
        # each local value is zero on average
        value = values[:, number]
        assert abs(value.mean()) < 5 * value.std() / np.sqrt(len(value))
    pulls = np.concatenate(pulls)
    assert len(pulls) > 100
    assert 0.8 < np.mean(pulls**2) < 1.25
