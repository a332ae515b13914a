"""The page of a table: one HTML file that needs no other."""

import html
from pathlib import Path

import numpy as np

from heg.eos.table import Table, extrapolated
from heg.reference.published import out_of_range
from heg.report.html import (
    SIZE_ERROR,
    document,
    embedded,
    html_table,
    paragraphs,
    preformatted,
)
from heg.runs.text_files import read_text, write_text
from heg.statistics import Estimate

ABOUT = (
    "Per electron, in hartree and k<sub>B</sub>; Θ = T / E_F with the Fermi energy of the majority "
    "spin. Infinite gas: the cell's f_xc, the size correction and the ideal gas of infinitely many "
    "electrons. Errors are standard errors, of the size correction its own estimate. All columns "
    "are in table.csv and table.h5."
)
OUTSIDE = "Outside of the r_s and Θ of the data that this published fit was made from."
PUBLISHED_FITS = ("gdsmfb", "ksdt", "corrksdt", "amgb")


def write(path: Path, table: Table, grid: Path, pictures: dict[str, Path]) -> Path:
    """Writes the page of a table.

    Args:
      path: of the file.
      table: what it shows.
      grid: the file grid.toml.
      pictures: PNG files by caption.
    Returns:
      The path.
    """
    version = html.escape(str(table.columns["version"][0]))
    head, rows = overview(table)
    parts = [
        f"<p>heg {version}. {ABOUT}</p>",
        html_table(head, rows),
        *paragraphs(_notes(rows)),
        *_doubts(table),
        *_extrapolation(table),
        *(embedded(caption, picture) for caption, picture in pictures.items()),
        *paragraphs([_quality_of_fits(table)]),
        preformatted("Grid", read_text(grid)),
    ]
    title = f"Equation of state of the {_dim(table)}D electron gas"
    write_text(path, document(title, parts))
    return path


def overview(table: Table) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the main columns of a table, as text."""
    rows = [_row(table, index) for index in range(len(table.columns["dim"]))]
    return _head(table), rows


def _dim(table):
    return int(table.columns["dim"][0])


def _fits_in(table):
    """Names of the published fits that the table is compared with."""
    return [name for name in PUBLISHED_FITS if f"f_xc_{name}_ha" in table.columns]


def _head(table):
    """Headings of the columns, in the order of `_row`."""
    gas = ["N", "ζ", "r_s", "Θ"]
    excess = ["f_xc, cell", "size correction", "f_xc", *_fits_in(table)]
    thermodynamics = ["f", "e", "s", f"p, Ha/bohr^{_dim(table)}", "c_V"]
    return [
        *gas,
        *excess,
        *thermodynamics,
        "e, s, p off the surface",
        "steps",
        "samples",
        "reached",
    ]


def _row(table, index):
    """Cells of one gas as text."""
    value = {name: values[index] for name, values in table.columns.items()}

    def plain(name):
        return f"{value[name]:g}"

    def with_error(name, unit):
        return str(Estimate(value[f"{name}_{unit}"], value[f"{name}_error_{unit}"]))

    gas = [
        plain("electrons"),
        plain("zeta"),
        plain("rs_bohr"),
        plain("theta"),
    ]
    excess = [
        with_error("f_xc_cell", "ha"),
        with_error("f_correction", "ha"),
        with_error("f_xc", "ha"),
        *_published(table, value),
    ]
    thermodynamics = [
        with_error("f", "ha"),
        with_error("e", "ha"),
        with_error("s", "kb"),
        with_error("p", f"ha_per_bohr{_dim(table)}"),
        # c is a derivative of the surface, which small tables do not have
        with_error("c", "kb") if np.isfinite(value["c_kb"]) else "",
    ]
    reached = "yes" if value["reached"] else "no"
    effort = [plain("steps"), plain("samples"), reached]
    return [*gas, *excess, *thermodynamics, _deviations(value), *effort]


def _published(table, value):
    """f_xc of the published fits, with an asterisk where a fit is extrapolated."""
    # a fit beyond its data is no reference
    extrapolated_fits = out_of_range(_dim(table), value["rs_bohr"], value["theta"])
    cells = []
    for name in _fits_in(table):
        mark = "*" if name in extrapolated_fits else ""
        cells.append(f"{value[f'f_xc_{name}_ha']:.5g}{mark}")
    return cells


def _deviations(value):
    """e, s and p as measured, less those of the surface, in standard errors; empty without one."""
    deviations = [value[f"{letter}_deviation_sigma"] for letter in "esp"]
    if not np.isfinite(deviations[0]):
        return ""
    return ", ".join(f"{deviation:.1f}" for deviation in deviations)


def _notes(rows):
    # the asterisk is explained where there is one
    marked = any(cell.endswith("*") for row in rows for cell in row)
    return [SIZE_ERROR, f"* {OUTSIDE}"] if marked else [SIZE_ERROR]


def _doubts(table):
    """What speaks against single points, in words; nothing where there is nothing."""
    rows = []
    # tables of older versions have no such column
    for index, doubts in enumerate(table.columns.get("doubts", ())):
        if doubts:
            # a row begins with N, zeta, r_s and Theta
            gas = _row(table, index)[:4]
            rows.append([*gas, doubts])
    if not rows:
        return []
    head = ("N", "ζ", "r_s", "Θ", "doubts")
    return ["<h2>Doubts</h2>", html_table(head, rows)]


def _extrapolation(table):
    """f_xc extrapolated over the sizes of the cell; nothing in a table of one size."""
    rows = []
    for rs, theta, zeta, value in extrapolated(table):
        state = (f"{rs:g}", f"{theta:g}", f"{zeta:g}")
        rows.append((*state, str(value)))
    if not rows:
        return []
    heading = "<h2>f_xc linear in 1 / N to infinity</h2>"
    head = ("r_s", "Θ", "ζ", "f_xc")
    return [heading, html_table(head, rows)]


def _quality_of_fits(table):
    fits = []
    for cell, series in table.series.items():
        chi2 = series.surface.chi2
        fits.append(f"{sum(cell)} electrons, ζ = {series.zeta:g}: χ² per point {chi2:.2f}")
    summary = "; ".join(fits) or "too few points"
    return f"Surface, each point against the fit of all others: {summary}."
