"""Densities and temperatures of the laboratory, against published numbers in both units."""

import pytest
from scipy import constants

from heg.cli import solve
from heg.config import SystemConfig
from heg.gas.system import System
from heg.gas.units import temperature_of_words


def test_aluminium_at_its_fermi_temperature():
    """E_F 11.7 eV, T_F 13.6e4 K: Ashcroft and Mermin, Solid State Physics (1976).

    Three electrons per atom, 2.70 g / cm^3, 27.0 g / mol.
    """
    density = 3 * 2.70 / 27.0 * constants.N_A
    metal = System.from_density(density, 13.6e4, "1/cm^3", "K", electrons=14)
    assert metal.fermi_energy * 27.2114 == pytest.approx(11.7, abs=0.05)
    assert metal.theta == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("polarization", ["0", "3/7", 1])
def test_density_and_temperature_are_those_asked_for(dim, polarization):
    gas = System.from_density(0.02, 0.3, dim=dim, electrons=14, polarization=polarization)
    assert gas.density == pytest.approx(0.02, rel=1e-12)
    assert gas.temperature == pytest.approx(0.3, rel=1e-12)
    same = System.from_density(0.02, 0.3, dim=dim, n_up=gas.n_up, n_down=gas.n_down)
    assert same == gas


def test_the_units_of_a_temperature_agree():
    # 11604.518 K and 2/27.2114 Ry are 1 eV (CODATA 2022)
    one = temperature_of_words("1 eV")
    assert temperature_of_words("11604.518 K") == pytest.approx(one, rel=1e-6)
    assert temperature_of_words("1eV") == temperature_of_words("1.0e0 eV") == one
    assert temperature_of_words("0.0734986 Ry") == pytest.approx(one, rel=1e-6)
    assert temperature_of_words("0.0367493 Ha") == pytest.approx(one, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"density": 0.0}, "density is 0.0: it must be positive"),
        ({"temperature": -1.0}, "temperature is -1.0: it must be positive"),
        ({"density_unit": "1/cm^2"}, r"'1/cm\^2': in 3D give 1/bohr\^3 or 1/cm\^3"),
        ({"temperature_unit": "mK"}, "'mK': give Ha, Ry, eV, K"),
        ({"electrons": None}, "electrons is missing"),
        ({"n_up": 7}, "not both"),
        ({"electrons": 13}, "polarization is 0: with 13 electrons it must be one of 1/13"),
        ({"density": 1e30}, "rs is"),
    ],
)
def test_impossible_values_are_one_sentence(change, words):
    arguments = {"density": 0.02, "temperature": 0.3, "electrons": 14} | change
    with pytest.raises(ValueError, match=words):
        System.from_density(**arguments)


WORDS = ["--electrons", "7", "--dim", "3", "--rs", "2", "--run-dir", "unused"]


def test_a_temperature_on_the_command_line_becomes_theta():
    polarised = [*WORDS, "--polarization", "1"]
    config, _ = solve.parse([*polarised, "--temperature", "5 eV"])
    assert config.system.build().temperature == pytest.approx(5 / 27.211386, rel=1e-7)
    # what is stored is Theta: the run is the same however it was asked for
    again, _ = solve.parse([*polarised, "--theta", repr(config.system.theta)])
    assert again == config
    assert SystemConfig(7, 3, 2.0, "5 eV", "1") == config.system


@pytest.mark.parametrize(
    ("temperature", "words"),
    [
        ("5", "give its unit too"),
        ("5 meV", "temperature has the unit 'meV': give Ha, Ry, eV, K"),
        ("hot", "temperature is 'hot': give a number and a unit"),
    ],
)
def test_a_temperature_without_a_known_unit_is_refused(temperature, words):
    with pytest.raises(ValueError, match=words):
        solve.parse([*WORDS, "--polarization", "1", "--temperature", temperature])
