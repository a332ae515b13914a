"""Convergence of a training, judged by its history of F and S."""

import numpy as np

from heg.statistics import Estimate

SHORTEST = 30  # fewest steps that are judged: each third then has ten
NOISE = 2.0  # errors by which S may drift by chance
UNITS = {"F": "ha", "S": "kb"}


def thirds(history: list[dict[str, str]], name: str = "F") -> tuple[Estimate, Estimate]:
    """Mean F (hartree) or S (k_B) per electron over the second and over the last third.

    Args:
      history: rows of history.csv.
      name: "F" or "S".
    Raises:
      ValueError: fewer than three rows.
    """
    third = len(history) // 3
    if not third:
        raise ValueError(
            f"a history of {len(history)} steps has no thirds: train for at least 3 steps"
        )
    second = history[-2 * third : -third]
    last = history[-third:]
    return _mean(second, name), _mean(last, name)


def drift(history: list[dict[str, str]], name: str = "F") -> Estimate:
    """F or S of the last third of the steps less that of the second; as `thirds`."""
    before, after = thirds(history, name)
    error = float(np.hypot(before.error, after.error))
    return Estimate(after.mean - before.mean, error)


def settled(history: list[dict[str, str]], accuracy: float, temperature: float) -> bool:
    """True if F and S have settled, after SHORTEST steps.

    The drift of F and its error are both below the accuracy.  The drift of T S is below it, or
    within NOISE of its own errors: S is noisier than F, but follows the parameters in first order.

    Args:
      history: rows of history.csv.
      accuracy: hartree per electron.
      temperature: T, hartree.
    """
    if len(history) < SHORTEST:
        return False
    change = drift(history)
    if max(abs(change.mean), change.error) > accuracy:
        return False
    # F is at its minimum and S is not: it may still drift where F has settled
    entropy = drift(history, "S")
    size = abs(entropy.mean)
    is_noise = size <= NOISE * entropy.error
    return is_noise or temperature * size <= accuracy


def _mean(rows, name):
    """Mean over the steps.

    The errors of the steps are independent for exact draws; the drift of the parameters comes on
    top.
    """
    unit = UNITS[name]
    values = [float(row[f"{name}_{unit}"]) for row in rows]
    errors = [float(row[f"{name}_error_{unit}"]) for row in rows]
    mean = float(np.mean(values))
    error = float(np.linalg.norm(errors) / len(rows))
    return Estimate(mean, error)
