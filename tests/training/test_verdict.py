"""The verdict on a run: each thing that it looks at, and the runs that are shipped."""

import json
from pathlib import Path

import numpy as np
import pytest

from heg.runs.text_files import read_history
from heg.training.verdict import ONE_SAMPLE, REDRAWN_FEW, sentence_of, verdict

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
DRAWS, SAMPLES = 10_000, 4096
ERRORS = {"F": 1e-3, "S": 2e-3}


def summary(**quality):
    """Of a run in order; quality: what differs."""
    flat = {"min_det": 0.5, "folded_measure": {"mean": 0.0, "error": 0.0}, "redrawn": 0}
    flat |= {"largest_deviation_sigma": 4.0, "E_error_of_half_ha": 2**0.5 * 1e-3}
    means = {"F": -1.0, "E": -0.5, "kinetic": 0.5, "potential": -1.0, "S": 1.0}
    estimates = {
        name: {"mean": mean, "error": ERRORS.get(name, 1e-3)} for name, mean in means.items()
    }
    return estimates | {"samples": SAMPLES, "quality": flat | quality}


def history(steps=60, **drifts):
    """Of means that stand still, but for F or S in the last third, by so many of their errors."""
    last = np.arange(steps) >= steps - steps // 3
    columns = {}
    for name, unit in (("F", "ha"), ("S", "kb")):
        columns[f"{name}_{unit}"] = drifts.get(name, 0.0) * ERRORS[name] * last
        columns[f"{name}_error_{unit}"] = np.full(steps, ERRORS[name])
    return [dict(zip(columns, map(str, row))) for row in zip(*columns.values())]


def judged(rows=None, **quality):
    return verdict(summary(**quality), history() if rows is None else rows, DRAWS)


def test_a_run_in_order_is_good():
    assert judged() == {"good": True, "sentence": "Good: F and S have settled, no fold was found."}


@pytest.mark.parametrize(
    ("rows", "good", "words"),
    [
        (
            history(S=2.5),
            True,
            "Good: F has settled, S drifts by 2.5 of its errors, no fold was found.",
        ),
        (
            history(S=-14),
            False,
            "F has settled, S drifts by 14 of its errors, no fold was found; train longer.",
        ),
        (history(F=4), False, "Doubtful: F drifts by 4 of its errors, S has settled"),
        (history(F=1.5, S=1.5), True, "F and S have settled"),
        (history(29), False, "29 steps are too few to see whether F and S have settled"),
        ([], False, "0 steps are too few"),
    ],
)
def test_drifts_are_in_units_of_the_error(rows, good, words):
    found = judged(rows)
    assert found["good"] == good and words in found["sentence"]


def test_a_drift_that_the_history_cannot_tell_from_noise_is_none():
    noisy = [row | {"F_error_ha": str(100 * ERRORS["F"])} for row in history(F=14)]
    assert judged(noisy)["good"]


def test_a_ground_state_without_entropy_has_settled():
    rows = [row | {"S_kb": "0.0", "S_error_kb": "0.0"} for row in history()]
    still = summary() | {"S": {"mean": 0.0, "error": 0.0}}
    assert verdict(still, rows, DRAWS)["good"]


@pytest.mark.parametrize(
    ("quality", "good", "words"),
    [
        ({"min_det": -1e-9}, True, "no fold that matters"),
        # half of it times 1.5 hartree is 7.5e-4 and with two errors 9e-4, below the error of F
        (
            {"min_det": -1e-9, "folded_measure": {"mean": 1e-3, "error": 1e-4}},
            True,
            "no fold that matters",
        ),
        (
            {"min_det": -1e-9, "folded_measure": {"mean": 1e-3, "error": 3e-4}},
            False,
            "folds cover 0.0005 of space",
        ),
        ({"folded_measure": {"mean": 1e-2, "error": 1e-3}}, False, "smaller max_norm"),
        ({"redrawn": REDRAWN_FEW}, True, "no fold"),
        ({"redrawn": REDRAWN_FEW + 1}, False, "4 of 10000 draws had no verified inverse"),
        ({"largest_deviation_sigma": 0.99 * ONE_SAMPLE * SAMPLES**0.5}, True, "no fold was found."),
        (
            {"largest_deviation_sigma": 40.0},
            False,
            "one sample moves E by 0.6 of its error; draw more samples.",
        ),
        (
            {"E_error_of_half_ha": 1e-3},
            False,
            "the error of half of the samples is 0.71 times what it should be",
        ),
        ({"E_error_of_half_ha": None}, False, "the samples are too few"),
    ],
)
def test_folds_and_tails_are_judged_beside_the_error(quality, good, words):
    found = judged(**quality)
    assert found["good"] == good and words in found["sentence"]


@pytest.mark.parametrize(
    ("name", "good", "words"),
    [
        ("3d-7u-rs1-theta1", True, "F and S have settled, no fold was found"),
        ("2d-13u-rs10-theta0.15", False, "S drifts by 8.6 of its errors, no fold that matters"),
    ],
)
def test_runs_that_are_shipped(name, good, words):
    facts = json.loads((CHECKPOINTS / name / "summary.json").read_text())
    found = verdict(
        facts, read_history(CHECKPOINTS / name / "history.csv"), 256 * (facts["steps"] + 1)
    )
    assert found["good"] == good and words in found["sentence"]


@pytest.mark.parametrize(
    "facts", [{}, {"verdict": None}, {"verdict": "good"}, {"verdict": {"sentence": 3}}]
)
def test_files_of_older_versions_have_no_sentence(facts):
    assert sentence_of(facts) == ""
