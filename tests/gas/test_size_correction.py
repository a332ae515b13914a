"""Size effects by their limits, and where they are known exactly."""

import dataclasses

import numpy as np
import pytest

from heg.gas.coulomb import fourier_transform, madelung
from heg.gas.first_order import first_order
from heg.gas.ideal_infinite import exchange, structure_factor
from heg.gas.plasmon import plasma_frequency, plasmon_structure
from heg.gas.size_correction import (
    correlation_correction,
    interpolated,
    long_wave_structure,
    missing_waves,
    size_correction,
    uncertainty,
)
from heg.gas.system import System


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("theta", [0.1, 1.0, 8.0])
def test_long_waves_are_the_plasmons_and_those_of_debye_and_hueckel(dim, theta):
    system = System(33, 0, dim, 2.0, theta, (0.0,) * dim)
    q = np.array([1e-6]) * system.fermi_wavevector
    assert long_wave_structure(system, q, structure_factor(system, q)) == pytest.approx(
        plasmon_structure(system, q), rel=1e-3
    )
    hot = dataclasses.replace(system, theta=1e4)
    density, q = hot.electrons / hot.box**dim, np.array([0.1, 1.0]) * hot.fermi_wavevector
    screened = 1 / (1 + density * hot.beta * fourier_transform(q, dim))
    np.testing.assert_allclose(
        long_wave_structure(hot, q, structure_factor(hot, q)), screened, rtol=3e-3
    )


@pytest.mark.parametrize("dim", [2, 3])
def test_what_a_cell_lacks_of_a_constant_is_the_madelung_energy_and_of_the_plasmon_its_zero_point_energy(
    dim,
):
    system = System(33, 0, dim, 5.0, 0.1, (0.0,) * dim)
    q, weight = missing_waves(system)
    assert np.sum(weight) == pytest.approx(-madelung(system) / 2, rel=5e-5)
    if dim == 3:  # where the plasma frequency is the same for all q: w_p / 4 N coth(beta w_p / 2)
        frequency = float(plasma_frequency(system, 1e-3))
        expected = frequency / 4 / 33 / np.tanh(system.beta * frequency / 2)
        assert weight @ plasmon_structure(system, q) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("spins", [(20, 0), (10, 10)], ids=["polarised", "unpolarised"])
def test_what_a_cell_lacks_of_the_ideal_gas_is_known_but_for_one_electrons_share(dim, spins):
    """First order, where both sides are exact: the leading order leaves 1 / N, as the number of
    electrons is fixed."""
    left = []
    for factor in (1, 4):
        system = System(spins[0] * factor, spins[1] * factor, dim, 1.0, 1.0, (0.0,) * dim)
        q, weight = missing_waves(system)
        lacked = weight @ structure_factor(system, q)
        assert size_correction(dataclasses.replace(system, coupling=0.0)).free_energy == 0
        left.append(exchange(system) - first_order(system) - lacked)
        assert abs(left[-1]) < 0.15 * lacked
    assert left[0] / left[1] == pytest.approx(4, rel=0.15)


def test_size_effects_of_the_energies_belong_together():
    # v = 2 f + r_s df/dr_s at fixed Theta: f = phi(Theta, coupling r_s) / r_s^2, and v the
    # derivative by the coupling
    at = lambda rs: System(33, 0, 3, rs, 0.3, (0.0,) * 3)
    step = 1e-2
    slope = (
        size_correction(at(2 + step)).free_energy - size_correction(at(2 - step)).free_energy
    ) / (2 * step)
    here = size_correction(at(2.0))
    assert here.potential == pytest.approx(2 * here.free_energy + 2.0 * slope, rel=1e-3)
    # k = f - v + T s, the entropy by a wider step
    gases = [dataclasses.replace(at(2.0), theta=0.3 * factor) for factor in (1.02, 0.98)]
    up, down = (size_correction(gas).free_energy for gas in gases)
    of_entropy = -(up - down) / (gases[0].temperature - gases[1].temperature)
    kinetic = here.free_energy - here.potential + gases[0].temperature / 1.02 * of_entropy
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
      Vorberger, Phys. Rev.
    B 101, 045129 (2020), doi:10.1103/PhysRevB.101.045129; the infinite gas: integral over that of
    Groth et al., Phys. Rev. Lett. 119, 135001 (2017), doi:10.1103/PhysRevLett.119.135001.
    """
    system = System(33, 33, 3, 20.0, theta)
    exchange_part = exchange(system) - first_order(system)
    correction = exchange_part + correlation_correction(system).potential
    assert cell + correction == pytest.approx(infinite, abs=2 * error)
    # the other form is further off, so that its distance is a cautious error
    by_interpolation = exchange_part + interpolated(system)[1]
    assert 2 * error < abs(cell + by_interpolation - infinite) < 1.5e-4
    assert uncertainty(system) > error


@pytest.mark.parametrize("dim", [2, 3])
def test_the_two_corrections_agree_where_shells_do_not_matter(dim):
    unsure = [
        uncertainty(System(count, count, dim, 4.0, theta))
        for count, theta in ((5, 0.25), (5, 4.0), (29, 4.0))
    ]
    assert unsure[0] > unsure[1] > unsure[2] > 0
    hot = System(29, 29, dim, 4.0, 4.0)
    assert unsure[2] < 0.03 * abs(correlation_correction(hot).free_energy)


def test_the_lowest_temperature_has_a_correction():
    theta = 1e-5  # the steps of its derivative must not go below
    gas = System(2, 0, 2, 2.0, theta, (0.0, 0.0))
    at_the_end, near = (
        size_correction(gas),
        size_correction(dataclasses.replace(gas, theta=1.1 * theta)),
    )
    assert at_the_end.free_energy == pytest.approx(near.free_energy, rel=1e-4)
    assert at_the_end.kinetic == pytest.approx(near.kinetic, rel=1e-2)
