"""What a table costs: warm and cold starts, the time to a first table, the overhead of a point,
interruptions.

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
    return {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(run_dir.glob("*/point.json"))
    }


def rows(run_dir: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run_dir / "table.csv").read_text().splitlines()))


def first_steps_at(run_dir: Path, point: dict) -> int:
    """Steps until F, over ten steps, is within the accuracy of what was measured at the end, or
    below."""
    history = [
        float(row["F_ha"])
        for row in csv.DictReader((run_dir / "history.csv").read_text().splitlines())
    ]
    means = np.convolve(history, np.full(10, 0.1), "valid")
    return int(np.argmax(means <= point["F"]["mean"] + point["accuracy_ha"])) + 10


@app.command
def warm(*, theta: float = 0.5, accuracy: float = 1e-3):
    """Steps until F is there, and until it is known to have settled."""
    grid = GAS | {"rs": [1.0, 2.0, 3.0, 4.0, 6.0, 10.0], "theta": [theta], "accuracy": accuracy}
    with tempfile.TemporaryDirectory() as place:
        found, there = [], []
        for name in ("warm", "cold"):
            heg_eos(grid | {"warm": name == "warm"}, Path(place) / name)
            found.append(facts(Path(place) / name))
            there.append(
                {
                    run: first_steps_at(Path(place) / name / run, point)
                    for run, point in found[-1].items()
                }
            )
    print(
        f"{'point':28}{'there':>7}{'cold':>7}{'settled':>9}{'cold':>7}{'F, Ha':>12}{'cold':>12}{'errors apart':>14}"
    )
    for name, one in found[0].items():
        other = found[1][name]
        apart = (one["F"]["mean"] - other["F"]["mean"]) / np.hypot(
            one["F"]["error"], other["F"]["error"]
        )
        steps = f"{there[0][name]:7d}{there[1][name]:7d}{one['steps']:9d}{other['steps']:7d}"
        print(f"{name:28}{steps}{one['F']['mean']:12.5f}{other['F']['mean']:12.5f}{apart:14.1f}")


@app.command
def table():
    """Seconds from nothing to table and page."""
    with tempfile.TemporaryDirectory() as place:
        seconds = heg_eos(GAS | SMALL, Path(place) / "a")
        points = facts(Path(place) / "a")
    spent = sum(point["seconds"] for point in points.values())
    print(
        f"{len(points)} points, {seconds:.0f} s: {spent:.0f} s in the points, {seconds - spent:.0f} s for the rest"
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
    grid |= {
        "rs": [1.0 + place for place in range(side)],
        "theta": [0.2 * (1 + place) for place in range(side)],
    }
    more = "[model]\nflow_layers = 0\ntransformer_layers = 0\n[sampler]\nbatch = 64\n"
    with tempfile.TemporaryDirectory() as place:
        seconds = heg_eos(grid, Path(place) / "a", more)
        points = facts(Path(place) / "a")
    spent = np.array([point["seconds"] for point in points.values()])
    print(
        f"{len(points)} points, {seconds:.0f} s, {seconds / len(points):.2f} s a point with all; in the points "
        f"{np.sum(spent):.0f} s, {np.sort(spent)[side:].mean():.2f} s each; median {np.median(spent):.2f} s, "
        f"first of a row (compiling) {np.sort(spent)[-side:].mean():.1f} s; rest {seconds - np.sum(spent):.0f} s"
    )


@app.command
def interrupted(*, after: tuple[float, float] = (60.0, 60.0)):
    """Rows of the table beside the undisturbed one, and what was computed twice."""
    with tempfile.TemporaryDirectory() as place:
        calm, killed = Path(place) / "calm", Path(place) / "killed"
        heg_eos(GAS | SMALL, calm)
        times = {}
        for processes, seconds in zip((1, 2), after):
            process = heg_eos(GAS | SMALL, killed, processes=processes, wait=False)
            time.sleep(seconds)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            times = {name: times.get(name, point) for name, point in facts(killed).items()}
            print(
                f"killed on {processes} processes after {seconds:.0f} s with {len(times)} points done"
            )
        heg_eos(GAS | SMALL, killed)
        again = [name for name, point in times.items() if facts(killed)[name] != point]
        print(f"points done before and computed again: {len(again)}")
        for one, other in zip(rows(calm), rows(killed)):
            error = np.hypot(float(one["f_xc_cell_error_ha"]), float(other["f_xc_cell_error_ha"]))
            apart = (float(one["f_xc_cell_ha"]) - float(other["f_xc_cell_ha"])) / error
            print(f"r_s {one['rs_bohr']:4} Theta {one['theta']:5} {apart:6.2f} errors apart")


@app.command
def spread():
    """Seconds of the grid when one job takes all cores for each point, and when each core has a job
    of its own."""
    with tempfile.TemporaryDirectory() as place:
        together = heg_eos(GAS | SMALL, Path(place) / "a")
        begin = time.monotonic()
        jobs = [
            heg_eos(GAS | SMALL, Path(place) / "b", wait=False, cores={core})
            for core in sorted(os.sched_getaffinity(0))
        ]
        for job in jobs:
            job.wait()
        apart = time.monotonic() - begin
        steps = [
            sum(point["steps"] for point in facts(Path(place) / name).values()) for name in "ab"
        ]
    print(f"all cores on one point {together:.0f} s, {steps[0]} steps")
    print(f"one job for each core {apart:.0f} s, {steps[1]} steps")


if __name__ == "__main__":
    app()
