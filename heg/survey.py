"""The loop of heg-eos: every point of a grid trained and measured, whatever happens to one of them.

Every point is an ordinary run in a directory of its own, which all processes of a job share.  Several jobs may work on
one grid: a point that another one holds is passed over.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from heg import records, storage
from heg.config import tables
from heg.convergence import settled
from heg.grid import Point, TableConfig, points, run_config
from heg.measure import measure
from heg.parallel import any_process, on_first
from heg.solve import HISTORY, RunError, solve
from heg.statistics import Estimate
from heg.trained import configuration

DONE, FAILURES = "point.json", "failures.jsonl"
ROUNDS = 3  # measurements of a point, each with as many samples as the one before says are needed
MARGIN = 1.1  # of the number of samples
FIXED = ("dim", "twist_kind", "seed", "warm")  # what a grid that is continued may not change


class Hooks(NamedTuple):
    """What the survey tells, and who ends it.

    Attributes:
      say: takes sentences for the user.
      show: takes the point, what is going on, how much of it is done, and how much there is.
      done: called after each point that is finished.
      stop: true when the survey is to end in order.
    """

    say: Callable
    show: Callable
    done: Callable
    stop: Callable[[], bool]


class Status(NamedTuple):
    """Of a point.

    Attributes:
      state: done; failed, and to be tried again; begun; waiting.
      free_energy: F per electron as far as it is known, hartree.
      steps, samples, seconds: spent.
    """

    state: Literal["done", "failed", "begun", "waiting"]
    free_energy: Estimate | None
    steps: int
    samples: int
    seconds: float


def survey(table: TableConfig, run_dir: Path, hooks: Hooks) -> bool:
    """Computes what is missing of a grid.  Called by all processes.

    Returns:
      Was the survey stopped, or is there a point that another job holds?  The same call goes on.
    Raises:
      ValueError: the grid is impossible, or the directory holds another one.
      OSError: a file cannot be written.
    """
    run_dir, every = Path(run_dir), points(table.grid)
    on_first(claim, table, run_dir)
    held = False
    for point in every:
        if on_first(is_done, table, run_dir, point):
            continue
        if any_process(hooks.stop()):
            return True
        outcome = _attempts(table, run_dir, point, hooks)
        if outcome == "stopped":
            return True
        held |= outcome == "held"
        if outcome == "done":
            on_first(hooks.done)
    return held


def claim(table: TableConfig, run_dir: Path) -> None:
    """Writes grid.toml, or checks it: points may be added, limits may change, nothing else.

    Raises:
      ValueError: the directory holds another grid, or something else.
    """
    path, wanted = run_dir / "grid.toml", tables(table)
    if path.exists():
        before = records.load_config(path)
        for name, fields in wanted.items():
            there = before.get(name, {})
            for field, value in fields.items():
                if (name != "grid" or field in FIXED) and value != there.get(field):
                    raise ValueError(
                        f"{run_dir} holds another grid: [{name}] {field} is {value}, it has {there.get(field)}; "
                        "choose another --run-dir"
                    )
    run_dir.mkdir(parents=True, exist_ok=True)
    records.save_config(path, wanted)


def is_done(table: TableConfig, run_dir: Path, point: Point) -> bool:
    """Is the point known as well as is asked for, or as well as the limits allow?"""
    path = run_dir / point.name / DONE
    if not path.exists():
        return False
    found = records.load_json(path)
    as_well = found["accuracy_ha"] <= point.accuracy
    return as_well or (not found["reached"] and found["limits"] == [table.grid.steps, table.grid.samples])


def status(table: TableConfig, run_dir: Path, point: Point) -> Status:
    """How far a point is, from its files."""
    directory = run_dir / point.name
    failed = [line for line in records.read_lines(run_dir / FAILURES) if line["point"] == point.name]
    if is_done(table, run_dir, point):
        found = records.load_json(directory / DONE)
        return Status("done", Estimate(**found["F"]), found["steps"], found["samples"], found["seconds"])
    rows = records.read_history(directory / HISTORY)
    state = "failed" if failed else "begun" if directory.exists() else "waiting"
    latest = Estimate(float(rows[-1]["F_ha"]), float(rows[-1]["F_error_ha"])) if rows else None
    return Status(state, latest, len(rows), 0, 0.0)


def _attempts(table, run_dir, point, hooks):
    """Outcome of a point: done, stopped, held by another job, failed."""
    for attempt in range(table.grid.retries + 1):
        try:
            return "done" if _compute(table, run_dir, point, attempt, hooks) else "stopped"
        except storage.InUse as error:
            hooks.say(f"{point.name} is passed over: {error}.")
            return "held"
        except (RunError, storage.StorageError, ValueError) as error:
            sentence = " ".join(str(error).split())
            on_first(records.append_line, run_dir / FAILURES, {"point": point.name, "what": sentence})
            hooks.say(f"{point.name} failed: {sentence}.")
    return "failed"


def _compute(table, run_dir, point, attempt, hooks):
    """Trains and measures a point; false if stopped."""
    directory, begin = run_dir / point.name, time.monotonic()
    start = on_first(_start, table, run_dir, point)
    config = run_config(table, point, str(directory), start, attempt)
    show = lambda step, info: hooks.show(point, "step", step, table.grid.steps)
    summary = solve(config, lambda sentence: None, show, hooks.stop)
    if not summary:
        return False
    trained, count, error = time.monotonic(), summary["samples"], summary["F"]["error"]
    for _ in range(ROUNDS):
        # errors fall with the square root of the number of samples
        wanted = math.ceil(MARGIN * count * (error / point.accuracy) ** 2)
        count = min(max(wanted, 2 * count), table.grid.samples)
        found = measure(directory, count, partial(hooks.show, point, "samples"), hooks.stop)
        if found is None:
            return False
        error = float(found.quantities["F"].error)
        if error <= point.accuracy or count >= table.grid.samples:
            break
    history = on_first(records.read_history, directory / HISTORY)
    ready = settled(history, point.accuracy)
    facts = {
        "F": Estimate(float(found.quantities["F"].value), error)._asdict(),
        "accuracy_ha": point.accuracy,
        "limits": [table.grid.steps, table.grid.samples],
        "settled": ready,
        "reached": ready and error <= point.accuracy,
        "start": start,
        "steps": summary["steps"],
        "samples": found.facts["samples"],
        "attempt": attempt,
        "seconds": time.monotonic() - begin,
        "seconds_of_training": trained - begin,
    }
    on_first(records.save_json, directory / DONE, facts)
    return True


def _start(table, run_dir, point):
    """The run that a point starts from: the one it has started from, else its nearest neighbour that is done."""
    directory = run_dir / point.name
    if (directory / "config.toml").exists():
        return configuration(directory).run.start
    done = [name for name in point.neighbours if (run_dir / name / DONE).exists()]
    return str(run_dir / done[0]) if table.grid.warm and done else None
