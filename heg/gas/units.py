"""Units of laboratory and astrophysics at the edge of the package; hartree atomic units inside.

The constants are those of CODATA, as scipy.constants has them: 2022 from SciPy 1.15 on; Mohr,
Newell, Taylor and Tiesinga, arXiv:2409.03787.
"""

import re

from scipy.constants import physical_constants

ELECTRONVOLT = 1 / physical_constants["Hartree energy in eV"][0]  # hartree
KELVIN = 1 / physical_constants["hartree-kelvin relationship"][0]  # k_B times 1 K, hartree
CENTIMETRE = 0.01 / physical_constants["Bohr radius"][0]  # bohr
RYDBERG = 0.5  # hartree
ENERGY_UNITS = {"Ha": 1.0, "Ry": RYDBERG, "eV": ELECTRONVOLT, "K": KELVIN}  # hartree
# a number and a unit, with a blank between them or without
QUANTITY = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\s\d]\S*)")
LENGTH_UNITS = {"bohr": 1.0, "cm": CENTIMETRE}  # bohr


def energy_in_hartree(name: str, value: float, unit: str) -> float:
    """An energy or a temperature in hartree.

    Args:
      name: of the field, for the message.
      value: the number.
      unit: Ha, Ry, eV or K.

    Raises:
      ValueError: there is no such unit.
    """
    if unit not in ENERGY_UNITS:
        raise ValueError(f"{name} has the unit {unit!r}: give {', '.join(ENERGY_UNITS)}")
    return value * ENERGY_UNITS[unit]


def temperature_of_words(words: str) -> float:
    """A temperature with its unit, such as "5 eV" or "60000 K", in hartree.

    Raises:
      ValueError: it is no number with a unit.
    """
    match = QUANTITY.fullmatch(words.strip())
    if match is None:
        raise ValueError(
            f"temperature is {words!r}: give a number and a unit, "
            f'such as "5 eV"; units are {", ".join(ENERGY_UNITS)}'
        )
    number, unit = match.groups()
    return energy_in_hartree("temperature", float(number), unit)


def density_units(dim: int) -> dict[str, float]:
    """Units of density by name, electrons per bohr^d."""
    return {f"1/{name}^{dim}": length**-dim for name, length in LENGTH_UNITS.items()}


def density_in_bohr(density: float, unit: str, dim: int) -> float:
    """A density in electrons per bohr^d.

    Args:
      density: the number.
      unit: 1/bohr^d or 1/cm^d, with d in digits.
      dim: d.

    Raises:
      ValueError: there is no such unit in d dimensions.
    """
    units = density_units(dim)
    if unit not in units:
        raise ValueError(f"density has the unit {unit!r}: in {dim}D give {' or '.join(units)}")
    return density * units[unit]


def energy_in_units(energy: float) -> dict[str, float]:
    """An energy or a temperature, given in hartree, by the names of its units."""
    return {unit: energy / size for unit, size in ENERGY_UNITS.items()}


def density_in_units(density: float, dim: int) -> dict[str, float]:
    """A density, given in electrons per bohr^d, by the names of its units."""
    return {unit: density / size for unit, size in density_units(dim).items()}
