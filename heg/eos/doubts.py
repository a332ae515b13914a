"""Doubts about a point of a table in words: parts of its result that do not agree."""

import math
from typing import Any

from heg.statistics import Estimate
from heg.training.convergence import SHORTEST, drift
from heg.training.verdict import sentence_of

LARGE_SECOND_ORDER = 0.1  # share of f_xc, above which F_2 is no small correction


def doubts(
    summary: dict, history: list, measured: dict, accuracy: float, temperature: float
) -> list[str]:
    """Sentences on what speaks against a point; none where nothing does.

    They are on the drift of F and S, the draws and the folds of the flow, the error of F, and the
    size of the second order.

    Args:
      summary: contents of summary.json.
      history: rows of history.csv.
      measured: F, F_2 and ideal of the measurement, as point.json holds them.
      accuracy: error of F wanted, hartree per electron.
      temperature: T, hartree.
    """
    sentences = []
    if not summary["verdict"]["good"]:
        sentences.append(sentence_of(summary))
    sentences += _drifts(history, accuracy, temperature)
    error = measured["F"]["error"]
    if error > accuracy:
        sentences.append(f"F is known to {error:.2g} Ha, {accuracy:.2g} is asked for.")
    return sentences + _second_order(measured)


def _drifts(history: list, accuracy: float, temperature: float) -> list[str]:
    """Drifts of F and T S, hartree per electron, that are larger than the accuracy."""
    if len(history) < SHORTEST:
        return [f"{len(history)} steps do not show whether F and S have settled."]
    sentences = []
    for name, factor, title in (("F", 1.0, "F"), ("S", temperature, "T S")):
        change = drift(history, name)
        size = factor * abs(change.mean)
        if size > accuracy:
            known = Estimate(factor * change.mean, factor * change.error)
            sentences.append(
                f"{title} drifts by {known} Ha over a third of the training, "
                f"{accuracy:.2g} is asked for."
            )
    return sentences


def _second_order(measured: dict[str, Any]) -> list[str]:
    """Whether F_2 is small beside f_xc, and known."""
    second = measured["F_2"]
    error = math.hypot(second["error"], second["systematic"])
    known = Estimate(second["mean"], error)
    size = abs(second["mean"])
    f_xc = measured["F"]["mean"] - measured["ideal"]["F"]
    share = size / max(abs(f_xc), 1e-300)
    sentences = []
    if share > LARGE_SECOND_ORDER:
        sentences.append(f"The second order, {known} Ha, is {100 * share:.0f} % of f_xc.")
    if error > size:
        sentences.append(f"The second order, {known} Ha, is smaller than its error.")
    return sentences
