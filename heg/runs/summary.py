"""The results of a run: rows of history.csv, and summary.json."""

from importlib import metadata
from typing import Any

import numpy as np

from heg.config import Config
from heg.gas.ideal import ideal_reference, system_facts
from heg.gas.system import System
from heg.observables import quantities
from heg.sampling.folds import Quality
from heg.statistics import MIN_EFFECTIVE, independent, reweighted
from heg.training.state import FOLDING, StepInfo, TrainState, stream
from heg.training.step import Solver

MIN_SAMPLES_OF_HALVES = 4  # from which on the error of half of the samples is of use
# those that the training records too
QUANTITIES = tuple(name for name, entry in quantities.QUANTITIES.items() if entry.column)


def history_row(step: int, info: StepInfo) -> dict[str, float]:
    """The row of history.csv of a step: estimates at the parameters before it.

    Values are per electron unless the name says otherwise.
    """
    row: dict[str, float] = {"step": step}
    for name in QUANTITIES:
        mean, error = info.estimates[name]
        entry = quantities.QUANTITIES[name]
        row[entry.column] = float(mean)
        row[entry.error_column] = float(error)
    return row | {
        "E_variance_cell_ha2": float(info.variance),
        "acceptance": float(info.acceptance),
        "redrawn": int(info.redrawn),
        "min_det": float(info.min_det),
    }


def summarise(
    solver: Solver,
    config: Config,
    state: TrainState,
    initial: dict[str, np.ndarray],
    final: dict[str, np.ndarray],
) -> dict:
    """Contents of summary.json, without the time and the verdict.

    Args:
      solver, config: of the run.
      state: after the last step.
      initial, final: QUANTITIES of independent samples, per electron, at the parameters before
        the first step and at the averaged ones of the last.    [samples] each
    """
    quality = solver.quality(state.average, state.walkers, stream(state, FOLDING))
    ideal = ideal_reference(solver.system)
    return _estimates(final) | {
        "units": "hartree per electron; S: k_B per electron",
        "initial": _estimates(initial),
        "ideal": {name: estimate._asdict() for name, estimate in ideal.items()},
        "system": system_facts(solver.system, solver.cutoff),
        "steps": int(state.step),
        "samples": config.run.samples,
        "quality": _quality_facts(solver.system, state, final["E"], quality),
        "version": metadata.version("heg"),
        **_beyond_the_bound(solver.system, final),
    }


def _estimates(values: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    return {name: independent(values[name])._asdict() for name in QUANTITIES}


def _beyond_the_bound(system: System, final: dict[str, np.ndarray]) -> dict:
    """F and E by reweighting, per electron, where the samples have weights.

    They are left out, and a sentence says so, if too few samples carry the weight.
    """
    if "log_weight" not in final:
        return {}
    electrons = system.electrons
    # ln w is that of the cell, the samples have it per electron
    log_weight = final["log_weight"] * electrons
    result = reweighted(log_weight, final["weighted_potential"])
    facts: dict[str, Any] = {"effective_samples": result.effective}
    if not result.is_estimate:
        facts["sentence"] = (
            f"Only {result.effective:.3g} of {len(final['F'])} samples carry the weight, "
            f"{MIN_EFFECTIVE:g} are needed: the bound stands, draw more samples or train longer."
        )
        return {"reweighted": facts}
    # F = -T ln E_p[w] of the cell
    scale = system.temperature / electrons
    facts["F"] = {
        "mean": scale * (0.0 - result.log_mean.mean),
        "error": scale * result.log_mean.error,
    }
    facts["E"] = result.value._asdict()
    facts["sentence"] = f"{result.effective:.3g} of {len(final['F'])} samples carry the weight."
    return {"reweighted": facts}


def _quality_facts(system: System, state: TrainState, energy: np.ndarray, quality: Quality) -> dict:
    """Signs that the errors of a run can be trusted, or not; heg.training.verdict judges them.

    Args:
      energy: E of the final samples, hartree per electron.    [samples]
    """
    deviation = energy - energy.mean()
    largest_deviation = np.max(np.abs(deviation))
    sigma = max(np.std(energy), 1e-300)
    # of the cell: the energies are per electron
    variance = np.var(energy, ddof=1) * system.electrons**2
    # sqrt(2) times the error of all, if the variance is finite
    error_of_half = None
    if len(energy) >= MIN_SAMPLES_OF_HALVES:
        half = energy[: len(energy) // 2]
        error_of_half = independent(half).error
    folded = independent(np.asarray(quality.folded))
    return {
        "E_variance_cell_ha2": float(variance),
        "largest_deviation_sigma": float(largest_deviation / sigma),
        "E_error_of_half_ha": error_of_half,
        "min_det": float(quality.min_det),
        "attraction": float(quality.attraction),
        "folded_measure": folded._asdict(),
        "redrawn": int(state.redrawn),
    }
