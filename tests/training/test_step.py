import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import POLARIZED_2D, all_states, exact_draws, generator, random_like
from small_runs import BATCH, small_config

from heg import System, plasma
from heg.config import OptimizerConfig, SystemConfig
from heg.gas.coulomb import madelung
from heg.gas.ideal import choose_cutoff, thermodynamics
from heg.model.density_matrix import Params
from heg.training.control_variates import first_regression
from heg.training.free_energy import Scores, per_electron
from heg.training.natural_gradient import TRUST, trusted
from heg.training.step import LATE, build, build_optimizer, late_average


@pytest.mark.parametrize(
    "dim, polarization, flow_layers", [(2, "1/3", 1), (2, "1", 0), (3, "1/3", 0)]
)
def test_untrained_ideal_gas_is_exact_in_every_sample(dim, polarization, flow_layers, key):
    # three electrons without interaction: a flow starts as the identity, between opposite spins in
    # 2D too
    solver = build(
        small_config(
            SystemConfig(3, dim, 2.0, 0.5, polarization, coupling=0.0),
            flow_layers,
            transformer_layers=flow_layers,
        )
    )
    gas, params = solver.system, solver.init(key).params
    samples, drawn = solver.measure(params, key)
    values = per_electron(samples, first_regression(), gas)
    kept = (
        thermodynamics(solver.cutoff.orbitals.energy, gas.beta, gas.spins).free_energy
        / gas.electrons
    )
    exact = (
        thermodynamics(choose_cutoff(gas, 1e-14).orbitals.energy, gas.beta, gas.spins).free_energy
        / gas.electrons
    )
    assert drawn.lost == 0 and np.ptp(values["E"]) > 0.01 and not np.any(values["potential"])
    np.testing.assert_allclose(
        values["F"], np.full(BATCH, kept), rtol=1e-9
    )  # no variance, though the states differ
    missing = gas.temperature * -np.log1p(-solver.cutoff.missing) / gas.electrons
    assert 0 <= kept - exact <= missing < 0.02 * gas.temperature


def three_electrons(rs, theta):
    """A small run with the plane waves of Theta = 0.5, so that a colder gas has as many."""
    config = small_config(SystemConfig(3, 2, rs, theta, "1"), transformer_layers=0)
    model = dataclasses.replace(config.model, min_orbitals=9)
    return dataclasses.replace(config, model=model)


def test_three_steps_of_three_electrons(key):
    solver = build(three_electrons(2.0, 0.5))
    first = solver.init(key)
    state, places = first, []
    for number in range(3):
        state, info = solver.step(state)
        assert int(state.step) == number + 1
        assert all(np.isfinite(value) for value in jax.tree.leaves(info))
        assert info.estimates["F"].error > 0 and info.min_det > 0 and info.acceptance == 1
        assert (info.redrawn, info.lost) == (0, 0)
        places.append(state.walkers.x)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))
    assert not np.allclose(places[0], places[1])  # fresh draws
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), first.params, state.params)
    assert any(jax.tree.leaves(moved.occupations)) and any(jax.tree.leaves(moved.flow))
    # the same state gives the same step, bit for bit
    again, _ = solver.step(solver.step(solver.step(first)[0])[0])
    for one, other in zip(
        jax.tree.leaves(again.params), jax.tree.leaves(state.params), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_gases_of_other_density_and_temperature_share_programs(key):
    hot, cold = build(three_electrons(2.0, 0.5)), build(three_electrons(5.0, 0.1))
    assert cold.programs is hot.programs
    measured = [cold.programs.init, cold.programs.draw, cold.programs.evaluate]
    compiled = []
    for solver in (hot, cold):
        params = solver.init(key).params
        samples, walk = solver.measure(params, key)
        # the numbers are those of a model that was made for this gas alone
        one = jax.tree.map(lambda leaf: leaf[0], walk.walkers)
        log_p = solver.model.occupations.log_prob(params.occupations, one.state)
        energy, _ = solver.model.local_energy(params.flow, one.x, one.state)
        np.testing.assert_allclose(samples.log_p[0], log_p, rtol=1e-12)
        np.testing.assert_allclose(samples.energy.total[0], energy.total, rtol=1e-12)
        compiled.append([program._jitted._cache_size() for program in measured])
    assert compiled[0] == compiled[1]


@pytest.mark.parametrize("sampler, optimizer", [("metropolis", "adam"), ("mala", "natural")])
def test_chains_take_a_step(sampler, optimizer, key):
    solver = build(small_config(SystemConfig(2, 2, 2.0, 0.5, "1"), 0, 0, sampler, optimizer))
    first = solver.init(key)
    state, info = solver.step(first)
    assert 0 < info.acceptance < 1 and state.width != first.width
    assert np.all((state.walkers.x >= 0) & (state.walkers.x < solver.system.box))
    assert np.isfinite(info.estimates["F"].mean)
    valid = {tuple(row) for row in all_states((2,), len(solver.cutoff.orbitals.energy))}
    assert {tuple(row) for row in np.asarray(state.walkers.state)} <= valid


def test_one_electron_is_exact_from_the_start_and_stays(key):
    # no partner to flow with, no correlation: F is that of the ideal gas and the interaction with
    # its own images
    solver = build(small_config(SystemConfig(1, 2, 2.0, 0.5, "1"), transformer_layers=0))
    gas = solver.system
    state, info = solver.step(solver.init(key))
    ideal = thermodynamics(solver.cutoff.orbitals.energy, gas.beta, gas.spins).free_energy
    np.testing.assert_allclose(info.estimates["F"].mean, ideal + madelung(gas) / 2, rtol=1e-10)
    assert info.min_det == 1 and info.estimates["F"].error < 1e-12
    assert all(np.all(np.abs(leaf) < 1e-9) for leaf in jax.tree.leaves(state.params.occupations))


def test_steps_of_the_flow_are_halved_until_the_wavefunction_can_be_trusted():
    model, params, walkers, _ = exact_draws(POLARIZED_2D, 9, 50)
    updates = jax.device_get(random_like(params, jax.random.key(5), 1.0))
    log_psi = jax.jit(jax.vmap(model.log_psi, (None, 0, 0)))
    shortened = jax.jit(lambda updates: trusted(model, params, updates, walkers))

    def change(flow):
        moved = jax.tree.map(np.add, params.flow, flow)
        after = log_psi(moved, walkers.x, walkers.state)
        before = log_psi(params.flow, walkers.x, walkers.state)
        return np.std(2 * np.subtract(after, before).real)

    short = jax.device_get(shortened(updates))
    factor = short.flow["same"]["output"] / updates.flow["same"]["output"]
    np.testing.assert_allclose(factor, factor[0, 0], rtol=1e-12)
    assert change(short.flow) < TRUST < change(jax.tree.map(lambda leaf: 2 * leaf, short.flow))
    # a step that is short already and that of p(K) stay as they are
    again = shortened(short)
    for one, other in zip(
        jax.tree.leaves((again, short.occupations)), jax.tree.leaves((short, updates.occupations))
    ):
        np.testing.assert_array_equal(one, other)


def test_everything_is_in_double_precision(key):
    solver = build(small_config(SystemConfig(3, 2, 2.0, 0.5, "1/3", coupling=0.0)))
    for leaf in jax.tree.leaves(solver.init(key)):
        assert not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype == jnp.float64


def test_late_average_weighs_steps_by_their_power(key):
    values = generator(key).normal(size=12)
    average = np.zeros(())
    for step, value in enumerate(values, start=1):
        average = late_average(average, value, step)
    # the weights that the recursion gives: (t + 1) ... (t + LATE - 1) t
    weights = np.array([np.prod([float(t + power) for power in range(LATE)]) for t in range(1, 13)])
    np.testing.assert_allclose(average, weights @ np.asarray(values) / weights.sum(), rtol=1e-12)
    assert weights[6:].sum() > 0.9 * weights.sum()
    np.testing.assert_allclose(late_average(np.full((), 9.0), values[0], 1), values[0], atol=1e-14)


@pytest.mark.parametrize(
    "gas, longest", [(System(8, 8, 3, 2.0, 0.5), 0.1), (plasma(16, 3, 5.0), 0.2)], ids=str
)
def test_no_step_is_longer_than_that_of_its_gas(gas, longest, key):
    # in the metric of the Fisher matrix; sqrt(16) / 2 times as long for the plasma
    matrix = generator(key).normal(size=(20, 3))
    optimizer = build_optimizer(gas, OptimizerConfig(max_norm=0.1))
    steep = Params({}, {"a": np.array([1e3, -2e3, 5e2])})
    first = optimizer.init(steep)
    step, _ = optimizer.update(steep, first, steep, scores=Scores(np.zeros((20, 0)), matrix))
    np.testing.assert_allclose(np.linalg.norm(matrix @ step.flow["a"]), longest, rtol=1e-12)
