import dataclasses
import math

import numpy as np
import pytest
from exact import GASES, POLARIZED_2D

from heg.system import System


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
    assert hash(System(2, 1, 2, 2.0, 0.8, [0.25, 0])) == hash(System(2, 1, 2, 2.0, 0.8, (0.25, 0.0)))


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
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(POLARIZED_2D, **{field: value})
