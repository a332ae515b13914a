"""The loop of heg-eos: every point of a grid trained and measured, whatever happens to one of them.

Every point is an ordinary run in a directory of its own, which all processes of a job share.
Several jobs may work on
one grid: a point that another one holds is passed over.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax

from heg.config import FREE_FIELDS, TOLD_FIELDS, tables
from heg.eos.grid import Point, TableConfig, points, run_config
from heg.errors import InUse, RunError, StorageError
from heg.parallel.processes import any_process, is_first, on_first
from heg.runs import text_files
from heg.runs.measure import measure
from heg.runs.run_directory import configuration
from heg.runs.solve import HISTORY, solve
from heg.statistics import Estimate
from heg.training.convergence import settled

# too little memory among them
FAILURES_OF_A_POINT = (
    RunError,
    StorageError,
    ValueError,
    RuntimeError,
    MemoryError,
    OverflowError,
)
DONE, FAILURES = "point.json", "failures.jsonl"
MARGIN = 1.1  # of the number of samples
FREE = (
    "twists",
    "accuracy",
    "steps",
    "samples",
    "retries",
)  # what may change when a grid is continued
LISTS = ("electrons", "rs", "theta", "polarization")  # what may grow
# of point.json, for its place in the table
NEEDED = {
    "F",
    "accuracy_ha",
    "limits",
    "reached",
    "start",
    "steps",
    "samples",
    "seconds",
    "measured",
}
KEPT = (
    "F",
    "E",
    "S",
    "pressure",
    "ideal",
    "system",
    "version",
)  # of observables.json, for the row of the table


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
    run_dir, every = Path(run_dir).resolve(), points(table.grid)
    on_first(claim, table, run_dir)
    asked = run_dir / "STOP"
    hooks = hooks._replace(stop=lambda stop=hooks.stop: stop() or (is_first() and asked.exists()))
    held = False
    for point in every:
        if on_first(is_done, table, run_dir, point):
            continue
        outcome = (
            "stopped" if any_process(hooks.stop()) else _attempts(table, run_dir, point, hooks)
        )
        if outcome == "stopped":
            on_first(lambda: asked.unlink(missing_ok=True))
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
    check(table, run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    text_files.save_config(run_dir / "grid.toml", tables(table))


def check(table: TableConfig, run_dir: Path) -> None:
    """The part of `claim` that writes nothing."""
    path = run_dir / "grid.toml"
    if not path.exists():
        if any(run_dir.glob("table.*")):
            raise ValueError(
                f"{run_dir} holds a table without its grid.toml: choose another --run-dir"
            )
        return
    before = text_files.load_tables(path)
    for name, fields in tables(table).items():
        there = before.get(name, {})
        free = FREE if name == "grid" else FREE_FIELDS.get(name, ()) + TOLD_FIELDS.get(name, ())
        for field, value in fields.items():
            if name == "grid" and field in LISTS:
                if not isinstance(there.get(field, []), list):
                    raise ValueError(f"{path} is damaged: {field} is {there[field]}, no list")
                if missing := [one for one in there.get(field, []) if one not in value]:
                    raise ValueError(
                        f"{run_dir} has a table with {field} {missing[0]} too: add it, or choose another --run-dir"
                    )
            elif field not in free and value != there.get(field):
                raise ValueError(
                    f"{run_dir} holds another grid: [{name}] {field} is {value}, it has {there.get(field)}; "
                    "choose another --run-dir"
                )


def is_done(table: TableConfig, run_dir: Path, point: Point) -> bool:
    """Is the point known as well as is asked for, or as well as the limits allow?"""
    found = finished(run_dir, point)
    if not found:
        return False
    as_well = found["reached"] and found["accuracy_ha"] <= point.accuracy
    return as_well or (
        not found["reached"] and found["limits"] == [table.grid.steps, table.grid.samples]
    )


def finished(run_dir: Path, point: Point) -> dict:
    """What point.json holds; empty if the point is not done or the file cannot be used."""
    try:
        found = text_files.load_json(run_dir / point.name / DONE)
    except StorageError:
        return {}
    measured = found.get("measured")
    whole = (
        NEEDED <= found.keys()
        and isinstance(measured, dict)
        and {*KEPT, "q", "S_q", "F_2"} <= measured.keys()
    )
    return found if whole else {}


def status(table: TableConfig, run_dir: Path, point: Point) -> Status:
    """How far a point is, from its files."""
    directory = run_dir / point.name
    failed = [
        line
        for line in text_files.read_lines(run_dir / FAILURES)
        if line.get("point") == point.name
    ]
    if is_done(table, run_dir, point):
        found = finished(run_dir, point)
        return Status(
            "done", Estimate(**found["F"]), found["steps"], found["samples"], found["seconds"]
        )
    try:
        rows = text_files.read_history(directory / HISTORY)
    except StorageError:  # told when the point is computed
        rows, failed = [], True
    state = "failed" if failed else "begun" if directory.exists() else "waiting"
    latest = Estimate(float(rows[-1]["F_ha"]), float(rows[-1]["F_error_ha"])) if rows else None
    return Status(state, latest, len(rows), 0, 0.0)


def _attempts(table, run_dir, point, hooks):
    """Outcome of a point: done, stopped, held by another job, failed."""
    for attempt in range(table.grid.retries + 1):
        try:
            return "done" if _compute(table, run_dir, point, attempt, hooks) else "stopped"
        except InUse as error:
            hooks.say(f"{point.name} is passed over: {error}.")
            return "held"
        except FAILURES_OF_A_POINT as error:
            if jax.process_count() > 1 and not isinstance(
                error, RunError | StorageError | ValueError
            ):
                raise  # the other processes may not know of it
            sentence = " ".join(str(error).split())
            on_first(
                text_files.append_line, run_dir / FAILURES, {"point": point.name, "what": sentence}
            )
            hooks.say(f"{point.name} failed: {sentence}.")
    return "failed"


def _compute(table, run_dir, point, attempt, hooks):
    """Trains and measures a point; false if stopped."""
    directory = run_dir / point.name
    start = on_first(_start, table, run_dir, point)
    config = run_config(table, point, str(directory), start, attempt)
    show = lambda step, info: hooks.show(point, "step", step, table.grid.steps)
    summary = solve(config, lambda sentence: None, show, hooks.stop)
    if not summary:
        return False
    trained, count, error = time.monotonic(), summary["samples"], summary["F"]["error"]
    while True:  # each round has at least twice the samples
        # errors fall with the square root of their number
        wanted = MARGIN * count * (error / point.accuracy) ** 2
        count = min(max(wanted, 2 * count), table.grid.samples)
        show = partial(hooks.show, point)
        found = measure(directory, math.ceil(count), show, hooks.stop, second_order=False)
        if found is None:
            return False
        count, error = found.facts["samples"], float(found.quantities["F"].error)
        if error <= point.accuracy or count >= table.grid.samples:
            break
    if measure(directory, count, show, hooks.stop, second_order=point.accuracy) is None:
        return False
    observables = on_first(text_files.load_json, directory / "observables.json")
    history = on_first(text_files.read_history, directory / HISTORY)
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
        "seconds": summary["seconds"] + time.monotonic() - trained,
        "seconds_of_training": summary["seconds"],
        # the table is made of this: another measurement of the run does not change it
        "measured": {name: observables[name] for name in KEPT}
        | {"q": observables["q"]["mean"][0], "S_q": [row[0] for row in observables["S_q"]["mean"]]}
        | {"F_2": _second_order(observables["second_order"])},
    }
    on_first(text_files.save_json, directory / DONE, facts)
    return True


def _second_order(found):
    """F_2 with its statistical and its other errors; a single electron is not correlated."""
    if not found:
        return {"mean": 0.0, "error": 0.0, "systematic": 0.0}
    systematic = math.sqrt(max(found["error"] ** 2 - found["statistical"] ** 2, 0.0))
    return {"mean": found["value"], "error": found["statistical"], "systematic": systematic}


def _start(table, run_dir, point):
    """The run that a point starts from: the one it has started from, else its nearest neighbour
    that is done."""
    directory = run_dir / point.name
    if (directory / "config.toml").exists():
        return configuration(directory).run.start
    done = [name for name in point.neighbours if (run_dir / name / DONE).exists()]
    return str(run_dir / done[0]) if table.grid.warm and done else None
