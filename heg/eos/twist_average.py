r"""The row of a gas in a table of the equation of state, averaged over its twists.

The cell's f_xc, s_xc, e_xc and p_xc are averages over the twists, of weights w, of what the
interaction adds to the ideal gas of the same N, zeta and twist; the variance of an average is the
sum of w^2 (error^2 + n / (n - 1) deviation^2), so that it holds the spread.  Then the ideal gas of
infinitely many electrons takes the place of that of the cell, and the size correction is added:

.. math:: f = f_{ideal,\infty} + f_{xc,N} + (f_\infty - f_N)_{xc} .

f_xc of the cell is that of F + F_2, an estimate (heg.observables.second_order.perturbation); the
columns f_xc_cell_bound and f_xc_bound have the upper bound. e, s and p are measured in the density
matrix itself.
"""

from typing import NamedTuple

import numpy as np

from heg.eos.surface import NAMES
from heg.gas import ideal_infinite
from heg.gas.size_correction import beyond_interpolation, correlation_correction, size_correction
from heg.gas.system import System
from heg.reference.published import published
from heg.statistics import Estimate


class Part(NamedTuple):
    """One twist of a gas.

    Attributes:
      weight: of the twist.
      run: name of the run directory.
      facts: what point.json holds.
    """

    weight: float
    run: str
    facts: dict

    @property
    def observables(self) -> dict:
        """Of observables.json, what a row is made of."""
        return self.facts["measured"]


def row_of(parts: list[Part]) -> dict:
    """The row of a gas from its twists, but for what the surface says.  Units are in the names."""
    system = _system(parts[0])
    units = {"f": "ha", "e": "ha", "s": "kb", "p": f"ha_per_bohr{system.dim}"}
    row = _gas(system) | {"twists": len(parts)}
    added, unsure = _size(parts)
    ideal = dict(zip(NAMES, ideal_infinite.equation_of_state(system)))
    columns = lambda name, unit, found: {
        f"{name}_{unit}": found.mean,
        f"{name}_error_{unit}": found.error,
    }
    bound, f_2, cell_f = _average(parts, "f"), *_with_second_order(parts)
    row |= columns("f_2", "ha", f_2) | columns("f_xc_cell_bound", "ha", bound)
    of_bound = Estimate(bound.mean + added["f"], float(np.hypot(bound.error, unsure["f"])))
    row |= columns("f_xc_bound", "ha", of_bound)
    for letter, unit in units.items():
        cell, error = cell_f if letter == "f" else _average(parts, letter), unsure[letter]
        xc = Estimate(cell.mean + added[letter], float(np.hypot(cell.error, error)))
        row |= columns(f"{letter}_xc_cell", unit, cell)
        row |= columns(f"{letter}_correction", unit, Estimate(added[letter], error))
        row |= columns(f"{letter}_xc", unit, xc)
        row |= {f"{letter}_ideal_{unit}": ideal[letter]}
        row |= columns(letter, unit, Estimate(ideal[letter] + xc.mean, xc.error))
    row |= {"exchange_correction_ha": added["exchange"], "c_ideal_kb": ideal["c"]}
    row |= {f"f_xc_{name}_ha": value for name, value in published(system).items()}
    return row | {
        "samples": sum(part.facts["samples"] for part in parts),
        "steps": sum(part.facts["steps"] for part in parts),
        "reached": int(all(part.facts["reached"] for part in parts)),
        "run": " ".join(part.run for part in parts),
        "version": parts[0].observables["version"],
    }


def _gas(system):
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


def _average(parts, letter):
    """What the interaction adds in the cell, averaged over the twists, the spread among them in its
    error."""
    name = {"f": "F", "e": "E", "s": "S", "p": "pressure"}[letter]
    added = []
    for part in parts:
        measured = part.observables[name]
        added.append({**measured, "mean": measured["mean"] - part.observables["ideal"][name]})
    return _mean(parts, added)


def _with_second_order(parts):
    """F_2 and f_xc of the cell with it, averaged over the twists.

    What larger transfers, triples and denominators leave open has one sign at all twists: it is
      averaged, too.
    """
    second = [part.observables["F_2"] for part in parts]
    systematic = sum(part.weight * found["systematic"] for part, found in zip(parts, second))
    whole = []
    for part, found in zip(parts, second):
        bound, ideal = part.observables["F"], part.observables["ideal"]["F"]
        mean = bound["mean"] - ideal + found["mean"]
        whole.append({"mean": mean, "error": float(np.hypot(bound["error"], found["error"]))})
    both = _mean(parts, second), _mean(parts, whole)
    return [Estimate(one.mean, float(np.hypot(one.error, systematic))) for one in both]


def _mean(parts, estimates):
    """Over the twists."""
    values = np.array([estimate["mean"] for estimate in estimates])
    errors = np.array([estimate["error"] for estimate in estimates])
    weights = np.array([part.weight for part in parts])
    mean = float(weights @ values)
    variance = weights**2 @ errors**2
    if len(parts) > 1:
        variance += len(parts) / (len(parts) - 1) * weights**2 @ (values - mean) ** 2
    return Estimate(mean, float(np.sqrt(variance)))


def _size(parts):
    """The size correction of f, e, s, p, and of f by exchange alone; and how uncertain each of the
    four is.

    Exchange is exact; of the rest all four are uncertain by the same share.
    """
    gases, weights = [_system(part) for part in parts], np.array([part.weight for part in parts])
    corrections = [size_correction(gas) for gas in gases]
    whole = weights @ [_four(gases[0], one) for one in corrections]
    exchange = weights @ [one.exchange for one in corrections]
    rest = weights @ [_four(gas, correlation_correction(gas)) for gas in gases]
    error = abs(weights @ [beyond_interpolation(gas) for gas in gases])
    share = error / max(abs(rest[0]), 1e-300)
    return dict(zip("fesp", whole.tolist())) | {"exchange": float(exchange)}, dict(
        zip("fesp", share * np.abs(rest))
    )


def _four(system, correction):
    """What a size correction is of f, e, s, p."""
    energy = correction.potential + correction.kinetic
    pressure = (correction.potential + 2 * correction.kinetic) * system.density / system.dim
    return np.array(
        [
            correction.free_energy,
            energy,
            (energy - correction.free_energy) / system.temperature,
            pressure,
        ]
    )


def _system(part):
    gas = part.observables["system"]
    spins = (gas[name] for name in ("n_up", "n_down", "dim"))
    return System(*spins, gas["rs_bohr"], gas["theta"], gas["twist"], gas["coupling"])
