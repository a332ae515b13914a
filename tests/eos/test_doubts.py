"""Doubts about points of a table: each thing that speaks against one, and nothing where all is
well."""

import numpy as np
import pytest

from heg.eos.doubts import doubts

T = 0.5  # hartree
ACCURACY = 2e-3
GOOD = {"good": True, "sentence": "Good: F and S have settled."}
BAD = {"good": False, "sentence": "Doubtful: 9 of 99 draws had no verified inverse; ..."}


def history(steps=60, **drifts):
    """F and S that stand still, but for a change in the last third, hartree and k_B."""
    last = np.arange(steps) >= steps - steps // 3
    columns = {}
    for name, unit in (("F", "ha"), ("S", "kb")):
        columns[f"{name}_{unit}"] = drifts.get(name, 0.0) * last
        columns[f"{name}_error_{unit}"] = np.full(steps, 1e-4)
    return [dict(zip(columns, map(str, row))) for row in zip(*columns.values())]


def found(rows=None, verdict=GOOD, error=1e-3, f_2=-0.01, f_2_error=1e-3, systematic=0.0):
    """Doubts about a point with f_xc of -0.5 hartree."""
    measured = {
        "F": {"mean": 0.5, "error": error},
        "ideal": {"F": 1.0},
        "F_2": {"mean": f_2, "error": f_2_error, "systematic": systematic},
    }
    rows = history() if rows is None else rows
    return doubts({"verdict": verdict}, rows, measured, ACCURACY, T)


def test_a_point_whose_parts_agree_has_none():
    assert found() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"verdict": BAD}, "9 of 99 draws had no verified inverse"),
        ({"rows": history(F=-0.003)}, "F drifts by -0.00300"),
        # 0.006 k_B are 0.003 hartree
        ({"rows": history(S=0.006)}, "T S drifts by 0.00300"),
        ({"rows": history(steps=20)}, "20 steps do not show"),
        ({"error": 3e-3}, "F is known to 0.003 Ha, 0.002 is asked for"),
        ({"f_2": -0.06}, "is 12 % of f_xc"),
        ({"f_2_error": 6e-3, "systematic": 9e-3}, "is smaller than its error"),
    ],
)
def test_each_doubt_is_a_sentence(change, words):
    (sentence,) = found(**change)
    assert words in sentence


def test_a_drift_of_entropy_counts_as_energy():
    assert not found(rows=history(S=0.003))  # 0.0015 hartree
