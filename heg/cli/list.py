"""The command line of heg-list: the runs below a directory with gas, state and verdict."""

import os
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn

from cyclopts import Parameter

from heg.cli.common import Common, CommonFlags, aligned, command, new_app, run_app
from heg.errors import StorageError
from heg.parallel import processes
from heg.runs.run_directory import RunDirectory
from heg.statistics import Estimate
from heg.training.verdict import sentence_of

HELP = """The runs below a directory as a table: gas, state, steps, F (hartree per electron),
verdict.

Nothing is computed and nothing is changed.
"""


class Listed(NamedTuple):
    """A run directory as heg-list shows it.

    Attributes:
      directory: of the run.
      gas: in words; empty if the configuration cannot be read.
      state: finished, unfinished, or why the run cannot be read.
      steps: done so far.
      free_energy: F of a finished run, hartree per electron; None for others.
      verdict: one sentence; empty for unfinished runs.
    """

    directory: str
    gas: str
    state: str
    steps: int
    free_energy: Estimate | None
    verdict: str


def list_runs(arguments: list[str] | None = None) -> NoReturn:
    """heg-list: the runs below a directory."""
    command("heg-list", _parse, lambda directory: processes.on_first(_show, directory), arguments)


def _parse(arguments):
    app = new_app("heg-list", HELP)

    @app.default
    def run(
        directory: Annotated[Path, Parameter(help="where to look for runs")] = Path("."),
        *,
        common: CommonFlags = Common(),
    ):
        # Path.is_dir fails where a name is too long
        if not os.path.isdir(directory):
            raise ValueError(f"{directory} is no directory: give one that holds runs")
        return directory

    return run_app(app, arguments)


def runs_below(directory: Path) -> list[Listed]:
    """All runs below a directory, in the order of their names."""
    return [_listed(path.parent) for path in sorted(directory.rglob("config.toml"))]


def _listed(run_dir):
    """One run; what keeps it from being read is its state."""
    try:
        directory = RunDirectory(run_dir)
        gas = directory.configuration().system.build()
        point = " ".join(f"{name} {value:g}" for name, value in gas.point.items())
        description = f"{gas.dim}D {gas.label} {point}"
        # read first: a run whose history is damaged is unreadable, finished or not
        steps = len(directory.history())
        if directory.summary_file.exists():
            return _finished(directory, description)
        return Listed(
            directory=str(run_dir),
            gas=description,
            state="unfinished",
            steps=steps,
            free_energy=None,
            verdict="",
        )
    except (ValueError, StorageError, KeyError, TypeError) as error:
        return Listed(
            directory=str(run_dir),
            gas="",
            state=f"unreadable: {error}",
            steps=0,
            free_energy=None,
            verdict="",
        )


def _finished(directory, description):
    # the summary alone: no checkpoint is read
    summary = directory.summary()
    return Listed(
        directory=str(directory),
        gas=description,
        state="finished",
        steps=summary["steps"],
        free_energy=Estimate(**summary["F"]),
        verdict=sentence_of(summary),
    )


def _show(directory):
    """Prints the table; exit code and the same as a list."""
    runs = runs_below(directory)
    rows = [["run", "gas", "state", "steps", "F, Ha", "verdict"]]
    for run in runs:
        rows.append(
            [
                run.directory,
                run.gas,
                run.state,
                str(run.steps),
                str(run.free_energy or ""),
                run.verdict,
            ]
        )
    print(aligned(rows) if runs else f"There are no runs below {directory}.")
    return 0, [_plain(run) for run in runs]


def _plain(run):
    """A run, for JSON."""
    known = run.free_energy
    free_energy = None if known is None else known._asdict()
    return run._asdict() | {"free_energy": free_energy}
