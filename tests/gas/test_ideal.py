"""The canonical ideal gas against exact arithmetic, direct sums and thermodynamic identities."""

import dataclasses
import math
from decimal import Decimal, localcontext

import jax
import numpy as np
import pytest
from known_systems import GASES, POLARIZED_2D, POLARIZED_3D, lowest_shells, reference_rows
from scipy.special import spence

from heg.gas.ideal import (
    choose_cutoff,
    log_partition,
    log_partition_table,
    occupation_numbers,
    thermodynamics,
)
from heg.gas.plane_waves import lowest_plane_waves, plane_waves
from heg.gas.system import System

ROWS = reference_rows("ideal_canonical_exact.csv")


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: f"{row['system'][:2]}-{row['N']}-{row['Theta']}-{row['cutoff']}"
)
def test_free_energy_energy_and_entropy_of_the_exact_table(row):
    dim = int(row["system"][0])
    twist = (0.25, 0.25) if dim == 2 else (0.0, 0.0, 0.0)
    gas = System(int(row["N"]), 0, dim, 1.0, float(row["Theta"]), twist)
    if row["cutoff"] == "Emax=25":  # |n|^2 <= 25, the twist not counted
        orbitals = plane_waves(gas, (5 + 0.5) ** 2 * (2 * math.pi / gas.box) ** 2 / 2)
        levels = orbitals.energy[np.sum(orbitals.n**2, axis=1) <= 25]
    else:
        levels = choose_cutoff(gas, 1e-14).orbitals.energy
    ideal = thermodynamics(levels, gas.beta, gas.spins)
    rydberg = 0.5  # hartree; the table is in Ry r_s^2, and here r_s = 1
    free_energy = float(row["F_tot"]) * rydberg
    energy = float(row["E_tot"]) * rydberg
    entropy = float(row["S_tot"])
    # the levels of the hottest row were cut off: its energy is 2.1e-10 too low (the next test), its
    # F and S less so
    accuracy = 1e-10 if gas.theta < 8 else 3e-10
    np.testing.assert_allclose(ideal, [free_energy, energy, entropy], rtol=accuracy)


def test_hot_gas_in_exact_arithmetic():
    # Z_N = sum_k (-1)^{k+1} z(k beta) Z_{N-k} / N, where z is the cube of a theta function: no
    # cutoff, no rounding
    gas = System(33, 0, 3, 1.0, 8.0, (0.0,) * 3)
    unit = Decimal(2 * math.pi / gas.box) ** 2 / 2

    def log_z(beta):
        z = []
        for k in range(1, 34):
            terms = [2 * (-k * beta * unit * n**2).exp() for n in range(1, 200)]
            z.append((1 + sum(terms)) ** 3)
        partition = [Decimal(1)]
        for electrons in range(1, 34):
            total = Decimal(0)
            for k in range(1, electrons + 1):
                total += (-1) ** (k + 1) * z[k - 1] * partition[-k]
            partition.append(total / electrons)
        return partition[-1].ln()

    with localcontext() as context:
        context.prec = 100  # of which the alternating sum takes some forty
        beta = Decimal(gas.beta)
        h = Decimal("1e-30")
        free_energy = float(-log_z(beta) / beta)
        energy = float((log_z(beta - h) - log_z(beta + h)) / (2 * h))
    ideal = thermodynamics(choose_cutoff(gas, 1e-14).orbitals.energy, gas.beta, gas.spins)
    np.testing.assert_allclose(ideal[:2], [free_energy, energy], rtol=1e-11)


@pytest.mark.parametrize("gas", GASES.values(), ids=GASES)
def test_entropy_is_minus_the_slope_of_the_free_energy(gas):
    energy = choose_cutoff(gas, 1e-6).orbitals.energy

    @jax.jit
    def free_energy(shift):
        temperature = gas.temperature * (1 + shift)
        return -temperature * sum(log_partition(energy / temperature, count) for count in gas.spins)

    h = 2e-3  # error of the five-point formula: h^4, relative
    near = free_energy(h) - free_energy(-h)
    far = free_energy(2 * h) - free_energy(-2 * h)
    slope = (8 * near - far) / (12 * h)
    entropy = thermodynamics(energy, gas.beta, gas.spins).entropy
    np.testing.assert_allclose(entropy, -slope / gas.temperature, rtol=1e-8)


def test_one_and_two_electrons_by_direct_sum():
    orbitals = plane_waves(POLARIZED_2D, 20.0)
    levels = 0.7 * orbitals.energy
    one = np.sum(np.exp(-levels))
    two = (one**2 - np.sum(np.exp(-2 * levels))) / 2
    np.testing.assert_allclose(log_partition(levels, 1), math.log(one), rtol=1e-12)
    np.testing.assert_allclose(log_partition(levels, 2), math.log(two), rtol=1e-12)
    # spins are independent of each other
    free_energy = thermodynamics(orbitals.energy, 0.7, (2, 1)).free_energy
    expected = -(math.log(two) + math.log(one)) / 0.7
    np.testing.assert_allclose(free_energy, expected, rtol=1e-12)
    energy = thermodynamics(orbitals.energy, 0.7, (1,)).energy
    mean_energy = np.sum(orbitals.energy * np.exp(-levels)) / one
    np.testing.assert_allclose(energy, mean_energy, rtol=1e-12)


def test_conditional_probabilities_of_the_next_orbital_sum_to_one():
    levels = plane_waves(POLARIZED_3D, 3.0).energy
    table = np.asarray(log_partition_table(levels, 5))
    for left in range(1, 6):
        for start in (0, 3, len(levels) - left):
            # sum over m >= start of e^{-level_m} Z_{left-1}(m+1) = Z_left(start)
            terms = table[start + 1 :, left - 1] - levels[start:]
            total = np.logaddexp.reduce(terms)
            np.testing.assert_allclose(total, table[start, left], rtol=1e-12)


def test_electrons_that_do_not_fit_have_no_states_and_finite_slopes():
    levels = plane_waves(POLARIZED_3D, 3.0).energy
    table = np.asarray(log_partition_table(levels, 5))
    assert np.all(table[len(levels) - 2, 3:] < -1e29)  # three electrons in two orbitals
    slope = jax.jit(jax.grad(log_partition), static_argnums=1)(levels, 5)
    assert np.all(np.isfinite(slope))


def test_occupation_numbers_obey_pauli_and_count_the_electrons():
    levels = plane_waves(POLARIZED_3D, 3.0).energy / 0.2
    occupation = np.asarray(occupation_numbers(levels, 9))
    np.testing.assert_allclose(occupation.sum(), 9, rtol=1e-12)
    assert np.all((occupation > 0) & (occupation < 1))
    np.testing.assert_allclose(occupation_numbers(levels[:9], 9), 1.0, rtol=1e-12)


def test_many_electrons_approach_the_grand_canonical_gas():
    # spinless, d = 2: F/NT = ln(e^{1/Theta} - 1) + Theta Li2(1 - e^{1/Theta}) + ln(2 pi var N)/2N +
    # O(N^-2)
    theta, electrons = 1.0, 150
    gas = System(electrons, 0, 2, 1.0, theta, (0.0, 0.0))
    ideal = thermodynamics(choose_cutoff(gas, 1e-10).orbitals.energy, gas.beta, gas.spins)
    fugacity = math.expm1(1 / theta)
    variance = electrons * theta * -math.expm1(-1 / theta)
    expected = (
        math.log(fugacity)
        + theta * spence(1 + fugacity)
        + math.log(2 * math.pi * variance) / (2 * electrons)
    )
    assert abs(ideal.free_energy * gas.beta / electrons - expected) < 1 / electrons**2


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
@pytest.mark.parametrize("theta", [0.1, 2.0])
@pytest.mark.parametrize("gas", GASES.values(), ids=GASES)
def test_cutoff_bounds_the_missing_probability(gas, theta, tolerance):
    gas = dataclasses.replace(gas, theta=theta)
    cutoff = choose_cutoff(gas, tolerance)
    complete = choose_cutoff(gas, 1e-14)

    def log_z(orbitals):
        levels = gas.beta * orbitals.energy
        return sum(float(log_partition(levels, count)) for count in gas.spins)

    missing = -math.expm1(log_z(cutoff.orbitals) - log_z(complete.orbitals))
    assert -1e-12 < missing <= cutoff.missing < tolerance
    count = len(cutoff.orbitals.energy)
    assert len(lowest_shells(gas, count).energy) == count  # whole shells


@pytest.mark.parametrize("gas", GASES.values(), ids=GASES)
def test_cutoff_of_a_cold_gas(gas):
    # ratios of partition functions beyond the range of doubles
    cutoff = choose_cutoff(dataclasses.replace(gas, theta=1e-4), 1e-6)
    assert max(gas.spins) <= len(cutoff.orbitals.energy) < 20
    assert 0 <= cutoff.missing < 1e-6


@pytest.mark.parametrize("gas", GASES.values(), ids=GASES)
def test_more_plane_waves_than_needed_are_those_of_a_hotter_gas(gas):
    # far more than a cold gas would look at
    cold, hot = (dataclasses.replace(gas, theta=theta) for theta in (0.01, 3.0))
    wanted = choose_cutoff(hot, 1e-6).orbitals
    count = len(wanted.energy)
    alone = choose_cutoff(cold, 1e-6)
    cutoff = choose_cutoff(cold, 1e-6, fewest=count)
    assert len(alone.orbitals.energy) < count and cutoff.missing <= alone.missing
    for given in (cutoff.orbitals, lowest_plane_waves(cold, count)):
        np.testing.assert_array_equal(given.n, wanted.n)
        np.testing.assert_array_equal(given.energy, wanted.energy)
    # the tolerance alone decides where it asks for more
    assert len(choose_cutoff(hot, 1e-6, fewest=2).orbitals.energy) == count


def test_too_few_orbitals_are_refused():
    with pytest.raises(ValueError, match="raise the cutoff"):
        thermodynamics(np.zeros(2), 1.0, (3,))


def test_a_gas_of_too_many_plane_waves_is_refused_before_they_are_made():
    gas = System(7, 0, 3, 1.0, theta=1000.0)
    with pytest.raises(ValueError, match=r"theta is 1000\.0: that takes .* plane waves"):
        choose_cutoff(gas, 1e-6)
