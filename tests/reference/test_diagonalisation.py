import dataclasses
import math

import jax
import jax.numpy as jnp
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
from heg.gas.system import System
from heg.reference.determinants import BEYOND, block_of, second_order
from heg.reference.diagonalisation import canonical, infinite_basis, occupations, spectrum

each_gas = pytest.mark.parametrize("gas", GASES.values(), ids=GASES)


def exact_ideal(gas):
    """F of the ideal gas, hartree."""
    return thermodynamics(
        choose_cutoff(gas, 1e-12).orbitals.energy, gas.beta, gas.spins
    ).free_energy


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
    block = block_of(gas, np.eye(gas.dim, dtype=int)[0], 4.5 * unit(gas))
    x = random_positions(gas, key, 40_000)
    wave = lambda n: jnp.exp(2j * np.pi / gas.box * x @ n.T)  # walker, electron, orbital

    def determinant(n):  # of norm one in the mean over uniform x
        parts = zip(gas.parts, gas.spins)
        parts = [
            jnp.linalg.det(wave(n[part])[:, part]) / math.factorial(count) ** 0.5
            for part, count in parts
        ]
        return np.prod(parts, axis=0)

    states = [0, *np.argsort(-np.abs(block.hamiltonian[0, 1:]))[:3] + 1]
    psi = np.array([determinant(block.n[state]) for state in states])
    potential = np.asarray(jax.lax.map(lambda x: coulomb_energy(x, gas), x, batch_size=4000))
    mean, error = mean_and_error(np.conj(psi[0]) * psi * potential, axis=1)
    expected = block.hamiltonian[states[0], states].copy()
    expected[0] -= unit(gas) * block.kinetic[0] / gas.electrons
    assert np.all(np.abs(expected[:2]) > 3 * error[:2])
    assert_equal_within_errors(mean.real, error, expected, bound=0.05)


@pytest.mark.parametrize("gas", [POLARIZED_2D, SPINS_2D], ids=["2D-polarized", "2D-spins"])
def test_second_order_is_the_sum_over_the_determinants_of_a_larger_basis(gas):
    total = np.array([1, 0])
    small = block_of(gas, total, 8.01 * unit(gas))
    highest = small.kinetic.max() / gas.electrons
    large = block_of(gas, total, BEYOND * highest * unit(gas) * (1 + 1e-9))
    word = lambda n: [tuple(determinant.ravel()) for determinant in n]
    inside = np.array([word(large.n).index(name) for name in word(small.n)])
    outside = np.setdiff1d(np.arange(len(large.n)), inside)
    levels, vectors = np.linalg.eigh(small.hamiltonian)
    amplitude = large.hamiltonian[np.ix_(outside, inside)] @ vectors
    denominator = np.diagonal(large.hamiltonian)[outside, None] - levels
    expected = -np.sum(amplitude**2 / denominator, axis=0)
    found = second_order(gas, small, levels, vectors)
    low = levels < levels[0] + highest / 2 * unit(gas)
    assert 1 < low.sum() < len(levels) and np.all(expected[low] < -1e-5)
    np.testing.assert_allclose(found, np.where(low, expected, 0.0), rtol=1e-10)


@each_gas
@pytest.mark.parametrize("theta, twist", [(0.3, 0.0), (0.8, -0.2)])
def test_without_coupling_it_is_the_ideal_gas_of_any_twist(gas, theta, twist):
    gas = dataclasses.replace(gas, theta=theta, coupling=0.0, twist=(twist, 0.1, 0.35)[: gas.dim])
    if gas.electrons == 4:  # many states above the lowest shells: a colder one
        gas = dataclasses.replace(gas, theta=gas.theta / 2)
    # what lies above the cutoff weighs e^{-beta cutoff}
    cutoff = max(22 * gas.temperature, 4 * unit(gas)) if gas.electrons < 4 else 6 * unit(gas)
    exact = thermodynamics(choose_cutoff(gas, 1e-13).orbitals.energy, gas.beta, gas.spins)
    found = canonical(gas, spectrum(gas, cutoff))
    for kind in found:
        np.testing.assert_allclose(found[kind], exact, rtol=2e-3 if gas.electrons == 4 else 1e-5)


@each_gas
def test_diagonal_free_energy_is_the_sum_over_all_states(gas):
    gas = dataclasses.replace(gas, theta=0.3, twist=(0.1, -0.3, 0.2)[: gas.dim])
    orbitals = lowest_shells(gas, 22 if gas.dim == 2 else 30)
    states = all_states(gas.spins, len(orbitals.k))
    k = orbitals.k[states]
    energy = np.sum(k**2, axis=(1, 2)) / 2 + gas.electrons * madelung(gas) / 2
    for part in gas.parts:
        first, second = np.triu_indices(part.stop - part.start, 1)
        transfer = np.linalg.norm(k[:, part][:, first] - k[:, part][:, second], axis=-1)
        energy -= (
            np.sum(4 * np.pi / transfer**2 if gas.dim == 3 else 2 * np.pi / transfer, axis=1)
            / gas.box**gas.dim
        )
    direct = -gas.temperature * logsumexp(-gas.beta * energy)
    found = canonical(gas, spectrum(gas, 7 * unit(gas)))["diagonal"].free_energy
    np.testing.assert_allclose(found, direct, atol=2e-4 * gas.temperature)


@each_gas
def test_free_energies_fall_with_the_freedom_to_mix_and_with_the_basis(gas):
    small, large = (canonical(gas, spectrum(gas, cutoff * unit(gas))) for cutoff in (4, 6))
    for table in (small, large):
        assert table["exact"].free_energy < table["degenerate"].free_energy - 1e-5
        assert table["degenerate"].free_energy < table["diagonal"].free_energy + 1e-12
    for kind in ("exact", "diagonal", "degenerate", "ideal"):
        assert large[kind].free_energy < small[kind].free_energy


@pytest.mark.parametrize(
    "gas", [System(1, 1, 2, 4.0, 0.3, (0.0, 0.1)), System(2, 0, 3, 4.0, 0.3, (0.1, 0.0, 0.2))]
)
def test_extrapolation_reaches_a_larger_basis_within_its_error(gas):
    cutoffs = unit(gas) * (20 if gas.dim == 2 else 14) / 1.2 ** np.arange(4)
    found = infinite_basis(gas, {cutoff: spectrum(gas, cutoff) for cutoff in cutoffs})[
        "exact"
    ].free_energy
    large = infinite_basis(gas, {4 * cutoff: spectrum(gas, 4 * cutoff) for cutoff in cutoffs})[
        "exact"
    ].free_energy
    small = canonical(gas, spectrum(gas, cutoffs[0]))
    missing = (
        small["exact"].free_energy - small["ideal"].free_energy - (large.mean - exact_ideal(gas))
    )
    assert large.error < 0.5 * found.error < missing
    assert abs(found.mean - large.mean) < min(2 * found.error, 0.2 * missing)


def test_occupations_without_coupling_are_those_of_the_ideal_gas():
    for gas in (SPINS_2D, dataclasses.replace(POLARIZED_2D, twist=(0.3, -0.1))):
        gas = dataclasses.replace(gas, theta=0.5, coupling=0.0)
        orbitals = choose_cutoff(gas, 1e-12).orbitals
        found = occupations(gas, 14 * unit(gas), orbitals.n)
        for occupation, count in zip(found, gas.spins, strict=True):
            expected = occupation_numbers(gas.beta * orbitals.energy, count)
            np.testing.assert_allclose(occupation, expected, atol=1e-5)


@each_gas
def test_occupations_are_those_of_all_electrons_and_as_symmetric_as_the_cell(gas):
    grid = np.indices((13,) * gas.dim).reshape(gas.dim, -1).T - 6
    found = occupations(dataclasses.replace(gas, twist=(0.0,) * gas.dim), 5 * unit(gas), grid)
    np.testing.assert_allclose(found.sum(axis=1), gas.spins, atol=1e-6)
    for image in (-grid, grid[:, ::-1]):
        place = np.ravel_multi_index((image + 6).T, (13,) * gas.dim)
        np.testing.assert_allclose(found, found[:, place], atol=1e-12)
    assert np.all(found > -1e-15) and np.all(found < 1 + 1e-12)


def test_kinetic_energy_of_the_occupations_is_a_derivative_of_the_free_energy():
    # a gas of r_s s and coupling s at the same temperature has H = T / s^2 + V, so that dF / ds =
    # -2 <T> at s = 1
    gas = dataclasses.replace(SPINS_3D, theta=0.6, twist=(0.1, 0.2, -0.3))
    grid = np.indices((13,) * 3).reshape(3, -1).T - 6
    k = 2 * np.pi / gas.box * (grid + np.asarray(gas.twist))
    kinetic = np.sum(occupations(gas, 4 * unit(gas), grid) * np.sum(k**2, axis=1) / 2)
    h, values = 1e-4, []
    for s in (1 + h, 1 - h):
        scaled = dataclasses.replace(
            gas, rs=gas.rs * s, coupling=gas.coupling * s, theta=gas.theta * s**2
        )
        values.append(canonical(scaled, spectrum(scaled, 4 * unit(scaled)))["exact"].free_energy)
    np.testing.assert_allclose(kinetic, -(values[0] - values[1]) / (4 * h), rtol=1e-6)


@pytest.mark.parametrize(
    "cutoff, sentence", [(0.5, "gives 0 determinants"), (2000.0, "choose one that gives 1 to 8000")]
)
def test_impossible_bases_are_refused(cutoff, sentence):
    gas = System(1, 1, 3, 2.0, 0.5, (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match=sentence):
        block_of(gas, np.ones(3, int), cutoff * unit(gas))
