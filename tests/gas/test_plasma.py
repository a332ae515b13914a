"""The classical plasma in closed form: its fit, its size correction, its place among the gases."""

import dataclasses

import jax
import numpy as np
import pytest

from heg import System, plasma
from heg.gas.coulomb import madelung
from heg.gas.ideal import ideal_reference
from heg.gas.plane_waves import integer_vectors
from heg.gas.plasmon import plasmon_structure
from heg.gas.size_correction import size_correction
from heg.reference.published import fluid, fluid_energy, published


def test_a_plasma_keeps_its_kind():
    gas = plasma(5, 3, 2.0)
    assert gas.temperature == gas.beta == gas.rs == 1.0
    assert gas.theta * gas.fermi_energy == pytest.approx(1.0, rel=1e-14)
    assert type(gas.of_unit_density) is type(gas)
    assert gas != System(5, 0, 3, 1.0, gas.theta, coupling=2.0)
    leaves, shape = jax.tree.flatten(gas)
    assert jax.tree.unflatten(shape, leaves) == gas
    assert all(estimate.mean == 0 for estimate in ideal_reference(gas).values())


def test_fit_of_the_fluid_is_that_of_debye_and_hueckel_for_weak_coupling():
    gamma = 1e-4
    debye_hueckel = -(gamma**1.5) / np.sqrt(3)
    assert fluid(gamma) == pytest.approx(debye_hueckel, rel=5e-3)
    assert published(plasma(2, 3, 10.0)) == {"fluid": fluid(10.0)}
    assert published(plasma(2, 2, 10.0)) == {}


@pytest.mark.parametrize("gamma", [0.1, 1.0, 10.0, 100.0])
def test_energy_of_the_fit_is_the_slope_of_its_free_energy(gamma):
    step = 1e-4
    slope = (fluid(gamma * (1 + step)) - fluid(gamma * (1 - step))) / (2 * step)
    assert fluid_energy(gamma) == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("gamma, tolerance", [(1.0, 0.02), (10.0, 0.003), (100.0, 0.001)])
def test_fit_agrees_with_another_one(gamma, tolerance):
    # Hansen, Phys. Rev. A 8, 3096 (1973), as in the public program of a fit to its simulations
    a = (-0.895929, 0.113406, -0.908728, -0.116147)
    b = (4.666486, 13.67541, 1.890560, 1.027755)
    powers = (0.5, 1.0, 1.5, 2.0)
    terms = [one / (gamma + other) ** power for one, other, power in zip(a, b, powers)]
    assert fluid_energy(gamma) == pytest.approx(gamma**1.5 * sum(terms), rel=tolerance)


def rings(gas, highest):
    """beta f_exc of Debye and Hueckel in the cell: Madelung term and sum of rings."""
    n = integer_vectors(gas.dim, highest)
    q = gas.wavevector_unit * np.linalg.norm(n[np.any(n != 0, axis=1)], axis=1)
    q = q[q < gas.wavevector_unit * highest]
    y = 4 * np.pi * gas.density * gas.coupling / q**2
    # beyond the last q, where the summand is -y^2 / 2, an integral
    tail = -((4 * np.pi * gas.density * gas.coupling) ** 2) / (8 * np.pi**2 * gas.density)
    summed = np.sum(np.log1p(y) - y) / (2 * gas.electrons)
    beyond = tail / (gas.wavevector_unit * highest)
    return gas.coupling * madelung(gas) / 2 + summed + beyond


@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_size_correction_is_that_of_debye_and_hueckel(gamma):
    gas = plasma(54, 3, gamma)
    correction = size_correction(gas)
    infinite = -(gamma**1.5) / np.sqrt(3)
    assert rings(gas, 40) + correction.free_energy == pytest.approx(infinite, rel=2e-3)


def test_a_strongly_screened_cell_lacks_half_of_a_kt_of_energy():
    for dim in (2, 3):
        gas = plasma(200, dim, 20.0)
        missing = size_correction(gas).potential
        assert missing == pytest.approx(1 / (2 * gas.electrons), rel={2: 0.03, 3: 1e-3}[dim])


def test_long_waves_are_those_of_a_hot_quantum_gas():
    classical = plasma(54, 3, 2.0)
    q = np.array([0.01, 0.1])
    # a dilute gas of the same Gamma = 1 / (r_s T): its plasmon has an energy far below T
    cold = System(54, 0, 3, rs=1e4, theta=1.0)
    temperature = 1 / (2.0 * cold.rs)
    hot = dataclasses.replace(cold, theta=temperature / cold.fermi_energy)
    ratio = plasmon_structure(hot, q / hot.rs) / plasmon_structure(classical, q)
    quantum = 3 / hot.rs**3 / temperature**2
    assert quantum < 2e-3
    # (w / 2) coth(beta w / 2) = T [1 + (beta w)^2 / 12 + ...]
    np.testing.assert_allclose(ratio, 1 + quantum / 12, rtol=1e-6)
