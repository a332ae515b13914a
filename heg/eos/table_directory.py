"""The directory of a table of heg-eos: its grid, its points, and how far each of them is.

grid.toml           the settings of the table
<point>/            a run directory for each point
<point>/point.json  what the table needs of a point that is done
failures.jsonl      attempts that failed
table.csv, ...      the table of the points that are done
STOP                made by the user to end the survey in order
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from heg.config import ANNOUNCED_FIELDS, FREE_FIELDS, tables
from heg.eos.grid import Point, TableConfig
from heg.errors import StorageError
from heg.runs import text_files
from heg.runs.run_directory import RunDirectory
from heg.statistics import Estimate

GRID_FILE = "grid.toml"
POINT_FILE = "point.json"
FAILURES_FILE = "failures.jsonl"
# fields of [grid] that may change when a table is continued, and lists that may grow
FREE_GRID_FIELDS = ("twists", "accuracy", "steps", "samples", "retries")
GROWING_FIELDS = ("electrons", "rs", "theta", "polarization")
# keys of point.json without which a point has no place in the table
NEEDED_KEYS = {
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
# observables of a run that the row of the table is made of
KEPT_OBSERVABLES = ("F", "E", "S", "pressure", "ideal", "system", "version")
NEEDED_OBSERVABLES = {*KEPT_OBSERVABLES, "q", "S_q", "F_2"}


class Status(NamedTuple):
    """How far a point is.

    Attributes:
      state: done; failed, and to be tried again; begun; waiting.
      free_energy: F per electron as far as it is known, hartree.
      steps, samples, seconds: spent.
      reached: have F and S settled, and is F as accurate as asked for?  None until it is done.
      doubts: sentences on parts of the result that do not agree.
    """

    state: Literal["done", "failed", "begun", "waiting"]
    free_energy: Estimate | None
    steps: int
    samples: int
    seconds: float
    reached: bool | None = None
    doubts: tuple[str, ...] = ()


def claim(table: TableConfig, run_dir: Path) -> None:
    """Write grid.toml, or check it: points may be added, limits may change, nothing else.

    Raises:
      ValueError: the directory holds another grid, or something else.
    """
    check(table, run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    text_files.save_config(run_dir / GRID_FILE, tables(table))


def check(table: TableConfig, run_dir: Path) -> None:
    """The checks of `claim`, which write nothing.

    Raises:
      ValueError: as in `claim`.
    """
    path = run_dir / GRID_FILE
    if not path.exists():
        if any(run_dir.glob("table.*")):
            raise ValueError(
                f"{run_dir} holds a table without its grid.toml: choose another --run-dir"
            )
        return
    stored = text_files.load_tables(path)
    defaults = tables(TableConfig(table.grid))
    for name, fields in tables(table).items():
        # the table may be of a version that lacked a field
        before = defaults[name] | stored.get(name, {})
        for field, value in fields.items():
            if name == "grid" and field in GROWING_FIELDS:
                _check_growth(run_dir, field, value, before.get(field, []))
            elif field not in _free_fields(name) and value != before.get(field):
                raise ValueError(
                    f"{run_dir} holds another grid: [{name}] {field} is {value}, "
                    f"it has {before.get(field)}; choose another --run-dir"
                )


def _free_fields(name: str) -> tuple[str, ...]:
    """Fields of a table of grid.toml that may change."""
    if name == "grid":
        return FREE_GRID_FIELDS
    return FREE_FIELDS.get(name, ()) + ANNOUNCED_FIELDS.get(name, ())


def _check_growth(run_dir: Path, field: str, value: list, before: Any) -> None:
    """Refuse a list that lacks a value of the grid in the directory."""
    if not isinstance(before, list):
        raise ValueError(f"{run_dir / GRID_FILE} is damaged: {field} is {before}, no list")
    missing = [item for item in before if item not in value]
    if missing:
        raise ValueError(
            f"{run_dir} has a table with {field} {missing[0]} too: "
            "add it, or choose another --run-dir"
        )


def is_done(table: TableConfig, run_dir: Path, point: Point) -> bool:
    """Whether a point is known as well as is asked for, or as well as the limits allow."""
    facts = finished(run_dir, point)
    if not facts:
        return False
    if facts["reached"]:
        return facts["accuracy_ha"] <= point.accuracy
    return facts["limits"] == [table.grid.steps, table.grid.samples]


def finished(run_dir: Path, point: Point) -> dict:
    """Contents of point.json; empty if the point is not done or the file cannot be used."""
    try:
        facts = text_files.load_json(run_dir / point.name / POINT_FILE)
    except StorageError:
        return {}
    measured = facts.get("measured")
    if not NEEDED_KEYS <= facts.keys() or not isinstance(measured, dict):
        return {}
    return facts if NEEDED_OBSERVABLES <= measured.keys() else {}


def status(table: TableConfig, run_dir: Path, point: Point) -> Status:
    """How far a point is, from its files."""
    if is_done(table, run_dir, point):
        facts = finished(run_dir, point)
        return Status(
            state="done",
            free_energy=Estimate(**facts["F"]),
            steps=facts["steps"],
            samples=facts["samples"],
            seconds=facts["seconds"],
            reached=facts["reached"],
            doubts=tuple(facts.get("doubts", ())),  # tables of older versions have none
        )
    directory = RunDirectory(run_dir / point.name)
    has_failed = _has_failed(run_dir, point)
    try:
        rows = directory.history()
    except StorageError:  # the user reads of it when the point is computed
        rows = []
        has_failed = True
    latest = None
    if rows:
        latest = Estimate(float(rows[-1]["F_ha"]), float(rows[-1]["F_error_ha"]))
    state: Literal["failed", "begun", "waiting"]
    if has_failed:
        state = "failed"
    else:
        state = "begun" if directory.path.exists() else "waiting"
    return Status(state, latest, steps=len(rows), samples=0, seconds=0.0)


def _has_failed(run_dir: Path, point: Point) -> bool:
    failures = text_files.read_lines(run_dir / FAILURES_FILE)
    return any(failure.get("point") == point.name for failure in failures)
