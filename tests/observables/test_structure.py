"""S(q) and g(r) beside sums over pairs, geometry, and limits of the ideal gas and the plasmon."""

import itertools

import jax
import numpy as np
import pytest
from known_systems import GASES, POLARIZED_2D, SPINS_3D, lowest_shells, random_positions

from heg.gas.ideal import log_partition, occupation_numbers
from heg.gas.ideal_pairs import pair_occupations
from heg.gas.plasmon import plasmon_structure
from heg.gas.system import System
from heg.observables.structure import ball_in_cell, grid_of, ideal_structure, make_structure


@pytest.mark.parametrize("dim", [2, 3])
def test_a_ball_in_the_cell_has_the_volume_counted_on_a_mesh(dim):
    points = {2: 2000, 3: 200}[dim]
    axis = (np.arange(points) + 0.5) / points - 0.5
    squared = sum(np.meshgrid(*[axis**2] * dim, indexing="ij"))
    for radius in (0.2, 0.5, 0.6, 0.7, 0.75, 0.85):
        counted = np.mean(squared < radius**2)
        assert ball_in_cell(radius, dim) == pytest.approx(counted, abs=3e-4), radius
    assert ball_in_cell(np.sqrt(dim) / 2 + 1e-9, dim) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("system", GASES.values(), ids=GASES.keys())
def test_both_agree_with_sums_over_pairs(system, key):
    grid = grid_of(system)
    x = np.asarray(random_positions(system, key))
    z = x + 0.1 * np.asarray(random_positions(system, jax.random.key(1)))
    found = jax.device_get(jax.jit(make_structure(system, grid))(x, z))
    # every vector of the shells, not only half of them
    n = np.indices((2 * grid.highest + 1,) * system.dim).reshape(system.dim, -1).T - grid.highest
    length = 2 * np.pi / system.box * np.linalg.norm(n, axis=1)
    spins = [np.asarray(x[part]) for part in system.parts]
    kinds = list(itertools.combinations_with_replacement(spins, 2))
    assert found.s.shape == (len(kinds), len(grid.shells.length))
    for kind, (a, b) in enumerate(kinds):
        separation = (a[:, None] - b).reshape(-1, system.dim)
        waves = np.cos(2 * np.pi / system.box * separation @ n.T).sum(axis=0)
        longest = grid.highest * 2 * np.pi / system.box
        inside = (length > 0) & (length <= longest * (1 + 1e-12))
        for shell in range(0, len(grid.shells.length), 7):
            near = np.abs(length - grid.shells.length[shell]) < 0.02 * system.fermi_wavevector
            expected = waves[inside & near].mean()
            assert found.s[kind, shell] * system.electrons == pytest.approx(expected, abs=1e-9)
        r = separation - system.box * np.round(separation / system.box)
        distance = np.linalg.norm(r, axis=1)
        pairs = np.histogram(distance[distance > 0], grid.edges)[0] / (len(a) * len(b) * grid.share)
        np.testing.assert_allclose(found.g[kind], pairs, atol=1e-9)
        np.testing.assert_allclose(np.sum(found.displaced[kind] == 0), np.sum(pairs == 0))


def test_pairs_moved_along_their_separation_by_a_known_length_show_it():
    system = POLARIZED_2D
    grid = grid_of(system)
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    # 0 and 1 move apart by 0.3, 2 stays where the others do not reach it along y
    z = x + np.array([[-0.1, 0.0], [0.2, 0.0], [0.0, 0.0]])
    found = jax.device_get(jax.jit(make_structure(system, grid))(x, z))
    bin_of_pair = int(1.0 / grid.edges[1])
    displacement = found.displaced[0, bin_of_pair] / found.g[0, bin_of_pair]
    assert displacement == pytest.approx(0.3)


@pytest.mark.parametrize("electrons", [1, 3, 4])
def test_pair_occupations_are_second_derivatives_of_the_partition_function(electrons):
    levels = np.array([0.0, 0.7, 0.7, 0.7, 1.9, 1.9, 3.0])
    number = np.asarray(occupation_numbers(levels, electrons))
    hessian = np.asarray(jax.jit(jax.hessian(log_partition), static_argnums=1)(levels, electrons))
    expected = np.where(np.eye(7, dtype=bool), np.diag(number), hessian + np.outer(number, number))
    np.testing.assert_allclose(pair_occupations(levels, electrons), expected, atol=1e-9)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_ideal_gas_of_two_electrons_is_that_of_the_sum_over_pairs_of_waves(dim):
    # N = 2 at T -> 0 without twist: k = 0 and one of the 2 d shortest waves
    system = System(2, 0, dim, rs=1.0, theta=0.01, twist=(0.0,) * dim)
    grid = grid_of(system)
    found = ideal_structure(system, lowest_shells(system, 2 * dim + 1), grid, points=60)
    # of 2 d vectors q, one has k and k + q occupied, and one k and k - q: c = 1 / d
    first = 1 - 2 / (2 * dim) / 2
    assert found.s[0, 0] == pytest.approx(first, abs=1e-6)
    np.testing.assert_allclose(found.s[0, 1:], 1.0, atol=1e-6)
    assert np.sum(found.g[0] * grid.share) == pytest.approx(0.5, abs=0.02)


def test_the_plasmon_is_classical_when_hot_and_at_rest_when_cold():
    hot = System(7, 7, 3, 2.0, 1e4, (0.0,) * 3)
    cold = System(7, 7, 3, 2.0, 1e-4, (0.0,) * 3)
    q = np.array([0.1, 0.2])
    density = 14 / hot.box**3
    np.testing.assert_allclose(
        plasmon_structure(hot, q), q**2 * hot.temperature / (4 * np.pi * density), rtol=1e-4
    )
    np.testing.assert_allclose(
        plasmon_structure(cold, q), q**2 / 2 / np.sqrt(4 * np.pi * density), rtol=1e-6
    )


def test_of_opposite_spins_nothing_is_correlated_in_the_ideal_gas():
    system = SPINS_3D
    found = ideal_structure(system, lowest_shells(system, 57), grid_of(system), points=40)
    np.testing.assert_allclose(found.s[1], 0.0)
    np.testing.assert_allclose(found.g[1], 1.0)
    np.testing.assert_allclose(found.s[0], found.s[2])
