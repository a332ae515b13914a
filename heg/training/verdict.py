"""Verdict on a run in one sentence: whether its errors can be trusted.

It rests on three things: F and S have settled, folds of the flow are too small to matter, and no
few samples carry the mean.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from heg.errors import RunError
from heg.statistics import Estimate
from heg.training.convergence import SHORTEST, drift

SETTLED_DRIFT = 2.0  # errors that F or S may drift by without a word
MAX_DRIFT = 3.0  # errors that F or S may drift by at all
HALF = 0.25  # deviation of the error of half of the samples, over sqrt(2) times that of all, from 1
ONE_SAMPLE = 0.5  # errors by which one sample may move E
FAR_DEVIATION = 6.0  # standard deviations that any distribution may reach
REDRAWN_BOUND = 1e-4  # share of draws that may be repeated
REDRAWN_FEW = 3  # repeated draws that are never too many
ROUNDING = 1e-10  # relative, of means without an error
TINY = 1e-300  # hartree or k_B; keeps an error of zero from being divided by


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
      words: what is the case.
      remedy: what to do about it; empty if it is well.
    """

    words: str
    remedy: str = ""


def verdict(summary: dict, history: list[Mapping], draws: int) -> dict:
    """{"good": bool, "sentence": str}: the findings, and what to do about the bad ones.

    Args:
      summary: content of summary.json.
      history: rows of history.csv.
      draws: of the whole training, repeated ones not counted.
    """
    findings = _settled(summary, history)
    findings.append(_folds(summary, draws))
    findings.extend(_tail(summary))
    words = ", ".join(finding.words for finding in findings)
    remedies = [finding.remedy for finding in findings if finding.remedy]
    if not remedies:
        return {"good": True, "sentence": f"Good: {words}."}
    advice = " and ".join(dict.fromkeys(remedies))  # each once, in their order
    return {"good": False, "sentence": f"Doubtful: {words}; {advice}."}


def too_many_redrawn(redrawn: int, draws: int) -> bool:
    """True if so many of the draws were repeated that the places they favour may matter."""
    return redrawn > max(REDRAWN_FEW, REDRAWN_BOUND * draws)


def sentence_of(facts: dict) -> str:
    """The sentence in a summary.json or observables.json; empty in those of older versions."""
    stored = facts.get("verdict")
    if not isinstance(stored, dict):
        return ""
    sentence = stored.get("sentence")
    return sentence if isinstance(sentence, str) else ""


def _settled(summary, history):
    steps = len(history)
    if steps < SHORTEST:
        words = f"{steps} steps are too few to see whether F and S have settled"
        return [Finding(words, "train longer")]
    drifts = {}
    for name in "FS":
        result = Estimate(**summary[name])
        change = drift(history, name)
        drifts[name] = _drift_in_errors(result, change)
    largest = max(drifts.values())
    if largest <= SETTLED_DRIFT:
        return [Finding("F and S have settled")]
    return [_drifting(name, size) for name, size in drifts.items()]


def _drifting(name, size):
    if size <= SETTLED_DRIFT:
        return Finding(f"{name} has settled")
    remedy = "train longer" if size > MAX_DRIFT else ""
    return Finding(f"{name} drifts by {size:.2g} of its errors", remedy)


def _drift_in_errors(result, change):
    """The drift over the error of the result or of the drift itself, whichever is larger.

    A drift counts where the history shows it and where it matters beside the result.
    """
    rounding = ROUNDING * abs(result.mean)
    error = max(result.error, change.error, rounding, TINY)
    return abs(change.mean) / error


def _folds(summary, draws):
    """A fold of a share of space moves F by the order of that share of its parts."""
    quality = summary["quality"]
    folded = Estimate(**quality["folded_measure"])
    remedy = "use more layers or a smaller max_norm"
    if too_many_redrawn(quality["redrawn"], draws):
        return Finding(f"{quality['redrawn']} of {draws} draws had no verified inverse", remedy)
    # summaries of older versions have no attraction
    if quality.get("attraction", math.inf) < 1:
        return Finding("the flow cannot fold")
    if quality["min_det"] > 0 and folded.mean == 0:
        return Finding("no fold was found")
    # the folded measure is twice the share of space (heg.sampling.folds)
    share = folded.mean / 2
    # two errors above it
    highest = folded.mean + 2 * folded.error
    highest_share = highest / 2
    kinetic = summary["kinetic"]["mean"]
    potential = summary["potential"]["mean"]
    moved = highest_share * (kinetic + abs(potential))
    if moved > summary["F"]["error"]:
        words = f"folds cover {share:.1g} of space, which matters beside the error of F"
        return Finding(words, remedy)
    return Finding("no fold that matters")


def _tail(summary):
    """Findings where a few samples carry the mean of E_loc; none where they do not."""
    quality = summary["quality"]
    count = summary["samples"]
    energy = Estimate(**summary["E"])
    remedy = "draw more samples"
    # one electron without interaction, say: every sample has the same energy
    if energy.error <= ROUNDING * abs(energy.mean):
        return []
    largest = quality["largest_deviation_sigma"]
    # a sample of so many deviations moves the mean by that over sqrt(count) of its error
    root = math.sqrt(count)
    if largest > max(FAR_DEVIATION, ONE_SAMPLE * root):
        moves = largest / root
        return [Finding(f"one sample moves E by {moves:.1g} of its error", remedy)]
    error_of_half = quality["E_error_of_half_ha"]
    if error_of_half is None:
        return [Finding("the samples are too few", remedy)]
    # with a finite variance half of the samples have sqrt(2) times the error
    expected = math.sqrt(2) * energy.error
    ratio = error_of_half / expected
    if abs(ratio - 1) <= max(HALF, _chance_of_half(count)):
        return []
    words = f"the error of half of the samples is {ratio:.2g} times what it should be"
    return [Finding(words, remedy)]


def _chance_of_half(count):
    """Deviation of the error of half of the samples that chance alone may give, relative."""
    return 3 / math.sqrt(2 * count)


def check_draws(step: int, lost: int, redrawn: int, draws: int) -> None:
    """Refuses a measurement whose draws failed.

    Args:
      step: of the parameters that are measured.
      lost: draws that failed for good.
      redrawn: draws that were repeated.
      draws: in all.
    Raises:
      RunError: any failed for good, or too many were repeated.
    """
    if lost:
        raise RunError(
            f"step {step}: {lost} samples could not be drawn, the flow is no bijection: "
            "lower max_norm"
        )
    if too_many_redrawn(redrawn, draws):
        raise RunError(
            f"step {step}: {redrawn} of {draws} draws had no verified inverse, too many: "
            "lower max_norm"
        )
