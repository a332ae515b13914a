"""The command line of heg-eos."""

import functools
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn

import numpy as np
from cyclopts import Parameter

from heg.cli.common import (
    CONTINUE,
    EVERY,
    FAILED,
    Common,
    CommonFlags,
    aligned,
    check_limit,
    command,
    courtesy,
    new_app,
    run_app,
    stop_signals,
)
from heg.config import ModelConfig, OptimizerConfig, SamplerConfig
from heg.eos.grid import GridConfig, TableConfig, points, twists
from heg.eos.survey import Hooks, survey
from heg.eos.table import Table, table_of
from heg.eos.table_directory import check, finished, status
from heg.eos.table_files import save
from heg.eos.twist_average import Part, row_of
from heg.gas.ideal import refuse_too_many
from heg.parallel import processes
from heg.report import table_figures, table_report

HELP = """Table of the equation of state over r_s and Theta.

Usage: heg-eos GRID.toml --run-dir DIR [FLAGS].  The file has the tables [grid] [model] [sampler]
[optimizer] with the names of the flags; flags win.  Each point is a run of its own in DIR;
table.csv and table.h5 hold those that are done, and table.html shows them.  The same command again
goes on, also with points added to the grid; so does --run-dir DIR alone.  Energies are in hartree
per electron.
Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped in order: run the same command again.
"""


class Asked(NamedTuple):
    """What a command line means."""

    table: TableConfig
    run_dir: Path
    status: bool
    max_seconds: float | None


def parse(arguments: list[str]) -> Asked | None:
    """What the command line means; None when only help was asked for.

    Raises:
      ValueError, StorageError: with one sentence for the user.
    """
    app = new_app("heg-eos", HELP)
    group = lambda name: Parameter(name="*", group=name)

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
        status: Annotated[
            bool,
            Parameter(
                help="show how far the points are and write the table of those done", negative=""
            ),
        ] = False,
        max_seconds: Annotated[
            float | None, Parameter(help="stop in order after this time, with exit code 75")
        ] = None,
        common: CommonFlags = Common(),
    ):
        check_limit(max_seconds)
        return Asked(TableConfig(grid, model, sampler, optimizer), run_dir, status, max_seconds)

    asked = run_app(app, arguments, TableConfig, stored="grid.toml")
    if asked is not None:
        for point in points(asked.table.grid):
            refuse_too_many(point.system.build())
    return asked


def table(arguments: list[str] | None = None) -> NoReturn:
    """heg-eos: a table of the equation of state."""
    command(
        "heg-eos", parse, lambda asked: _status(asked) if asked.status else _run(asked), arguments
    )


def _run(asked):
    every = points(asked.table.grid)
    number = {point.name: place + 1 for place, point in enumerate(every)}
    printed, begun = [-EVERY], time.monotonic()

    def show(point, what, have, wanted):
        now = time.monotonic()
        if now - printed[0] > EVERY:
            printed[0] = now
            print(
                f"point {number[point.name]}/{len(every)}  {point.name}  {what} {have}/{wanted}",
                flush=True,
            )

    say = lambda sentence: print(sentence, flush=True)
    hooks = Hooks(
        say, show, lambda: _write(asked, every, surfaces=False), stop_signals(asked.max_seconds)
    )
    unfinished = survey(asked.table, asked.run_dir, hooks)
    print(f"{time.monotonic() - begun:.0f} s")
    return processes.on_first(_end, asked, every, unfinished)


def _end(asked, every, unfinished):
    """Prints the grid, writes everything that can be made of it; the exit code."""
    states = {point.name: status(asked.table, asked.run_dir, point) for point in every}
    _print(every, states)
    _write(asked, every, surfaces=True)
    if unfinished:
        print(
            f"Not all points are done; the same command goes on with the table in {asked.run_dir}.",
            flush=True,
        )
        return CONTINUE, _plain(states)
    return FAILED if any(state.state != "done" for state in states.values()) else 0, _plain(states)


def _plain(states):
    """For JSON."""
    estimate = lambda value: value and value._asdict()
    return {
        name: state._asdict() | {"free_energy": estimate(state.free_energy)}
        for name, state in states.items()
    }


def _status(asked):
    def show():
        check(asked.table, asked.run_dir)
        every = points(asked.table.grid)
        states = {point.name: status(asked.table, asked.run_dir, point) for point in every}
        _print(every, states)
        _write(asked, every, surfaces=True)
        return 0, _plain(states)

    return processes.on_first(show)


def _print(every, states):
    rows = [["point", "state", "F, Ha", "wanted, Ha", "steps", "samples", "s"]]
    for point in every:
        state = states[point.name]
        spent = [str(state.steps), str(state.samples), f"{state.seconds:.0f}"]
        rows.append(
            [point.name, state.state, str(state.free_energy or ""), f"{point.accuracy:.2g}", *spent]
        )
    print(aligned(rows))
    done = [state.seconds for state in states.values() if state.state == "done"]
    left = len(every) - len(done)
    hours = f", about {np.mean(done) * left / 3600:.1f} h" if done and left else ""
    print(f"{len(done)} of {len(every)} points done, {left} left{hours}", flush=True)


def _write(asked, every, surfaces):
    """table.csv and table.h5 of the gases all of whose twists are done; with surfaces also figures
    and the page."""
    try:
        check(asked.table, asked.run_dir)
    except ValueError:
        return  # another job has added points since: the table is that job's
    made = collect(asked, every, surfaces)
    if made is None:
        return
    save(made, asked.run_dir / "table", points=len(made.columns["dim"]))
    if not surfaces:
        return
    pictures = courtesy(lambda: table_figures.draw(made, asked.run_dir)) or {}
    print(
        f"Table: {table_report.write(asked.run_dir / 'table.html', made, asked.run_dir / 'grid.toml', pictures)}",
        flush=True,
    )


def collect(asked: Asked, every: list, surfaces: bool) -> Table | None:
    """The table of what is done; None if nothing is."""
    gases = defaultdict(list)
    for point in every:
        system = point.system
        gases[system.electrons, system.polarization, system.rs, system.theta].append(point)
    rows = []
    for _, group in sorted(
        gases.items(), key=lambda item: (item[0][0], item[0][1], item[0][3], item[0][2])
    ):
        done = [finished(asked.run_dir, point) for point in group]
        if all(done):
            rows.append(
                _row(
                    tuple(
                        (point.weight, point.name, json.dumps(one))
                        for point, one in zip(group, done)
                    )
                )
            )
    if not rows:
        return None
    every_twist = twists(asked.table.grid)
    return table_of(rows, {(row["n_up"], row["n_down"]): every_twist for row in rows}, surfaces)


@functools.cache
def _row(parts):
    """From the weight, name and point.json of each twist; kept, as the table is written after every
    point."""
    return row_of([Part(weight, name, json.loads(facts)) for weight, name, facts in parts])
