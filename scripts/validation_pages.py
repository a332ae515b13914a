"""Writes docs/validation.md, the pages, tables and figures of docs/validation/.

The text is that of docs/validation.in.md, in which a line <!-- page: name --> begins a page and
{{name}} stands for what is computed here.  Pages have short tables; the long ones are CSV files.
"""

import csv
import itertools
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ladder import LARGE, Rung
from validation_results import (
    DOCS,
    Comparison,
    comparisons,
    difference,
    drift,
    large_verdicts,
    missed,
    published,
    rms,
    second_order_distances,
    second_order_verdicts,
    verdicts,
    with_second_order,
)

from heg.statistics import Estimate

WORST = 10  # rows of a table of the gases that are farthest off
TEMPLATE = "validation.in.md"
FOLDER = "validation"
# how a figure shows electrons and dimensions
MARKERS = {"2↑": "o", "3↑": "^", "1↑1↓": "s", "2↑2↓": "D"}
COLOURS = {2: "C1", 3: "C0"}
THETAS = (0.1, 0.5, 1.0)
DODGE = 0.018  # decades of r_s between symbols that would hide each other


def write_pages(results: dict[str, dict], docs: Path = DOCS) -> None:
    """Writes all pages with their tables and figures.

    Args:
      results: what is in docs/validation.json.
      docs: folder with the template.
    """
    (docs / FOLDER).mkdir(exist_ok=True)
    identity = comparisons(results, flow=False)
    flows = comparisons(results, flow=True)
    seconds = with_second_order(results)
    write_figures(identity, flows, seconds, docs)
    write_csv(docs / FOLDER / "probabilities.csv", map(identity_record, identity))
    write_csv(docs / FOLDER / "full_model.csv", map(flow_record, flows))
    write_csv(docs / FOLDER / "second_order.csv", map(second_order_record, seconds))
    large = [rung for rung in LARGE if rung.name in results]
    write_csv(docs / FOLDER / "large.csv", (large_record(rung, results) for rung in large))
    parts = {
        "verdicts": verdicts(results),
        "second_order_verdicts": second_order_verdicts(results),
        "large_verdicts": large_verdicts(results),
        "distances": second_order_distances(results),
        "identity_by_electrons": summary(identity, ELECTRONS, IDENTITY_COLUMNS),
        "identity_by_state": summary(identity, STATE, IDENTITY_COLUMNS),
        "identity_worst": identity_table(worst(identity, "diagonal")),
        "flow_by_electrons": summary(flows, ELECTRONS, FLOW_COLUMNS),
        "flow_by_state": summary(flows, STATE, FLOW_COLUMNS),
        "flow_worst": flow_table(worst(flows, "exact")),
        "second_order_by_electrons": summary(seconds, ELECTRONS, SECOND_ORDER_COLUMNS),
        "second_order_by_state": summary(seconds, STATE, SECOND_ORDER_COLUMNS),
        "second_order_missed": second_order_table(missed(results)),
        "large": large_table(large, results),
        "published": published_table(results),
        "commands": [command_line(rung) for rung in LARGE],
    }
    for name, text in pages(docs):
        for part, lines in parts.items():
            text = text.replace("{{" + part + "}}", "\n".join(lines))
        (docs / f"{name}.md").write_text(text)


def pages(docs: Path) -> list[tuple[str, str]]:
    """Names and texts of the pages, whose links lead on from where each page is."""
    parts = re.split(r"<!-- page: (\S+) -->\n+", (docs / TEMPLATE).read_text())
    names = parts[1::2]
    return [(name, relinked(text, Path(name).parent)) for name, text in zip(names, parts[2::2])]


def relinked(text: str, folder: Path) -> str:
    """A text with links from docs/, with links from a folder in it."""

    def from_folder(match):
        return "](" + Path(os.path.relpath(match[1], folder)).as_posix() + match[2]

    return re.sub(r"\]\((?!https?:|#)([^)#]+)([#)])", from_folder, text)


# Tables


def milli(value: Estimate) -> str:
    """A number in mHa from hartree."""
    return str(Estimate(1e3 * value.mean, 1e3 * value.error))


def table_line(cells: Iterable[str]) -> str:
    """A row of a table of Markdown."""
    return "| " + " | ".join(cells) + " |"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A table of Markdown."""
    columns = list(columns)
    return [table_line(columns), "|---" * len(columns) + "|", *map(table_line, rows)]


class Column(NamedTuple):
    """A column of a summary: what it says of a group of gases."""

    title: str
    cell: Callable[[list[Comparison]], str]


def _rms_column(title, value, decimals=2):
    """Root mean square of what `value` says of each gas, in mHa."""
    return Column(title, lambda gases: f"{1e3 * rms([value(one) for one in gases]):.{decimals}f}")


def _largest_column(title, value, decimals=2):
    """The largest of what `value` says of each gas, with its sign, in mHa."""

    def cell(gases):
        largest = max((value(one) for one in gases), key=abs)
        return f"{1e3 * largest:.{decimals}f}"

    return Column(title, cell)


def _median_share(gases):
    shares = [one.share for one in gases if one.share is not None]
    return f"{np.median(shares):.0%}" if shares else ""


COUNT = Column("gases", lambda gases: str(len(gases)))
IDENTITY_COLUMNS = (
    COUNT,
    _rms_column("rms of F − F_diag", lambda one: one.above("diagonal").mean, decimals=4),
    _largest_column("farthest", lambda one: one.above("diagonal").mean, decimals=4),
)
FLOW_COLUMNS = (
    COUNT,
    _largest_column("largest F_diag − F_deg", lambda one: one.mixing),
    _rms_column("rms of F_diag − F_exact", lambda one: one.room),
    _rms_column("rms of F − F_exact", lambda one: one.above("exact").mean),
    _largest_column("farthest", lambda one: one.above("exact").mean),
    Column("share, median", _median_share),
)
SECOND_ORDER_COLUMNS = (
    COUNT,
    _rms_column("rms of F − F_exact", lambda one: one.remaining.of_bound),
    _rms_column("rms of F + F_2 − F_exact", lambda one: one.remaining.of_second_order),
    _largest_column("farthest", lambda one: one.remaining.of_second_order),
    Column("missed", lambda gases: str(sum(not one.remaining.is_good for one in gases))),
)


class Grouping(NamedTuple):
    """What the gases of one row of a summary have in common."""

    titles: tuple[str, ...]
    order: Callable[[Rung], tuple]
    names: Callable[[Rung], tuple[str, ...]]


ELECTRONS = Grouping(
    titles=("dimension", "electrons"),
    order=lambda rung: (rung.system.dim, list(MARKERS).index(rung.electrons)),
    names=lambda rung: (f"{rung.system.dim}D", rung.electrons),
)
STATE = Grouping(
    titles=("dimension", "Θ", "r_s"),
    order=lambda rung: (rung.system.dim, rung.system.theta, rung.system.rs),
    names=lambda rung: (f"{rung.system.dim}D", f"{rung.system.theta:g}", f"{rung.system.rs:g}"),
)


def summary(gases: list[Comparison], grouping: Grouping, columns: tuple[Column, ...]) -> list[str]:
    """A table with a row for each group of gases, mHa per electron."""
    order = lambda one: grouping.order(one.rung)
    rows = []
    for _, group in itertools.groupby(sorted(gases, key=order), order):
        alike = list(group)
        cells = [column.cell(alike) for column in columns]
        rows.append([*grouping.names(alike[0].rung), *cells])
    return table([*grouping.titles, *(column.title for column in columns)], rows)


def worst(gases: list[Comparison], kind: str) -> list[Comparison]:
    """The gases that lie farthest from a reference, the farthest first."""
    distance = lambda one: abs(one.above(kind).mean)
    return sorted(gases, key=distance, reverse=True)[:WORST]


def identity_table(gases: list[Comparison]) -> list[str]:
    """Gases without a flow, mHa per electron."""
    rows = []
    for one in gases:
        above = one.above("diagonal")
        in_errors = f"{above.mean / above.error:.1f}"
        rows.append(
            (
                one.rung.title,
                milli(one.bound),
                milli(one.reference("diagonal")),
                milli(above),
                in_errors,
            )
        )
    return table(("gas", "F", "F_diag", "F − F_diag", "in errors"), rows)


def flow_table(gases: list[Comparison]) -> list[str]:
    """Gases with a flow, mHa per electron."""
    rows = []
    for one in gases:
        exact = one.reference("exact")
        degenerate = one.reference("degenerate").mean - exact.mean
        rows.append(
            (
                one.rung.title,
                milli(one.bound),
                milli(exact),
                milli(one.above("exact")),
                f"{1e3 * degenerate:.2f}",
                f"{1e3 * one.room:.2f}",
                "" if one.share is None else f"{one.share:.0%}",
            )
        )
    columns = ("gas", "F", "F_exact", "F − F_exact", "F_deg − F_exact", "F_diag − F_exact", "share")
    return table(columns, rows)


def second_order_table(gases: list[Comparison]) -> list[str]:
    """Gases with a flow and F_2, mHa per electron."""
    rows = []
    for one in gases:
        second = one.second_order
        remaining = one.remaining
        rows.append(
            (
                one.rung.title,
                milli(one.above("exact")),
                milli(Estimate(second["value"], second["error"])),
                milli(Estimate(remaining.of_second_order, remaining.error)),
                f"{remaining.in_errors:.1f}",
            )
        )
    return table(("gas", "F − F_exact", "F_2", "left", "in errors"), rows)


def large_table(rungs: list[Rung], results: dict[str, dict]) -> list[str]:
    """Larger gases, Ha per electron."""
    rows = []
    for rung in rungs:
        row = results[rung.name]
        before, after = (Estimate(*third) for third in row["thirds"])
        cells = (Estimate(**row["untrained"]), Estimate(**row["F"]), before, after)
        rows.append((rung.title, *map(str, cells), f"{drift(row):.1f}"))
    return table(("gas", "untrained F", "F", "second third", "last third", "drift"), rows)


def published_table(results: dict[str, dict]) -> list[str]:
    """Larger gases beside published values, Ha per electron."""
    ours = {rung.gas: rung for rung in LARGE if rung.name in results}
    rows = []
    for gas, method, theirs in published():
        if gas in ours:
            row = results[ours[gas].name]
            free_energy = Estimate(**row["F"])
            entropy = Estimate(**row["S"])
            above = milli(difference(free_energy, theirs))
            cells = (free_energy, entropy, method, theirs, above)
            rows.append((ours[gas].title, *map(str, cells)))
    return table(("gas", "F", "S, k_B", "method", "its F", "F less its, mHa"), rows)


def command_line(rung: Rung) -> str:
    """The command of a rung as a line of code in Markdown."""
    return "    " + " ".join(rung.command(Path("runs/validate")))


# CSV files: names and units of columns are those of the files of a run (docs/conventions.md)


def write_csv(path: Path, records: Iterable[dict]) -> None:
    """Writes records that have the same keys; nothing if there is none."""
    records = list(records)
    if records:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
            writer.writeheader()
            for record in records:
                writer.writerow({name: _csv_cell(value) for name, value in record.items()})


def _csv_cell(value):
    if value is None:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else value


def gas_record(rung: Rung) -> dict:
    """Which gas a row is of."""
    gas = rung.system
    return {
        "gas": rung.gas,
        "dim": gas.dim,
        "n_up": gas.n_up,
        "n_down": gas.n_down,
        "rs_bohr": gas.rs,
        "theta": gas.theta,
        "twist": " ".join(f"{angle:g}" for angle in gas.twist),
    }


def estimate_record(name: str, value: Estimate, unit: str = "ha") -> dict:
    """A number and its error as two columns; energies are per electron."""
    return {f"{name}_{unit}": value.mean, f"{name}_error_{unit}": value.error}


def references_record(one: Comparison) -> dict:
    """F of a small gas and of its references."""
    return {
        **gas_record(one.rung),
        **estimate_record("F", one.bound),
        **estimate_record("F_exact", one.reference("exact")),
        **estimate_record("F_deg", one.reference("degenerate")),
        **estimate_record("F_diag", one.reference("diagonal")),
    }


def quality_record(row: dict) -> dict:
    """What a run says of itself."""
    quality = row["quality"]
    return {
        "E_variance_cell_ha2": quality["E_variance_cell_ha2"],
        "min_det": quality["min_det"],
        "redrawn": quality["redrawn"],
        "seconds": row["seconds"],
    }


def identity_record(one: Comparison) -> dict:
    """A gas without a flow."""
    above = estimate_record("F_above_diag", one.above("diagonal"))
    return {**references_record(one), **above, **quality_record(one.row)}


def flow_record(one: Comparison) -> dict:
    """A gas with a flow."""
    above = estimate_record("F_above_exact", one.above("exact"))
    share = {"share": one.share}
    return {**references_record(one), **above, **share, **quality_record(one.row)}


def second_order_record(one: Comparison) -> dict:
    """A gas with F_2 and the parts of its error."""
    second = one.second_order
    remaining = one.remaining
    errors = ("statistical", "left_out", "degenerate", "higher_orders")
    return {
        **gas_record(one.rung),
        **estimate_record("F", one.bound),
        **estimate_record("F_exact", one.reference("exact")),
        **estimate_record("F_above_exact", one.above("exact")),
        **estimate_record("F2", Estimate(second["value"], second["error"])),
        **estimate_record("left", Estimate(remaining.of_second_order, remaining.error)),
        "left_in_errors": remaining.in_errors,
        "missed": int(not remaining.is_good),
        **{f"F2_{name}_error_ha": second[name] for name in errors},
        "F2_relaxation_ha": second["relaxation"],
        "F2_resummed_ha": second["resummed"],
    }


def large_record(rung: Rung, results: dict[str, dict]) -> dict:
    """A larger gas."""
    row = results[rung.name]
    before, after = (Estimate(*third) for third in row["thirds"])
    quality = quality_record(row)
    seconds = quality.pop("seconds")
    return {
        **gas_record(rung),
        **estimate_record("untrained_F", Estimate(**row["untrained"])),
        **estimate_record("F", Estimate(**row["F"])),
        **estimate_record("S", Estimate(**row["S"]), "kb"),
        **estimate_record("F_second_third", before),
        **estimate_record("F_last_third", after),
        "drift_in_errors": drift(row),
        **quality,
        "folded_measure": row["quality"]["folded_measure"]["mean"],
        "steps": row["steps"],
        "samples": rung.samples,
        "seconds": seconds,
    }


# Figures


class Symbol(NamedTuple):
    """A point of a figure, hartree per electron; `top` is where a thin line from it ends."""

    rung: Rung
    value: Estimate
    top: float | None = None


class Panels(NamedTuple):
    """A row of panels, one for each temperature.

    Attributes:
      title: of the vertical axis.
      symbols: what is drawn.
      linear_below: mHa from which on the axis is logarithmic; None for a linear axis.
    """

    title: str
    symbols: list[Symbol]
    linear_below: float | None = None


def write_figures(
    identity: list[Comparison],
    flows: list[Comparison],
    seconds: list[Comparison],
    docs: Path,
) -> None:
    """Draws the small gases over r_s, one panel for each temperature."""
    bound = [Symbol(one.rung, one.above("exact")) for one in flows]
    with_room = [Symbol(one.rung, one.above("exact"), one.room) for one in flows]
    left = []
    for one in seconds:
        remaining = one.remaining
        left.append(Symbol(one.rung, Estimate(remaining.of_second_order, remaining.error)))
    alone = [Symbol(one.rung, one.above("diagonal")) for one in identity]
    of_bound = Panels("F − F_exact", bound, linear_below=0.3)
    of_second_order = Panels("F + F₂ − F_exact", left, linear_below=1.0)
    draw([of_bound, of_second_order], docs / "validation.png")
    draw([Panels("F − F_exact", with_room, linear_below=0.3)], docs / FOLDER / "full_model.png")
    draw([Panels("F − F_diag", alone)], docs / FOLDER / "probabilities.png")


def draw(rows: list[Panels], path: Path) -> None:
    """Draws rows of panels and their legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 3.2 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(THETAS), sharex=True, sharey="row", squeeze=False)
    for axes, row in zip(grid, rows):
        scale_axes(axes[0], row.linear_below)
        axes[0].set_ylabel(f"{row.title}, mHa per electron")
        for axis, theta in zip(axes, THETAS):
            draw_panel(axis, [one for one in row.symbols if one.rung.system.theta == theta])
    for axis, theta in zip(grid[0], THETAS):
        axis.set_title(f"Θ = {theta:g}")
    for axis in grid[-1]:
        axis.set_xlabel("r_s")
    figure.legend(handles=legend_handles(), loc="outside lower center", ncols=7, fontsize=9)
    figure.savefig(path, dpi=130)


def scale_axes(axis, linear_below: float | None) -> None:
    """Sets the scales of a row of panels by one of them."""
    axis.set_xscale("log")
    axis.set_xticks([1, 4, 10], ["1", "4", "10"])
    axis.minorticks_off()
    axis.set_xlim(0.65, 15)
    if linear_below:
        axis.set_yscale("symlog", linthresh=linear_below)


def draw_panel(axis, symbols: list[Symbol]) -> None:
    """Draws symbols; those of one r_s stand beside each other."""
    axis.axhline(0.0, color="0.6", lw=0.8)
    kinds = list(itertools.product(COLOURS, MARKERS, (False, True)))
    for symbol in symbols:
        gas = symbol.rung.system
        twisted = any(gas.twist)
        place = kinds.index((gas.dim, symbol.rung.electrons, twisted))
        x = gas.rs * 10 ** (DODGE * (place - (len(kinds) - 1) / 2))
        colour = COLOURS[gas.dim]
        if symbol.top is not None:
            line = [1e3 * symbol.value.mean, 1e3 * symbol.top]
            axis.plot([x, x], line, color=colour, lw=0.5, alpha=0.4)
            axis.plot(x, 1e3 * symbol.top, "_", color=colour, ms=4)
        axis.errorbar(
            x,
            1e3 * symbol.value.mean,
            1e3 * symbol.value.error,
            fmt=MARKERS[symbol.rung.electrons],
            ms=3.5,
            lw=0.8,
            color=colour,
            mfc="white" if twisted else colour,
        )


def legend_handles() -> list:
    """Symbols by electrons, colours by dimension, open symbols for a twist."""
    from matplotlib.lines import Line2D

    plain = {"ls": "", "ms": 5}
    handles = [
        Line2D([], [], marker="o", color=colour, label=f"{dim}D", **plain)
        for dim, colour in COLOURS.items()
    ]
    for electrons, marker in MARKERS.items():
        handles.append(Line2D([], [], marker=marker, color="0.3", label=electrons, **plain))
    handles.append(Line2D([], [], marker="o", color="0.3", mfc="white", label="twisted", **plain))
    return handles
