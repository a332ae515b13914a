"""The page of a table: one HTML file that needs no other."""

import html
from pathlib import Path

import numpy as np

from heg.eos.table import Table, extrapolated
from heg.reference.published import out_of_range
from heg.report.run_report import SIZE_ERROR, document, embedded, html_table
from heg.runs.text_files import read_text, write_text
from heg.statistics import Estimate

ABOUT = (
    "Per electron, in hartree and k<sub>B</sub>; Θ = T / E_F with the Fermi energy of the majority spin. Infinite gas: "
    "the cell's f_xc, the size correction and the ideal gas of infinitely many electrons. Errors are standard errors, "
    "of the size correction its own estimate. All columns are in table.csv and table.h5."
)
OUTSIDE = "Outside of the r_s and Θ of the data that this published fit was made from."


def write(path: Path, table: Table, grid: Path, pictures: dict[str, Path]) -> Path:
    """Writes it.

    Args:
      path: of the file.
      table: what it shows.
      grid: the file grid.toml.
      pictures: PNG files by caption.
    """
    columns, dim = table.columns, int(table.columns["dim"][0])
    title = f"Equation of state of the {dim}D electron gas"
    version = columns["version"][0]
    head, rows = _rows(table)
    notes = (
        [SIZE_ERROR, f"* {OUTSIDE}"]
        if any(cell.endswith("*") for row in rows for cell in row)
        else [SIZE_ERROR]
    )
    parts = [
        f"<p>heg {html.escape(str(version))}. {ABOUT}</p>",
        f'<div style="overflow-x: auto">{html_table(head, rows)}</div>',
        *(f"<p>{note}</p>" for note in notes),
    ]
    if sizes := list(extrapolated(table)):
        cells = [
            (f"{rs:g}", f"{theta:g}", f"{zeta:g}", str(value)) for rs, theta, zeta, value in sizes
        ]
        parts += [
            "<h2>f_xc linear in 1 / N to infinity</h2>",
            html_table(("r_s", "Θ", "ζ", "f_xc"), cells),
        ]
    parts += [embedded(caption, picture) for caption, picture in pictures.items()]
    fits = [
        f"{sum(cell)} electrons, ζ = {series.zeta:g}: χ² per point {series.surface.chi2:.2f}"
        for cell, series in table.series.items()
    ]
    parts += [
        f"<p>Surface, each point against the fit of all others: {'; '.join(fits) or 'too few points'}.</p>",
        f"<h2>Grid</h2><pre>{html.escape(read_text(grid))}</pre>",
    ]
    write_text(path, document(title, parts))
    return path


def _rows(table):
    columns, dim = table.columns, int(table.columns["dim"][0])
    published = [
        name for name in ("gdsmfb", "ksdt", "corrksdt", "amgb") if f"f_xc_{name}_ha" in columns
    ]
    volume = f"ha_per_bohr{dim}"
    head = (
        "N",
        "ζ",
        "r_s",
        "Θ",
        "f_xc, cell",
        "size correction",
        "f_xc",
        *published,
        "f",
        "e",
        "s",
        f"p, Ha/bohr^{dim}",
    )
    head += ("c_V", "e, s, p off the surface", "steps", "samples", "reached")
    of = lambda name, unit, row: str(
        Estimate(columns[f"{name}_{unit}"][row], columns[f"{name}_error_{unit}"][row])
    )
    rows = []
    for row in range(len(columns["dim"])):
        cells = [f"{columns[name][row]:g}" for name in ("electrons", "zeta", "rs_bohr", "theta")]
        cells += [of("f_xc_cell", "ha", row), of("f_correction", "ha", row), of("f_xc", "ha", row)]
        marks = out_of_range(dim, columns["rs_bohr"][row], columns["theta"][row])
        cells += [
            f"{columns[f'f_xc_{name}_ha'][row]:.5g}" + "*" * (name in marks) for name in published
        ]
        cells += [
            of(name, unit, row)
            for name, unit in (("f", "ha"), ("e", "ha"), ("s", "kb"), ("p", volume))
        ]
        known = np.isfinite(columns["c_kb"][row])
        cells.append(of("c", "kb", row) if known else "")
        off = [columns[f"{letter}_deviation_sigma"][row] for letter in "esp"]
        cells.append(", ".join(f"{value:.1f}" for value in off) if np.isfinite(off[0]) else "")
        cells += [f"{columns[name][row]:g}" for name in ("steps", "samples")]
        rows.append([*cells, "yes" if columns["reached"][row] else "no"])
    return head, rows
