"""Lengths and energies of the gas by hand, and the values that it refuses."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import GASES, POLARIZED_2D

from heg.gas.system import System


@pytest.mark.parametrize("system", GASES.values(), ids=GASES)
def test_one_electron_fills_the_wigner_seitz_sphere(system):
    volume = math.pi * system.rs**2 if system.dim == 2 else 4 * math.pi * system.rs**3 / 3
    np.testing.assert_allclose(system.box**system.dim, system.electrons * volume, rtol=1e-12)


@pytest.mark.parametrize(
    "n_up, n_down, dim, expected",
    [
        (7, 7, 3, (9 * math.pi / 4) ** (1 / 3)),
        (7, 0, 3, (9 * math.pi / 2) ** (1 / 3)),
        (7, 7, 2, math.sqrt(2)),
        (7, 0, 2, 2.0),
        (3, 1, 2, math.sqrt(3)),  # zeta = 1/2: k_F^2 = 2 (1 + zeta) / r_s^2
    ],
)
def test_fermi_wavevector_of_the_majority_spin_by_hand(n_up, n_down, dim, expected):
    gas = System(n_up, n_down, dim, rs=5.0, theta=1.0, twist=(0.0,) * dim)
    np.testing.assert_allclose(gas.fermi_wavevector * gas.rs, expected, rtol=1e-12)


def test_temperature_of_thirteen_polarized_electrons_by_hand():
    gas = System(13, 0, 2, rs=10.0, theta=0.15, twist=(0.25, 0.25))
    np.testing.assert_allclose(gas.box, 10 * math.sqrt(13 * math.pi), rtol=1e-12)
    np.testing.assert_allclose(gas.fermi_energy, 0.02, rtol=1e-12)
    np.testing.assert_allclose([gas.temperature, gas.beta], [0.003, 1 / 0.003], rtol=1e-12)


def test_spins_and_polarization():
    gas = System(5, 2, 2, rs=1.0, theta=1.0, twist=(0, 0))
    assert (gas.electrons, gas.spins, gas.polarization) == (7, (5, 2), 3 / 7)
    assert POLARIZED_2D.spins == (3,) and POLARIZED_2D.polarization == 1


def test_equal_systems_hash_alike():
    one = System(2, 1, 2, 2.0, 0.8, [0.25, 0])
    other = System(2, 1, 2, 2.0, 0.8, (0.25, 0.0))
    assert one == other and hash(one) == hash(other)


@pytest.mark.parametrize(
    "field, value",
    [
        ("dim", 1),
        ("n_up", 0),
        ("n_down", -1),
        ("n_down", 4),
        ("rs", 0.0),
        ("rs", math.nan),
        ("theta", -0.1),
        ("theta", math.inf),
        ("coupling", -1.0),
        ("twist", (0.0,)),
        ("twist", (0.0, 0.5)),
    ],
)
def test_impossible_value_is_named(field, value):
    with pytest.raises(ValueError, match=rf"\b{field}\b"):
        dataclasses.replace(POLARIZED_2D, **{field: value})


@pytest.mark.parametrize(
    "field, value, sentence",
    [
        ("n_up", 2.5, "n_up is 2.5: it must be a whole number"),
        ("n_up", True, "n_up is True: it must be a whole number"),
        ("dim", "2", "dim is '2': it must be a whole number"),
        ("rs", None, "rs is None: it must be a number"),
        ("rs", [1.0], r"rs is \[1.0\]: it must be a number"),
        ("rs", np.ones(1), r"rs is array\(\[1.\]\): it must be a number"),
        ("rs", "1", "rs is '1': it must be a number"),
        ("rs", np.int64(-4), "rs is -4.0: it must lie between 0.0001 and 100000 bohr"),
        ("theta", 1j, "theta is 1j: it must be a number"),
        ("coupling", 10**400, "it must be a number of ordinary size"),
        ("twist", ("a", 0.0), "twist is 'a': it must be a number"),
        ("twist", 0.1, "twist has 1 numbers: give one per direction, 2"),
        ("twist", (0.5, 0.0), "0.5 is the same twist as -0.5"),
    ],
)
def test_what_is_no_number_of_its_kind_is_refused(field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(POLARIZED_2D, **{field: value})


def test_numbers_of_numpy_and_jax_are_those_of_python():
    plain = System(2, 1, 2, 4.0, 0.5, (0.25, 0.0), 1.0)
    numpy = System(
        np.int64(2),
        np.uint8(1),
        np.int32(2),
        np.float32(4),
        np.float64(0.5),
        np.array([0.25, 0]),
        np.int64(1),
    )
    assert numpy == plain and repr(numpy) == repr(plain) and hash(numpy) == hash(plain)
    assert System(jnp.asarray(2), 1, 2, jnp.asarray(4.0), 0.5, (0.25, 0.0)) == plain


def test_r_s_theta_and_coupling_alone_are_traced():
    gas = System(2, 1, 2, 4.0, 0.5, (0.25, 0.0))
    assert jax.tree.leaves(gas) == [4.0, 0.5, 1.0]
    assert gas.shape == System(2, 1, 2, 1.0, 1.0, (0.25, 0.0))
    assert jax.jit(lambda gas: gas.box / gas.coupling)(gas) == pytest.approx(gas.box, rel=1e-12)
    doubled = jax.tree.map(lambda number: 2 * number, gas)
    assert doubled == dataclasses.replace(gas, rs=8.0, theta=1.0, coupling=2.0)


@pytest.mark.parametrize(("rs", "theta"), [(1e-4, 1e-5), (1e5, 1e4), (2.0, 0.5)])
def test_steps_of_a_derivative_stay_inside_the_ranges(rs, theta):
    gas = System(2, 0, 2, rs, theta)
    moved = gas.inside_by(1e-2)
    for factor in (1 + 1e-2, 1 - 1e-2):  # neither is refused
        dataclasses.replace(moved, rs=moved.rs * factor, theta=moved.theta * factor)
    assert moved.rs == pytest.approx(rs, rel=1.02e-2)
    assert moved.theta == pytest.approx(theta, rel=1.02e-2)
    if rs == 2.0:
        assert moved == gas
