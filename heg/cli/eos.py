"""The command line of heg-eos: what a person types, and the grid and its table."""

import dataclasses
import functools
import json
import logging
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn

import numpy as np
from cyclopts import Parameter

from heg.cli.common import (
    CONTINUE,
    FAILED,
    Common,
    CommonFlags,
    Interval,
    aligned,
    check_limit,
    command,
    courtesy,
    duration,
    new_app,
    run_app,
    stop_signals,
)
from heg.config import ModelConfig, OptimizerConfig, SamplerConfig, tables
from heg.eos.forecast import forecast
from heg.eos.grid import GridConfig, Point, TableConfig, points, twists
from heg.eos.survey import Hooks, survey
from heg.eos.table import Table, table_of
from heg.eos.table_directory import check, finished, is_done, status
from heg.eos.table_files import save
from heg.eos.twist_average import Part, row_of
from heg.gas.ideal import refuse_too_many
from heg.parallel import processes
from heg.report import table_figures, table_report
from heg.runs import text_files
from heg.training.cost import product_rate

LOG = logging.getLogger(__name__)

HELP = """Table of the equation of state over r_s and Theta.

Usage: heg-eos GRID.toml --run-dir DIR [FLAGS].  The file has the tables [grid] [model] [sampler]
[optimizer] with the names of the flags; flags win.  Each point is a run of its own in DIR;
table.csv and table.h5 hold those that are done, and table.html shows them.  The same command again
goes on, also with points added to the grid; so does --run-dir DIR alone.  Energies are in hartree
per electron.
Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped in order: run the same command again.
"""


@dataclasses.dataclass(frozen=True)
class Action:
    """What is to be done about a table."""

    status: Annotated[bool, Parameter(negative="")] = False
    "show how far the points are and write the table of those done"
    dry_run: Annotated[bool, Parameter(negative="")] = False
    "print the resolved grid and its cost in points, orbitals, memory and time, compute nothing"
    max_seconds: float | None = None
    "stop in order after this time, with exit code 75"


class Asked(NamedTuple):
    """A command line of heg-eos.

    Attributes:
      table: the grid and the settings of its runs.
      run_dir: directory of the table.
      action: what is to be done about it.
    """

    table: TableConfig
    run_dir: Path
    action: Action = Action()


def parse(arguments: list[str]) -> Asked | None:
    """The table and its directory meant by a command line; None when only help was asked for.

    Raises:
      ValueError, StorageError: with one sentence for the user.
    """
    app = new_app("heg-eos", HELP)

    def group(name):
        return Parameter(name="*", group=name)

    @app.default
    def run(
        *,
        run_dir: Annotated[
            Path, Parameter(help="directory of the table; an existing one is continued")
        ],
        grid: Annotated[GridConfig, group("grid")],
        model: Annotated[ModelConfig, group("model")] = ModelConfig(),
        sampler: Annotated[SamplerConfig, group("sampler")] = SamplerConfig(),
        optimizer: Annotated[OptimizerConfig, group("optimizer")] = OptimizerConfig(),
        action: Annotated[Action, Parameter(name="*")] = Action(),
        common: CommonFlags = Common(),
    ):
        check_limit(action.max_seconds)
        return Asked(TableConfig(grid, model, sampler, optimizer), run_dir, action)

    asked = run_app(app, arguments, TableConfig, stored="grid.toml")
    if asked is not None:
        # before anything is computed: the last point may be the one that is impossible
        for point in points(asked.table.grid):
            refuse_too_many(point.system.build())
    return asked


def table(arguments: list[str] | None = None) -> NoReturn:
    """heg-eos: a table of the equation of state."""
    command("heg-eos", parse, _act, arguments)


def _act(asked):
    if asked.action.dry_run:
        return _dry_run(asked.table)
    return processes.on_first(_status, asked) if asked.action.status else _run(asked)


def _run(asked):
    """Computes what is missing of the grid and writes the table; exit code and state of points."""
    every = points(asked.table.grid)
    begin = time.monotonic()
    missing = processes.on_first(_missing, asked, every)
    hooks = Hooks(
        show=_Progress(every, missing),
        # surfaces are fitted once, through all points at the end
        done=lambda: _write(asked, every, surfaces=False),
        stop=stop_signals(asked.action.max_seconds),
    )
    unfinished = survey(asked.table, asked.run_dir, hooks)
    print(f"{time.monotonic() - begin:.0f} s")
    # files belong to the first process; the others need its exit code
    return processes.on_first(_end, asked, every, unfinished)


def _missing(asked, every):
    """Names of the points that are still to be computed, in their order."""
    return [point.name for point in every if not is_done(asked.table, asked.run_dir, point)]


class _Progress:
    """A line of progress a minute.

    It has the point, what is going on, how much of it is done, F of the latest step, and the time
    left once a point is done.
    """

    def __init__(self, every, missing):
        self.count = len(every)
        self.number = {point.name: number for number, point in enumerate(every, start=1)}
        # the number of points that this call does before each
        self.missing = {name: index for index, name in enumerate(missing)}
        self.free_energy = {}  # of the latest step, by point
        self.begin = time.monotonic()
        self.current = None  # name of the point, and when it was first heard of
        self.since = self.begin
        self.interval = Interval()

    def __call__(self, point, what, have, wanted, free_energy=None):
        name = point.name
        if name != self.current:
            self.current = name
            self.since = time.monotonic()
        if free_energy is not None:
            self.free_energy = {name: free_energy}
        if self.interval.is_over():
            LOG.info(self._line(point, what, have, wanted))

    def _line(self, point, what, have, wanted):
        name = point.name
        line = f"point {self.number[name]}/{self.count}  {name}  {what} {have}/{wanted}"
        if name in self.free_energy:
            line += f"  F/N {self.free_energy[name]} Ha"
        done = self.missing.get(name, 0)  # points of this call before the present one
        if done:
            line += f"  {duration(self._seconds_left(done))} left"
        return line

    def _seconds_left(self, done):
        # points of one table cost about the same: their mean is a fair forecast
        per_point = (self.since - self.begin) / done
        # the present point may take longer than its share, but leaves no less than nothing
        spent = min(time.monotonic() - self.since, per_point)
        to_do = len(self.missing) - done
        return per_point * to_do - spent


def _end(asked, every, unfinished):
    """Prints the grid and writes everything that can be made of it; exit code and states."""
    states = _states(asked, every)
    _print(every, states)
    _write(asked, every, surfaces=True)
    if unfinished:
        LOG.info(
            f"Not all points are done; the same command goes on with the table in {asked.run_dir}."
        )
        return CONTINUE, _plain(states)
    all_done = all(state.state == "done" for state in states.values())
    return 0 if all_done else FAILED, _plain(states)


def _dry_run(table):
    """Prints the grid as TOML, its cost in the comments; exit code and the same as a dict."""
    rows = forecast(table, product_rate())
    cost = {
        "points": sum(row.points for row in rows),
        "memory_mib": max(row.memory_mib for row in rows),
        "seconds_least": sum(row.seconds_least for row in rows),
        "seconds_most": sum(row.seconds_most for row in rows),
    }
    # comments of TOML: the output can be given to heg-eos as it is
    print(text_files.as_toml(tables(table)))
    for line in [*_lines_of_rows(rows), *_lines_of_cost(cost)]:
        print(f"# {line}")
    return 0, {
        "config": tables(table),
        "rows": [row._asdict() for row in rows],
        "cost": cost,
    }


def _lines_of_rows(rows):
    """A line for each electrons, polarisation, Theta and twist."""
    head = ["N", "zeta", "Theta", "twist", "points", "orbitals", "MiB", "from, s", "to, s"]
    cells = [head]
    for row in rows:
        twist = ",".join(f"{angle:g}" for angle in row.twist) or "0"
        gas = [
            str(row.electrons),
            row.polarization,
            f"{row.theta:g}",
            twist,
        ]
        numbers = (
            row.points,
            row.orbitals,
            row.memory_mib,
            row.seconds_least,
            row.seconds_most,
        )
        cells.append(gas + [f"{number:.0f}" for number in numbers])
    return aligned(cells).splitlines()


def _lines_of_cost(cost):
    return [
        f"points = {cost['points']}",
        f"memory = about {cost['memory_mib']:.0f} MiB for the largest arrays, beside the program",
        f"time = {duration(cost['seconds_least'])} with the fewest steps and samples, "
        f"{duration(cost['seconds_most'])} at the limits",
        "       from nothing on these devices, within a factor of three or so; "
        "the second order comes on top",
    ]


def _status(asked):
    """Prints the grid and writes its table, computes nothing; exit code and states."""
    check(asked.table, asked.run_dir)
    every = points(asked.table.grid)
    states = _states(asked, every)
    _print(every, states)
    _write(asked, every, surfaces=True)
    return 0, _plain(states)


def _states(asked, every):
    """How far each point is, by its name."""
    return {point.name: status(asked.table, asked.run_dir, point) for point in every}


def _plain(states):
    """States of the points, for JSON."""
    plain = {}
    for name, state in states.items():
        known = state.free_energy
        free_energy = None if known is None else known._asdict()
        plain[name] = state._asdict() | {"free_energy": free_energy}
    return plain


def _print(every, states):
    """A line for each point, and how much is left."""
    head = ["point", "state", "F, Ha", "wanted, Ha", "steps", "samples", "s"]
    rows = [_row_of_point(point, states[point.name]) for point in every]
    print(aligned([head, *rows]))
    seconds = [state.seconds for state in states.values() if state.state == "done"]
    done = len(seconds)
    left = len(every) - done
    remaining = ""
    if done and left:
        # points of one table cost about the same: their mean is a fair forecast
        mean = np.mean(seconds)
        hours = mean * left / 3600
        remaining = f", about {hours:.1f} h"
    LOG.info(f"{done} of {len(every)} points done, {left} left{remaining}")


def _row_of_point(point, state):
    return [
        point.name,
        state.state,
        str(state.free_energy or ""),
        f"{point.accuracy:.2g}",
        str(state.steps),
        str(state.samples),
        f"{state.seconds:.0f}",
    ]


def _write(asked, every, surfaces):
    """Writes table.csv and table.h5 of the gases all of whose twists are done.

    With surfaces it also draws the figures and writes the page.
    """
    try:
        check(asked.table, asked.run_dir)
    except ValueError:
        return  # another job has added points since: the table is that job's
    # a gas counts once all of its twists are done
    made = collect(asked, every, surfaces)
    if made is None:
        return
    save(made, asked.run_dir / "table", points=len(made.columns["dim"]))
    if surfaces:
        _write_page(made, asked.run_dir)


def _write_page(made, run_dir):
    pictures = courtesy(lambda: table_figures.draw(made, run_dir)) or {}
    grid = run_dir / "grid.toml"
    path = table_report.write(run_dir / "table.html", made, grid, pictures)
    LOG.info(f"Table: {path}")


def collect(asked: Asked, every: list[Point], surfaces: bool) -> Table | None:
    """The table of what is done.

    Args:
      asked: the table and its directory.
      every: points of the grid.
      surfaces: fit surfaces through the rows?
    Returns:
      The rows of the gases all of whose twists are done; None if there is no such gas.
    """
    rows = []
    for twisted in _gases(every):
        finished_points = [finished(asked.run_dir, point) for point in twisted]
        if all(finished_points):
            rows.append(_row(twisted, finished_points))
    if not rows:
        return None
    # all cells of a grid are averaged over the same twists
    every_twist = twists(asked.table.grid)
    cells = [(row["n_up"], row["n_down"]) for row in rows]
    twists_of_cells = dict.fromkeys(cells, every_twist)
    return table_of(rows, twists_of_cells, surfaces)


def _gases(every):
    """Points of one gas at all its twists, a list each, by size, polarisation, Theta and r_s."""
    # points of a gas differ by their twist alone
    gases = defaultdict(list)
    for point in every:
        system = point.system
        key = (system.electrons, system.polarization, system.theta, system.rs)
        gases[key].append(point)
    return [gases[key] for key in sorted(gases)]


def _row(twisted, finished_points):
    """The row of a gas from what point.json holds of each twist."""
    # as text, which can be hashed
    parts = tuple(
        (point.weight, point.name, json.dumps(facts))
        for point, facts in zip(twisted, finished_points)
    )
    return _cached_row(parts)


@functools.cache
def _cached_row(parts):
    """The row of a gas from weight, name and point.json of each twist.

    It is kept: the table is written again after every point.
    """
    return row_of([Part(weight, name, json.loads(facts)) for weight, name, facts in parts])
