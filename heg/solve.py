"""heg-solve without its command line: the loop over steps, the final measurement, the run directory."""

import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import jax
import numpy as np

from heg import storage
from heg.bijection import lowest_determinant
from heg.config import Config, changed_fields, tables
from heg.free_energy import per_electron
from heg.ideal import choose_cutoff, thermodynamics
from heg.statistics import Estimate, independent
from heg.system import System
from heg.training import Solver, StepInfo, TrainState, build

FOLD_SAMPLES = 10_000  # uniform points at which the sign of det J is looked at
REDRAWN_BOUND = 1e-4  # share of draws that may be repeated
REDRAWN_FEW = 3  # repeated draws that never stop a run
HISTORY = "history.csv"
QUANTITIES = ("F", "E", "kinetic", "potential", "S")


class RunError(Exception):
    """The run cannot go on; the message is one sentence for the user."""


def solve(config: Config, say: Callable, show: Callable, stop: Callable[[], bool]) -> dict:
    """Runs, or continues to its end, the run in config.run.run_dir.

    Args:
      config: of the run.
      say: takes sentences for the user.
      show: takes the number of steps done and the StepInfo of the last one.
      stop: true when the run is to end in order, with a checkpoint.
    Returns:
      The summary, as in summary.json; empty if the run was stopped before its end.
    Raises:
      ValueError: the configuration is impossible, or differs from that of the run in a field that may not change.
      RunError: the run cannot go on.
      StorageError, OSError: a file cannot be used.
    """
    run_dir, begin = Path(config.run.run_dir), time.monotonic()
    _claim(run_dir, config)
    solver = build(config)
    first = solver.init(jax.random.key(config.run.seed))
    state, before = _newest(run_dir, first, say)
    save = lambda: storage.save_tree(
        run_dir / f"checkpoint-{int(state.step)}.h5", state, seconds=before + time.monotonic() - begin
    )
    initial = measure(solver, config, first, stop)
    storage.rewind_history(run_dir / HISTORY, int(state.step))
    while int(state.step) < config.run.steps and not stop():
        state, info = solver.step(state)
        _check(config, state, info)
        storage.append_history(run_dir / HISTORY, history_row(int(state.step), info))
        show(int(state.step), info)
        if int(state.step) % config.run.save_every == 0:
            save()
    save()
    final = measure(solver, config, state, stop)
    if stop() or not initial or not final:
        return {}
    summary = summarise(solver, config, state, initial, final) | {"seconds": before + time.monotonic() - begin}
    storage.save_json(run_dir / "summary.json", summary)
    return summary


def measure(solver: Solver, config: Config, state: TrainState, stop: Callable[[], bool]) -> dict[str, np.ndarray]:
    """F, E, kinetic, potential, S per electron of independent samples at the averaged parameters.

    They are kept in samples-<step>.h5.

    Samples that the run directory holds already are read, not drawn again.  Empty if stopped.

    Raises:
      RunError: a draw failed for good.
    """
    path = Path(config.run.run_dir) / f"samples-{int(state.step)}.h5"
    count, batch = config.run.samples, config.sampler.batch
    if path.exists():
        try:
            return storage.load_tree(path, {name: np.zeros(count) for name in QUANTITIES})[0]
        except storage.StorageError:
            pass  # of another number of samples, or damaged: drawn again, the same numbers
    key, parts, redrawn = jax.random.fold_in(jax.random.fold_in(state.key, 2), state.step), [], 0
    for number in range(-(-count // batch)):
        if stop():
            return {}
        samples, draws = solver.measure(state.average, jax.random.fold_in(key, number))
        redrawn += int(draws.redrawn)
        _check_draws(int(state.step), int(draws.lost), redrawn, (number + 1) * batch)
        parts.append(per_electron(samples, state.regression, solver.system))
    values = {name: np.concatenate([part[name] for part in parts])[:count] for name in QUANTITIES}
    storage.save_tree(path, values, units="hartree per electron; S: k_B per electron")
    return values


def history_row(step: int, info: StepInfo) -> dict[str, float]:
    """A row of history.csv: what the parameters before this step gave, per electron unless the name says otherwise."""
    row = {"step": step}
    for name in QUANTITIES:
        mean, error = info.estimates[name]
        unit = "kb" if name == "S" else "ha"
        row |= {f"{name}_{unit}": float(mean), f"{name}_error_{unit}": float(error)}
    row |= {"E_variance_cell_ha2": float(info.variance), "acceptance": float(info.acceptance)}
    return row | {"redrawn": int(info.redrawn), "min_det": float(info.min_det)}


def summarise(solver: Solver, config: Config, state: TrainState, initial: dict, final: dict) -> dict:
    """What summary.json says, but for the time: means with errors from independent samples at frozen parameters."""
    system, exact = solver.system, ideal_reference(solver.system)
    folded = solver.folded(state.average, jax.random.split(state.key, FOLD_SAMPLES))
    estimates = lambda values: {name: independent(value)._asdict() for name, value in values.items()}
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
            "largest_deviation_sigma": float(np.max(np.abs(energy - energy.mean())) / max(np.std(energy), 1e-300)),
            "E_error_of_half_ha": independent(energy[: len(energy) // 2]).error if len(energy) > 3 else None,
            "min_det": float(lowest_determinant(solver.model, system, state.average.flow, state.walkers)),
            "folded_measure": independent(folded)._asdict(),
            "redrawn": int(state.redrawn),
        },
        "version": metadata.version("heg"),
    }


def ideal_reference(system: System) -> dict[str, Estimate]:
    """Exact F, E, kinetic, potential, S of the ideal gas, per electron; cutoff error below 1e-12 T."""
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
        "cutoff_error_of_ideal_F_ha_per_electron": system.temperature * cutoff.missing / system.electrons,
    }


def _claim(run_dir, config):
    """Makes the directory and notes the configuration, or checks it against that of the run that is there."""
    path = run_dir / "config.toml"
    config.system.build()
    if path.exists():
        changed = changed_fields(config, storage.load_config(path))
        if changed:
            raise ValueError(f"{run_dir} holds another run: {'; '.join(changed)}; choose another --run-dir")
    elif any(run_dir.glob("checkpoint-*.h5")) or (run_dir / HISTORY).exists():
        raise ValueError(f"{run_dir} holds a run without its config.toml: choose another --run-dir")
    run_dir.mkdir(parents=True, exist_ok=True)
    storage.save_config(path, tables(config))


def _newest(run_dir, template, say):
    """State of the newest checkpoint that can be read, and the seconds spent so far; the template if there is none."""
    for path in storage.checkpoints(run_dir):
        try:
            state, attributes = storage.load_tree(path, template)
        except storage.StorageError as error:
            say(f"{error}; the checkpoint before it is used.")
            continue
        say(f"Continuing from {path.name}.")
        return state, float(attributes["seconds"])
    return template, 0.0


def _check(config, state, info):
    """Stops the run when its energies or its samples cannot be trusted."""
    step = int(state.step)
    _check_draws(step, int(info.lost), int(state.redrawn), (step + 1) * config.sampler.batch)
    if not np.isfinite(float(info.estimates["F"].mean)):
        raise RunError(f"step {step}: the energy is not finite; the last checkpoint is from before: lower max_norm")


def _check_draws(step, lost, redrawn, draws):
    if lost:
        raise RunError(f"step {step}: {lost} samples could not be drawn, the flow is no bijection: lower max_norm")
    if redrawn > max(REDRAWN_FEW, REDRAWN_BOUND * draws):
        raise RunError(f"step {step}: {redrawn} of {draws} draws had no verified inverse, too many: lower max_norm")
