"""What a run says of itself: rows of history.csv, and summary.json."""

from importlib import metadata

import jax
import numpy as np

from heg.config import Config
from heg.gas.ideal import ideal_reference, system_facts
from heg.statistics import independent
from heg.training.state import FOLDING, StepInfo, TrainState, stream
from heg.training.step import Solver

FOLD_SAMPLES = 10_000  # uniform points at which the sign of det J is looked at
QUANTITIES = ("F", "E", "kinetic", "potential", "S")


def history_row(step: int, info: StepInfo) -> dict[str, float]:
    """A row of history.csv: what the parameters before this step gave, per electron unless the name
    says otherwise."""
    row = {"step": step}
    for name in QUANTITIES:
        mean, error = info.estimates[name]
        unit = "kb" if name == "S" else "ha"
        row |= {f"{name}_{unit}": float(mean), f"{name}_error_{unit}": float(error)}
    row |= {"E_variance_cell_ha2": float(info.variance), "acceptance": float(info.acceptance)}
    return row | {"redrawn": int(info.redrawn), "min_det": float(info.min_det)}


def summarise(
    solver: Solver, config: Config, state: TrainState, initial: dict, final: dict
) -> dict:
    """What summary.json says, but for the time: means with errors from independent samples at
    frozen parameters."""
    system, exact = solver.system, ideal_reference(solver.system)
    keys = jax.random.split(stream(state, FOLDING), FOLD_SAMPLES)
    quality = solver.quality(state.average, state.walkers, keys)
    estimates = lambda values: {
        name: independent(value)._asdict() for name, value in values.items()
    }
    energy = final["E"]
    return estimates(final) | {
        "units": "hartree per electron; S: k_B per electron",
        "initial": estimates(initial),
        "ideal": {name: estimate._asdict() for name, estimate in exact.items()},
        "system": system_facts(solver.system, solver.cutoff),
        "steps": int(state.step),
        "samples": config.run.samples,
        "quality": {
            "E_variance_cell_ha2": float(np.var(energy, ddof=1) * system.electrons**2),
            "largest_deviation_sigma": float(
                np.max(np.abs(energy - energy.mean())) / max(np.std(energy), 1e-300)
            ),
            "E_error_of_half_ha": independent(energy[: len(energy) // 2]).error
            if len(energy) > 3
            else None,
            "min_det": float(quality.min_det),
            "folded_measure": independent(np.asarray(quality.folded))._asdict(),
            "redrawn": int(state.redrawn),
        },
        "version": metadata.version("heg"),
    }
