r"""The row of a gas in a table of the equation of state, averaged over its twists.

The cell's f_xc, s_xc, e_xc and p_xc are averages over the twists, of weights w, of what the
interaction adds to the ideal gas of the same N, zeta and twist.  The variance of an average is the
sum of w^2 (error^2 + n / (n - 1) deviation^2), so that it holds the spread.  Then the ideal gas of
infinitely many electrons takes the place of that of the cell, and the size correction is added:

.. math:: f = f_{ideal,\infty} + f_{xc,N} + (f_\infty - f_N)_{xc} .

f_xc of the cell is that of F + F_2, an estimate (heg.observables.second_order.perturbation); the
columns f_xc_cell_bound and f_xc_bound have the upper bound. e, s and p are measured in the density
matrix itself.
"""

import math
from typing import NamedTuple

import numpy as np

from heg.eos.surface import NAMES
from heg.gas import ideal_infinite
from heg.gas.size_correction import (
    SizeCorrection,
    beyond_interpolation,
    correlation_correction,
    size_correction,
    unsure_exchange,
)
from heg.gas.system import System
from heg.reference.published import published
from heg.statistics import Estimate

LETTERS = "fesp"  # of the quantities that are measured and corrected
OBSERVABLES = {"f": "F", "e": "E", "s": "S", "p": "pressure"}  # their names in observables.json


class Part(NamedTuple):
    """One twist of a gas.

    Attributes:
      weight: of the twist.
      run: name of the run directory.
      facts: contents of point.json.
    """

    weight: float
    run: str
    facts: dict

    @property
    def observables(self) -> dict:
        """The part of observables.json that a row is made of."""
        return self.facts["measured"]

    @property
    def system(self) -> System:
        """The gas with this twist."""
        facts = self.observables["system"]
        return System(
            n_up=facts["n_up"],
            n_down=facts["n_down"],
            dim=facts["dim"],
            rs=facts["rs_bohr"],
            theta=facts["theta"],
            twist=facts["twist"],
            coupling=facts["coupling"],
        )


class CellFreeEnergy(NamedTuple):
    """Free energies of the cell, averaged over the twists, hartree per electron.

    Attributes:
      second_order: F_2.
      excess: f_xc with it.
      errors: parts of the error of f_xc, by name: samples, twists, second_order.
    """

    second_order: Estimate
    excess: Estimate
    errors: dict[str, float]


class SizeTerms(NamedTuple):
    """The size correction, averaged over the twists.

    Attributes:
      correction: of f, e, s, p, by letter.
      uncertainty: of each of the four.
      exchange: the part of f by exchange alone, which is exact.
    """

    correction: dict[str, float]
    uncertainty: dict[str, float]
    exchange: float


def row_of(parts: list[Part]) -> dict:
    """The row of a gas from its twists, without the columns that come from the surface.

    Units are in the names of the columns.
    """
    system = parts[0].system
    # averages over the twists, each with its weight
    size = _size_terms(parts)
    cell = _free_energy_of_cell(parts)
    # the order of the columns is that of table.csv
    row = _gas_columns(system) | {"twists": len(parts)}
    bound = _average(parts, "f")
    row |= _bound_columns(bound, cell.second_order, size)
    quantities = ideal_infinite.equation_of_state(system)
    ideal = dict(zip(NAMES, quantities))
    for letter in LETTERS:
        # F alone is known to second order
        excess = cell.excess if letter == "f" else _average(parts, letter)
        unit = _unit(letter, system.dim)
        row |= _quantity_columns(
            letter,
            unit,
            excess,
            size,
            ideal=ideal[letter],
        )
    for name, error in cell.errors.items():
        row[f"f_xc_error_{name}_ha"] = error
    row["exchange_correction_ha"] = size.exchange
    row["c_ideal_kb"] = ideal["c"]
    for name, value in published(system).items():
        row[f"f_xc_{name}_ha"] = value
    return row | _provenance_columns(parts)


def _unit(letter: str, dim: int) -> str:
    """The unit of a quantity at the end of its column's name."""
    return {"f": "ha", "e": "ha", "s": "kb", "p": f"ha_per_bohr{dim}"}[letter]


def _columns(name: str, unit: str, estimate: Estimate) -> dict[str, float]:
    """A column for the value and one for its error."""
    return {f"{name}_{unit}": estimate.mean, f"{name}_error_{unit}": estimate.error}


def _gas_columns(system: System) -> dict[str, float]:
    return {
        "dim": system.dim,
        "electrons": system.electrons,
        "n_up": system.n_up,
        "n_down": system.n_down,
        "zeta": system.polarization,
        "rs_bohr": system.rs,
        "theta": system.theta,
        "temperature_ha": system.temperature,
        "fermi_energy_ha": system.fermi_energy,
    }


def _bound_columns(bound: Estimate, second_order: Estimate, size: SizeTerms) -> dict[str, float]:
    """F_2, and the upper bound of f_xc in the cell and in the infinite gas."""
    infinite = _add(bound, size.correction["f"], size.uncertainty["f"])
    return (
        _columns("f_2", "ha", second_order)
        | _columns("f_xc_cell_bound", "ha", bound)
        | _columns("f_xc_bound", "ha", infinite)
    )


def _quantity_columns(
    letter: str, unit: str, excess: Estimate, size: SizeTerms, ideal: float
) -> dict[str, float]:
    """One of f, e, s, p: of the cell, its size correction, of the infinite gas.

    Args:
      letter: the quantity.
      unit: at the end of the names of the columns.
      excess: what the interaction adds in the cell.
      size: the size correction.
      ideal: of the infinite ideal gas.
    """
    # cell + size correction + ideal gas of infinitely many electrons
    correction = Estimate(size.correction[letter], size.uncertainty[letter])
    infinite = _add(excess, correction.mean, correction.error)
    mean = ideal + infinite.mean  # the ideal gas is exact
    total = Estimate(mean, infinite.error)
    return (
        _columns(f"{letter}_xc_cell", unit, excess)
        | _columns(f"{letter}_correction", unit, correction)
        | _columns(f"{letter}_xc", unit, infinite)
        | {f"{letter}_ideal_{unit}": ideal}
        | _columns(letter, unit, total)
    )


def _add(estimate: Estimate, value: float, error: float) -> Estimate:
    """An estimate and an independent correction."""
    return Estimate(estimate.mean + value, float(np.hypot(estimate.error, error)))


def _provenance_columns(parts: list[Part]) -> dict:
    """The effort behind a row, and where it comes from."""
    facts = [part.facts for part in parts]
    # a row is as good as the worst of its twists
    all_reached = all(fact["reached"] for fact in facts)
    runs = " ".join(part.run for part in parts)
    return {
        "samples": sum(fact["samples"] for fact in facts),
        "steps": sum(fact["steps"] for fact in facts),
        "reached": int(all_reached),
        "doubts": _doubts(parts),
        "run": runs,
        "version": parts[0].observables["version"],
    }


def _doubts(parts: list[Part]) -> str:
    """What speaks against the points of a row, in words; of several twists with their names."""
    sentences = []
    for part in parts:
        # points of older versions have none
        of_part = " ".join(part.facts.get("doubts", ()))
        if of_part:
            sentences.append(f"{part.run}: {of_part}" if len(parts) > 1 else of_part)
    return " ".join(sentences)


def _average(parts: list[Part], letter: str) -> Estimate:
    """What the interaction adds in the cell, averaged over the twists."""
    name = OBSERVABLES[letter]
    excess = []
    for part in parts:
        measured = part.observables[name]
        ideal = part.observables["ideal"][name]
        mean = measured["mean"] - ideal  # the ideal part is exact
        excess.append(Estimate(mean, measured["error"]))
    return _mean_over_twists(parts, excess)


def _free_energy_of_cell(parts: list[Part]) -> CellFreeEnergy:
    """F_2, and f_xc of the cell with it, averaged over the twists.

    Larger transfers, triples and denominators, which F_2 leaves open, have one sign at all twists.
    Their error does not average out: the mean of it is added.
    """
    second_order = []
    excess = []
    # variances of the averages, and the mean of the systematic errors
    samples = 0
    perturbation = 0
    systematic = 0
    for part in parts:
        second = part.observables["F_2"]
        bound = part.observables["F"]
        ideal = part.observables["ideal"]["F"]
        mean = bound["mean"] - ideal + second["mean"]
        error = float(np.hypot(bound["error"], second["error"]))
        second_order.append(Estimate(second["mean"], second["error"]))
        excess.append(Estimate(mean, error))
        samples += (part.weight * bound["error"]) ** 2
        perturbation += (part.weight * second["error"]) ** 2
        systematic += part.weight * second["systematic"]
    mean_excess = _mean_over_twists(parts, excess)
    # what is left of the variance is the spread among the twists
    spread = max(mean_excess.error**2 - samples - perturbation, 0.0)
    return CellFreeEnergy(
        second_order=_widened(_mean_over_twists(parts, second_order), systematic),
        excess=_widened(mean_excess, systematic),
        errors={
            "samples": math.sqrt(samples),
            "twists": math.sqrt(spread) if len(parts) > 1 else 0.0,
            "second_order": math.sqrt(perturbation + systematic**2),
        },
    )


def _widened(estimate: Estimate, systematic: float) -> Estimate:
    """An estimate with a further, independent error."""
    return Estimate(estimate.mean, float(np.hypot(estimate.error, systematic)))


def _mean_over_twists(parts: list[Part], estimates: list[Estimate]) -> Estimate:
    """The weighted mean, with the spread among the twists in its error."""
    values = np.array([estimate.mean for estimate in estimates])
    errors = np.array([estimate.error for estimate in estimates])
    weights = np.array([part.weight for part in parts])
    count = len(parts)
    mean = float(weights @ values)
    # of independent samples at each twist
    variance = weights**2 @ errors**2
    if count > 1:
        # equal weights give the variance of a mean of independent twists
        deviations = values - mean
        variance += count / (count - 1) * weights**2 @ deviations**2
    return Estimate(mean, float(np.sqrt(variance)))


def _size_terms(parts: list[Part]) -> SizeTerms:
    """The size correction of f, e, s, p.

    Exchange is exact; the rest is uncertain by the same share for all four.
    """
    weights = np.array([part.weight for part in parts])
    wholes = []
    exchanges = []
    rests = []
    distances = []
    unsure = []
    for part in parts:
        gas = part.system
        correction = size_correction(gas)
        wholes.append(_as_quantities(gas, correction))
        exchanges.append(correction.exchange)
        rests.append(_as_quantities(gas, correlation_correction(gas)))
        # of f: the distance between two forms of the correction, which has a sign at each twist
        distances.append(beyond_interpolation(gas))
        unsure.append(unsure_exchange(gas))
    whole = weights @ wholes
    exchange = weights @ exchanges
    rest = weights @ rests
    error = np.hypot(weights @ distances, weights @ unsure)
    of_f = max(abs(rest[0]), 1e-300)
    share = error / of_f
    return SizeTerms(
        correction=dict(zip(LETTERS, whole.tolist())),
        uncertainty=dict(zip(LETTERS, share * np.abs(rest))),
        exchange=float(exchange),
    )


def _as_quantities(system: System, correction: SizeCorrection) -> np.ndarray:
    """A size correction of the energies as one of f, e, s, p.  [4]"""
    free_energy = correction.free_energy
    energy = correction.potential + correction.kinetic
    entropy = (energy - free_energy) / system.temperature
    # the virial theorem
    virial = correction.potential + 2 * correction.kinetic
    pressure = virial * system.density / system.dim
    return np.array([free_energy, energy, entropy, pressure])
