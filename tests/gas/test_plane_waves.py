"""Shells, order and completeness of the plane waves below a cutoff."""

import dataclasses
import itertools

import numpy as np
import pytest
from known_systems import GASES, POLARIZED_2D, POLARIZED_3D, SPINS_2D

from heg.gas.plane_waves import density_waves, half_lattice, plane_waves, shell_ends


@pytest.mark.parametrize(
    "gas, closures",
    [(POLARIZED_3D, [1, 7, 19, 27, 33, 57]), (POLARIZED_2D, [1, 5, 9, 13, 21, 25, 29, 37])],
    ids=["3D", "2D"],
)
def test_shells_close_at_the_numbers_of_lattice_points(gas, closures):
    gas = dataclasses.replace(gas, twist=(0.0,) * gas.dim)
    orbitals = plane_waves(gas, 20.0 * (2 * np.pi / gas.box) ** 2)
    np.testing.assert_array_equal(shell_ends(orbitals.energy)[: len(closures)], closures)
    assert shell_ends(orbitals.energy)[-1] == len(orbitals.energy)


@pytest.mark.parametrize("gas", GASES.values(), ids=GASES)
def test_every_plane_wave_below_the_cutoff_once_in_order(gas):
    unit = 2 * np.pi / gas.box
    orbitals = plane_waves(gas, 9.3 * unit**2 / 2)
    expected = []
    for n in itertools.product(range(-6, 7), repeat=gas.dim):
        if np.sum((np.array(n) + gas.twist) ** 2) <= 9.3:
            expected.append(n)
    assert sorted(map(tuple, orbitals.n.tolist())) == expected
    np.testing.assert_allclose(orbitals.energy, np.sum(orbitals.k**2, axis=1) / 2, rtol=1e-12)
    assert np.all(np.diff(orbitals.energy) > -1e-12)


def test_twist_shifts_every_wavevector():
    gas = dataclasses.replace(SPINS_2D, twist=(0.25, 0.25))
    orbitals = plane_waves(gas, 2 * (2 * np.pi / gas.box) ** 2)
    np.testing.assert_allclose(orbitals.k, 2 * np.pi / gas.box * (orbitals.n + 0.25), rtol=1e-12)
    # (n + 1/4)^2 of the lowest: 1/8 once, 5/8 twice, 9/8 once, 13/8 twice
    reduced = 2 * orbitals.energy[:6] * (gas.box / (2 * np.pi)) ** 2
    np.testing.assert_allclose(reduced, np.array([1, 5, 5, 9, 13, 13]) / 8, rtol=1e-12)


def test_order_does_not_depend_on_the_density():
    # rounding must not reorder a shell: a state is a list of positions in this order
    dense = plane_waves(dataclasses.replace(POLARIZED_3D, rs=1.0), 60)
    dilute = plane_waves(dataclasses.replace(POLARIZED_3D, rs=7.3), 60 / 7.3**2)
    np.testing.assert_array_equal(dense.n, dilute.n)


def test_first_keeps_the_lowest():
    orbitals = plane_waves(POLARIZED_2D, 10.0)
    np.testing.assert_array_equal(orbitals.first(5).n, orbitals.n[:5])


@pytest.mark.parametrize("dim", [2, 3])
def test_half_of_the_lattice_stands_for_all_of_it_in_the_order_of_the_density_waves(dim):
    half = half_lattice(dim, 2)
    assert half.multiplicity.sum() == 5**dim
    opposite = -half.n[half.multiplicity == 2]
    whole = np.concatenate([half.n.reshape(-1, dim), opposite])
    assert sorted(map(tuple, whole.tolist())) == list(itertools.product(range(-2, 3), repeat=dim))

    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, (3, dim))
    expected = np.exp(1j * half.n @ angle.T).sum(axis=-1)
    np.testing.assert_allclose(density_waves(angle, 2), expected, atol=1e-12)
