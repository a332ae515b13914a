"""heg-measure without its command line: all observables of a trained density matrix, its parameters
frozen."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from heg.errors import StorageError
from heg.observables.evaluation import Frozen, Measurement, draw_states, evaluate
from heg.observables.programs import block_size, instruments
from heg.parallel.devices import everywhere
from heg.parallel.processes import any_process, on_first
from heg.runs import files, text_files
from heg.runs.run_directory import configuration, trained_state
from heg.runs.second_order_rows import collect
from heg.runs.solve import HISTORY
from heg.statistics import BLOCKS
from heg.training.state import OBSERVING, stream
from heg.training.step import build
from heg.training.verdict import check_draws, sentence_of

SAVE_SECONDS = 30.0  # between writings of the samples at hand


def freeze(run_dir: Path, step: int | None = None) -> Frozen:
    """The newest checkpoint of a run that can be used, or that of a step.  Called by all processes.

    Raises:
      ValueError: there is none.
      StorageError, OSError: a file cannot be read.
    """
    config = on_first(configuration, Path(run_dir))
    solver = build(config)
    state = on_first(trained_state, Path(run_dir), solver.template, step)
    return Frozen(
        config, solver, everywhere(state), instruments(solver.system, config.model, config.sampler)
    )


def measure(
    run_dir: Path,
    samples: int,
    show: Callable,
    stop: Callable[[], bool],
    step: int | None = None,
    output: Path | None = None,
    second_order: bool | float = True,
) -> Measurement | None:
    """Measures a run, or adds samples to an earlier measurement of the same checkpoint.  Called by
    all processes.

    Args:
      run_dir: of heg-solve.
      samples: wanted in all, rounded up to whole batches; those of an earlier measurement count.
      show: takes "samples" or "states" (of the second order), and how many are at hand and wanted.
      stop: true when the measurement is to end in order; what is at hand is kept.
      step: of the checkpoint; none: the newest.
      output: directory for all that is written; none: that of the run.
      second_order: is the free energy to second order wanted too? A number: with that statistical
        error, hartree per electron.
    Returns:
      What was found, also written to observables.h5 and observables.json; None if stopped.
    Raises:
      ValueError: there is no such run, or too few samples for an error.
      RunError: a draw failed for good.
      StorageError, OSError: a file cannot be used, or another measurement is going on.
    """
    run_dir, output = Path(run_dir), Path(output or run_dir)
    on_first(_claim, run_dir, output)
    frozen, history = freeze(run_dir, step), on_first(text_files.read_history, run_dir / HISTORY)
    with contextlib.ExitStack() as held:
        on_first(lambda: held.enter_context(files.locked(output, "lock-measure")) and None)
        asked = lambda: any_process(stop())
        blocks = _collect(frozen, output, samples, partial(show, "samples"), asked)
        drawn = None if blocks is None else draw_states(frozen, asked)
        if drawn is None:
            return None
        beyond = None
        if second_order and frozen.system.electrons > 1:
            accuracy = np.inf if second_order is True else float(second_order)
            beyond = collect(frozen, output, drawn, accuracy, partial(show, "states"), asked)
            if beyond is None:
                return None
        found = evaluate(frozen, blocks, history, drawn, beyond, asked)
        if found is None:
            return None
        found = found._replace(facts=found.facts | on_first(_verdict, run_dir, found.facts["step"]))
        on_first(save, output, found)
    return found


def save(run_dir: Path, found: Measurement) -> None:
    """Writes observables.h5 and observables.json."""
    tree, units = {}, {}
    for name, quantity in found.quantities.items():
        parts = quantity._asdict()
        unit = parts.pop("unit")
        tree[name] = {part: value for part, value in parts.items() if value is not None}
        units |= {
            f"{name}/{part}": {"unit": unit + (", squared" if part == "covariance" else "")}
            for part in tree[name]
        }
    tree |= {"second_order": found.second_order} if found.second_order else {}
    tree |= {"landau": found.landau._asdict(), "levels": found.levels}
    notes = {name: found.facts[name] for name in ("step", "samples", "version")}
    files.save_tree(run_dir / "observables.h5", tree, units, **notes)
    plain = lambda array: np.asarray(array).tolist()
    numbers = {
        name: {"mean": plain(q.value), "error": plain(q.error)}
        for name, q in found.quantities.items()
    }
    landau = {name: plain(value) for name, value in found.landau._asdict().items()}
    text_files.save_json(run_dir / "observables.json", numbers | {"landau": landau} | found.facts)


def _verdict(run_dir, step):
    """That of the run, if it was on the parameters of this step; nothing in runs of older
    versions."""
    with contextlib.suppress(StorageError):
        summary = text_files.load_json(run_dir / "summary.json")
        if summary.get("steps") == step and sentence_of(summary):
            return {"verdict": summary["verdict"]}
    return {}


def _claim(run_dir, output):
    """Makes the directory of the results; that of another run is refused."""
    if output.resolve() != run_dir.resolve() and (output / "config.toml").exists():
        raise ValueError(f"output is {output}: another run lies there; give a directory of its own")
    if (run_dir / "config.toml").exists():
        output.mkdir(parents=True, exist_ok=True)


def _collect(frozen, run_dir, samples, show, stop):
    """Means over blocks of all samples, old and new; None if stopped.  They are kept in
    observed-<step>.h5."""
    batch, parameters = frozen.config.sampler.batch, (frozen.state.average, frozen.state.regression)
    measure_batch, key = frozen.instruments.observe, stream(frozen.state, OBSERVING)
    path = run_dir / f"observed-{int(frozen.state.step)}.h5"
    shapes = lambda: jax.eval_shape(measure_batch, *parameters, key)[0]
    marks = {"parameters": files.fingerprint(parameters), "batch": batch}
    parts = on_first(_earlier, path, shapes, marks)
    have = sum(map(_length, parts)) * block_size(batch) // batch
    wanted, redrawn, saved = -(-samples // batch), 0, time.monotonic()
    blocks = max(have, wanted) * batch // block_size(batch)
    if blocks < BLOCKS:
        least = BLOCKS * block_size(batch)
        raise ValueError(
            f"samples is {samples}: these are {blocks} blocks, too few for an error; ask for at least {least}"
        )
    keep = lambda: on_first(lambda: files.save_tree(path, _joined(parts), **marks))
    for number in range(have, wanted):
        if stop():
            if parts:
                keep()
            return None
        means, again, lost = measure_batch(*parameters, jax.random.fold_in(key, number))
        parts.append(jax.tree.map(np.asarray, means))
        redrawn += int(again)
        check_draws(int(frozen.state.step), int(lost), redrawn, (number + 1 - have) * batch)
        show((number + 1) * batch, wanted * batch)
        if any_process(time.monotonic() - saved > SAVE_SECONDS):
            keep()
            saved = time.monotonic()
    if wanted > have:
        keep()
    return _joined(parts)


def _earlier(path, shapes, marks):
    """Means of blocks of an earlier measurement with the same parameters, in a list; empty if there
    is none.

    shapes() gives those of one batch; it traces the program, which is spared where there is no
    file.
    """
    if not path.exists():
        return []
    blocks = files.stored_length(path, "energies/F")
    template = jax.tree.map(lambda leaf: np.zeros((blocks, *leaf.shape[1:]), leaf.dtype), shapes())
    with contextlib.suppress(StorageError):
        found, attributes = files.load_tree(path, template)
        if all(attributes.get(name) == mark for name, mark in marks.items()):
            return [found]
    files.set_aside(path)
    return []


def _length(part):
    return len(part.energies["F"])


def _joined(parts):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
