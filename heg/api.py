"""The functions of `import heg`, for notebooks and scripts: from a System to arrays."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np

from heg.config import Config, SystemConfig, suggestion, tables
from heg.display import as_html, optional_package
from heg.gas.ideal import ideal_reference
from heg.gas.plasma import Plasma
from heg.gas.system import System, whole_number
from heg.observables.evaluation import Measurement
from heg.observables.momentum import ideal_momentum
from heg.observables.quantities import NUMBERS
from heg.parallel import processes
from heg.report import run_figures
from heg.report.notebook import fragment
from heg.runs import text_files
from heg.runs.measure import measure as measure_run
from heg.runs.run_directory import RunDirectory
from heg.runs.solve import solve as solve_run
from heg.runs.summary import QUANTITIES, history_row
from heg.statistics import Estimate
from heg.training.state import StepInfo
from heg.training.verdict import sentence_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run(NamedTuple):
    """A run, finished or not.

    Attributes:
      directory: where its files are.
      summary: contents of summary.json; empty as long as the run is not finished.
      history: columns of history.csv by name, such as F_ha and F_error_ha.    [steps] each
    """

    directory: Path
    summary: dict
    history: dict[str, np.ndarray]

    def estimate(self, name: str) -> Estimate:
        """A result of independent samples, per electron.

        Args:
          name: F, E, kinetic, potential (hartree) or S (k_B).

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

    def to_pandas(self) -> Any:
        """The history as a pandas DataFrame, its index the step; units are in the names.

        Raises:
          ImportError: pandas is not installed (extra `pandas`).
        """
        frame = optional_package("pandas", "Run.to_pandas").DataFrame(dict(self.history))
        return frame.set_index("step") if self.history else frame

    def to_xarray(self) -> Any:
        """The history as an xarray Dataset over the steps.

        Raises:
          ImportError: xarray is not installed (extra `xarray`).
        """
        xarray = optional_package("xarray", "Run.to_xarray")
        columns = {name: ("step", values) for name, values in self.history.items()}
        return xarray.Dataset(columns)

    def _repr_html_(self) -> str:
        """Results, verdict and training curve, for notebooks."""
        return as_html(self)

    def __repr__(self) -> str:
        """A line: directory, steps, F and the verdict."""
        steps = len(self.history["step"]) if self.history else 0
        state = "not finished"
        if self.summary:
            state = f"F {self.estimate('F')} Ha. {sentence_of(self.summary)}".rstrip()
        return f"<Run {str(self.directory)!r}, {steps} steps: {state}>"


def solve(
    system: System,
    run_dir: str | Path,
    callback: Callable[[dict], Any] | None = None,
    *,
    alone: bool = False,
    **flags,
) -> Run:
    """Minimise the free energy of a gas, or go on with the run in `run_dir`.

    This is heg-solve without a command line.

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
    begin = time.monotonic()
    limit = config.run.max_seconds or np.inf
    asked_to_stop = False

    def show(step: int, info: StepInfo) -> None:
        nonlocal asked_to_stop
        asked_to_stop = callback is not None and bool(callback(history_row(step, info)))

    def stop() -> bool:
        return asked_to_stop or time.monotonic() - begin > limit

    summary = solve_run(config, show, stop)
    return processes.on_first(load_run, run_dir)._replace(summary=summary)


def load_run(run_dir: str | Path) -> Run:
    """Read a run of heg-solve or `solve` from its directory.

    Its summary is empty as long as the run is not finished.

    Raises:
      ValueError: the directory holds no run.
      StorageError: a file cannot be read.
    """
    directory = RunDirectory(Path(run_dir))
    # refuses a directory without a run
    directory.configuration()
    summary = directory.summary() if directory.summary_file.exists() else {}
    history = text_files.columns(directory.history())
    # a summary of fewer steps is that of an earlier stage
    if history and summary.get("steps", 0) < history["step"][-1]:
        summary = {}
    return Run(directory.path, summary, history)


def measure(
    run: Run | str | Path,
    samples: int = 100_000,
    callback: Callable[[int, int], Any] | None = None,
    second_order: bool | float = True,
    *,
    output: str | Path | None = None,
    alone: bool = False,
) -> Measurement:
    """Measure every observable of a run, with its error, as heg-measure does.

    Args:
      run: of `solve`, or its directory.
      samples: number wanted in all; those of an earlier measurement count.
      callback: takes the numbers of samples at hand and wanted.
      second_order: whether F to second order is wanted too; a number is its statistical error
        wanted, hartree per electron.
      output: directory for all that is written; None for that of the run.
      alone: as in `solve`.

    Raises:
      ValueError: there is no such run, fewer samples than an error needs, or the processes of a
        launcher ask for different measurements.
      heg.errors.RunError, heg.errors.StorageError, heg.errors.ParallelError,
      OSError: it cannot go on.
    """
    samples = whole_number("samples", samples)
    if samples < 2:
        raise ValueError(f"samples is {samples}: it must be at least 2, for an error bar")
    if not isinstance(second_order, bool) and not second_order > 0:
        raise ValueError(
            f"second_order is {second_order}: "
            "give True, False or a positive error, hartree per electron"
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

    def show(kind: str, have: int, wanted: int) -> None:
        if callback and kind == "samples":
            callback(have, wanted)

    measurement = measure_run(
        directory,
        samples,
        show,
        stop=lambda: False,
        output=Path(output) if output else None,
        second_order=second_order,
    )
    assert measurement is not None  # nothing has stopped it
    return measurement


def plot(result: Run | Measurement) -> "Figure":
    """A matplotlib Figure: F and S over the training of a run, S(q) and g(r) of a measurement.

    It is made without pyplot: a notebook shows it after %matplotlib inline, a script saves it with
    savefig.

    Raises:
      ValueError: the run has no step yet, or the result is neither.
      ImportError: matplotlib is not installed.
    """
    _require_kind("plot", result, Run, Measurement)
    if isinstance(result, Measurement):
        return run_figures.structure(result.quantities, result.system)
    if not result.history:
        raise ValueError(f"the run in {result.directory} has no step to plot: train it")
    gas = RunDirectory(result.directory).configuration().system.build()
    return run_figures.training_curve(result.history, ideal_reference(gas)["S"])


def plot_momentum(measurement: Measurement) -> "Figure":
    """A matplotlib Figure of n(k) beside that of the ideal gas.

    Raises:
      ValueError: it is no measurement, or that of a classical plasma.
      ImportError: matplotlib is not installed.
    """
    _require_kind("plot_momentum", measurement, Measurement)
    if "n_k" not in measurement.quantities:
        raise ValueError("a classical plasma has no n(k): heg.plot shows its S(q) and g(r)")
    ideal = ideal_momentum(measurement.system, measurement.orbitals)
    return run_figures.momentum(measurement.quantities, ideal)


@as_html.register
def _run_in_html(run: Run) -> str:
    """Results beside the ideal gas, the verdict and the training curve."""
    steps = len(run.history["step"]) if run.history else 0
    rows = []
    for name in QUANTITIES if run.summary else ():
        ideal = run.summary["ideal"][name]["mean"]
        entry = NUMBERS[name]
        rows.append((name, entry.title, str(run.estimate(name)), f"{ideal:.6g}", entry.unit))
    return fragment(
        title=f"Run {run.directory}, {steps} steps",
        head=("", "quantity", "result", "ideal gas", "unit"),
        rows=rows,
        sentence=sentence_of(run.summary) if run.summary else "not finished",
        draw=(lambda: plot(run)) if run.history else None,
    )


def _require_kind(function: str, given: Any, *kinds: type) -> None:
    """Refuse an argument that a function cannot draw."""
    if isinstance(given, kinds):
        return
    sources = {Run: "a run of heg.solve", Measurement: "a measurement of heg.measure"}
    wanted = " or ".join(sources[kind] for kind in kinds)
    raise ValueError(f"heg.{function} takes {wanted}, not a {type(given).__name__}")


def _fields(config: Config) -> dict[str, Any]:
    """All fields of a configuration by name, with the absolute path of the run directory."""
    fields: dict[str, Any] = {}
    for table in tables(config).values():
        fields |= table
    # processes may have different working directories
    return fields | {"run_dir": str(Path(config.run.run_dir).absolute())}


def _configuration(system: System, run_dir: str | Path, flags: dict[str, Any]) -> Config:
    """The configuration of a gas and of flags by name.

    Raises:
      ValueError: a flag is unknown or a value impossible.
    """
    # flags have no groups, their names are different in all of them
    groups: dict[str, Any] = {}
    for group in dataclasses.fields(Config):
        if group.name != "system":  # the gas is given as a System
            groups[group.name] = group.type
    group_of_flag = {}
    for name, group_type in groups.items():
        for field in dataclasses.fields(group_type):
            group_of_flag[field.name] = name
    values: dict[str, dict[str, Any]] = {"run": {"run_dir": str(run_dir)}}
    for flag, value in flags.items():
        if flag not in group_of_flag:
            raise ValueError(f"there is no flag {flag!r}: {suggestion(flag, group_of_flag)}")
        values.setdefault(group_of_flag[flag], {})[flag] = value
    built = {name: groups[name](**fields) for name, fields in values.items()}
    return Config(_settings_of(system), **built)


@functools.singledispatch
def _settings_of(system: System) -> SystemConfig:
    return SystemConfig(
        electrons=system.electrons,
        dim=cast(Literal[2, 3], system.dim),
        rs=system.rs,
        theta=system.theta,
        polarization=f"{system.n_up - system.n_down}/{system.electrons}",
        twist=system.twist,
        coupling=system.coupling,
    )


@_settings_of.register
def _(system: Plasma) -> SystemConfig:
    return SystemConfig(
        electrons=system.electrons,
        dim=cast(Literal[2, 3], system.dim),
        statistics="classical",
        gamma=system.coupling,
    )
