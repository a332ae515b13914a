"""Results with the second order: F + F_2, and observables to first order in the perturbation."""

import numpy as np

from heg.gas.system import System
from heg.observables.quantities import Quantity, Result, with_units
from heg.observables.second_order.contributions import Rows
from heg.observables.second_order.perturbation import HIGHER_ORDERS, Row, SecondOrder, response
from heg.observables.second_order.relaxation import Relaxation
from heg.observables.structure import Grid
from heg.observables.thermodynamics import contact
from heg.statistics import Derived, Estimate, jackknife

OPPOSITE_SPINS = 1  # of the pairs of spins in g(r): up and up, up and down, down and down
# Share of the change of an observable that stands for higher orders in its error.  An observable is
# a derivative of F: where F_2 goes as the square of the perturbation and what follows as its cube,
# the derivative counts the latter 3/2 times as much
HIGHER_ORDERS_OF_CHANGE = 1.5 * HIGHER_ORDERS


def corrected(
    system: System,
    grid: Grid,
    quantities: dict[str, Quantity],
    result: SecondOrder,
    rows: Row,
    relaxed: Relaxation,
) -> dict[str, Quantity]:
    """F_2, F + F_2 and f_xc with it, the entropy of the best p(K), observables to first order.

    Args:
      system: the gas.
      grid: of S(q) and g(r).
      quantities: variational results, by name.
      result: F_2 and its error.
      rows: with the states along the first axis of every leaf.
      relaxed: of p(K).
    """
    results: dict[str, Result] = {"F_2": Estimate(result.value, result.error)}
    for name in ("F", "f_xc"):
        total = _sum(quantities[name], result.value, result.error)
        results[f"{name}_second_order"] = total
    entropy = relaxed.entropy / system.electrons
    entropy_error = relaxed.entropy_error / system.electrons
    results["S_relaxed"] = Estimate(entropy, entropy_error)
    added = with_units(results, system.dim)
    for name, change in response(rows).items():
        added[f"{name}_first_order"] = _to_first_order(quantities[name], change)
    if system.n_down:
        # the fit at small r is linear in g: that of the change is the change of the fit
        of_contact = lambda g: contact(system, grid, g[OPPOSITE_SPINS])  # without its error
        change = jackknife(rows.response["g_r"], of_contact)
        higher_orders = HIGHER_ORDERS_OF_CHANGE * change.value
        error = np.hypot(change.error, higher_orders)
        total = _sum(quantities["contact"], change.value, error)
        added |= with_units({"contact_first_order": total}, system.dim)
    return added


def second_order_facts(second: dict, beyond: Rows | None) -> dict:
    """F_2, the parts of its error and what it was computed from, for observables.json.

    Args:
      second: fields of SecondOrder.
      beyond: the states; none: the second order was left out, and there are no facts.
    """
    if beyond is None:
        return {}
    numbers = {name: np.asarray(value).tolist() for name, value in second.items()}
    _, alpha, gamma = beyond.levels.weights
    return numbers | {
        "states": len(beyond.rows.variance),
        "alpha": float(alpha),
        "gamma": float(gamma),
        "largest_transfer_squared": len(second["by_transfer"]) - 1,
    }


def _sum(bound: Quantity, change, error) -> Estimate:
    """A variational number and its change, as if their errors were independent."""
    total = float(bound.value + change)
    return Estimate(total, float(np.hypot(bound.error, error)))


def _to_first_order(bound: Quantity, change: Derived) -> Quantity:
    """A variational array or number and its change, as if their errors were independent.

    What higher orders may change is one factor for the whole array.
    """
    value = bound.value + change.value
    higher_orders = HIGHER_ORDERS_OF_CHANGE * change.value
    error_of_change = np.hypot(change.error, higher_orders)
    # results without a covariance have independent errors, which go into `error` alone
    covariance = change.covariance + np.outer(higher_orders, higher_orders)
    if bound.covariance is not None:
        covariance = covariance + bound.covariance
    return Quantity(
        value=value,
        error=np.hypot(bound.error, error_of_change),
        covariance=covariance if value.size > 1 else None,
        unit=bound.unit,
    )
