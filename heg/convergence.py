"""Has a training come to its end?  From the history of F."""

import numpy as np

from heg.statistics import Estimate

SHORTEST = 30  # steps that say anything: thirds of at least ten


def thirds(history: list[dict[str, str]]) -> tuple[Estimate, Estimate]:
    """Mean F per electron (hartree) over the second and over the last third of the rows of history.csv.

    Raises:
      ValueError: fewer than three rows.
    """
    third = len(history) // 3
    if not third:
        raise ValueError(f"a history of {len(history)} steps has no thirds: train for at least 3 steps")
    return _mean(history[-2 * third : -third]), _mean(history[-third:])


def drift(history: list[dict[str, str]]) -> Estimate:
    """F of the last third of the steps less that of the second, hartree per electron."""
    before, after = thirds(history)
    return Estimate(after.mean - before.mean, float(np.hypot(before.error, after.error)))


def settled(history: list[dict[str, str]], accuracy: float) -> bool:
    """Are both the drift of F and its error below the accuracy (hartree per electron), after SHORTEST steps or more?"""
    if len(history) < SHORTEST:
        return False
    found = drift(history)
    return max(abs(found.mean), found.error) <= accuracy


def _mean(rows):
    """The errors of the steps are independent for exact draws; the parameters, which move, add what they drift."""
    errors = [float(row["F_error_ha"]) for row in rows]
    return Estimate(float(np.mean([float(row["F_ha"]) for row in rows])), float(np.linalg.norm(errors) / len(rows)))
