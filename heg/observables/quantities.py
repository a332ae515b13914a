"""Measured quantities: a value with its error, and one table of symbols, units and titles.

Files, tables, figures and the command line name a quantity by its key in `QUANTITIES`.  Energies
are per electron where the unit does not say otherwise.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from heg.statistics import Derived, Estimate

# of the jackknife, a single number, or an array without error
Result = Derived | Estimate | np.ndarray


class Quantity(NamedTuple):
    """A result.

    Attributes:
      value, error: of equal shape.
      covariance: of the flattened value; None where errors are independent or it is one number.
      unit: in words.
    """

    value: np.ndarray
    error: np.ndarray
    covariance: np.ndarray | None
    unit: str

    def __repr__(self) -> str:
        """One line: the number or the shape of the array, and the unit."""
        if np.ndim(self.value):
            return f"<Quantity array {np.shape(self.value)}, {self.unit}>"
        number = Estimate(float(self.value), float(self.error))
        return f"<Quantity {number}, {self.unit}>"


class Description(NamedTuple):
    """Names of a quantity for people.

    Attributes:
      symbol: as in the theory and on the axes of figures.
      unit: in words; bohr^d is resolved by `unit_of`.
      title: phrase for tables.
      column: of history.csv; empty where the training does not record it.
    """

    symbol: str
    unit: str
    title: str
    column: str = ""

    @property
    def error_column(self) -> str:
        """Column of history.csv that holds the standard error of `column`."""
        name, unit = self.column.rsplit("_", 1)
        return f"{name}_error_{unit}"


ENERGY = "hartree per electron"
ENTROPY = "k_B per electron"
VARIANCE = "hartree^2 per cell"
NO_UNIT = "none"

# one number each, or one for each spin, in the order of reports
NUMBERS = {
    "F": Description("F / N", ENERGY, "free energy, an upper bound", "F_ha"),
    "F_2": Description("F₂ / N", ENERGY, "second order, an estimate"),
    "F_second_order": Description(
        "(F + F₂) / N", ENERGY, "free energy to second order, an estimate"
    ),
    "E": Description("E / N", ENERGY, "energy", "E_ha"),
    "kinetic": Description("K / N", ENERGY, "kinetic energy", "kinetic_ha"),
    "potential": Description("V / N", ENERGY, "potential energy", "potential_ha"),
    "potential_first_order": Description(
        "V / N", ENERGY, "potential energy to first order, an estimate"
    ),
    "S": Description("S / N", ENTROPY, "entropy", "S_kb"),
    "S_relaxed": Description(
        "S* / N", ENTROPY, "entropy of the best p(K) for the fitted energies, an estimate"
    ),
    "pressure": Description("P", "hartree per bohr^d", "pressure (virial)"),
    "heat_capacity": Description("C / N", ENTROPY, "heat capacity, energy with entropy"),
    "heat_capacity_of_entropy": Description(
        "C / N", ENTROPY, "heat capacity, variance of the entropy"
    ),
    "heat_capacity_of_energy": Description(
        "C / N", ENTROPY, "heat capacity, variance of the energy"
    ),
    "f_xc": Description("f_xc", ENERGY, "F less that of the ideal gas, f_xc, an upper bound"),
    "f_xc_second_order": Description("f_xc", ENERGY, "f_xc to second order, an estimate"),
    "entropy_ratio": Description(
        "S / S₀", NO_UNIT, "entropy over that of the ideal gas (m*/m at low temperature)"
    ),
    "S_q_over_plasmon": Description(
        "S(q) / S_p(q)", NO_UNIT, "S of the longest waves over the plasmon's"
    ),
    "contact": Description("g(0)", NO_UNIT, "g(0) of opposite spins"),
    "contact_first_order": Description(
        "g(0)", NO_UNIT, "g(0) of opposite spins to first order, an estimate"
    ),
    "electrons_counted": Description("Σ n(k)", "electrons", "sum of n(k), each spin"),
    "E_variance_within_K": Description("Var E_loc", VARIANCE, "variance of E_loc within K"),
    "F_variance_over_K": Description("Var F_loc", VARIANCE, "variance of F_loc over K"),
    "F_at_zero_variance": Description(
        "F / N", ENERGY, "F extrapolated to zero variance over the training (no bound)"
    ),
}

# arrays beside their grids q, r and k
DISTRIBUTIONS = {
    "q": Description("q", "1/bohr", "reciprocal vectors, mean length in each shell"),
    "S_q": Description("S(q)", "per electron", "static structure factor"),
    "S_q_first_order": Description(
        "S(q)", "per electron", "static structure factor to first order, an estimate"
    ),
    "r": Description("r", "bohr", "separations, middle of each bin"),
    "g_r": Description("g(r)", NO_UNIT, "pair correlation function"),
    "g_r_first_order": Description(
        "g(r)", NO_UNIT, "pair correlation function to first order, an estimate"
    ),
    "g_bare": Description("g(r)", NO_UNIT, "pair correlation function of bare determinants"),
    "displacement": Description("Δr", "bohr", "mean displacement of a pair by the flow"),
    "k": Description("k", "1/bohr", "wavevectors, mean length in each shell"),
    "k_count": Description("", "wavevectors in the shell", "number of wavevectors in each shell"),
    "n_k": Description("n(k)", "electrons per wavevector", "momentum distribution"),
}

QUANTITIES = NUMBERS | DISTRIBUTIONS


def unit_of(name: str, dim: int) -> str:
    """Unit of a quantity of a gas of `dim` dimensions, in words."""
    return QUANTITIES[name].unit.replace("bohr^d", f"bohr^{dim}")


def with_units(results: Mapping[str, Result], dim: int) -> dict[str, Quantity]:
    """Quantities with the units of the table.

    Args:
      results: by name.
      dim: dimensions of the gas.
    """
    return {name: _quantity(result, unit_of(name, dim)) for name, result in results.items()}


def _quantity(result, unit):
    if isinstance(result, Derived):
        covariance = result.covariance if result.value.size > 1 else None
        return Quantity(result.value, result.error, covariance, unit)
    if isinstance(result, Estimate):
        return Quantity(np.asarray(result.mean), np.asarray(result.error), None, unit)
    value = np.asarray(result)
    return Quantity(value, np.zeros(value.shape), None, unit)
