"""Derived quantities: identities, the exact ideal gas, fits to known functions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import (
    POLARIZED_3D,
    SPINS_2D,
    assert_equal_within_errors,
    lowest_shells,
    make_model,
    random_positions,
)

from heg.gas.ideal import heat_capacity, thermodynamics
from heg.gas.system import System
from heg.model.flow import FlowSize, make_flow
from heg.model.kinetic import make_kinetic_energy
from heg.model.local_energy import make_local_energy
from heg.observables.evaluation import against_ideal, difference, zero_variance
from heg.observables.quantities import Quantity
from heg.observables.quasiparticles import landau_fit, trained_levels
from heg.observables.structure import grid_of
from heg.observables.thermodynamics import Observed, contact, heat_capacities, pressure
from heg.statistics import jackknife


@pytest.mark.parametrize("system", [SPINS_2D, POLARIZED_3D], ids=["2D-spins", "3D-polarized"])
def test_virial_pressure_is_the_derivative_of_F_at_fixed_dimensionless_parameters(system, key):
    size = FlowSize(layers=2, width=8)
    reduced = lowest_shells(dataclasses.replace(system, rs=1.0), 9)
    flow = make_flow(system, size)
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.1, jax.jit(flow.init)(key))
    state = np.concatenate([np.arange(count, dtype=np.int32) for count in system.spins])
    x = np.asarray(random_positions(system, key)) / system.box

    @jax.jit
    def energies(rs):
        """Kinetic and potential energy at the same x / L; the entropy stays as it is."""
        # the length of the cusp is 1 / coupling: to scale with the cell, the flow is made with a
        # coupling that does
        gas = dataclasses.replace(system, rs=rs, coupling=system.coupling * system.rs / rs)
        kinetic = make_kinetic_energy(gas, reduced.at_density(rs), make_flow(gas, size))
        energy, _ = make_local_energy(gas, kinetic)(params, gas.box * x, state)
        return jnp.real(energy.kinetic), energy.potential * system.coupling / gas.coupling

    kinetic, potential = map(float, energies(system.rs))
    scaled = energies(1.7 * system.rs)
    assert abs(kinetic) > 0.1 and abs(potential) > 0.1
    np.testing.assert_allclose(scaled, (kinetic / 1.7**2, potential / 1.7), rtol=1e-10)
    length = lambda volume: volume ** (1 / system.dim) / system.box
    free_energy = lambda volume: kinetic / length(volume) ** 2 + potential / length(volume)
    expected = -jax.jit(jax.grad(free_energy))(system.box**system.dim)
    per_electron = kinetic / system.electrons, potential / system.electrons
    assert pressure(system, *per_electron) == pytest.approx(float(expected), rel=1e-10)


def ideal_samples(system, orbitals, states, log_p):
    """Observables of samples as they would be without interaction and flow."""
    e = np.sum(np.asarray(orbitals.energy)[np.asarray(states)], axis=1) / system.electrons
    s = -np.asarray(log_p) / system.electrons
    energies = {"E": e, "S": s, "kinetic": e, "potential": 0 * e}
    return Observed(energies, {"e s": e * s, "s s": s * s, "e e": e * e}, None, None)


@pytest.mark.parametrize("system", [SPINS_2D, POLARIZED_3D], ids=["2D-spins", "3D-polarized"])
def test_heat_capacity_of_the_ideal_gas_is_its_second_derivative(system):
    orbitals = lowest_shells(system, 20)
    model = make_model(system, 20)
    params = jax.jit(model.occupations.init)(jax.random.key(0))
    states = jax.jit(jax.vmap(model.occupations.sample, (None, 0)))(
        params, jax.random.split(jax.random.key(1), 20_000)
    )
    log_p = jax.jit(jax.vmap(model.occupations.log_prob, (None, 0)))(params, states)
    blocks = ideal_samples(system, orbitals, states, log_p)
    means = (blocks.energies, blocks.moments)
    found = jackknife(means, lambda mean: heat_capacities(system, *mean))
    exact = heat_capacity(orbitals.energy, system.beta, system.spins) / system.electrons
    assert_equal_within_errors(found.value, found.error, exact, 0.03 * exact)

    # and it is the derivative of the energy
    def energy(theta):
        gas = dataclasses.replace(system, theta=theta)
        return thermodynamics(orbitals.energy, gas.beta, system.spins).energy

    step = 1e-4
    low = energy(system.theta - step)
    high = energy(system.theta + step)
    slope = (high - low) / (2 * step * system.fermi_energy) / system.electrons
    assert exact == pytest.approx(slope, rel=1e-6)
    # levels and Landau's functional of the ideal gas
    np.testing.assert_allclose(trained_levels(system, orbitals, params)[0], orbitals.energy)
    landau = landau_fit(system, orbitals, np.asarray(states), np.asarray(log_p))
    assert np.all(landau.explained > 1 - 1e-9) and landau.mass == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(landau.energy, landau.ideal, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(landau.interaction, 0.0, atol=1e-9)


def test_landau_finds_the_interaction_that_is_there():
    system = System(4, 0, 2, rs=2.0, theta=1.0, twist=(0.0, 0.0))
    orbitals = lowest_shells(system, 21)
    rng = np.random.default_rng(0)
    states = np.array([np.sort(rng.choice(21, 4, replace=False)) for _ in range(20_000)])
    ends = np.array([1, 5, 9, 13, 21])
    counts = np.stack(
        [np.sum((states >= low) & (states < high), axis=1) for low, high in zip([0, *ends], ends)],
        axis=1,
    )
    energy = np.sum(orbitals.energy[states], axis=1) + 0.05 * counts[:, 1] * counts[:, 3]
    found = landau_fit(system, orbitals, states, -system.beta * energy + 2.0)
    assert found.explained[2] > 0.9999 > found.explained[1] > found.explained[0]
    # N is fixed, so that f is known up to what adds a function of N; its double differences are
    # known
    f = found.interaction
    assert f[1, 3] + f[0, 2] - f[1, 2] - f[0, 3] == pytest.approx(0.05, rel=0.02)


def test_a_shell_filled_in_part_but_always_alike_is_left_out_of_landaus_fit():
    system = System(2, 0, 3, rs=2.0, theta=0.02, twist=(0.0, 0.0, 0.0))
    orbitals = lowest_shells(system, 19)
    # a degenerate ground state: ln p is a constant
    states = np.array([[0, 1 + number % 6] for number in range(600)])
    found = landau_fit(system, orbitals, states, np.full(600, -np.log(6)))
    assert len(found.k) == 0 and np.isnan(found.mass) and np.all(np.isnan(found.explained))


def test_samples_of_one_state_leave_landaus_fit_nothing_to_explain():
    system = System(7, 0, 3, rs=5.0, theta=0.02, twist=(0.0, 0.0, 0.0))
    orbitals = lowest_shells(system, 19)
    states = np.tile(np.arange(7), (600, 1))
    # the mean of many equal numbers differs from them by a rounding error
    found = landau_fit(system, orbitals, states, np.full(600, -0.1))
    assert np.all(np.isnan(found.explained))


def test_contact_value_of_a_pair_that_obeys_the_cusp():
    for dim, slope in ((2, 2.0), (3, 1.0)):
        system = System(7, 7, dim, rs=2.0, theta=1.0, twist=(0.0,) * dim)
        grid = grid_of(system)
        r = (grid.edges[1:] + grid.edges[:-1]) / 2
        g = 0.3 * (1 + slope * r) - 0.1 * r**2 + 0.02 * r**3
        assert contact(system, grid, g) == pytest.approx(0.3, rel=1e-8)


def test_extrapolation_to_zero_variance_of_a_line():
    rng = np.random.default_rng(1)
    variance = np.geomspace(1.0, 0.1, 100)
    rows = [
        {"F_ha": -1 + 0.3 * v + 0.01 * rng.normal(), "F_error_ha": 0.01, "E_variance_cell_ha2": v}
        for v in variance
    ]
    found = zero_variance(rows)
    assert_equal_within_errors(found.mean, found.error, -1.0, 0.01)
    assert zero_variance(rows[:18]) is None
    # of one state that is an eigenstate
    still = [row | {"E_variance_cell_ha2": 0.0, "F_ha": -1.0} for row in rows]
    assert zero_variance(still).mean == pytest.approx(-1.0, rel=1e-12)


@pytest.mark.parametrize(("theta", "ratio"), [(0.5, True), (1e-3, False)])
def test_a_ground_state_has_no_entropy_to_compare_with(theta, ratio):
    system = System(5, 0, 2, rs=2.0, theta=theta, twist=(0.0, 0.0))
    quantity = Quantity(np.array(0.1), np.array(0.01), None, "")
    found = against_ideal(system, {"F": quantity, "S": quantity})
    assert ("entropy_ratio" in found) == ratio and np.isfinite(found["f_xc"].value)


def summary(system, ideal):
    """Summary of a run of a gas whose values are those of the ideal gas."""
    gas = {
        "n_up": system.n_up,
        "n_down": system.n_down,
        "dim": system.dim,
        "twist": list(system.twist),
        "coupling": 0.0,
        "rs_bohr": system.rs,
        "temperature_ha": system.temperature,
        "box_bohr": system.box,
    }
    values = {"F": ideal.free_energy, "E": ideal.energy, "S": ideal.entropy}
    numbers = {
        name: {"mean": value / system.electrons, "error": 1e-3} for name, value in values.items()
    }
    return {"system": gas} | numbers


def test_differences_of_ideal_gases_give_pressure_and_heat_capacity():
    def ideal_run(rs, theta):
        system = System(7, 7, 3, rs, theta, (0.1, 0.2, 0.3))
        levels = lowest_shells(system, 100).energy
        ideal = thermodynamics(levels, system.beta, system.spins)
        return system, levels, summary(system, ideal)

    def at_same_temperature(rs):
        return ideal_run(rs, 0.5 * (rs / 2) ** 2)

    system, levels, centre = at_same_temperature(2.0)
    _, _, near = at_same_temperature(1.999)
    _, _, far = at_same_temperature(2.001)
    found = difference(near, far)
    expected = pressure(system, centre["E"]["mean"], 0.0)
    assert found["pressure"].mean == pytest.approx(expected, rel=1e-5)
    assert found["pressure"].error > 0

    _, _, cold = ideal_run(2.0, 0.499)
    _, _, hot = ideal_run(2.0, 0.501)
    found = difference(cold, hot)
    expected = heat_capacity(levels, system.beta, system.spins) / 14
    assert found["heat_capacity"].mean == pytest.approx(expected, rel=1e-4)
    assert found["heat_capacity_of_entropy"].mean == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="must differ either in r_s"):
        difference(cold, far)
