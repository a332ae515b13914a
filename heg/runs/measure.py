"""The measurement of a trained run: all observables, its parameters frozen.

This is heg-measure without its command line.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from heg.errors import StorageError
from heg.observables.evaluation import Frozen, Measurement, draw_states, evaluate
from heg.observables.programs import block_size, instruments
from heg.observables.quantities import Quantity
from heg.observables.second_order.contributions import Rows
from heg.observables.thermodynamics import thermodynamic_quantities
from heg.parallel.compilation import compiler_threads
from heg.parallel.devices import everywhere
from heg.parallel.processes import any_process, on_first
from heg.runs import files, hdf5, text_files
from heg.runs.block_means import collect_blocks
from heg.runs.run_directory import RunDirectory
from heg.runs.second_order_rows import collect, compile_ahead
from heg.statistics import Estimate
from heg.training.step import build
from heg.training.verdict import sentence_of


def freeze(run_dir: Path, step: int | None = None) -> Frozen:
    """The newest checkpoint of a run that can be used, or that of a step.

    Called by all processes.

    Raises:
      ValueError: there is none.
      StorageError, OSError: a file cannot be read.
    """
    directory = RunDirectory(Path(run_dir))
    config = on_first(directory.configuration)
    solver = build(config)
    state = on_first(directory.trained_state, solver.template, step)
    return Frozen(
        config=config,
        solver=solver,
        state=everywhere(state),
        instruments=instruments(solver, config.sampler),
    )


def measure(
    run_dir: Path,
    samples: int,
    show: Callable[[str, int, int], object],
    stop: Callable[[], bool],
    step: int | None = None,
    output: Path | None = None,
    second_order: bool | float = True,
) -> Measurement | None:
    """Measure a run, or add samples to an earlier measurement of the same checkpoint.

    Called by all processes.

    Args:
      run_dir: of heg-solve.
      samples: number wanted in all, rounded up to whole batches; those of an earlier measurement
        count.
      show: takes "samples" or "states" (of the second order), and how many are at hand and wanted.
      stop: true when the measurement is to end in order; what is at hand is kept.
      step: of the checkpoint; None for the newest.
      output: directory for all that is written; None for that of the run.
      second_order: whether the free energy to second order is wanted too; a number is its
        statistical error wanted, hartree per electron.

    Returns:
      The measurement, which is also written to observables.h5 and observables.json; None if
      stopped.

    Raises:
      ValueError: there is no such run, or too few samples for an error.
      RunError: a draw failed for good.
      StorageError, OSError: a file cannot be used, or another measurement is going on.
    """
    directory = RunDirectory(Path(run_dir))
    output = Path(output or run_dir)
    on_first(_make_output, directory, output)
    frozen = freeze(directory.path, step)
    history = on_first(directory.history)

    def asked_to_stop() -> bool:
        return any_process(stop())

    with contextlib.ExitStack() as held:
        # files belong to the first process: it alone holds the lock
        on_first(_hold, output, held)
        with_second_order = second_order and frozen.system.has_second_order
        if with_second_order:
            threads = held.enter_context(compiler_threads())
            compile_ahead(frozen, output, threads)
        blocks = collect_blocks(
            frozen,
            output,
            samples,
            show=partial(show, "samples"),
            stop=asked_to_stop,
        )
        if blocks is None:
            return None
        # many draws of K alone, which cost little
        drawn = draw_states(frozen, asked_to_stop)
        if drawn is None:
            return None
        beyond: Rows | None = None
        if with_second_order:
            accuracy = np.inf if second_order is True else float(second_order)
            beyond = collect(
                frozen,
                output,
                drawn,
                accuracy,
                show=partial(show, "states"),
                stop=asked_to_stop,
            )
            if beyond is None:
                return None
        measurement = evaluate(
            frozen,
            blocks,
            history,
            drawn,
            beyond,
            stop=asked_to_stop,
        )
        if measurement is None:
            return None
        # a measurement is no better than the training before it
        verdict = on_first(_verdict_on_training, directory, measurement.facts["step"])
        measurement = measurement._replace(facts=measurement.facts | verdict)
        on_first(save, output, measurement)
    return measurement


class Sampled(NamedTuple):
    """Samples that have been drawn.

    Attributes:
      free_energy: F and its error, hartree per electron.
      samples: their number.
    """

    free_energy: Estimate
    samples: int


def sample(
    run_dir: Path,
    samples: int,
    show: Callable[[str, int, int], object],
    stop: Callable[[], bool],
) -> Sampled | None:
    """Draw the samples of a measurement and no more, to see how well F is known; None if stopped.

    `measure` goes on with them.  Called by all processes.

    Args:
      run_dir, samples, show, stop: as of `measure`.
    Raises:
      ValueError, RunError, StorageError, OSError: as of `measure`.
    """
    frozen = freeze(run_dir)

    def asked_to_stop() -> bool:
        return any_process(stop())

    with contextlib.ExitStack() as held:
        on_first(_hold, Path(run_dir), held)
        blocks = collect_blocks(
            frozen,
            Path(run_dir),
            samples,
            show=partial(show, "samples"),
            stop=asked_to_stop,
        )
    if blocks is None:
        return None
    free_energy = thermodynamic_quantities(frozen.system, blocks)["F"]
    count = len(blocks.energies["F"]) * block_size(frozen.config.sampler.batch)
    return Sampled(Estimate(float(free_energy.value), float(free_energy.error)), count)


def save(directory: Path, measurement: Measurement) -> None:
    """Write observables.h5, with all arrays and covariances, and observables.json, without them."""
    _save_arrays(directory / "observables.h5", measurement)
    numbers: dict[str, Any] = {}
    for name, quantity in measurement.quantities.items():
        numbers[name] = {
            "mean": _plain(quantity.value),
            "error": _plain(quantity.error),
        }
    landau = measurement.landau._asdict()
    numbers["landau"] = {name: _plain(value) for name, value in landau.items()}
    contents = numbers | measurement.facts
    text_files.save_json(directory / "observables.json", contents)


def _save_arrays(path: Path, measurement: Measurement) -> None:
    """Write observables.h5, where each array names its unit."""
    arrays: dict[str, Any] = {}
    units: dict[str, dict] = {}
    for name, quantity in measurement.quantities.items():
        arrays[name] = _arrays_of(quantity)
        for part in arrays[name]:
            unit = quantity.unit
            if part == "covariance":
                unit += ", squared"
            units[f"{name}/{part}"] = {"unit": unit}
    if measurement.second_order:
        arrays["second_order"] = measurement.second_order
    arrays["landau"] = measurement.landau._asdict()
    arrays["levels"] = measurement.levels
    notes = {name: measurement.facts[name] for name in ("step", "samples", "version")}
    hdf5.save_tree(path, arrays, units, **notes)


def _arrays_of(quantity: Quantity) -> dict[str, np.ndarray]:
    """Value and error of a quantity, and its covariance where it has one."""
    parts = quantity._asdict()
    del parts["unit"]
    return {name: value for name, value in parts.items() if value is not None}


def _plain(array: Any) -> Any:
    """A number, or nested lists of numbers, of Python."""
    return np.asarray(array).tolist()


def _verdict_on_training(directory: RunDirectory, step: int) -> dict:
    """The verdict of the run if it is on the parameters of this step; empty otherwise.

    Runs of older versions have none.
    """
    with contextlib.suppress(StorageError):
        summary = directory.summary()
        if summary.get("steps") == step and sentence_of(summary):
            return {"verdict": summary["verdict"]}
    return {}


def _make_output(directory: RunDirectory, output: Path) -> None:
    """Make the directory of the results; that of another run is refused."""
    is_elsewhere = output.resolve() != directory.path.resolve()
    if is_elsewhere and RunDirectory(output).config_file.exists():
        raise ValueError(f"output is {output}: another run lies there; give a directory of its own")
    # where there is no run, nothing is made: the error that follows says so
    if directory.config_file.exists():
        output.mkdir(parents=True, exist_ok=True)


def _hold(output: Path, held: contextlib.ExitStack) -> None:
    """Hold the directory of the results; a training may go on in it at the same time."""
    held.enter_context(files.locked(output, "lock-measure"))
