"""The infinite ideal gas against closed forms, its limits, thermodynamic identities and large
cells."""

import dataclasses

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import zeta

from heg.gas import ideal
from heg.gas.ideal_infinite import (
    chemical_potentials,
    exchange,
    fermi_dirac,
    structure_factor,
    thermodynamics,
)
from heg.gas.system import System

each_gas = pytest.mark.parametrize("dim", [2, 3])
each_theta = pytest.mark.parametrize("theta", [0.02, 0.3, 2.0])


def gas(dim, theta, up=7, down=0, rs=1.0):
    return System(up, down, dim, rs, theta, (0.0,) * dim)


def test_integrals_of_fermi_and_dirac_at_zero_are_zeta_functions():
    # F_j(0) = (1 - 2^-j) zeta(j + 1)
    for order in (0.5, 1.0, 1.5):
        expected = (1 - 2.0**-order) * zeta(order + 1)
        assert fermi_dirac(order, 0.0) == pytest.approx(expected, rel=1e-10)


def test_each_integral_of_fermi_and_dirac_is_the_derivative_of_the_next():
    step = 1e-4
    for order in (-0.5, 0.0, 0.5, 1.0):
        for eta in (-3.0, 1.0, 30.0):
            more = fermi_dirac(order + 1, eta + step)
            less = fermi_dirac(order + 1, eta - step)
            slope = (more - less) / (2 * step)
            assert slope == pytest.approx(fermi_dirac(order, eta), rel=1e-6)


@each_gas
def test_the_cold_gas_is_that_of_sommerfeld(dim):
    system = gas(dim, 1e-3, 7, 4)
    cold = thermodynamics(system)
    shares = np.array([7 / 11, 4 / 11])
    level = system.fermi_energy * (shares / shares[0]) ** (2 / dim)
    energy = dim / (dim + 2) * shares @ level
    assert cold.energy == pytest.approx(energy, rel=1e-4)
    # c = pi^2 T g(E_F) / 3 with g = d / (2 E_F)
    states = shares @ (dim / 2 / level)
    capacity = np.pi**2 * system.temperature / 3 * states
    assert cold.heat_capacity == pytest.approx(capacity, rel=1e-4)


@each_gas
def test_the_hot_gas_is_classical(dim):
    system = gas(dim, 1e4, 7, 4)
    hot = thermodynamics(system)
    assert hot.energy == pytest.approx(dim / 2 * system.temperature, rel=1e-3)
    assert hot.heat_capacity == pytest.approx(dim / 2, rel=1e-3)


@each_gas
@each_theta
def test_entropy_and_heat_capacity_are_derivatives(dim, theta):
    system = gas(dim, theta, 7, 4)
    here = thermodynamics(system)
    step = 1e-3
    hotter = thermodynamics(dataclasses.replace(system, theta=theta * (1 + step)))
    colder = thermodynamics(dataclasses.replace(system, theta=theta * (1 - step)))
    width = 2 * step * system.temperature
    slope = (hotter.free_energy - colder.free_energy) / width
    assert -slope == pytest.approx(here.entropy, rel=1e-5)
    slope = (hotter.energy - colder.energy) / width
    assert slope == pytest.approx(here.heat_capacity, rel=1e-5)
    free_energy = here.energy - system.temperature * here.entropy
    assert free_energy == pytest.approx(here.free_energy, rel=1e-9, abs=1e-9)


@each_gas
def test_large_cells_come_near(dim):
    system = gas(dim, 1.0, 400)
    levels = ideal.choose_cutoff(system, 1e-9).orbitals.energy
    cell = ideal.thermodynamics(levels, system.beta, system.spins)
    here = thermodynamics(system)
    assert cell.energy / 400 == pytest.approx(here.energy, rel=2 / 400)
    assert cell.entropy / 400 == pytest.approx(here.entropy, abs=np.log(400) / 400)


@each_theta
def test_exchange_in_three_dimensions_is_an_integral_over_the_chemical_potential(theta):
    # Horovitz and Thieberger, Physica 71, 99 (1974): -(T^2 / 4 pi^3 n) times the integral of
    # (Gamma(1/2) F_{-1/2})^2
    system = gas(3, theta)
    eta = chemical_potentials(3, 1.0, theta)[0].eta
    density = 3 / (4 * np.pi)
    square = lambda t: np.pi * fermi_dirac(-0.5, t) ** 2
    points = [point for point in (-5.0, 0.0, eta - 5) if point < eta]
    ends = [-60.0, *sorted(points), eta]
    integral = 0.0
    for low, high in zip(ends, ends[1:]):
        integral += quad(square, low, high, epsrel=1e-9)[0]
    expected = -(system.temperature**2) * integral / (4 * np.pi**3 * density)
    assert exchange(system) == pytest.approx(expected, rel=1e-6)


def test_exchange_of_the_cold_gas():
    # -3 k_F / 4 pi and -4 k_F / 3 pi of a polarised gas: Giuliani and Vignale, Quantum Theory of
    # the Electron Liquid
    for dim, factor in ((3, 3 / 4), (2, 4 / 3)):
        system = gas(dim, 2e-3, rs=3.0)
        expected = -factor / np.pi * system.fermi_wavevector
        assert exchange(system) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("dim", "accuracy"), [(2, 3e-5), (3, 2e-6)])
def test_exchange_at_the_lowest_temperature_is_as_accurate_as_promised(dim, accuracy):
    system = gas(dim, 1e-5, rs=3.0)
    factor = {2: 4 / 3, 3: 3 / 4}[dim]
    expected = -factor / np.pi * system.fermi_wavevector
    assert exchange(system) == pytest.approx(expected, rel=accuracy)


@pytest.mark.parametrize(("dim", "accuracy"), [(2, 3e-5), (3, 2e-6)])
def test_structure_factor_at_the_lowest_temperature_is_as_accurate_as_promised(dim, accuracy):
    system = gas(dim, 1e-5, rs=3.0)
    # S_0 of the ground state, Giuliani and Vignale: the overlap of two Fermi circles or spheres
    # apart by q
    half = np.array([0.05, 0.3, 0.7, 0.95])  # q / 2 k_F
    flat = 2 / np.pi * (np.arcsin(half) + half * np.sqrt(1 - half**2))
    expected = flat if dim == 2 else 3 / 2 * half - half**3 / 2
    s = structure_factor(system, 2 * half * system.fermi_wavevector)
    np.testing.assert_allclose(s, expected, atol=accuracy)


@each_gas
@each_theta
def test_structure_factor_for_long_waves_is_the_compressibility(dim, theta):
    system = gas(dim, theta)
    eta = chemical_potentials(dim, 1.0, theta)[0].eta
    q = np.array([1e-5, 4.0]) * system.fermi_wavevector
    long, short = structure_factor(system, q)
    compressibility = fermi_dirac(dim / 2 - 2, eta) / fermi_dirac(dim / 2 - 1, eta)
    assert long == pytest.approx(compressibility, rel=2e-3)
    assert 0.9 < short <= 1
