"""heg-solve without its command line: the loop over steps, the final measurement, the run
directory."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from heg.config import Config, changes, tables
from heg.errors import RunError, StorageError
from heg.parallel.devices import everywhere
from heg.parallel.processes import any_process, is_first, on_first
from heg.runs import files, text_files
from heg.runs.run_directory import load_state, start_from
from heg.runs.summary import QUANTITIES, history_row, summarise
from heg.training.convergence import settled
from heg.training.state import MEASURING, NUMBERS, SAMPLING, TrainState, key_of_run, stream
from heg.training.step import Solver, build
from heg.training.verdict import REDRAWN_FEW, check_draws, verdict

REDRAWN_IN_STEP = 0.02  # share of the draws of one step
TROUBLES = 3  # steps that may fail in a row
HISTORY, TROUBLE = "history.csv", "trouble.jsonl"


def solve(config: Config, say: Callable, show: Callable, stop: Callable[[], bool]) -> dict:
    """Runs, or continues to its end, the run in config.run.run_dir.  Called by all processes at
    once.

    Args:
      config: of the run.
      say: takes sentences for the user.
      show: takes the number of steps done and the StepInfo of the last one.
      stop: true when the run is to end in order, with a checkpoint; so does a file STOP in the run
        directory.
    Returns:
      The summary, as in summary.json; empty if the run was stopped before its end.
    Raises:
      ValueError: the configuration is impossible, or differs from that of the run in a field that
        may not change.
      RunError: the run cannot go on.
      StorageError, OSError: a file cannot be used, or another run is using the directory.
    """
    solver, run_dir = build(config), Path(config.run.run_dir)
    new = config.run.start and not on_first((run_dir / "config.toml").exists)
    params = (
        start_from(config.run.start, solver) if new else None
    )  # refused before there is a directory
    asked = run_dir / "STOP"
    with contextlib.ExitStack() as held:
        on_first(_claim, run_dir, config, held, say)
        first = _first(config, solver, params, say)
        summary = _run(
            config,
            solver,
            first,
            say,
            show,
            lambda: any_process(stop() or (is_first() and asked.exists())),
        )
        on_first(lambda: asked.unlink(missing_ok=True))
    return summary


def _run(config, solver, first, say, show, stop):
    run_dir, begin = Path(config.run.run_dir), time.monotonic()
    found, before = on_first(_newest, config, solver, say)
    state = first if found is None else everywhere(found)
    rows = on_first(text_files.rewind_history, run_dir / HISTORY, int(state.step))
    spent = lambda: before + time.monotonic() - begin
    initial = measure(solver, config, first, stop)
    saved, troubles = -1 if found is None else int(state.step), []
    while not _done(config, int(state.step), rows) and not stop():
        after, info = solver.step(state)
        trouble = _trouble(config, state, after, info)
        troubles = [*troubles, trouble] if trouble else []
        if trouble:
            on_first(text_files.append_line, run_dir / TROUBLE, trouble)
            _give_up_on(config, troubles)
            # the parameters stay, the random numbers of this step are passed over
            state = state._replace(step=state.step + 1)
            continue
        state = after
        rows.append(history_row(int(state.step), info))
        on_first(text_files.append_history, run_dir / HISTORY, rows[-1])
        show(int(state.step), info)
        if int(state.step) % config.run.save_every == 0:
            saved = _save(config, state, spent())
    if saved != int(state.step):
        _save(config, state, spent())
    final = measure(solver, config, state, stop) if _done(config, int(state.step), rows) else {}
    if not initial or not final:
        return {}
    summary = summarise(solver, config, state, initial, final)
    draws = config.sampler.batch * (summary["steps"] + 1)
    summary |= {"verdict": verdict(summary, rows, draws), "seconds": spent()}
    on_first(text_files.save_json, run_dir / "summary.json", summary)
    return summary


def _first(config, solver, params, say):
    """The state before the first step: untrained, or with parameters of another run, which
    checkpoint-0.h5 keeps."""
    first = solver.init(key_of_run(config.run.seed))
    if not config.run.start:
        return everywhere(first)
    path = Path(config.run.run_dir) / "checkpoint-0.h5"
    begun = on_first(_begun, path, solver, say)
    if begun is None:
        params = start_from(config.run.start, solver) if params is None else params
        begun = jax.tree.map(np.asarray, first)._replace(params=params, average=params)
        on_first(partial(files.save_tree, random_numbers=NUMBERS), path, begun)
        say(f"Starting from {config.run.start}.")
    return everywhere(begun)


def _begun(path, solver, say):
    """The state in a file, if it can be used."""
    with contextlib.suppress(StorageError):
        return load_state(path, solver.template)[0]
    _set_aside([path], say)
    return None


def _done(config, step, rows):
    """Is the training at its end?  The same answer for all processes, and for a run that is
    continued."""
    accuracy = config.run.accuracy
    return step >= config.run.steps or (accuracy is not None and settled(rows, accuracy))


def measure(
    solver: Solver, config: Config, state: TrainState, stop: Callable[[], bool]
) -> dict[str, np.ndarray]:
    """F, E, kinetic, potential, S per electron of independent samples at the averaged parameters.

    They are kept in samples-<step>.h5.

    Samples that the run directory holds already are read, not drawn again.  Empty if stopped.

    Raises:
      RunError: a draw failed for good.
    """
    path = Path(config.run.run_dir) / f"samples-{int(state.step)}.h5"
    count, batch = config.run.samples, config.sampler.batch
    frozen = state.average, state.regression, state.key
    if stored := on_first(_samples, path, count, frozen):
        return stored
    key, parts, redrawn = stream(state, MEASURING), [], 0
    for number in range(-(-count // batch)):
        if stop():
            return {}
        samples, draws = solver.measure(state.average, jax.random.fold_in(key, number))
        redrawn += int(draws.redrawn)
        check_draws(int(state.step), int(draws.lost), redrawn, (number + 1) * batch)
        parts.append(solver.per_electron(samples, state.regression))
    values = {name: np.concatenate([part[name] for part in parts])[:count] for name in QUANTITIES}
    notes = {
        "units": "hartree per electron; S: k_B per electron",
        "parameters": files.fingerprint(frozen),
    }
    on_first(partial(files.save_tree, **notes), path, values)
    return values


def _claim(run_dir, config, held, say):
    """Makes the directory ours until `held` is closed, and notes the configuration or checks it
    against the run's."""
    run_dir.mkdir(parents=True, exist_ok=True)
    if dead := held.enter_context(files.locked(run_dir)):
        say(f"The run that was here did not end in order ({dead}).")
    path = run_dir / "config.toml"
    if path.exists():
        found = changes(config, text_files.load_tables(path))
        if found.refused:
            raise ValueError(
                f"{run_dir} holds another run: {'; '.join(found.refused)}; choose another --run-dir"
            )
        for change in found.told:
            say(f"Changed: {change}.")
    elif any(run_dir.glob("checkpoint-*.h5")) or (run_dir / HISTORY).exists():
        raise ValueError(f"{run_dir} holds a run without its config.toml: choose another --run-dir")
    text_files.save_config(path, tables(config))


def _newest(config, solver, say):
    """State of the newest checkpoint that can be used, and the seconds spent so far; none and zero
    if there is none."""
    run_dir, unused = Path(config.run.run_dir), []
    for path in files.checkpoints(run_dir):
        try:
            state, attributes = load_state(path, solver.template)
        except StorageError as error:
            say(f"{error}; the checkpoint before it is used.")
            unused.append(path)
            continue
        _set_aside(unused, say)
        say(f"Continuing from {path.name}.")
        return state, float(attributes.get("seconds", 0.0))
    rows = text_files.read_history(run_dir / HISTORY)
    if unused or (rows and int(rows[-1]["step"]) > config.run.save_every):
        _set_aside([*unused, run_dir / HISTORY], say)
        say("No checkpoint is left: the run begins anew.")
    return None, 0.0


def _set_aside(paths, say):
    for path in filter(Path.exists, paths):
        say(f"{path.name} is kept as {files.set_aside(path).name}.")


def _save(config, state, seconds):
    """Writes a checkpoint and thins out the older ones; the step."""
    run_dir, step = Path(config.run.run_dir), int(state.step)
    notes = {"seconds": seconds, "random_numbers": NUMBERS}
    on_first(partial(files.save_tree, **notes), run_dir / f"checkpoint-{step}.h5", state)
    on_first(files.thin_out, run_dir, config.run.keep, config.run.keep_every)
    return step


def _samples(path, count, frozen):
    """The first samples kept in a file; none if it is not there, damaged, of too few samples or
    other parameters."""
    if not path.exists():
        return {}
    try:
        values, attributes = files.load_arrays(path)
    except StorageError:
        return {}  # they are drawn again, the same numbers
    if attributes.get("parameters") != files.fingerprint(frozen):
        files.set_aside(path)
        return {}
    return {name: values[name][:count] for name in QUANTITIES} if len(values["F"]) >= count else {}


def _trouble(config, before, after, info):
    """What is wrong with a step and what is needed to look into it; empty if nothing is."""
    batch, cause = config.sampler.batch, ""
    if not info.finite:
        cause = "an energy, a gradient or a parameter is not finite"
    elif int(info.lost):
        cause = f"{int(info.lost)} samples could not be drawn"
    elif int(info.redrawn) > max(REDRAWN_FEW, REDRAWN_IN_STEP * batch):
        cause = f"{int(info.redrawn)} of {batch} draws had no verified inverse"
    if not cause:
        return {}
    worst, walkers = int(info.worst), after.walkers
    place = {
        "sample": worst,
        "state": np.asarray(walkers.state)[worst].tolist(),
        "x": np.asarray(walkers.x)[worst].tolist(),
    }
    random = {"seed": config.run.seed, "key": np.asarray(before.key).tolist(), "purpose": SAMPLING}
    return {"step": int(before.step), "cause": cause, **random, **place}


def _give_up_on(config, troubles):
    """Ends the run when steps fail in a row."""
    if len(troubles) == TROUBLES:
        first, last = troubles[0]["step"], troubles[-1]["step"]
        name = "max_norm" if config.optimizer.optimizer == "natural" else "learning_rate"
        smaller = f"--{name.replace('_', '-')} {getattr(config.optimizer, name) / 2:g}"
        raise RunError(
            f"steps {first} to {last} failed one after the other, the last because {troubles[-1]['cause']} "
            f"({TROUBLE} has the samples): continue from the last checkpoint with a smaller step, {smaller}"
        )
