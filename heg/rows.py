r"""The row of a gas in a table of the equation of state, averaged over its twists.

The cell's f_xc, s_xc, e_xc and p_xc are averages over the twists, of weights w, of what the interaction adds to the
ideal gas of the same N, zeta and twist; the variance of an average is the sum of w^2 (error^2 + n / (n - 1)
deviation^2), so that it holds the spread.  Then the ideal gas of infinitely many electrons takes the place of that of
the cell, and the size correction is added:

.. math:: f = f_{ideal,\infty} + f_{xc,N} + (f_\infty - f_N)_{xc} .
"""

from typing import NamedTuple

import numpy as np

from heg import ideal_infinite
from heg.eos import NAMES
from heg.references import published
from heg.statistics import Estimate
from heg.system import System


class Part(NamedTuple):
    """One twist of a gas.

    Attributes:
      weight: of the twist.
      run: name of the run directory.
      observables: what observables.json holds.
      facts: what point.json holds.
    """

    weight: float
    run: str
    observables: dict
    facts: dict


def make_row(parts: list[Part]) -> dict:
    """The row of a gas from its twists, but for what the surface says.  Units are in the names."""
    first = parts[0].observables
    system = _system(first["system"])
    volume = f"ha_per_bohr{system.dim}"
    row = {
        "dim": system.dim,
        "electrons": system.electrons,
        "n_up": system.n_up,
        "n_down": system.n_down,
        "zeta": system.polarization,
        "rs_bohr": system.rs,
        "theta": system.theta,
        "temperature_ha": system.temperature,
        "fermi_energy_ha": system.fermi_energy,
        "twists": len(parts),
    }
    units = {"f": "ha", "e": "ha", "s": "kb", "p": volume}
    cell = {letter: _average(parts, letter) for letter in units}
    for letter, unit in units.items():
        row |= _columns(f"{letter}_xc_cell", unit, cell[letter])
    infinite = lambda name: float(np.sum([part.weight * part.observables["infinite_gas"][name] for part in parts]))
    correction = [part.observables["infinite_gas"]["f_xc_correction_ha"] for part in parts]
    weights = np.array([part.weight for part in parts])
    added = Estimate(
        float(weights @ [one["mean"] for one in correction]), float(weights @ [one["error"] for one in correction])
    )
    row["exchange_correction_ha"] = infinite("exchange_correction_ha")
    row |= _columns("correction", "ha", added)
    of_energy = infinite("potential_correction_ha") + infinite("kinetic_correction_ha")
    of_pressure = (infinite("potential_correction_ha") + 2 * infinite("kinetic_correction_ha")) * system.density
    added_to = {
        "f": added.mean,
        "e": of_energy,
        "s": (of_energy - added.mean) / system.temperature,
        "p": of_pressure / system.dim,
    }
    unsure = added.error / max(abs(added.mean - row["exchange_correction_ha"]), 1e-300)
    ideal = dict(zip(NAMES, ideal_infinite.equation_of_state(system)))
    for letter, unit in units.items():
        # of the first order, which is exact, none of the correction's error
        error = float(np.hypot(cell[letter].error, unsure * abs(added_to[letter]) if letter != "f" else added.error))
        xc = Estimate(cell[letter].mean + added_to[letter], error)
        row |= _columns(f"{letter}_xc", unit, xc) if letter == "f" else {}
        row[f"{letter}_ideal_{unit}"] = ideal[letter]
        row |= _columns(letter, unit, Estimate(ideal[letter] + xc.mean, xc.error))
    row["c_ideal_kb"] = ideal["c"]
    row |= {f"f_xc_{name}_ha": value for name, value in published(system).items()}
    return row | {
        "samples": sum(part.facts["samples"] for part in parts),
        "steps": sum(part.facts["steps"] for part in parts),
        "reached": int(all(part.facts["reached"] for part in parts)),
        "run": " ".join(part.run for part in parts),
        "version": first["version"],
    }


def _average(parts, letter):
    """What the interaction adds in the cell, averaged over the twists, the spread among them in its error."""
    name = {"f": "F", "e": "E", "s": "S", "p": "pressure"}[letter]
    values = [part.observables[name]["mean"] - part.observables["ideal"][name] for part in parts]
    errors, weights = [part.observables[name]["error"] for part in parts], np.array([part.weight for part in parts])
    mean = float(weights @ values)
    variance = weights**2 @ np.square(errors)
    if len(parts) > 1:
        variance += len(parts) / (len(parts) - 1) * weights**2 @ (np.array(values) - mean) ** 2
    return Estimate(mean, float(np.sqrt(variance)))


def _columns(name, unit, estimate):
    return {f"{name}_{unit}": estimate.mean, f"{name}_error_{unit}": estimate.error}


def _system(facts):
    names = ("n_up", "n_down", "dim")
    return System(*(facts[name] for name in names), facts["rs_bohr"], facts["theta"], facts["twist"], facts["coupling"])
