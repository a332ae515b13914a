"""The cost of a table: warm and cold starts, a first table, the overhead of points, interruptions.

    python scripts/bench_eos.py warm
    python scripts/bench_eos.py table
    python scripts/bench_eos.py overhead
    python scripts/bench_eos.py interrupted
    python scripts/bench_eos.py spread

`warm`: a row of r_s of 3D polarised N = 7, each point from its neighbour and alone.  `table`: 3 x 3
of the same gas, from nothing to CSV and page.  `overhead`: 100 points of two electrons without flow
and transformer.  `interrupted`: the 3 x 3 grid, killed twice, once on two processes, beside the
undisturbed one.  `spread`: the same grid with all cores on one point, and by one job for each core.
All begin in fresh processes, so that compilation counts.
"""

import csv
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import cyclopts
import numpy as np

from heg.statistics import Estimate

GAS = {"dim": 3, "electrons": [7], "polarization": ["1"]}
SMALL = {"rs": [1.0, 2.0, 4.0], "theta": [0.25, 0.5, 1.0]}
app = cyclopts.App(help=__doc__)


def heg_eos(
    grid: dict,
    run_dir: Path,
    more: str = "",
    processes: int = 1,
    wait: bool = True,
    cores: set | None = None,
):
    """Starts heg-eos; its process, or the seconds it took."""
    path = run_dir.with_suffix(".toml")
    lines = [f"{name} = {json.dumps(value)}" for name, value in grid.items()]
    path.write_text("\n".join(["[grid]", *lines, more]))
    launcher = ["mpirun", "-n", str(processes)] if processes > 1 else []
    begin = time.monotonic()
    process = subprocess.Popen(
        [*launcher, "heg-eos", str(path), "--run-dir", str(run_dir)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores or os.sched_getaffinity(0)),
    )
    if not wait:
        return process
    if process.wait():
        raise SystemExit(f"heg-eos ended with exit code {process.returncode}")
    return time.monotonic() - begin


def facts(run_dir: Path) -> dict[str, dict]:
    """point.json of each point."""
    paths = sorted(run_dir.glob("*/point.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def first_steps_at(run_dir: Path, point: dict) -> int:
    """Steps until F, over ten steps, is within the accuracy of what was measured at the end, or
    below."""
    history = [float(row["F_ha"]) for row in read_csv(run_dir / "history.csv")]
    means = np.convolve(history, np.full(10, 0.1), "valid")
    there = means <= point["F"]["mean"] + point["accuracy_ha"]
    return int(np.argmax(there)) + 10


def errors_apart(one: Estimate, other: Estimate) -> float:
    return (one.mean - other.mean) / np.hypot(one.error, other.error)


@app.command
def warm(*, theta: float = 0.5, accuracy: float = 1e-3):
    """Steps until F is there, and until it is known to have settled."""
    grid = GAS | {"rs": [1.0, 2.0, 3.0, 4.0, 6.0, 10.0], "theta": [theta], "accuracy": accuracy}
    points = {}
    first_steps = {}
    with tempfile.TemporaryDirectory() as place:
        for name in ("warm", "cold"):
            run_dir = Path(place) / name
            heg_eos(grid | {"warm": name == "warm"}, run_dir)
            points[name] = facts(run_dir)
            first_steps[name] = {
                run: first_steps_at(run_dir / run, point) for run, point in points[name].items()
            }
    print(
        f"{'point':28}{'there':>7}{'cold':>7}{'settled':>9}{'cold':>7}"
        f"{'F, Ha':>12}{'cold':>12}{'errors apart':>14}"
    )
    for name, warm_point in points["warm"].items():
        cold_point = points["cold"][name]
        warm_f = Estimate(**warm_point["F"])
        cold_f = Estimate(**cold_point["F"])
        print(
            f"{name:28}{first_steps['warm'][name]:7d}{first_steps['cold'][name]:7d}"
            f"{warm_point['steps']:9d}{cold_point['steps']:7d}"
            f"{warm_f.mean:12.5f}{cold_f.mean:12.5f}{errors_apart(warm_f, cold_f):14.1f}"
        )


@app.command
def table():
    """Seconds from nothing to table and page."""
    with tempfile.TemporaryDirectory() as place:
        seconds = heg_eos(GAS | SMALL, Path(place) / "a")
        points = facts(Path(place) / "a")
    spent = sum(point["seconds"] for point in points.values())
    print(
        f"{len(points)} points, {seconds:.0f} s: {spent:.0f} s in the points, "
        f"{seconds - spent:.0f} s for the rest"
    )


@app.command
def overhead(*, side: int = 10):
    """Seconds of each point beyond its training and measurement steps."""
    grid = {
        "dim": 2,
        "electrons": [2],
        "polarization": ["1"],
        "accuracy": 10.0,
        "steps": 30,
        "samples": 2048,
    }
    grid["rs"] = [1.0 + number for number in range(side)]
    grid["theta"] = [0.2 * (1 + number) for number in range(side)]
    more = "[model]\nflow_layers = 0\ntransformer_layers = 0\n[sampler]\nbatch = 64\n"
    with tempfile.TemporaryDirectory() as place:
        seconds = heg_eos(grid, Path(place) / "a", more)
        points = facts(Path(place) / "a")
    count = len(points)
    spent = np.sort([point["seconds"] for point in points.values()])
    # the slowest are those that compile, one in each row
    compiling = spent[-side:]
    print(
        f"{count} points, {seconds:.0f} s, {seconds / count:.2f} s a point with all; "
        f"in the points {np.sum(spent):.0f} s, {spent[side:].mean():.2f} s each; "
        f"median {np.median(spent):.2f} s, first of a row (compiling) {compiling.mean():.1f} s; "
        f"rest {seconds - np.sum(spent):.0f} s"
    )


@app.command
def interrupted(*, after: tuple[float, float] = (60.0, 60.0)):
    """Rows of the table beside the undisturbed one, and what was computed twice."""
    with tempfile.TemporaryDirectory() as place:
        calm = Path(place) / "calm"
        killed = Path(place) / "killed"
        heg_eos(GAS | SMALL, calm)
        done_before = {}
        for processes, seconds in zip((1, 2), after):
            process = heg_eos(GAS | SMALL, killed, processes=processes, wait=False)
            time.sleep(seconds)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done_before = {
                name: done_before.get(name, point) for name, point in facts(killed).items()
            }
            print(
                f"killed on {processes} processes after {seconds:.0f} s "
                f"with {len(done_before)} points done"
            )
        heg_eos(GAS | SMALL, killed)
        points = facts(killed)
        again = [name for name, point in done_before.items() if points[name] != point]
        print(f"points done before and computed again: {len(again)}")
        for one, other in zip(read_csv(calm / "table.csv"), read_csv(killed / "table.csv")):
            apart = errors_apart(f_xc_of_cell(one), f_xc_of_cell(other))
            print(f"r_s {one['rs_bohr']:4} Theta {one['theta']:5} {apart:6.2f} errors apart")


def f_xc_of_cell(row: dict[str, str]) -> Estimate:
    return Estimate(float(row["f_xc_cell_ha"]), float(row["f_xc_cell_error_ha"]))


@app.command
def spread():
    """Seconds of the grid when one job takes all cores for each point, and when each core has a job
    of its own."""
    with tempfile.TemporaryDirectory() as place:
        one_job = Path(place) / "a"
        many_jobs = Path(place) / "b"
        together = heg_eos(GAS | SMALL, one_job)
        begin = time.monotonic()
        jobs = []
        for core in sorted(os.sched_getaffinity(0)):
            jobs.append(heg_eos(GAS | SMALL, many_jobs, wait=False, cores={core}))
        for job in jobs:
            job.wait()
        apart = time.monotonic() - begin
        print(f"all cores on one point {together:.0f} s, {steps_of(one_job)} steps")
        print(f"one job for each core {apart:.0f} s, {steps_of(many_jobs)} steps")


def steps_of(run_dir: Path) -> int:
    return sum(point["steps"] for point in facts(run_dir).values())


if __name__ == "__main__":
    app()
