"""Full diagonalisation against integrals, sums over states, limits and published levels."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from known_systems import (
    GASES,
    POLARIZED_2D,
    SPINS_2D,
    SPINS_3D,
    all_states,
    assert_equal_within_errors,
    lowest_shells,
    mean_and_error,
    random_positions,
    reference_rows,
)
from scipy.special import logsumexp

from heg.gas.coulomb import coulomb_energy, madelung
from heg.gas.ideal import choose_cutoff, occupation_numbers, thermodynamics
from heg.gas.plane_waves import integer_vectors
from heg.gas.system import System
from heg.reference.determinants import BEYOND, block_of, level_corrections
from heg.reference.diagonalisation import canonical, infinite_basis, occupations, spectrum

each_gas = pytest.mark.parametrize("gas", GASES.values(), ids=GASES)


def exact_ideal(gas):
    """F of the ideal gas, hartree."""
    levels = choose_cutoff(gas, 1e-12).orbitals.energy
    return thermodynamics(levels, gas.beta, gas.spins).free_energy


def unit(gas):
    """(2 pi / L)^2 / 2, hartree."""
    return (2 * np.pi / gas.box) ** 2 / 2


@pytest.mark.parametrize(
    "row", [r for r in reference_rows("groundstate_3d_smallN.csv") if r["N"] == "2"]
)
def test_ground_state_of_two_electrons_in_a_small_basis(row):
    gas = System(1, 1, 3, float(row["rs"]), 0.1, (0.0, 0.0, 0.0))
    highest = {"7 PW": 1, "19 PW": 2, "19 PW (n^2<=2)": 2}[row["basis"]]  # n^2 of each of the two
    block = block_of(gas, np.zeros(3, int), 2.001 * highest * unit(gas))
    energy = np.linalg.eigvalsh(block.hamiltonian)[0] - madelung(gas)
    np.testing.assert_allclose(energy, float(row["value_Ha"]), atol=2e-11)


@each_gas
def test_matrix_elements_are_integrals_of_the_coulomb_energy(gas, key):
    total = np.eye(gas.dim, dtype=int)[0]
    block = block_of(gas, total, 4.5 * unit(gas))
    x = np.asarray(random_positions(gas, key, 40_000))

    def determinant(n):  # of norm one in the mean over uniform x
        value = 1.0
        for part, count in zip(gas.parts, gas.spins):
            waves = np.exp(2j * np.pi / gas.box * x[:, part] @ n[part].T)
            value = value * np.linalg.det(waves) / math.factorial(count) ** 0.5
        return value

    # one determinant, and the three that V couples to it most
    strongest = np.argsort(-np.abs(block.hamiltonian[0, 1:]))[:3] + 1
    states = [0, *strongest]
    psi = np.array([determinant(block.n[state]) for state in states])
    energy_of_one = lambda x: coulomb_energy(x, gas)
    energies = lambda x: jax.lax.map(energy_of_one, x, batch_size=4000)
    potential = np.asarray(jax.jit(energies)(x))
    samples = np.conj(psi[0]) * psi * potential
    mean, error = mean_and_error(samples, axis=1)
    expected = block.hamiltonian[0, states]
    expected[0] -= unit(gas) * block.kinetic[0] / gas.electrons
    assert np.all(np.abs(expected[:2]) > 3 * error[:2])
    assert_equal_within_errors(mean.real, error, expected, bound=0.05)


@pytest.mark.parametrize("gas", [POLARIZED_2D, SPINS_2D], ids=["2D-polarized", "2D-spins"])
def test_second_order_is_the_sum_over_the_determinants_of_a_larger_basis(gas):
    total = np.array([1, 0])
    small = block_of(gas, total, 8.01 * unit(gas))
    highest = small.kinetic.max() / gas.electrons
    large = block_of(gas, total, BEYOND * highest * unit(gas) * (1 + 1e-9))
    known = large.n.tolist()
    inside = [known.index(determinant) for determinant in small.n.tolist()]
    outside = np.setdiff1d(np.arange(len(large.n)), inside)
    levels, vectors = np.linalg.eigh(small.hamiltonian)
    coupling = large.hamiltonian[np.ix_(outside, inside)]
    amplitude = coupling @ vectors
    energy = np.diagonal(large.hamiltonian)[outside]
    denominator = energy[:, None] - levels
    expected = -np.sum(amplitude**2 / denominator, axis=0)
    low = levels < levels[0] + highest / 2 * unit(gas)
    assert 1 < low.sum() < len(levels)
    assert np.all(expected[low] < -1e-5)
    correction = level_corrections(gas, small, levels, vectors)
    np.testing.assert_allclose(correction, np.where(low, expected, 0.0), rtol=1e-10)


@each_gas
@pytest.mark.parametrize("theta, twist", [(0.3, 0.0), (0.8, -0.2)])
def test_without_coupling_it_is_the_ideal_gas_of_any_twist(gas, theta, twist):
    gas = dataclasses.replace(gas, theta=theta, coupling=0.0, twist=(twist, 0.1, 0.35)[: gas.dim])
    # what lies above the cutoff weighs e^{-beta cutoff}
    if gas.electrons == 4:  # many states above the lowest shells: a colder one
        gas = dataclasses.replace(gas, theta=gas.theta / 2)
        cutoff = 6 * unit(gas)
        accuracy = 2e-3
    else:
        cutoff = max(22 * gas.temperature, 4 * unit(gas))
        accuracy = 1e-5
    levels = choose_cutoff(gas, 1e-13).orbitals.energy
    exact = thermodynamics(levels, gas.beta, gas.spins)
    for ideal in canonical(gas, spectrum(gas, cutoff)).values():
        np.testing.assert_allclose(ideal, exact, rtol=accuracy)


@each_gas
def test_diagonal_free_energy_is_the_sum_over_all_states(gas):
    twist = (0.1, -0.3, 0.2)
    gas = dataclasses.replace(gas, theta=0.3, twist=twist[: gas.dim])
    orbitals = lowest_shells(gas, {2: 22, 3: 30}[gas.dim])
    states = all_states(gas.spins, len(orbitals.k))
    k = orbitals.k[states]
    kinetic = np.sum(k**2, axis=(1, 2)) / 2
    energy = kinetic + gas.electrons * madelung(gas) / 2
    for part in gas.parts:
        of_spin = k[:, part]
        first, second = np.triu_indices(of_spin.shape[1], 1)
        apart = of_spin[:, first] - of_spin[:, second]
        transfer = np.linalg.norm(apart, axis=-1)
        v = 4 * np.pi / transfer**2 if gas.dim == 3 else 2 * np.pi / transfer
        energy -= np.sum(v, axis=1) / gas.box**gas.dim
    expected = -gas.temperature * logsumexp(-gas.beta * energy)
    diagonal = canonical(gas, spectrum(gas, 7 * unit(gas)))["diagonal"]
    np.testing.assert_allclose(diagonal.free_energy, expected, atol=2e-4 * gas.temperature)


@each_gas
def test_free_energies_fall_with_the_freedom_to_mix_and_with_the_basis(gas):
    small = canonical(gas, spectrum(gas, 4 * unit(gas)))
    large = canonical(gas, spectrum(gas, 6 * unit(gas)))
    for table in (small, large):
        assert table["exact"].free_energy < table["degenerate"].free_energy - 1e-5
        assert table["degenerate"].free_energy < table["diagonal"].free_energy + 1e-12
    for kind in ("exact", "diagonal", "degenerate", "ideal"):
        assert large[kind].free_energy < small[kind].free_energy


@pytest.mark.parametrize(
    "gas", [System(1, 1, 2, 4.0, 0.3, (0.0, 0.1)), System(2, 0, 3, 4.0, 0.3, (0.1, 0.0, 0.2))]
)
def test_extrapolation_reaches_a_larger_basis_within_its_error(gas):
    cutoffs = unit(gas) * {2: 20, 3: 14}[gas.dim] / 1.2 ** np.arange(4)

    def exact_free_energy(cutoffs):
        spectra = {cutoff: spectrum(gas, cutoff) for cutoff in cutoffs}
        return infinite_basis(gas, spectra)["exact"].free_energy

    small = exact_free_energy(cutoffs)
    large = exact_free_energy(4 * cutoffs)
    # of the interaction's part, in the largest of the small bases
    table = canonical(gas, spectrum(gas, cutoffs[0]))
    in_basis = table["exact"].free_energy - table["ideal"].free_energy
    missing = in_basis - (large.mean - exact_ideal(gas))
    assert large.error < 0.5 * small.error < missing
    assert abs(small.mean - large.mean) < min(2 * small.error, 0.2 * missing)


def test_occupations_without_coupling_are_those_of_the_ideal_gas():
    for gas in (SPINS_2D, dataclasses.replace(POLARIZED_2D, twist=(0.3, -0.1))):
        gas = dataclasses.replace(gas, theta=0.5, coupling=0.0)
        orbitals = choose_cutoff(gas, 1e-12).orbitals
        occupied = occupations(gas, 14 * unit(gas), orbitals.n)
        for occupation, count in zip(occupied, gas.spins, strict=True):
            expected = occupation_numbers(gas.beta * orbitals.energy, count)
            np.testing.assert_allclose(occupation, expected, atol=1e-5)


@each_gas
def test_occupations_are_those_of_all_electrons_and_as_symmetric_as_the_cell(gas):
    gas = dataclasses.replace(gas, twist=(0.0,) * gas.dim)
    grid = integer_vectors(gas.dim, 6)
    occupied = occupations(gas, 5 * unit(gas), grid)
    np.testing.assert_allclose(occupied.sum(axis=1), gas.spins, atol=1e-6)
    for image in (-grid, grid[:, ::-1]):
        index = np.ravel_multi_index((image + 6).T, (13,) * gas.dim)
        np.testing.assert_allclose(occupied, occupied[:, index], atol=1e-12)
    assert np.all(occupied > -1e-15)
    assert np.all(occupied < 1 + 1e-12)


def test_kinetic_energy_of_the_occupations_is_a_derivative_of_the_free_energy():
    # a gas of r_s s and coupling s at the same temperature has H = T / s^2 + V, so that dF / ds =
    # -2 <T> at s = 1
    gas = dataclasses.replace(SPINS_3D, theta=0.6, twist=(0.1, 0.2, -0.3))
    grid = integer_vectors(3, 6)
    k = 2 * np.pi / gas.box * (grid + np.asarray(gas.twist))
    occupied = occupations(gas, 4 * unit(gas), grid)
    kinetic = np.sum(occupied * np.sum(k**2, axis=1) / 2)

    def free_energy(s):
        scaled = dataclasses.replace(
            gas, rs=gas.rs * s, coupling=gas.coupling * s, theta=gas.theta * s**2
        )
        return canonical(scaled, spectrum(scaled, 4 * unit(scaled)))["exact"].free_energy

    h = 1e-4
    slope = (free_energy(1 + h) - free_energy(1 - h)) / (2 * h)
    np.testing.assert_allclose(kinetic, -slope / 2, rtol=1e-6)


@pytest.mark.parametrize(
    "cutoff, sentence", [(0.5, "gives 0 determinants"), (2000.0, "choose one that gives 1 to 8000")]
)
def test_impossible_bases_are_refused(cutoff, sentence):
    gas = System(1, 1, 3, 2.0, 0.5, (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match=sentence):
        block_of(gas, np.ones(3, int), cutoff * unit(gas))
