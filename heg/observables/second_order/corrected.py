"""What second order makes of the results: F + F_2, and the observables to first order in the
perturbation."""

import numpy as np

from heg.gas.system import System
from heg.observables.second_order.contributions import Rows
from heg.observables.second_order.perturbation import Row, SecondOrder, response
from heg.observables.structure import Grid
from heg.observables.thermodynamics import Quantity, contact
from heg.statistics import Estimate, jackknife


def corrected(
    system: System,
    grid: Grid,
    quantities: dict[str, Quantity],
    found: SecondOrder,
    rows: Row,
) -> dict[str, Quantity]:
    """F_2, F + F_2 and f_xc with it, and the observables to first order."""
    hartree = "hartree per electron"
    f_2 = Estimate(found.value, found.error)
    added = {"F_2": number(f_2, hartree)}
    for name in ("F", "f_xc"):
        bound = quantities[name]
        added[f"{name}_second_order"] = number(
            Estimate(bound.value + f_2.mean, np.hypot(bound.error, f_2.error)), hartree
        )
    for name, change in response(rows).items():
        bound = quantities[name]
        covariance = change.covariance
        if bound.covariance is not None:
            covariance = covariance + bound.covariance
        value = bound.value + change.value
        error = np.hypot(bound.error, change.error)
        added[f"{name}_first_order"] = Quantity(
            value, error, covariance if value.size > 1 else None, bound.unit
        )
    if system.n_down:
        change = jackknife(rows.response["g_r"], lambda g: contact(system, grid, g[1]))
        bound = quantities["contact"]
        added["contact_first_order"] = number(
            Estimate(bound.value + change.value, np.hypot(bound.error, change.error)), bound.unit
        )
    return added


def second_order_facts(second: dict, beyond: Rows | None) -> dict:
    """F_2 and the parts of its error, and how it was found, as observables.json has them."""
    if beyond is None:
        return {}
    numbers = {name: np.asarray(value).tolist() for name, value in second.items()}
    return numbers | {
        "states": len(beyond.rows.variance),
        "alpha": float(beyond.levels.weights[1]),
        "gamma": float(beyond.levels.weights[2]),
        "largest_transfer_squared": len(second["by_transfer"]) - 1,
    }


def number(estimate: Estimate, unit: str) -> Quantity:
    """A single number as a quantity."""
    return Quantity(np.asarray(estimate.mean), np.asarray(estimate.error), None, unit)
