"""Size effects by their limits, and where they are known exactly."""

import dataclasses

import numpy as np
import pytest

from heg.gas.coulomb import fourier_transform, madelung
from heg.gas.first_order import first_order
from heg.gas.ideal_infinite import exchange, structure_factor
from heg.gas.missing_waves import missing_waves
from heg.gas.plasmon import plasma_frequency, plasmon_structure
from heg.gas.size_correction import (
    correlation_correction,
    interpolated,
    long_wave_structure,
    size_correction,
    uncertainty,
)
from heg.gas.system import System


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("theta", [0.1, 1.0, 8.0])
def test_long_waves_are_the_plasmons_and_those_of_debye_and_hueckel(dim, theta):
    system = System(33, 0, dim, 2.0, theta)
    q = np.array([1e-6]) * system.fermi_wavevector
    s = long_wave_structure(system, q, structure_factor(system, q))
    assert s == pytest.approx(plasmon_structure(system, q), rel=1e-3)
    hot = dataclasses.replace(system, theta=1e4)
    q = np.array([0.1, 1.0]) * hot.fermi_wavevector
    s = long_wave_structure(hot, q, structure_factor(hot, q))
    screened = 1 / (1 + hot.density * hot.beta * fourier_transform(q, dim))
    np.testing.assert_allclose(s, screened, rtol=3e-3)


@pytest.mark.parametrize("dim", [2, 3])
def test_a_cell_lacks_the_madelung_energy_of_a_constant_and_the_plasmons_zero_point_energy(dim):
    system = System(33, 0, dim, 5.0, 0.1)
    q, weight = missing_waves(system)
    assert np.sum(weight) == pytest.approx(-madelung(system) / 2, rel=5e-5)
    if dim == 3:  # where the plasma frequency is the same for all q: w_p / 4 N coth(beta w_p / 2)
        frequency = float(plasma_frequency(system, 1e-3))
        expected = frequency / 4 / 33 / np.tanh(system.beta * frequency / 2)
        lacked = weight @ plasmon_structure(system, q)
        assert lacked == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("spins", [(20, 0), (10, 10)], ids=["polarised", "unpolarised"])
def test_all_that_a_cell_lacks_of_the_ideal_gas_is_known_except_one_electrons_share(dim, spins):
    """First order, where both sides are exact: the leading order leaves 1 / N, as the number of
    electrons is fixed."""
    left = []
    for factor in (1, 4):
        n_up, n_down = spins
        system = System(n_up * factor, n_down * factor, dim, 1.0, 1.0)
        ideal = dataclasses.replace(system, coupling=0.0)
        assert size_correction(ideal).free_energy == 0
        q, weight = missing_waves(system)
        lacked = weight @ structure_factor(system, q)
        left.append(exchange(system) - first_order(system) - lacked)
        assert abs(left[-1]) < 0.15 * lacked
    assert left[0] / left[1] == pytest.approx(4, rel=0.15)


def test_size_effects_of_the_energies_belong_together():
    # v = 2 f + r_s df/dr_s at fixed Theta: f = phi(Theta, coupling r_s) / r_s^2, and v the
    # derivative by the coupling
    def free_energy(rs, theta):
        return size_correction(System(33, 0, 3, rs, theta)).free_energy

    system = System(33, 0, 3, 2.0, 0.3)
    here = size_correction(system)
    step = 1e-2
    slope = (free_energy(2 + step, 0.3) - free_energy(2 - step, 0.3)) / (2 * step)
    assert here.potential == pytest.approx(2 * here.free_energy + 2.0 * slope, rel=1e-3)
    # k = f - v + T s, the entropy by a wider step
    step = 0.02
    hotter = free_energy(2.0, 0.3 * (1 + step))
    colder = free_energy(2.0, 0.3 * (1 - step))
    entropy_energy = -(hotter - colder) / (2 * step)  # T s = -df / d ln Theta
    kinetic = here.free_energy - here.potential + entropy_energy
    assert here.kinetic == pytest.approx(kinetic, rel=1e-2)


@pytest.mark.parametrize(
    ("theta", "cell", "error", "infinite"),
    [(1.0, -0.03764140, 3.1e-5, -0.037599), (2.0, -0.03643348, 1.6e-5, -0.036372)],
)
def test_exact_potential_energies_of_66_electrons_become_those_of_the_infinite_gas(
    theta, cell, error, infinite
):
    """At r_s = 20, hartree per electron.

    The cell: sums over the S(q) of path-integral Monte Carlo by Dornheim, Sjostrom, Tanaka and
    Vorberger, Phys. Rev. B 101, 045129 (2020), doi:10.1103/PhysRevB.101.045129; the infinite gas:
    integral over that of Groth et al., Phys. Rev. Lett. 119, 135001 (2017),
    doi:10.1103/PhysRevLett.119.135001.
    """
    system = System(33, 33, 3, 20.0, theta)
    exchange_part = exchange(system) - first_order(system)
    correction = exchange_part + correlation_correction(system).potential
    assert cell + correction == pytest.approx(infinite, abs=2 * error)
    # the other form is further off, so that its distance is a cautious error
    by_interpolation = exchange_part + interpolated(system).potential
    assert 2 * error < abs(cell + by_interpolation - infinite) < 1.5e-4
    assert uncertainty(system) > error


@pytest.mark.parametrize("dim", [2, 3])
def test_the_two_corrections_agree_where_shells_do_not_matter(dim):
    cold = System(5, 5, dim, 4.0, 0.25)
    hot = System(5, 5, dim, 4.0, 4.0)
    large = System(29, 29, dim, 4.0, 4.0)
    assert uncertainty(cold) > uncertainty(hot) > uncertainty(large) > 0
    assert uncertainty(large) < 0.03 * abs(correlation_correction(large).free_energy)


def test_the_lowest_temperature_has_a_correction():
    theta = 1e-5  # the steps of its derivative must not go below
    gas = System(2, 0, 2, 2.0, theta)
    at_the_end = size_correction(gas)
    near = size_correction(dataclasses.replace(gas, theta=1.1 * theta))
    assert at_the_end.free_energy == pytest.approx(near.free_energy, rel=1e-4)
    assert at_the_end.kinetic == pytest.approx(near.kinetic, rel=1e-2)
