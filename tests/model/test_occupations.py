import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import (
    GASES,
    POLARIZED_2D,
    SPINS_2D,
    all_states,
    ideal_log_prob,
    lowest_shells,
    random_like,
)

from heg.model.occupations import TransformerSize, make_occupations

SIZE = TransformerSize(layers=2, width=8, heads=2)
CASES = {"polarized": (POLARIZED_2D, 9), "spins": (SPINS_2D, 6), "3D": (GASES["3D-spins"], 7)}


@functools.cache
def make_case(name, layers=SIZE.layers):
    """p(K) at random parameters, its log_prob for many states and jitted, its orbitals and every
    state."""
    gas, count = CASES[name]
    orbitals = lowest_shells(gas, count)
    model = make_occupations(gas, orbitals, dataclasses.replace(SIZE, layers=layers))
    params = random_like(jax.eval_shape(model.init, jax.random.key(0)), jax.random.key(3), 0.3)
    log_probs = jax.jit(jax.vmap(model.log_prob, (None, 0)))
    return (
        gas,
        orbitals,
        model._replace(log_prob=log_probs),
        params,
        all_states(gas.spins, len(orbitals.energy)),
    )


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("name", CASES)
def test_probabilities_of_all_states_sum_to_one(name, layers):
    _, _, model, params, states = make_case(name, layers)
    np.testing.assert_allclose(jnp.sum(jnp.exp(model.log_prob(params, states))), 1.0, rtol=1e-10)


@pytest.mark.parametrize("name", ["polarized", "spins"])
def test_untrained_is_the_exact_ideal_gas(name, key):
    gas, orbitals, model, _, states = make_case(name)
    log_p = model.log_prob(model.init(key), states)
    np.testing.assert_allclose(log_p, ideal_log_prob(gas, orbitals, states), rtol=1e-10)


def test_trained_levels_alone_are_the_ideal_gas_of_those_levels():
    gas, orbitals, model, params, states = make_case("polarized", layers=0)
    (shift,) = jax.tree.leaves(params)
    levels = orbitals._replace(energy=orbitals.energy + gas.fermi_energy * np.asarray(shift[0]))
    np.testing.assert_allclose(
        model.log_prob(params, states), ideal_log_prob(gas, levels, states), rtol=1e-10
    )


@pytest.mark.parametrize("name", CASES)
def test_frequencies_of_samples_follow_the_probabilities(name, key):
    gas, orbitals, model, params, states = make_case(name)
    draws = 20000
    samples = jax.jit(jax.vmap(model.sample, (None, 0)))(params, jax.random.split(key, draws))
    assert samples.dtype == jnp.int32
    place = {
        tuple(state): number for number, state in enumerate(states)
    }  # a sample not listed is no state
    observed = np.bincount(
        [place[tuple(sample)] for sample in np.asarray(samples)], minlength=len(states)
    )

    def chi_squared(log_p):
        """Over states expected five times or more, the others together."""
        expected = draws * np.exp(np.asarray(log_p))
        merge = lambda counts: np.append(counts[expected >= 5], counts[expected < 5].sum())
        terms = (merge(observed) - merge(expected)) ** 2 / np.maximum(merge(expected), 1)
        return terms.sum(), len(terms) - 1

    value, freedom = chi_squared(model.log_prob(params, states))
    assert abs(value - freedom) < 4 * np.sqrt(2 * freedom)
    # the statistic tells the network's distribution from the ideal gas
    assert chi_squared(ideal_log_prob(gas, orbitals, states))[0] > 10 * freedom


def test_pauli_principle_and_order_are_masked():
    _, _, model, params, _ = make_case("spins")
    lawful = [[0, 3, 3], [2, 4, 0]]
    unlawful = [[3, 3, 0], [3, 0, 0], [4, 2, 1]]
    assert np.all(model.log_prob(params, np.array(lawful)) > -100)
    assert np.all(model.log_prob(params, np.array(unlawful)) < -1e20)


@pytest.mark.parametrize("name", ["polarized", "spins"])
def test_gradient_of_the_log_probability_is_its_slope(name, key):
    _, _, model, params, states = make_case(name)
    state = jnp.asarray(states[len(states) // 3])
    direction = random_like(params, jax.random.fold_in(key, 1), 1.0)
    log_p = jax.jit(
        lambda t: model.log_prob(
            jax.tree.map(lambda p, v: p + t * v, params, direction), state[None]
        )[0]
    )
    h = 1e-3  # error of the five-point formula: h^4
    slope = (8 * (log_p(h) - log_p(-h)) - log_p(2 * h) + log_p(-2 * h)) / (12 * h)
    np.testing.assert_allclose(jax.jit(jax.grad(log_p))(0.0), slope, rtol=1e-7)


def test_many_more_orbitals_than_electrons_stay_normalised(key):
    # cold and far beyond the Fermi level: probabilities down to e^-1000
    gas = dataclasses.replace(POLARIZED_2D, n_up=2, theta=0.05)
    orbitals = lowest_shells(gas, 140)
    model = make_occupations(gas, orbitals, dataclasses.replace(SIZE, layers=0))
    params = random_like(jax.eval_shape(model.init, key), key, 0.1)
    log_p = jax.jit(jax.vmap(model.log_prob, (None, 0)))(
        params, all_states(gas.spins, len(orbitals.energy))
    )
    assert jnp.min(log_p) < -1000
    np.testing.assert_allclose(jnp.sum(jnp.exp(log_p)), 1.0, rtol=1e-10)
    slope = jax.jit(jax.grad(model.log_prob))(params, jnp.array([0, len(orbitals.energy) - 1]))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


def test_ideal_energy_is_the_sum_of_the_levels():
    _, orbitals, model, _, states = make_case("spins")
    np.testing.assert_allclose(
        model.ideal_energy(states[5]), orbitals.energy[states[5]].sum(), rtol=1e-12
    )
