"""The command line of heg-measure: what a person types, and the observables printed."""

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
from cyclopts import Parameter

from heg.checks import Whole
from heg.cli.common import (
    CONTINUE,
    Common,
    CommonFlags,
    Interval,
    check_limit,
    command,
    courtesy,
    new_app,
    run_app,
    stop_signals,
)
from heg.errors import StorageError
from heg.observables.evaluation import difference
from heg.observables.momentum import ideal_momentum
from heg.observables.quantities import NUMBERS
from heg.parallel import processes
from heg.report import run_figures, run_report
from heg.report.html import SIZE_ERROR
from heg.runs import hdf5, text_files
from heg.runs.files import save_figure
from heg.runs.measure import measure as measure_run
from heg.runs.run_directory import RunDirectory
from heg.statistics import Estimate
from heg.training.verdict import sentence_of

LOG = logging.getLogger(__name__)

CAPTIONS = {
    "structure": "Structure factor and pair correlation",
    "momentum": "Momentum distribution",
    "levels": "Quasi-particle energies",
    "second_order": "Second-order free energy by the largest momentum transfer",
    "training": "Training",
    "energies": "Energies of the final samples, less their control variates",
}


@dataclasses.dataclass(frozen=True)
class Beyond:
    """Flags of the second order."""

    second_order: bool = True
    "the free energy to second order, beyond the bound"
    second_order_error: float | None = None
    "its statistical error wanted, hartree per electron; none: that of 32 states K"

    def __post_init__(self):
        wanted = self.second_order_error
        if wanted is not None and not wanted > 0:
            raise ValueError(f"second_order_error is {wanted}: it must be positive")
        if wanted is not None and not self.second_order:
            raise ValueError(
                "second_order_error and no-second-order contradict each other: give one of the two"
            )


BeyondFlags = Annotated[Beyond, Parameter(name="*")]
HELP = """Observables of a trained run with error bars, its parameters frozen.

Usage: heg-measure RUN_DIR [FLAGS].  Writes observables.json, observables.h5, figures and
report.html to the run's directory.  The same command again, with more samples, adds to those at
hand.  Energies are in hartree per electron.
Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped in order: run the same command again.
"""


def parse(arguments: list[str]) -> dict | None:
    """Arguments of a measurement by name; None when only help was asked for.

    Raises:
      ValueError: with one sentence for the user.
    """
    app = new_app("heg-measure", HELP)

    @app.default
    def run(
        run_dir: Path,
        /,
        *,
        samples: Whole = 100_000,
        step: Whole | None = None,
        beyond: BeyondFlags = Beyond(),
        beside: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative="")] = (),
        output: Path | None = None,
        max_seconds: float | None = None,
        common: CommonFlags = Common(),
    ):
        """
        Args:
          run_dir: of heg-solve.
          samples: wanted in all, rounded up to whole batches.
          step: of the checkpoint; none: the newest.
          beside: two more runs: of other r_s and the same temperature in hartree, for the pressure
            by difference; or of other temperatures, for the heat capacity.
          output: directory for all that is written, if not that of the run.
          max_seconds: stop in order after this time, with exit code 75.
        """
        if samples < 2:
            raise ValueError(f"samples is {samples}: it must be at least 2, for an error bar")
        if len(beside) not in (0, 2):
            raise ValueError(
                f"beside has {len(beside)} directories: give two, one on each side of the run"
            )
        check_limit(max_seconds)
        return {
            "run_dir": run_dir,
            "samples": samples,
            "step": step,
            "beside": beside,
            "second_order": beyond.second_order_error or beyond.second_order,
            "output": output or run_dir,
            "max_seconds": max_seconds,
        }

    return run_app(app, arguments)


def measure(arguments: list[str] | None = None) -> NoReturn:
    """heg-measure: every observable of a run, with an error bar."""
    command("heg-measure", parse, lambda asked: _measure(**asked), arguments)


def _measure(run_dir, samples, step, beside, second_order, output, max_seconds):
    """Measures a run, prints and draws the result; exit code and all numbers."""
    differences = processes.on_first(_differences, beside) if beside else {}
    show = _Progress()
    stop = stop_signals(max_seconds)
    result = measure_run(
        run_dir,
        samples,
        show,
        stop,
        step=step,
        output=output,
        second_order=second_order,
    )
    if result is None:
        LOG.info(f"Stopped in order; the same command goes on with the measurement in {run_dir}.")
        return CONTINUE, None
    if processes.is_first():
        _print(result, differences)
        _report(run_dir, output, result)
    # what --json prints is what the file holds
    numbers = processes.on_first(text_files.load_json, output / "observables.json")
    for name, estimate in differences.items():
        numbers[f"{name}_by_difference"] = estimate._asdict()
    return 0, numbers


class _Progress:
    """A line of progress a minute, and one when everything is done."""

    NOUNS = {"samples": "samples", "states": "states K of the second order"}

    def __init__(self):
        self.interval = Interval()

    def __call__(self, what, have, wanted):
        if self.interval.is_over(at_once=have == wanted):
            LOG.info(f"{have} of {wanted} {self.NOUNS[what]}")


def _differences(beside):
    """Pressure or heat capacity by name, from the summaries of two runs."""
    first, second = beside  # one on each side of the run
    try:
        return difference(
            RunDirectory(first).summary(),
            RunDirectory(second).summary(),
        )
    except (KeyError, TypeError, IndexError):
        raise ValueError(
            f"{first} or {second} has a summary.json without a result: run heg-solve again"
        ) from None


def _print(result, differences):
    """Every quantity with its error and unit, the infinite gas, and what limits them."""
    facts = result.facts
    print(f"{facts['samples']} samples, step {facts['step']}")
    for name, entry in NUMBERS.items():
        if name in result.quantities:
            quantity = result.quantities[name]
            _print_line(entry.title, _values(quantity), quantity.unit)
    for name, estimate in differences.items():
        title = f"{name} by difference of the two runs beside"
        unit = result.quantities[name].unit
        _print_line(title, str(estimate), unit)
    for name, value in facts["infinite_gas"].items():
        # published values have no error
        text = str(Estimate(**value)) if isinstance(value, dict) else f"{value:.6g}"
        _print_line(name, text)
    for note in (SIZE_ERROR, *facts["outside_of_fits"]):
        print(note)
    if sentence := sentence_of(facts):
        print(sentence)


def _print_line(title, values, unit=None):
    print(f"{title:62} {values:>20}" + (f"  {unit}" if unit is not None else ""))


def _values(quantity):
    """One number or several, each with its error."""
    estimates = []
    for value, error in zip(np.ravel(quantity.value), np.ravel(quantity.error)):
        estimates.append(str(Estimate(float(value), float(error))))
    return ", ".join(estimates)


def _report(run_dir, output, result):
    """Draws the figures, and writes the report that holds them."""
    # a history that cannot be read is an error; all that concerns figures alone is a courtesy
    directory = RunDirectory(run_dir)
    history = text_files.columns(directory.history())
    pictures = courtesy(lambda: _draw(directory, output, result, history)) or {}
    path = run_report.write(
        output / "report.html",
        text_files.load_json(output / "observables.json"),
        text_files.read_text(directory.config_file),
        pictures,
    )
    print(f"Report: {path}")


def _draw(directory, output, result, history):
    """Writes all figures for which there are numbers; the files by caption."""
    quantities = result.quantities
    figures = {"structure": run_figures.structure(quantities, result.system)}
    # a classical plasma has neither momenta nor levels
    if "n_k" in quantities:
        ideal = ideal_momentum(result.system, result.orbitals)
        figures["momentum"] = run_figures.momentum(quantities, ideal)
        # none where the occupations do not fluctuate
        if len(result.landau.k):
            figures["levels"] = run_figures.levels(result.landau)
    if result.second_order:
        figures["second_order"] = run_figures.second_order(result.second_order)
    if history:
        entropy = Estimate(result.facts["ideal"]["S"], 0.0)
        figures["training"] = run_figures.training_curve(history, entropy)
    energies = _energies(directory.samples_file(result.facts["step"]))
    if energies is not None:
        figures["energies"] = run_figures.sample_energies(energies)
    pictures = {}
    for name, figure in figures.items():
        pictures[CAPTIONS[name]] = save_figure(figure, output / f"{name}.png")
    return pictures


def _energies(path):
    """Energies of the final samples of the run; None where there are none that can be used."""
    with contextlib.suppress(StorageError, KeyError, OSError):
        arrays, _ = hdf5.load_arrays(path)
        return arrays["E"]
    return None
