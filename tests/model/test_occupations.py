import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

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

from heg.gas.plane_waves import Orbitals
from heg.gas.system import System
from heg.model.occupations import Occupations, TransformerSize, make_occupations

SIZE = TransformerSize(layers=2, width=8, heads=2)
CASES = {"polarized": (POLARIZED_2D, 9), "spins": (SPINS_2D, 6), "3D": (GASES["3D-spins"], 7)}


class Case(NamedTuple):
    """p(K) at random parameters.

    Attributes:
      gas: the gas.
      orbitals: that may be occupied.
      model: of p(K).
      log_prob: ln p(K) of many states, compiled, as a function of (params, states).
      params: the parameters.
      states: every state.
    """

    gas: System
    orbitals: Orbitals
    model: Occupations
    log_prob: Callable
    params: dict
    states: np.ndarray


@functools.cache
def make_case(name, layers=SIZE.layers):
    gas, count = CASES[name]
    orbitals = lowest_shells(gas, count)
    model = make_occupations(gas, orbitals, dataclasses.replace(SIZE, layers=layers))
    params = random_like(jax.eval_shape(model.init, jax.random.key(0)), jax.random.key(3), 0.3)
    return Case(
        gas=gas,
        orbitals=orbitals,
        model=model,
        log_prob=jax.jit(jax.vmap(model.log_prob, (None, 0))),
        params=params,
        states=all_states(gas.spins, len(orbitals.energy)),
    )


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("name", CASES)
def test_probabilities_of_all_states_sum_to_one(name, layers):
    case = make_case(name, layers)
    total = np.sum(np.exp(case.log_prob(case.params, case.states)))
    np.testing.assert_allclose(total, 1.0, rtol=1e-10)


@pytest.mark.parametrize("name", ["polarized", "spins"])
def test_untrained_is_the_exact_ideal_gas(name, key):
    case = make_case(name)
    log_p = case.log_prob(jax.jit(case.model.init)(key), case.states)
    expected = ideal_log_prob(case.gas, case.orbitals, case.states)
    np.testing.assert_allclose(log_p, expected, rtol=1e-10)


def test_trained_levels_alone_are_the_ideal_gas_of_those_levels():
    case = make_case("polarized", layers=0)
    (shift,) = jax.tree.leaves(case.params)
    energy = case.orbitals.energy + case.gas.fermi_energy * np.asarray(shift[0])
    expected = ideal_log_prob(case.gas, case.orbitals._replace(energy=energy), case.states)
    np.testing.assert_allclose(case.log_prob(case.params, case.states), expected, rtol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_frequencies_of_samples_follow_the_probabilities(name, key):
    case = make_case(name)
    states = case.states
    draws = 20000
    sample = jax.jit(jax.vmap(case.model.sample, (None, 0)))
    samples = sample(case.params, jax.random.split(key, draws))
    assert samples.dtype == jnp.int32
    # a sample that is not listed is no state
    index = {tuple(state): number for number, state in enumerate(states)}
    sampled = [index[tuple(sample)] for sample in np.asarray(samples)]
    observed = np.bincount(sampled, minlength=len(states))

    def chi_squared(log_p):
        """Over states expected five times or more, the others together."""
        expected = draws * np.exp(np.asarray(log_p))
        merge = lambda counts: np.append(counts[expected >= 5], counts[expected < 5].sum())
        terms = (merge(observed) - merge(expected)) ** 2 / np.maximum(merge(expected), 1)
        return terms.sum(), len(terms) - 1

    value, freedom = chi_squared(case.log_prob(case.params, states))
    assert abs(value - freedom) < 4 * np.sqrt(2 * freedom)
    # the statistic tells the network's distribution from the ideal gas
    of_ideal, _ = chi_squared(ideal_log_prob(case.gas, case.orbitals, states))
    assert of_ideal > 10 * freedom


def test_pauli_principle_and_order_are_masked():
    case = make_case("spins")
    lawful = np.array([[0, 3, 3], [2, 4, 0]])
    unlawful = np.array([[3, 3, 0], [3, 0, 0], [4, 2, 1]])
    assert np.all(case.log_prob(case.params, lawful) > -100)
    assert np.all(case.log_prob(case.params, unlawful) < -1e20)


@pytest.mark.parametrize("name", ["polarized", "spins"])
def test_gradient_of_the_log_probability_is_its_slope(name, key):
    case = make_case(name)
    state = case.states[len(case.states) // 3]
    direction = random_like(case.params, jax.random.fold_in(key, 1), 1.0)

    @jax.jit
    def log_p(t):
        params = jax.tree.map(lambda p, v: p + t * v, case.params, direction)
        return case.model.log_prob(params, state)

    h = 1e-3  # error of the five-point formula: h^4
    slope = (8 * (log_p(h) - log_p(-h)) - log_p(2 * h) + log_p(-2 * h)) / (12 * h)
    np.testing.assert_allclose(jax.jit(jax.grad(log_p))(0.0), slope, rtol=1e-7)


def test_many_more_orbitals_than_electrons_stay_normalised(key):
    # cold and far beyond the Fermi level: probabilities down to e^-1000
    gas = dataclasses.replace(POLARIZED_2D, n_up=2, theta=0.05)
    orbitals = lowest_shells(gas, 140)
    model = make_occupations(gas, orbitals, dataclasses.replace(SIZE, layers=0))
    params = random_like(jax.eval_shape(model.init, key), key, 0.1)
    states = all_states(gas.spins, len(orbitals.energy))
    log_p = jax.jit(jax.vmap(model.log_prob, (None, 0)))(params, states)
    assert np.min(log_p) < -1000
    np.testing.assert_allclose(np.sum(np.exp(log_p)), 1.0, rtol=1e-10)
    slope = jax.jit(jax.grad(model.log_prob))(params, np.array([0, len(orbitals.energy) - 1]))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


def test_ideal_energy_is_the_sum_of_the_levels():
    case = make_case("spins")
    state = case.states[5]
    expected = case.orbitals.energy[state].sum()
    np.testing.assert_allclose(case.model.ideal_energy(state), expected, rtol=1e-12)
