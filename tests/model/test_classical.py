"""The classical plasma: its density, its bound, and the bound lifted."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import random_like
from small_runs import small_config

from heg import plasma
from heg.config import ModelConfig, SystemConfig
from heg.gas.coulomb import coulomb_energy
from heg.gas.ideal import choose_cutoff
from heg.model.density_matrix import Params, build_model
from heg.statistics import independent, reweighted
from heg.training.control_variates import first_regression
from heg.training.state import key_of_run
from heg.training.step import build

GAMMA = 2.0


def model_of(gas, flow_layers=2):
    orbitals = choose_cutoff(gas, 1e-6).orbitals
    return build_model(gas, orbitals, ModelConfig(flow_layers=flow_layers, flow_width=4))


def bent(model, key):
    """Parameters of a flow far from the identity."""
    flow = jax.jit(model.flow.init)(key)
    noise = random_like(flow, key, 0.1)
    return jax.tree.map(lambda leaf, more: np.add(leaf, more), flow, noise)


def grid_of_pairs(gas, points):
    """One electron at the origin, the other on a lattice of midpoints over the cell.  [P, 2, d]"""
    middles = gas.box * (np.arange(points) + 0.5) / points
    where = np.stack(np.meshgrid(*[middles] * gas.dim, indexing="ij"), axis=-1)
    other = where.reshape(-1, gas.dim)
    return np.stack([np.zeros_like(other), other], axis=1)


@functools.cache
def exact_free_energy(dim, points):
    """beta f_exc of two electrons: -ln of the mean of e^{-Gamma V} over their separation, over 2.

    Midpoints of a periodic function without a singularity: e^{-Gamma / r} has all derivatives zero
    at r = 0.
    """
    gas = plasma(2, dim, GAMMA)
    energies = jax.jit(jax.vmap(lambda x: coulomb_energy(x, gas)))
    energy = energies(grid_of_pairs(gas, points))
    return float(-np.log(np.mean(np.exp(-GAMMA * energy))) / 2)


@pytest.mark.parametrize("dim, points", [(2, 64), (3, 24)])
def test_two_electrons_are_those_of_quadrature(dim, points, key):
    gas = plasma(2, dim, GAMMA)
    exact = exact_free_energy(dim, points)
    assert exact == pytest.approx(exact_free_energy(dim, points // 2), abs=1e-6)
    model = model_of(gas)
    flow = bent(model, key)

    def sample(z):
        inverse = model.flow.inverse(flow, z)
        energy, _ = model.local_energy(flow, inverse.x, np.zeros(2, int))
        return energy.weights(gas.temperature)["log_weight"], inverse.verified

    # z on the lattice stands for uniform draws: x comes by the way that every draw takes
    samples = jax.jit(jax.vmap(sample))
    log_weight, verified = jax.device_get(samples(grid_of_pairs(gas, points)))
    assert verified.all()
    lifted = -np.log(np.mean(np.exp(log_weight))) / 2
    assert lifted == pytest.approx(exact, abs=1e-6)
    bound = -np.mean(log_weight) / 2
    assert bound > exact + 1e-3


def test_the_density_is_normalised_and_its_score_is_its_gradient(key):
    gas = plasma(2, 2, GAMMA)
    model = model_of(gas)
    flow = bent(model, key)
    state = np.zeros(2, int)
    x = grid_of_pairs(gas, 64)
    log_psi = jax.jit(jax.vmap(lambda x: model.log_psi(flow, x, state)))(x)
    assert not np.any(np.imag(log_psi))
    # the other electron carries the volume of the cell
    norm = np.mean(np.exp(2 * np.real(log_psi))) * gas.box ** (gas.dim * gas.electrons)
    assert norm == pytest.approx(1.0, abs=1e-6)

    one = x[1000]
    real = lambda flow, x: jnp.real(model.log_psi(flow, x, state))
    by_flow, by_x = jax.jit(jax.grad(real, (0, 1)))(flow, one)
    score = jax.device_get(jax.jit(model.score)(flow, one, state))
    np.testing.assert_allclose(score.x, by_x, rtol=1e-9, atol=1e-12)
    for parts, expected in zip(jax.tree.leaves(score.params), jax.tree.leaves(by_flow)):
        np.testing.assert_allclose(parts[0], expected, rtol=1e-9, atol=1e-12)
        assert not np.any(parts[1])


@pytest.fixture(scope="module")
def trained():
    """A small plasma after a few steps, and samples of it."""
    gas = SystemConfig(4, 3, statistics="classical", gamma=1.0)
    config = small_config(gas, flow_layers=2)
    config = dataclasses.replace(
        config, sampler=dataclasses.replace(config.sampler, batch=128, chunk=128)
    )
    solver = build(config)
    state = solver.init(key_of_run(1))
    for _ in range(15):
        state, info = solver.step(state)
    batches = []
    for number in range(16):
        samples, _ = solver.measure(state.params, jax.random.key(number))
        batches.append(solver.per_electron(samples, state.regression))
    values = {name: np.concatenate([one[name] for one in batches]) for name in batches[0]}
    return solver, state, values


def test_training_lowers_the_bound_towards_the_reweighted_value(trained):
    solver, _, values = trained
    electrons = solver.system.electrons
    bound = independent(values["F"])
    lifted = reweighted(electrons * values["log_weight"], electrons * values["potential"])
    assert lifted.is_estimate and lifted.log_mean.error / electrons < 5e-3
    exact = -lifted.log_mean.mean / electrons
    start = solver.per_electron(
        solver.measure(solver.init(key_of_run(1)).params, jax.random.key(0))[0],
        first_regression(),
    )["F"].mean()
    # at the start the bound is the Madelung energy
    assert start - exact > 20 * bound.error
    assert bound.mean - exact > -3 * np.hypot(bound.error, lifted.log_mean.error / electrons)
    assert bound.mean - exact < (start - exact) / 4


def test_values_of_a_sample_are_those_of_thermodynamics(trained):
    solver, state, values = trained
    temperature = solver.system.temperature
    np.testing.assert_allclose(values["F"], values["E"] - temperature * values["S"], atol=1e-12)
    assert not np.any(values["kinetic"])
    # without control variates the same mean
    raw = independent(-temperature * values["log_weight"])
    assert raw.error < 0.05
    assert abs(raw.mean - values["F"].mean()) < 4 * raw.error
    assert not jax.tree.leaves(state.params.occupations)


def test_without_interaction_everything_is_zero():
    solver = build(small_config(SystemConfig(3, 2, statistics="classical", gamma=0.0)))
    state = solver.init(key_of_run(0))
    for _ in range(2):
        state, info = solver.step(state)
        for name in ("F", "E", "S"):
            assert info.estimates[name].mean == 0 and info.estimates[name].error == 0
    params = Params({}, state.params.flow)
    samples, walk = solver.measure(params, jax.random.key(1))
    assert np.all(solver.per_electron(samples, state.regression)["log_weight"] == 0)
    assert np.all((walk.walkers.x >= 0) & (walk.walkers.x < solver.system.box))
