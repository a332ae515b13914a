"""The command line of heg-measure."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
from cyclopts import Parameter

from heg.checks import Whole
from heg.cli.common import (
    CONTINUE,
    EVERY,
    Common,
    CommonFlags,
    check_limit,
    command,
    courtesy,
    new_app,
    run_app,
    save_figure,
    stop_signals,
)
from heg.errors import StorageError
from heg.observables.evaluation import difference
from heg.observables.momentum import ideal_momentum
from heg.parallel import processes
from heg.report import run_figures, run_report
from heg.report.html import SIZE_ERROR
from heg.runs import files, text_files
from heg.runs.measure import measure as measure_run
from heg.runs.solve import HISTORY
from heg.statistics import Estimate
from heg.training.verdict import sentence_of

FIGURES = {
    "structure": "Structure factor and pair correlation",
    "momentum": "Momentum distribution",
    "levels": "Quasi-particle energies",
    "second_order": "Second-order free energy by the largest momentum transfer",
    "training": "Training",
    "energies": "Local energies",
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
                "second_order_error asks for what no-second-order leaves out: give one of the two"
            )


BeyondFlags = Annotated[Beyond, Parameter(name="*")]
HELP = """Observables of a trained run with error bars, its parameters frozen.

Usage: heg-measure RUN_DIR [FLAGS].  Writes observables.json, observables.h5, figures and
report.html to the run's directory.  The same command again, with more samples, adds to those at
hand.  Energies are in hartree per electron.
Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped in order: run the same command again.
"""


def parse(arguments: list[str]) -> dict | None:
    """What the command line means; None when only help was asked for.

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
        asked = {"run_dir": run_dir, "samples": samples, "step": step, "beside": beside}
        asked |= {"second_order": beyond.second_order_error or beyond.second_order}
        return asked | {"output": output or run_dir, "max_seconds": max_seconds}

    return run_app(app, arguments)


def measure(arguments: list[str] | None = None) -> NoReturn:
    """heg-measure: every observable of a run, with an error bar."""
    command("heg-measure", parse, lambda asked: _measure(**asked), arguments)


def _measure(run_dir, samples, step, beside, second_order, output, max_seconds):
    differences = processes.on_first(_differences, beside) if beside else {}
    printed = [-EVERY]

    words = {"samples": "samples", "states": "states K of the second order"}

    def show(what, have, wanted):
        if time.monotonic() - printed[0] > EVERY or have == wanted:
            printed[0] = time.monotonic()
            print(f"{have} of {wanted} {words[what]}", flush=True)

    found = measure_run(
        run_dir, samples, show, stop_signals(max_seconds), step, output, second_order
    )
    if found is None:
        print(
            f"Stopped in order; the same command goes on with the measurement in {run_dir}.",
            flush=True,
        )
        return CONTINUE, None
    if processes.is_first():
        _print(found, differences)
        _draw(run_dir, output, found)
    beside = {f"{name}_by_difference": estimate._asdict() for name, estimate in differences.items()}
    return 0, processes.on_first(text_files.load_json, output / "observables.json") | beside


def _differences(beside):
    """From the summaries of two runs."""
    try:
        return difference(*(text_files.load_json(run_dir / "summary.json") for run_dir in beside))
    except (KeyError, TypeError, IndexError):
        raise ValueError(
            f"{beside[0]} or {beside[1]} has a summary.json that is none: run heg-solve again"
        ) from None


def _print(found, differences):
    print(f"{found.facts['samples']} samples, step {found.facts['step']}")
    for name, title in run_report.TITLES.items():
        if name in found.quantities:
            quantity = found.quantities[name]
            values = zip(np.ravel(quantity.value), np.ravel(quantity.error))
            text = ", ".join(str(Estimate(float(value), float(error))) for value, error in values)
            print(f"{title:62} {text:>20}  {quantity.unit}")
    for name, estimate in differences.items():
        print(
            f"{name + ' by difference of the two runs beside':62} {str(estimate):>20}  {found.quantities[name].unit}"
        )
    for name, value in found.facts["infinite_gas"].items():
        print(
            f"{name:62} {str(Estimate(**value)) if isinstance(value, dict) else f'{value:.6g}':>20}"
        )
    for note in (SIZE_ERROR, *found.facts["outside_of_fits"]):
        print(note)
    if sentence := sentence_of(found.facts):
        print(sentence)


def _draw(run_dir, output, found):
    """Figures, and the report that holds them."""
    history = text_files.columns(text_files.read_history(run_dir / HISTORY))

    def draw():
        drawn = {
            "structure": run_figures.structure(found.quantities, found.system),
            "momentum": run_figures.momentum(
                found.quantities, ideal_momentum(found.system, found.orbitals)
            ),
            "levels": run_figures.levels(found.landau),
        }
        if found.second_order:
            drawn["second_order"] = run_figures.second_order(found.second_order)
        if history:
            drawn["training"] = run_figures.training_curve(
                history, Estimate(found.facts["ideal"]["S"], 0.0)
            )
        if energies := _energies(run_dir / f"samples-{found.facts['step']}.h5"):
            drawn["energies"] = run_figures.local_energies(energies[0])
        return {
            FIGURES[name]: save_figure(figure, output / f"{name}.png")
            for name, figure in drawn.items()
        }

    configuration = text_files.read_text(run_dir / "config.toml")
    numbers = text_files.load_json(output / "observables.json")
    print(
        f"Report: {run_report.write(output / 'report.html', numbers, configuration, courtesy(draw) or {})}"
    )


def _energies(path):
    """Energies of the final samples of the run, in a list; empty where there are none that can be
    used."""
    with contextlib.suppress(StorageError, KeyError, OSError):
        return [files.load_arrays(path)[0]["E"]]
    return []
