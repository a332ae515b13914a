"""Can the errors of a run be trusted?  One sentence, from its summary and its history."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from heg.errors import RunError
from heg.statistics import Estimate
from heg.training.convergence import SHORTEST, drift

SETTLED, MOST_DRIFT = 2.0, 3.0  # errors that F or S may drift by: without a word, and at all
HALF = 0.25  # deviation of the error of half of the samples, over sqrt(2) times that of all, from 1
ONE_SAMPLE = 0.5  # errors by which one sample may move E
FAR = 6.0  # standard deviations that any distribution may reach
REDRAWN_BOUND = 1e-4  # share of draws that may be repeated
REDRAWN_FEW = 3  # repeated draws that are never too many
ROUNDING = 1e-10  # relative, of means without an error


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
      words: what is the case.
      remedy: what to do about it; empty if it is well.
    """

    words: str
    remedy: str = ""


def verdict(summary: dict, history: list[Mapping], draws: int) -> dict:
    """{"good": bool, "sentence": str}: do F and S stand still, does the bound hold, do few samples
    carry the mean?

    Args:
      summary: what summary.json holds.
      history: rows of history.csv.
      draws: of the whole training, repeated ones not counted.
    """
    findings = [*_settled(summary, history), _folds(summary, draws), *_tail(summary)]
    remedies = list(dict.fromkeys(finding.remedy for finding in findings if finding.remedy))
    words = ", ".join(finding.words for finding in findings)
    sentence = f"Doubtful: {words}; {' and '.join(remedies)}." if remedies else f"Good: {words}."
    return {"good": not remedies, "sentence": sentence}


def too_many_redrawn(redrawn: int, draws: int) -> bool:
    """Were so many of the draws repeated that their places may be favoured?"""
    return redrawn > max(REDRAWN_FEW, REDRAWN_BOUND * draws)


def sentence_of(facts: dict) -> str:
    """The sentence in a summary.json or observables.json; empty in those of older versions."""
    found = facts.get("verdict")
    sentence = found.get("sentence") if isinstance(found, dict) else None
    return sentence if isinstance(sentence, str) else ""


def _settled(summary, history):
    if len(history) < SHORTEST:
        words = f"{len(history)} steps are too few to see whether F and S have settled"
        return [Finding(words, "train longer")]
    drifts = {
        name: _drift_in_errors(Estimate(**summary[name]), drift(history, name)) for name in "FS"
    }
    if max(drifts.values()) <= SETTLED:
        return [Finding("F and S have settled")]
    return [
        Finding(
            f"{name} drifts by {size:.2g} of its errors",
            "train longer" if size > MOST_DRIFT else "",
        )
        if size > SETTLED
        else Finding(f"{name} has settled")
        for name, size in drifts.items()
    ]


def _drift_in_errors(result, change):
    """In units of the error of the result or of the drift itself, whichever is larger: seen, and of
    consequence."""
    error = max(result.error, change.error, ROUNDING * abs(result.mean), 1e-300)
    return abs(change.mean) / error


def _folds(summary, draws):
    """A fold of this share of space moves F by the order of that share of its parts."""
    quality = summary["quality"]
    folded = Estimate(**quality["folded_measure"])
    remedy = "use more layers or a smaller max_norm"
    if too_many_redrawn(quality["redrawn"], draws):
        return Finding(f"{quality['redrawn']} of {draws} draws had no verified inverse", remedy)
    if quality["min_det"] > 0 and folded.mean == 0:
        return Finding("no fold was found")
    share = folded.mean / 2
    moved = (
        (folded.mean + 2 * folded.error)
        / 2
        * (summary["kinetic"]["mean"] + abs(summary["potential"]["mean"]))
    )
    if moved > summary["F"]["error"]:
        return Finding(
            f"folds cover {share:.1g} of space, which matters beside the error of F", remedy
        )
    return Finding("no fold that matters")


def _tail(summary):
    """Do a few samples carry the mean of E_loc?  Nothing, where they do not."""
    quality, energy, count = summary["quality"], Estimate(**summary["E"]), summary["samples"]
    remedy, half, largest = (
        "draw more samples",
        quality["E_error_of_half_ha"],
        quality["largest_deviation_sigma"],
    )
    if energy.error <= ROUNDING * abs(energy.mean):
        return []
    if largest > max(FAR, ONE_SAMPLE * math.sqrt(count)):
        moves = largest / math.sqrt(count)
        return [Finding(f"one sample moves E by {moves:.1g} of its error", remedy)]
    if half is None:
        return [Finding("the samples are too few", remedy)]
    ratio = half / (math.sqrt(2) * energy.error)
    if abs(ratio - 1) > max(HALF, 3 / math.sqrt(2 * count)):  # the latter by chance alone
        return [
            Finding(
                f"the error of half of the samples is {ratio:.2g} times what it should be", remedy
            )
        ]
    return []


def check_draws(step: int, lost: int, redrawn: int, draws: int) -> None:
    """Of a measurement at that step: how many draws failed for good and were repeated, of so many.

    Raises:
      RunError: any failed, or too many were repeated.
    """
    if lost:
        raise RunError(
            f"step {step}: {lost} samples could not be drawn, the flow is no bijection: lower max_norm"
        )
    if too_many_redrawn(redrawn, draws):
        raise RunError(
            f"step {step}: {redrawn} of {draws} draws had no verified inverse, too many: lower max_norm"
        )
