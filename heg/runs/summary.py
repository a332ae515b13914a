"""What a run says of itself: rows of history.csv, and summary.json."""

import functools
from importlib import metadata

import jax
import numpy as np

from heg.config import Config
from heg.gas.ideal import choose_cutoff, thermodynamics
from heg.gas.system import System
from heg.statistics import Estimate, independent
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
        "system": system_facts(solver),
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


@functools.lru_cache(maxsize=16)
def ideal_reference(system: System) -> dict[str, Estimate]:
    """Exact F, E, kinetic, potential, S of the ideal gas, per electron; cutoff error below 1e-12
    T."""
    ideal = thermodynamics(choose_cutoff(system, 1e-12).orbitals.energy, system.beta, system.spins)
    free_energy, energy, entropy = (value / system.electrons for value in ideal)
    values = {"F": free_energy, "E": energy, "kinetic": energy, "potential": 0.0, "S": entropy}
    return {name: Estimate(value, 0.0) for name, value in values.items()}


def system_facts(solver: Solver) -> dict:
    """The gas and its cutoff in numbers, units in the names."""
    system, cutoff = solver.system, solver.cutoff
    return {
        "n_up": system.n_up,
        "n_down": system.n_down,
        "dim": system.dim,
        "rs_bohr": system.rs,
        "theta": system.theta,
        "twist": list(system.twist),
        "coupling": system.coupling,
        "box_bohr": system.box,
        "fermi_energy_ha": system.fermi_energy,
        "temperature_ha": system.temperature,
        "orbitals": len(cutoff.orbitals.energy),
        "orbitals_missing_probability": cutoff.missing,
        "cutoff_error_of_ideal_F_ha_per_electron": system.temperature
        * cutoff.missing
        / system.electrons,
    }
