"""The validation ladder: heg beside references that cannot be argued with.

    python scripts/validate.py                  # runs what is missing, writes docs/validation.md
    python scripts/validate.py --page           # writes the page from the results at hand
    python scripts/validate.py --rungs '3D 2u'  # those rungs alone whose name matches

Every rung is what heg-solve computes, with the same settings; a run that was interrupted goes on,
one that is in docs/validation.json is not repeated.  Gases that differ by r_s alone follow each
other in one process, which compiles once for all.  For 2 to 4 electrons the reference is full
diagonalisation (heg.reference.diagonalisation).
"""

import csv
import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, NamedTuple

import cyclopts
import numpy as np

from heg.cli.solve import parse
from heg.errors import RunError
from heg.gas.coulomb import madelung
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

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS / "validation.json"
PUBLISHED = DOCS / "published.csv"
STEPS = 150
SAMPLES = 32768
GOOD = 2e-4  # hartree per electron: what the second order aims at
# hartree per electron: what the orbital cutoff of p(K) and the references leave open
RESOLUTION = 1e-6
# highest relative kinetic energy of a determinant, in units of (2 pi / L)^2 / 2, by electrons and
# dimension
CUTOFFS = {(2, 2): 200, (2, 3): 30, (3, 2): 35, (3, 3): 14, (4, 2): 15, (4, 3): 8}
TWIST = (0.1, 0.2, 0.3)


class Rung(NamedTuple):
    """One run of the ladder."""

    system: System
    flow: bool = True
    steps: int = STEPS
    samples: int = SAMPLES

    @property
    def name(self) -> str:
        """As in the tables."""
        gas = self.system
        angles = " ".join(f"{angle:g}" for angle in gas.twist) if any(gas.twist) else "0"
        flow = "flow" if self.flow else "identity"
        return f"{gas.dim}D {gas.label} rs {gas.rs:g} Theta {gas.theta:g} twist {angles} {flow}"

    def command(self, run_dir: Path) -> list[str]:
        """The command that runs it."""
        gas = self.system
        polarization = f"{gas.n_up - gas.n_down}/{gas.electrons}"
        twist = " ".join(f"{angle:g}" for angle in gas.twist)
        words = (
            f"heg-solve --electrons {gas.electrons} --dim {gas.dim} --polarization {polarization} "
            f"--rs {gas.rs:g} --theta {gas.theta:g} --twist {twist} "
            f"--steps {self.steps} --samples {self.samples}"
        )
        words += "" if self.flow else " --flow-layers 0"
        return [*words.split(), "--run-dir", str(run_dir / self.name.replace(" ", "-"))]

    @property
    def gas(self) -> str:
        """The name without the kind of flow."""
        return self.name.rsplit(" ", 1)[0]


def small_rungs() -> list[Rung]:
    """Two to four electrons, those in front that say most."""
    grid = itertools.product(
        (0.5, 0.1, 1.0),  # Theta
        (4.0, 10.0, 1.0),  # r_s
        (False, True),  # twisted
        (3, 2),  # dimensions
        ((2, 0), (3, 0), (1, 1), (2, 2)),  # electrons up and down
        (True, False),  # flow
    )
    rungs = []
    for theta, rs, twisted, dim, spins, flow in grid:
        if theta < 1 or sum(spins) < 4:
            twist = TWIST[:dim] if twisted else (0.0,) * dim
            rungs.append(Rung(System(*spins, dim, rs, theta, twist), flow))
    return rungs


LARGE = (
    Rung(System(13, 0, 2, 10.0, 0.15, (0.25, 0.25)), steps=300),
    Rung(System(7, 7, 3, 2.0, 0.25, (0.0, 0.0, 0.0)), steps=300),
    Rung(System(7, 0, 3, 1.0, 1.0, (0.0, 0.0, 0.0)), steps=300),
    *(
        Rung(System(7, 7, 3, rs, 0.02, (0.0, 0.0, 0.0)), steps=300, samples=131072)
        for rs in (5.0, 1.0, 2.0, 10.0)
    ),
    *(Rung(System(29, 0, 2, rs, 0.15, (0.25, 0.25)), steps=600) for rs in (10.0, 5.0, 3.0, 1.0)),
)


@functools.cache
def spectra(system: System) -> dict:
    """Levels in four bases; the same for all temperatures and twists."""
    unit = (2 * np.pi / system.box) ** 2 / 2
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
    begin = time.monotonic()
    summary = solve(config, _ignore, _ignore, _never)
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
    rows = collect(frozen, directory, states, np.inf, _ignore, _never)
    result = second_order(frozen.system, rows.rows, rows.known, rows.beyond, rows.relaxation)
    return {name: value for name, value in result._asdict().items() if np.ndim(value) == 0}


def load() -> dict[str, dict]:
    """Results at hand by name."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def save(row: dict) -> None:
    """Adds a result."""
    results = load() | {row["name"]: row}
    partial = RESULTS.with_suffix(".part")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(RESULTS)


def _reference(row, kind):
    """A reference of a rung: exact, degenerate or diagonal, hartree per electron."""
    return Estimate(*row["references"][kind])


def _milli(value, error=0.0):
    """A number in mHa from hartree."""
    return str(Estimate(1e3 * value, 1e3 * error))


def _table_line(cells):
    return "| " + " | ".join(cells) + " |"


def _line(rung, row):
    """A row of the table of small systems, mHa per electron."""
    mean = row["F"]["mean"]
    error = row["F"]["error"]
    quality = row["quality"]
    exact = _reference(row, "exact")
    degenerate = _reference(row, "degenerate")
    diagonal = _reference(row, "diagonal")
    room = diagonal.mean - exact.mean
    reference = exact if rung.flow else diagonal
    above = mean - reference.mean
    spread = np.hypot(np.hypot(error, RESOLUTION), reference.error)
    cells = [
        rung.gas,
        _milli(mean, error),
        _milli(*exact),
        f"{1e3 * (degenerate.mean - exact.mean):.2f}",
        f"{1e3 * room:.2f}",
        _milli(above, spread),
        f"{above / spread:.1f}",
        f"{(diagonal.mean - mean) / room:.0%}" if rung.flow and room > 3e-4 else "",
        f"{quality['E_variance_cell_ha2']:.2g}",
        f"{quality['min_det']:.2g}",
        str(quality["redrawn"]),
        f"{row['seconds']:.0f}",
    ]
    return _table_line(cells)


def _header(reference):
    columns = (
        "gas",
        "F",
        "F_exact",
        "F_deg − F_exact",
        "F_diag − F_exact",
        f"F − {reference}",
        "in errors",
        "share",
        "variance, Ha²",
        "min_det",
        "redrawn",
        "s",
    )
    return f"{_table_line(columns)}\n{'|---' * len(columns)}|"


def _large_line(rung, row):
    """A row of the table of large systems, hartree per electron."""
    before, after = (Estimate(*third) for third in row["thirds"])
    drift = (after.mean - before.mean) / np.hypot(before.error, after.error)
    quality = row["quality"]
    cells = [
        rung.gas,
        str(Estimate(**row["untrained"])),
        str(Estimate(**row["F"])),
        str(before),
        str(after),
        f"{drift:.1f}",
        f"{quality['E_variance_cell_ha2']:.2g}",
        f"{quality['min_det']:.1g}",
        f"{quality['folded_measure']['mean']:.1g}",
        str(quality["redrawn"]),
        str(row["steps"]),
        f"{row['seconds']:.0f}",
    ]
    return _table_line(cells)


def _beyond_line(rung, row):
    """A row of the table of the second order, mHa per electron."""
    exact = _reference(row, "exact")
    bound = Estimate(**row["F"])
    result = row["second_order"]
    remaining = _remaining(row)
    cells = [
        rung.gas,
        _milli(*bound),
        _milli(remaining.of_bound, np.hypot(bound.error, exact.error)),
        _milli(result["value"], result["error"]),
        _milli(remaining.of_second_order, remaining.error),
        f"{remaining.of_second_order / remaining.error:.1f}",
        f"{1e3 * result['statistical']:.2f}",
        f"{1e3 * result['left_out']:.2f}",
        f"{1e3 * result['denominators']:.2f}",
        f"{1e3 * result['degenerate']:.2f}",
        f"{1e3 * result['relaxation']:.2f}",
    ]
    return _table_line(cells)


class Remaining(NamedTuple):
    """Distances from the exact F, hartree per electron.

    Attributes:
      of_bound: F less the exact one.
      of_second_order: F + F_2 less the exact one.
      error: of the latter.
      strict_error: the same without the share of F_2 that stands for higher orders.
    """

    of_bound: float
    of_second_order: float
    error: float
    strict_error: float

    @property
    def in_errors(self) -> float:
        """That of F + F_2 in its errors."""
        return self.of_second_order / self.error

    @property
    def is_good(self) -> bool:
        """Is F + F_2 exact within three strict errors, a tenth of what was missing, or the aim?"""
        allowed = max(3 * self.strict_error, self.of_bound / 10, GOOD)
        return abs(self.of_second_order) <= allowed

    @property
    def is_worse(self) -> bool:
        """Is F + F_2 farther off than F?"""
        return abs(self.of_second_order) > abs(self.of_bound) + 3 * self.strict_error


def _remaining(row):
    exact = _reference(row, "exact")
    bound = Estimate(**row["F"])
    above = bound.mean - exact.mean
    second = row["second_order"]
    strict = np.sqrt(max(second["error"] ** 2 - second["higher_orders"] ** 2, 0.0))
    others = np.linalg.norm([bound.error, exact.error, RESOLUTION])
    return Remaining(
        of_bound=above,
        of_second_order=above + second["value"],
        error=float(np.hypot(others, second["error"])),
        strict_error=float(np.hypot(others, strict)),
    )


def beyond_verdicts(results: dict[str, dict]) -> list[str]:
    """Sentences on the second order of the small rungs, counted; those that miss by name."""
    rungs = [rung for rung in small_rungs() if "second_order" in results.get(rung.name, {})]
    if not rungs:
        return []
    remaining = {rung: _remaining(results[rung.name]) for rung in rungs}
    missed = [rung.gas for rung, one in remaining.items() if not one.is_good]
    worse = sum(one.is_worse for one in remaining.values())
    in_errors = np.array([one.in_errors for one in remaining.values()])
    shares = [
        1 - one.of_second_order / one.of_bound for one in remaining.values() if one.of_bound > 1e-3
    ]
    lines = [
        f"- Second order: {len(rungs) - len(missed)} of {len(rungs)} within the largest of three "
        f"errors, a tenth of F − F_exact and 0.2 mHa per electron of F_exact, {worse} farther from "
        "it than the bound by more than three errors; "
        f"{np.mean(np.abs(in_errors) <= 1):.0%} within one of their errors, in which a fifth of "
        "F_2 stands for higher orders (the other counts are without it). Where F − F_exact "
        f"exceeds 1 mHa, F_2 brings a median of {np.median(shares):.0%} of it."
    ]
    if missed:
        lines.append(f"- Missed: {'; '.join(missed)}.")
    return lines


def _above(row, kind):
    """F less a reference, hartree per electron."""
    return row["F"]["mean"] - _reference(row, kind).mean


def _spread(row, kind):
    """The error of `_above`."""
    return np.linalg.norm([row["F"]["error"], RESOLUTION, _reference(row, kind).error])


def verdicts(results: dict[str, dict]) -> list[str]:
    """Sentences on the small rungs, counted."""
    rungs = [rung for rung in small_rungs() if rung.name in results]
    identity = [results[rung.name] for rung in rungs if not rung.flow]
    flows = [results[rung.name] for rung in rungs if rung.flow]
    return [
        f"- {len(rungs)} of {len(small_rungs())} rungs have been run.",
        _identity_verdict(identity),
        _flow_verdict(flows),
        *_share_verdicts(rungs, results),
    ]


def _identity_verdict(rows):
    """Without a flow F must be that of single determinants."""
    distances = [_above(row, "diagonal") for row in rows]
    spreads = [_spread(row, "diagonal") for row in rows]
    near = sum(abs(distance) < 5e-5 for distance in distances)
    within = sum(abs(distance) < 3 * spread for distance, spread in zip(distances, spreads))
    farthest = max(distances, default=0.0)
    return (
        f"- Identity flow: {near} of {len(rows)} within 0.05 mHa per electron of F_diag, "
        f"{within} within 3 errors; the farthest is {1e3 * farthest:.3f} mHa above it."
    )


def _flow_verdict(rows):
    """With a flow F is a bound, and no worse than single determinants."""
    bound = sum(_above(row, "exact") > -3 * _spread(row, "exact") for row in rows)
    below = sum(_above(row, "diagonal") < 3 * _spread(row, "diagonal") for row in rows)
    return (
        f"- Flow: {bound} of {len(rows)} not below F_exact by more than 3 errors, "
        f"{below} not above F_diag."
    )


def _share_verdicts(rungs, results):
    """The part of the correlation that flows reach, where it is well known."""
    polarised = []
    two_spins = []
    for rung in rungs:
        row = results[rung.name]
        room = _reference(row, "diagonal").mean - _reference(row, "exact").mean
        if rung.flow and room > max(3e-4, 10 * row["F"]["error"]):
            shares = polarised if rung.system.n_down == 0 else two_spins
            shares.append(1 - _above(row, "exact") / room)
    lines = []
    if polarised:
        many = sum(share >= 0.7 for share in polarised)
        good = f", {many} of {len(polarised)} at 70 % or more"
        lines.append(_share_line("Polarised", polarised, good))
    if two_spins:
        lines.append(_share_line("Two spins", two_spins))
    return lines


def _share_line(kind, shares, good=""):
    reached = f"from {min(shares):.0%} to {max(shares):.0%}{good}"
    return f"- {kind}: share of F_diag − F_exact, where known to 10 %, {reached}."


def published() -> list[tuple[str, str, Estimate]]:
    """Gas, method and free energy, hartree per electron, of docs/published.csv."""
    lines = [line for line in PUBLISHED.read_text().splitlines() if not line.startswith("#")]
    systems = {rung.gas: rung.system for rung in LARGE}
    values = []
    for row in csv.DictReader(lines):
        system = systems[row["gas"]]
        # hartree in all, or rydberg per electron; some leave out the self-image
        unit = {"h": 1 / system.electrons, "r": 0.5}[row["unit"][0]]
        self_image = madelung(system) / 2 if "no self-image" in row["unit"] else 0.0
        value = unit * float(row["value"]) + self_image
        error = unit * float(row["error"])
        values.append((row["gas"], row["method"], Estimate(value, error)))
    return values


def _published_lines(results):
    """Rows of the table of published values, Ha per electron."""
    ours = {rung.gas: results[rung.name] for rung in LARGE if rung.name in results}
    lines = []
    for gas, method, theirs in published():
        if gas in ours:
            free_energy = Estimate(**ours[gas]["F"])
            entropy = Estimate(**ours[gas]["S"])
            above = free_energy.mean - theirs.mean
            error = float(np.hypot(free_energy.error, theirs.error))
            cells = (gas, free_energy, entropy, method, theirs, _milli(above, error))
            lines.append(_table_line(map(str, cells)))
    return lines


def plot(results: dict[str, dict], path: Path) -> None:
    """F above the exact one, beside F_diag, of every small rung with a flow."""
    from matplotlib.figure import Figure

    rungs = [rung for rung in small_rungs() if rung.flow and rung.name in results]
    rows = [results[rung.name] for rung in rungs]
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axis = figure.subplots()
    for kind, name, style in (("diagonal", "diag", "k_"), ("degenerate", "deg", "C1_")):
        above = [1e3 * (_reference(row, kind).mean - _reference(row, "exact").mean) for row in rows]
        axis.plot(np.arange(len(rows)), above, style, label=f"F_{name}")
    polarised = np.array([rung.system.n_down == 0 for rung in rungs], bool)
    _plot_rows(axis, rows, np.flatnonzero(polarised), "C0", "polarised")
    _plot_rows(axis, rows, np.flatnonzero(~polarised), "C3", "two spins")
    axis.set_yscale("symlog", linthresh=0.1)
    axis.set_xlabel("rung, in the order of the table")
    axis.set_ylabel("F − F_exact, mHa per electron")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def _plot_rows(axis, rows, indices, colour, label):
    """F above the exact one of some rows, at their place among all."""
    values = [1e3 * _above(rows[index], "exact") for index in indices]
    errors = []
    for index in indices:
        exact = _reference(rows[index], "exact")
        errors.append(1e3 * np.hypot(rows[index]["F"]["error"], exact.error))
    axis.errorbar(indices, values, errors, fmt="o", ms=3, color=colour, label=label)


def page(results: dict[str, dict]) -> None:
    """Writes docs/validation.md and its figure."""
    plot(results, DOCS / "validation.png")
    small = [rung for rung in small_rungs() if rung.name in results]
    large = [rung for rung in LARGE if rung.name in results]
    parts = {
        "verdicts": verdicts(results),
        "beyond_verdicts": beyond_verdicts(results),
        "beyond": [
            _beyond_line(rung, results[rung.name])
            for rung in small
            if "second_order" in results[rung.name]
        ],
        "identity": [_header("F_diag"), *_lines(small, results, flow=False)],
        "flow": [_header("F_exact"), *_lines(small, results, flow=True)],
        "large": [_large_line(rung, results[rung.name]) for rung in large],
        "published": _published_lines(results),
        "commands": [_command_line(rung) for rung in LARGE],
    }
    text = (DOCS / "validation.in.md").read_text()
    for name, lines in parts.items():
        text = text.replace("{{" + name + "}}", "\n".join(lines))
    (DOCS / "validation.md").write_text(text)


def _lines(rungs, results, flow):
    return [_line(rung, results[rung.name]) for rung in rungs if rung.flow == flow]


def _command_line(rung):
    return "    " + " ".join(rung.command(Path("runs/validate")))


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
    page(load())
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
