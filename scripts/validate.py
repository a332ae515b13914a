"""The validation ladder: heg beside references that cannot be argued with.

    python scripts/validate.py                  # runs what is missing, writes the pages
    python scripts/validate.py --page           # writes the pages from the results at hand
    python scripts/validate.py --rungs '3D 2u'  # those rungs alone whose name matches

Every rung is what heg-solve computes, with the same settings; a run that was interrupted goes on,
one that is in docs/validation.json is not repeated.  Gases that differ by r_s alone follow each
other in one process, which compiles once for all.  For 2 to 4 electrons the reference is full
diagonalisation (heg.reference.diagonalisation).  The gases are in ladder.py, the numbers and
verdicts in validation_results.py, the pages in validation_pages.py.
"""

import dataclasses
import functools
import json
import logging
import multiprocessing
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import cyclopts
import numpy as np
from ladder import LARGE, Rung, small_rungs
from validation_pages import write_pages
from validation_results import RESULTS, load

from heg.cli.solve import parse
from heg.errors import RunError
from heg.gas.system import System
from heg.observables.evaluation import draw_states
from heg.observables.second_order.perturbation import second_order
from heg.parallel import processes
from heg.reference.diagonalisation import infinite_basis, spectrum
from heg.runs.measure import freeze
from heg.runs.second_order_rows import collect
from heg.runs.solve import solve
from heg.runs.text_files import read_history
from heg.statistics import Estimate
from heg.training.convergence import thirds

# highest relative kinetic energy of a determinant, in units of (2 pi / L)^2 / 2, by electrons and
# dimension
CUTOFFS = {(2, 2): 200, (2, 3): 30, (3, 2): 35, (3, 3): 14, (4, 2): 15, (4, 3): 8}


@functools.cache
def spectra(system: System) -> dict:
    """Levels in four bases; the same for all temperatures and twists."""
    unit = system.wavevector_unit**2 / 2
    cutoffs = CUTOFFS[system.electrons, system.dim] * unit / 1.2 ** np.arange(4)
    return {cutoff: spectrum(system, cutoff) for cutoff in cutoffs}


def references(rung: Rung) -> dict[str, tuple[float, float]]:
    """F of the exact gas, of determinants mixed within degenerate shells, and of single ones;
    hartree per electron."""
    system = rung.system
    # one diagonalisation serves all temperatures and twists
    levels = spectra(dataclasses.replace(system, theta=1.0, twist=(0.0,) * system.dim))
    per_electron = {}
    for kind, result in infinite_basis(system, levels).items():
        value, error = result.free_energy
        per_electron[kind] = (value / system.electrons, error / system.electrons)
    return per_electron


def run(rung: Rung, run_dir: Path) -> dict:
    """The row of one rung: what its summary and its history say."""
    config, _ = parse(rung.command(run_dir)[1:])
    # sentences of its runs would come from several processes at once
    logging.getLogger("heg.runs").setLevel(logging.ERROR)
    begin = time.monotonic()
    summary = solve(config, _ignore, _never)
    history = read_history(Path(config.run.run_dir) / "history.csv")
    keys = ("F", "E", "S", "quality", "steps", "samples", "seconds")
    return {
        "name": rung.name,
        **{key: summary[key] for key in keys},
        "untrained": summary["initial"]["F"],
        "thirds": thirds(history),
        "wall_seconds": time.monotonic() - begin,
        "version": summary["version"],
    }


def _ignore(*_):
    pass


def _never(*_):
    return False


def beyond(rung: Rung, run_dir: Path) -> dict[str, float]:
    """F_2 of a run and the parts of its error, hartree per electron, from the default number of
    states."""
    directory = Path(rung.command(run_dir)[-1])
    frozen = freeze(directory)
    states = draw_states(frozen, _never)
    found = collect(frozen, directory, states, np.inf, _ignore, _never)
    result = second_order(
        frozen.system,
        rows=found.rows,
        known=found.known,
        beyond=found.beyond,
        relaxed=found.relaxation,
        third=found.third,
    )
    return {name: value for name, value in result._asdict().items() if np.ndim(value) == 0}


def save(row: dict) -> None:
    """Adds a result."""
    results = load() | {row["name"]: row}
    partial = RESULTS.with_suffix(".part")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(RESULTS)


def start_worker(cores) -> None:
    """Keeps this process to the cores that it takes from the queue."""
    os.sched_setaffinity(0, cores.get())
    processes.start()


def alike(rungs: list[Rung]) -> list[list[Rung]]:
    """The rungs in groups of gases that differ by r_s alone."""
    groups = {}
    for rung in rungs:
        gas = rung._replace(system=dataclasses.replace(rung.system, rs=1.0))
        groups.setdefault(gas, []).append(rung)
    return list(groups.values())


def climb(group: list[Rung], run_dir: Path, end: float) -> tuple[list[dict], list[str]]:
    """Rows of the rungs that begin before `end`, and what stopped the others: a rung that fails
    costs no other."""
    rows = []
    failures = []
    for rung in group:
        if time.time() > end:
            break
        try:
            rows.append(_row(rung, run_dir))
        except (RunError, ValueError) as error:
            failures.append(f"{rung.name}: {error}")
    return rows, failures


def _row(rung, run_dir):
    """The row of a rung, with its references if it is small."""
    row = run(rung, run_dir)
    if rung in LARGE:
        return row
    row["references"] = references(rung)
    if rung.flow:
        row["second_order"] = beyond(rung, run_dir)
    return row


def main(
    *,
    run_dir: Path = Path("runs/validate"),
    rungs: str = "",
    jobs: int = 1,
    minutes: float = np.inf,
    page_only: Annotated[bool, cyclopts.Parameter("--page", negative="")] = False,
) -> None:
    """Climbs the ladder.

    Args:
      run_dir: where the runs are kept.
      rungs: a regular expression of the names wanted.
      jobs: small systems run at once, each on a core of its own.
      minutes: no rung is begun after that time.
      page_only: run nothing.
    """
    end = time.time() + 60 * minutes
    known = load()
    missing = []
    for rung in (*LARGE, *small_rungs()):
        if not page_only and re.search(rungs, rung.name) and rung.name not in known:
            missing.append(rung)
    failed = climb_all(missing, run_dir, jobs, end)
    write_pages(load())
    if failed:
        raise SystemExit("\n".join(failed))


def climb_all(rungs: list[Rung], run_dir: Path, jobs: int, end: float) -> list[str]:
    """Runs rungs and saves their rows, each as soon as it is known; sentences on those that
    failed."""
    spawn = multiprocessing.get_context("spawn")
    cores = spawn.SimpleQueue()
    every_core = os.sched_getaffinity(0)
    for core in sorted(every_core)[:jobs]:
        cores.put({core} if jobs > 1 else every_core)
    failed = []
    with ProcessPoolExecutor(jobs, spawn, start_worker, (cores,)) as pool:
        climbed = [pool.submit(climb, group, run_dir, end) for group in alike(rungs)]
        for done in as_completed(climbed):
            rows, failures = done.result()
            for row in rows:
                save(row)
                free_energy = Estimate(**row["F"])
                seconds = f"{row['wall_seconds']:.0f} s"
                print(f"{row['name']}: F/N {free_energy} Ha, {seconds}", flush=True)
            failed += failures
    return failed


if __name__ == "__main__":
    cyclopts.run(main)
