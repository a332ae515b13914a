"""Has a training come to its end?  From the history of F and S."""

import numpy as np

from heg.statistics import Estimate

SHORTEST = 30  # steps that say anything: thirds of at least ten


UNITS = {"F": "ha", "S": "kb"}


def thirds(history: list[dict[str, str]], name: str = "F") -> tuple[Estimate, Estimate]:
    """Mean F (hartree) or S (k_B) per electron over the second and over the last third of the rows
    of history.csv.

    Raises:
      ValueError: fewer than three rows.
    """
    third = len(history) // 3
    if not third:
        raise ValueError(
            f"a history of {len(history)} steps has no thirds: train for at least 3 steps"
        )
    return _mean(history[-2 * third : -third], name), _mean(history[-third:], name)


def drift(history: list[dict[str, str]], name: str = "F") -> Estimate:
    """F or S of the last third of the steps less that of the second; as `thirds`."""
    before, after = thirds(history, name)
    return Estimate(after.mean - before.mean, float(np.hypot(before.error, after.error)))


def settled(history: list[dict[str, str]], accuracy: float) -> bool:
    """Are both the drift of F and its error below the accuracy (hartree per electron), after
    SHORTEST steps or more?"""
    if len(history) < SHORTEST:
        return False
    found = drift(history)
    return max(abs(found.mean), found.error) <= accuracy


def _mean(rows, name):
    """The errors of the steps are independent for exact draws; the parameters, which move, add what
    they drift."""
    unit = UNITS[name]
    errors = [float(row[f"{name}_error_{unit}"]) for row in rows]
    mean = float(np.mean([float(row[f"{name}_{unit}"]) for row in rows]))
    return Estimate(mean, float(np.linalg.norm(errors) / len(rows)))
