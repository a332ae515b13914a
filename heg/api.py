"""heg in Python, for notebooks and scripts: from a System to arrays."""

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heg.config import Config, SystemConfig, suggestion, tables
from heg.gas.ideal import ideal_reference
from heg.gas.system import System, whole_number
from heg.observables.evaluation import Measurement
from heg.observables.momentum import ideal_momentum
from heg.parallel import processes
from heg.report import run_figures
from heg.runs import text_files
from heg.runs.measure import measure as measure_run
from heg.runs.run_directory import configuration
from heg.runs.solve import HISTORY
from heg.runs.solve import solve as solve_run
from heg.runs.summary import QUANTITIES, history_row
from heg.statistics import Estimate
from heg.training.verdict import sentence_of

LOG = logging.getLogger("heg")  # what heg-solve says between its steps


class Run(NamedTuple):
    """A run.

    Attributes:
      directory: where its files are.
      summary: what summary.json holds; empty as long as the run is not finished.
      history: a column of history.csv each, such as F_ha and F_error_ha.    [steps] each
    """

    directory: Path
    summary: dict
    history: dict[str, np.ndarray]

    def estimate(self, name: str) -> Estimate:
        """F, E, kinetic, potential (hartree) or S (k_B) per electron, of independent samples.

        Raises:
          ValueError: the run is not finished, or has no such quantity.
        """
        if name not in QUANTITIES:
            raise ValueError(
                f"a run has no {name!r}, but {', '.join(QUANTITIES)}: heg.measure(run) may have it"
            )
        if name not in self.summary:
            raise ValueError(f"the run in {self.directory} is not finished: call heg.solve again")
        return Estimate(**self.summary[name])

    def __repr__(self) -> str:
        """A line: directory, steps, F and the verdict."""
        steps = len(self.history["step"]) if self.history else 0
        state = (
            f"F {self.estimate('F')} Ha. {sentence_of(self.summary)}".rstrip()
            if self.summary
            else "not finished"
        )
        return f"<Run {str(self.directory)!r}, {steps} steps: {state}>"


def solve(
    system: System,
    run_dir: str | Path,
    callback: Callable | None = None,
    *,
    alone: bool = False,
    **flags,
) -> Run:
    """Minimises the free energy of a gas, or goes on with the run in `run_dir`: heg-solve without a
    command line.

    Args:
      system: the gas.
      run_dir: directory of the run.
      callback: takes the row of history.csv of every step, a dict, on every process; the run ends
        in order when it returns something true, and goes on with the next call.
      alone: under a launcher, this process runs a job of its own; otherwise all processes share
        one.
      flags: those of heg-solve by name, as steps=300, batch=512, flow_layers=6.
    Returns:
      The run; its summary is that of the step reached, empty if the callback ended it.
    Raises:
      ValueError: a flag is unknown, a value impossible, the directory holds another run, or the
        processes of a launcher ask for different runs.
      heg.errors.RunError, heg.errors.StorageError, heg.errors.ParallelError,
      OSError: it cannot go on.
    """
    config = _configuration(system, run_dir, flags)
    processes.join(alone)
    processes.agree(_fields(config))
    begin, limit, asked = time.monotonic(), config.run.max_seconds or np.inf, [False]

    def show(step, info):
        asked[0] = callback is not None and bool(callback(history_row(step, info)))

    summary = solve_run(
        config, LOG.warning, show, lambda: asked[0] or time.monotonic() - begin > limit
    )
    return processes.on_first(load_run, run_dir)._replace(summary=summary)


def load_run(run_dir: str | Path) -> Run:
    """A run of heg-solve or `solve` from its directory; its summary is empty as long as it is not
    finished.

    Raises:
      ValueError: the directory holds no run.
      StorageError: a file cannot be read.
    """
    run_dir = Path(run_dir)
    configuration(run_dir)
    path = run_dir / "summary.json"
    summary = text_files.load_json(path) if path.exists() else {}
    history = text_files.columns(text_files.read_history(run_dir / HISTORY))
    if history and summary.get("steps", 0) < history["step"][-1]:  # of an earlier stage
        summary = {}
    return Run(run_dir, summary, history)


def measure(
    run: Run | str | Path,
    samples: int = 100_000,
    callback: Callable | None = None,
    second_order: bool | float = True,
    *,
    output: str | Path | None = None,
    alone: bool = False,
) -> Measurement:
    """Every observable of a run with its error, as heg-measure has them.

    Args:
      run: of `solve`, or its directory.
      samples: wanted in all; those of an earlier measurement count.
      callback: takes the numbers of samples at hand and wanted.
      second_order: F to second order too; a number: with that statistical error, hartree per
        electron.
      output: directory for all that is written; none: that of the run.
      alone: as in `solve`.
    Raises:
      ValueError: there is no such run, fewer samples than an error needs, or the processes of a
        launcher ask for different measurements.
      heg.errors.RunError, heg.errors.StorageError, OSError: it cannot go on.
    """
    samples = whole_number("samples", samples)
    if samples < 2:
        raise ValueError(f"samples is {samples}: it must be at least 2, for an error bar")
    if not isinstance(second_order, bool) and not second_order > 0:
        raise ValueError(
            f"second_order is {second_order}: give True, False or a positive error, hartree per electron"
        )
    processes.join(alone)
    directory = run.directory if isinstance(run, Run) else Path(run)
    processes.agree(
        {
            "the run directory": str(directory.absolute()),
            "samples": samples,
            "second_order": second_order,
        }
    )

    def show(what, have, wanted):
        if callback and what == "samples":
            callback(have, wanted)

    return measure_run(
        directory, samples, show, lambda: False, output=output, second_order=second_order
    )


def plot(result: Run | Measurement):
    """A matplotlib Figure: F and S over the training of a run, S(q) and g(r) of a measurement.

    It is made without pyplot: a notebook shows it after %matplotlib inline, a script saves it with
      savefig.

    Raises:
      ValueError: the run has no step yet, or the result is neither.
      ImportError: matplotlib is not installed.
    """
    _require_kind("plot", result, Run, Measurement)
    if isinstance(result, Run):
        if not result.history:
            raise ValueError(f"the run in {result.directory} has no step to plot: train it")
        gas = configuration(result.directory).system.build()
        return run_figures.training_curve(result.history, ideal_reference(gas)["S"])
    return run_figures.structure(result.quantities, result.system)


def plot_momentum(measurement: Measurement):
    """n(k) beside that of the ideal gas, a matplotlib Figure.

    Raises:
      ValueError: it is no measurement.
      ImportError: matplotlib is not installed.
    """
    _require_kind("plot_momentum", measurement, Measurement)
    ideal = ideal_momentum(measurement.system, measurement.orbitals)
    return run_figures.momentum(measurement.quantities, ideal)


def _require_kind(function, given, *kinds):
    """Refuses what a function cannot draw."""
    if not isinstance(given, kinds):
        sources = {Run: "a run of heg.solve", Measurement: "a measurement of heg.measure"}
        wanted = " or ".join(sources[kind] for kind in kinds)
        raise ValueError(f"heg.{function} takes {wanted}, not a {type(given).__name__}")


def _fields(config):
    """All fields of a configuration by name, the run directory from the root on."""
    fields = {name: value for table in tables(config).values() for name, value in table.items()}
    return fields | {"run_dir": str(Path(config.run.run_dir).absolute())}


def _configuration(system, run_dir, flags):
    groups = {
        group.name: group.type for group in dataclasses.fields(Config) if group.name != "system"
    }
    home = {flag.name: name for name, group in groups.items() for flag in dataclasses.fields(group)}
    parts = {"run": {"run_dir": str(run_dir)}}
    for flag, value in flags.items():
        if flag not in home:
            raise ValueError(f"there is no flag {flag!r}: {suggestion(flag, home)}")
        parts.setdefault(home[flag], {})[flag] = value
    polarization = f"{system.n_up - system.n_down}/{system.electrons}"
    gas = SystemConfig(
        system.electrons,
        system.dim,
        system.rs,
        system.theta,
        polarization,
        system.twist,
        system.coupling,
    )
    return Config(gas, **{name: groups[name](**values) for name, values in parts.items()})
