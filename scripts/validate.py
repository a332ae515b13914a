"""The validation ladder: heg beside references that cannot be argued with.

    python scripts/validate.py                 # runs what is missing, then writes
    docs/validation.md python scripts/validate.py --page          # writes the page from the results
    at hand python scripts/validate.py --rungs '3D 2u' # those rungs alone whose name matches

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
RESULTS, PUBLISHED = DOCS / "validation.json", DOCS / "published.csv"
STEPS, SAMPLES = 150, 32768
GOOD = 2e-4  # hartree per electron: what the second order aims at
RESOLUTION = (
    1e-6  # hartree per electron: what the orbital cutoff of p(K) and the references leave open
)
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
        twist = (
            "twist " + " ".join(f"{angle:g}" for angle in gas.twist)
            if any(gas.twist)
            else "twist 0"
        )
        return f"{gas.dim}D {gas.label} rs {gas.rs:g} Theta {gas.theta:g} {twist} {'flow' if self.flow else 'identity'}"

    def command(self, run_dir: Path) -> list[str]:
        """The command that runs it."""
        gas = self.system
        words = f"heg-solve --electrons {gas.electrons} --dim {gas.dim}"
        words += f" --polarization {gas.n_up - gas.n_down}/{gas.electrons} --rs {gas.rs:g} --theta {gas.theta:g}"
        words += f" --twist {' '.join(f'{angle:g}' for angle in gas.twist)} --steps {self.steps}"
        words += f" --samples {self.samples}" + ("" if self.flow else " --flow-layers 0")
        return [*words.split(), "--run-dir", str(run_dir / self.name.replace(" ", "-"))]


def small_rungs() -> list[Rung]:
    """Two to four electrons, those in front that say most."""
    spins = ((2, 0), (3, 0), (1, 1), (2, 2))
    grid = itertools.product(
        (0.5, 0.1, 1.0), (4.0, 10.0, 1.0), (False, True), (3, 2), spins, (True, False)
    )
    return [
        Rung(System(*spin, dim, rs, theta, TWIST[:dim] if twisted else (0.0,) * dim), flow)
        for theta, rs, twisted, dim, spin, flow in grid
        if theta < 1 or sum(spin) < 4
    ]


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
    levels = spectra(dataclasses.replace(system, theta=1.0, twist=(0.0,) * system.dim))
    found = infinite_basis(system, levels)
    return {
        kind: tuple(value / system.electrons for value in found[kind].free_energy) for kind in found
    }


def run(rung: Rung, run_dir: Path) -> dict:
    """The row of one rung: what its summary and its history say."""
    config, _ = parse(rung.command(run_dir)[1:])
    begin, nothing = time.monotonic(), lambda *_: None
    summary = solve(config, nothing, nothing, lambda: False)
    history = read_history(Path(config.run.run_dir) / "history.csv")
    keys = ("F", "E", "S", "quality", "steps", "samples", "seconds")
    row = {
        "name": rung.name,
        **{key: summary[key] for key in keys},
        "untrained": summary["initial"]["F"],
    }
    return row | {
        "thirds": thirds(history),
        "wall_seconds": time.monotonic() - begin,
        "version": summary["version"],
    }


def beyond(rung: Rung, run_dir: Path) -> dict[str, float]:
    """F_2 of a run and the parts of its error, hartree per electron, from the default number of
    states."""
    directory = Path(rung.command(run_dir)[-1])
    frozen = freeze(directory)
    never = lambda *_: False
    rows = collect(frozen, directory, draw_states(frozen, never), np.inf, never, never)
    found = second_order(
        frozen.system, rows.rows, rows.known, rows.beyond, rows.relaxation
    )
    return {name: value for name, value in found._asdict().items() if np.ndim(value) == 0}


def load() -> dict[str, dict]:
    """Results at hand by name."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def save(row: dict) -> None:
    """Adds a result."""
    found = load() | {row["name"]: row}
    partial = RESULTS.with_suffix(".part")
    partial.write_text(json.dumps(found, indent=1) + "\n")
    partial.replace(RESULTS)


def _gas(rung):
    return rung.name.rsplit(" ", 1)[0]


def _line(rung, row):
    """A row of the table of small systems, mHa per electron."""
    mean, error = row["F"]["mean"], row["F"]["error"]
    exact, degenerate, diagonal = (
        Estimate(*row["references"][kind]) for kind in ("exact", "degenerate", "diagonal")
    )
    milli = lambda value, error=0.0: str(Estimate(1e3 * value, 1e3 * error))
    room = diagonal.mean - exact.mean
    share = f"{(diagonal.mean - mean) / room:.0%}" if rung.flow and room > 3e-4 else ""
    above = mean - (exact if rung.flow else diagonal).mean
    spread = np.hypot(np.hypot(error, RESOLUTION), (exact if rung.flow else diagonal).error)
    quality = row["quality"]
    cells = [_gas(rung), milli(mean, error), milli(*exact)]
    cells += [
        f"{1e3 * (degenerate.mean - exact.mean):.2f}",
        f"{1e3 * room:.2f}",
        milli(above, spread),
    ]
    cells += [
        f"{above / spread:.1f}",
        share,
        f"{quality['E_variance_cell_ha2']:.2g}",
        f"{quality['min_det']:.2g}",
    ]
    return "| " + " | ".join([*cells, str(quality["redrawn"]), f"{row['seconds']:.0f}"]) + " |"


COLUMNS = "gas|F|F_exact|F_deg − F_exact|F_diag − F_exact|F − {reference}|in errors|share|variance, Ha²|min_det|redrawn|s"
HEADER = f"| {COLUMNS.replace('|', ' | ')} |\n{'|---' * (COLUMNS.count('|') + 1)}|"


def _large_line(rung, row):
    (before, before_error), (after, after_error) = row["thirds"]
    drift = (after - before) / np.hypot(before_error, after_error)
    quality = row["quality"]
    cells = [_gas(rung), str(Estimate(**row["untrained"])), str(Estimate(**row["F"]))]
    cells += [
        str(Estimate(before, before_error)),
        str(Estimate(after, after_error)),
        f"{drift:.1f}",
    ]
    cells += [f"{quality['E_variance_cell_ha2']:.2g}", f"{quality['min_det']:.1g}"]
    cells += [f"{quality['folded_measure']['mean']:.1g}", str(quality["redrawn"])]
    return "| " + " | ".join([*cells, str(row["steps"]), f"{row['seconds']:.0f}"]) + " |"


def _beyond_line(rung, row):
    """A row of the table of the second order, mHa per electron."""
    exact, bound = Estimate(*row["references"]["exact"]), Estimate(**row["F"])
    found = row["second_order"]
    above, left, error = _left(row)
    milli = lambda value, error=0.0: str(Estimate(1e3 * value, 1e3 * error))
    cells = [_gas(rung), milli(*bound), milli(above, np.hypot(bound.error, exact.error))]
    cells += [milli(found["value"], found["error"]), milli(left, error), f"{left / error:.1f}"]
    parts = ("statistical", "left_out", "denominators", "degenerate")
    cells += [f"{1e3 * found[part]:.2f}" for part in parts]
    return "| " + " | ".join(cells) + " |"


def _left(row):
    """F and F + F_2 above the exact F, and the error of the latter, hartree per electron."""
    exact, bound = Estimate(*row["references"]["exact"]), Estimate(**row["F"])
    above = bound.mean - exact.mean
    error = np.linalg.norm([bound.error, exact.error, row["second_order"]["error"], RESOLUTION])
    return above, above + row["second_order"]["value"], float(error)


def beyond_verdicts(found: dict[str, dict]) -> list[str]:
    """What the second order says of the small rungs, counted; those that miss by name."""
    rows = [
        (rung, found[rung.name])
        for rung in small_rungs()
        if "second_order" in found.get(rung.name, {})
    ]
    good, missed, worse = 0, [], []
    for rung, row in rows:
        above, left, error = _left(row)
        if abs(left) <= max(3 * error, above / 10, GOOD):
            good += 1
        else:
            missed.append(_gas(rung))
        if abs(left) > abs(above) + 3 * error:
            worse.append(_gas(rung))
    if not rows:
        return []
    pulls = np.array([left / error for _, left, error in (_left(row) for _, row in rows)])
    share = [1 - left / above for above, left, _ in (_left(row) for _, row in rows) if above > 1e-3]
    return [
        f"- Second order: {good} of {len(rows)} within the largest of three errors, a tenth of F − F_exact and 0.2 mHa "
        f"per electron of F_exact, {len(worse)} farther from it than the bound by more than three errors; "
        f"{np.mean(np.abs(pulls) <= 1):.0%} within one of their errors. Where F − F_exact exceeds 1 mHa, F_2 "
        f"brings a median of {np.median(share):.0%} of it.",
        *([f"- Missed: {'; '.join(missed)}."] if missed else []),
    ]


def verdicts(found: dict[str, dict]) -> list[str]:
    """What the small rungs say, counted."""
    rows = [(rung, found[rung.name]) for rung in small_rungs() if rung.name in found]
    reference = lambda row, kind: Estimate(*row["references"][kind])
    spread = lambda row, kind: np.linalg.norm(
        [row["F"]["error"], RESOLUTION, reference(row, kind).error]
    )
    above = lambda row, kind: row["F"]["mean"] - reference(row, kind).mean
    identity = [row for rung, row in rows if not rung.flow]
    flows = [(rung, row) for rung, row in rows if rung.flow]
    near = [row for row in identity if abs(above(row, "diagonal")) < 5e-5]
    within = [row for row in identity if abs(above(row, "diagonal")) < 3 * spread(row, "diagonal")]
    farthest = max((above(row, "diagonal") for row in identity), default=0.0)
    bound = [row for _, row in flows if above(row, "exact") > -3 * spread(row, "exact")]
    below = [row for _, row in flows if above(row, "diagonal") < 3 * spread(row, "diagonal")]
    room = lambda row: reference(row, "diagonal").mean - reference(row, "exact").mean
    shares = {True: [], False: []}
    for rung, row in flows:
        if room(row) > max(3e-4, 10 * row["F"]["error"]):
            shares[rung.system.n_down == 0].append(1 - above(row, "exact") / room(row))
    lines = [
        f"- {len(rows)} of {len(small_rungs())} rungs have been run.",
        f"- Identity flow: {len(near)} of {len(identity)} within 0.05 mHa per electron of F_diag, {len(within)} within "
        f"3 errors; the farthest is {1e3 * farthest:.3f} mHa above it.",
        f"- Flow: {len(bound)} of {len(flows)} not below F_exact by more than 3 errors, {len(below)} not above F_diag.",
    ]
    for polarized, values in shares.items():
        if values:
            kind = "Polarised" if polarized else "Two spins"
            good = (
                f", {sum(v >= 0.7 for v in values)} of {len(values)} at 70 % or more"
                if polarized
                else ""
            )
            reached = f"from {min(values):.0%} to {max(values):.0%}{good}"
            lines.append(f"- {kind}: share of F_diag − F_exact, where known to 10 %, {reached}.")
    return lines


def published() -> list[tuple[str, str, Estimate]]:
    """Gas, method and free energy, hartree per electron, of docs/published.csv."""
    lines = [line for line in PUBLISHED.read_text().splitlines() if not line.startswith("#")]
    systems = {_gas(rung): rung.system for rung in LARGE}
    found = []
    for row in csv.DictReader(lines):
        system, value, error = systems[row["gas"]], float(row["value"]), float(row["error"])
        self_image = madelung(system) / 2 if "no self-image" in row["unit"] else 0.0
        unit = {"h": 1 / system.electrons, "r": 0.5}[row["unit"][0]]
        found.append((row["gas"], row["method"], Estimate(unit * value + self_image, unit * error)))
    return found


def _published_lines(found):
    """Rows of the table of published values, Ha per electron."""
    ours = {_gas(rung): found[rung.name] for rung in LARGE if rung.name in found}
    lines = []
    for gas, method, theirs in published():
        if gas in ours:
            free_energy, entropy = Estimate(**ours[gas]["F"]), Estimate(**ours[gas]["S"])
            above = Estimate(
                free_energy.mean - theirs.mean, float(np.hypot(free_energy.error, theirs.error))
            )
            milli = Estimate(1e3 * above.mean, 1e3 * above.error)
            lines.append(f"| {gas} | {free_energy} | {entropy} | {method} | {theirs} | {milli} |")
    return lines


def plot(found: dict[str, dict], path: Path) -> None:
    """F above the exact one, beside F_diag, of every small rung with a flow."""
    from matplotlib.figure import Figure

    rows = [(rung, found[rung.name]) for rung in small_rungs() if rung.flow and rung.name in found]
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axis = figure.subplots()
    place = np.arange(len(rows))
    for kind, name, style in (("diagonal", "diag", "k_"), ("degenerate", "deg", "C1_")):
        above = [
            1e3 * (row["references"][kind][0] - row["references"]["exact"][0]) for _, row in rows
        ]
        axis.plot(place, above, style, label=f"F_{name}")
    for polarized, colour in ((True, "C0"), (False, "C3")):
        chosen = [i for i, (rung, _) in enumerate(rows) if (rung.system.n_down == 0) == polarized]
        value = [
            1e3 * (rows[i][1]["F"]["mean"] - rows[i][1]["references"]["exact"][0]) for i in chosen
        ]
        error = [
            1e3 * np.hypot(rows[i][1]["F"]["error"], rows[i][1]["references"]["exact"][1])
            for i in chosen
        ]
        axis.errorbar(
            chosen,
            value,
            error,
            fmt="o",
            ms=3,
            color=colour,
            label="polarised" if polarized else "two spins",
        )
    axis.set_yscale("symlog", linthresh=0.1)
    axis.set_xlabel("rung, in the order of the table")
    axis.set_ylabel("F − F_exact, mHa per electron")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def page(found: dict[str, dict]) -> None:
    """docs/validation.md and its figure."""
    small = [(rung, found[rung.name]) for rung in small_rungs() if rung.name in found]
    large = [(rung, found[rung.name]) for rung in LARGE if rung.name in found]
    plot(found, DOCS / "validation.png")
    text = (DOCS / "validation.in.md").read_text()
    table = lambda flow: "\n".join(
        [HEADER.format(reference="F_exact" if flow else "F_diag")]
        + [_line(rung, row) for rung, row in small if rung.flow == flow]
    )
    parts = {
        "verdicts": "\n".join(verdicts(found)),
        "beyond_verdicts": "\n".join(beyond_verdicts(found)),
        "beyond": "\n".join(
            _beyond_line(rung, row) for rung, row in small if "second_order" in row
        ),
        "identity": table(False),
        "flow": table(True),
        "large": "\n".join(_large_line(rung, row) for rung, row in large),
        "published": "\n".join(_published_lines(found)),
        "commands": "\n".join(
            "    " + " ".join(rung.command(Path("runs/validate"))) for rung in LARGE
        ),
    }
    for name, part in parts.items():
        text = text.replace("{{" + name + "}}", part)
    (DOCS / "validation.md").write_text(text)


def start_worker(cores) -> None:
    """Keeps this process to the cores that it takes from the queue."""
    os.sched_setaffinity(0, cores.get())
    processes.start()


def alike(rungs: list[Rung]) -> list[list[Rung]]:
    """The rungs in groups of gases that differ by r_s alone."""
    groups = {}
    for rung in rungs:
        groups.setdefault(
            rung._replace(system=dataclasses.replace(rung.system, rs=1.0)), []
        ).append(rung)
    return list(groups.values())


def climb(group: list[Rung], run_dir: Path, end: float) -> tuple[list[dict], list[str]]:
    """Rows of the rungs that begin before `end`, and what stopped the others: a rung that fails
    costs no other."""
    rows, failures = [], []
    for rung in group:
        if time.time() > end:
            break
        try:
            row = run(rung, run_dir)
            if rung not in LARGE:
                row |= {"references": references(rung)}
                row |= {"second_order": beyond(rung, run_dir)} if rung.flow else {}
            rows.append(row)
        except (RunError, ValueError) as error:
            failures.append(f"{rung.name}: {error}")
    return rows, failures


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
    wanted = [] if page_only else [r for r in (*LARGE, *small_rungs()) if re.search(rungs, r.name)]
    missing = [rung for rung in wanted if rung.name not in load()]
    spawn = multiprocessing.get_context("spawn")
    cores = spawn.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0))[:jobs]:
        cores.put({core} if jobs > 1 else os.sched_getaffinity(0))
    with ProcessPoolExecutor(jobs, spawn, start_worker, (cores,)) as pool:
        climbed = [pool.submit(climb, group, run_dir, end) for group in alike(missing)]
        failed = []
        for rows, failures in (done.result() for done in as_completed(climbed)):
            for row in rows:
                save(row)
                print(
                    f"{row['name']}: F/N {Estimate(**row['F'])} Ha, {row['wall_seconds']:.0f} s",
                    flush=True,
                )
            failed += failures
    page(load())
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    cyclopts.run(main)
