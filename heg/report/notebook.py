"""Results as notebooks show them: a table, a sentence and a small figure.

The figure is left out where matplotlib is not installed.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from heg.display import as_html
from heg.eos.table import Table
from heg.observables.evaluation import Measurement
from heg.observables.quantities import NUMBERS
from heg.report import run_figures
from heg.report.html import html_table, image, paragraphs
from heg.report.table_report import overview
from heg.statistics import Estimate
from heg.training.verdict import sentence_of

if TYPE_CHECKING:
    # imported where it is used, so that results are shown without matplotlib too
    from matplotlib.figure import Figure

DOTS_PER_INCH = 60  # of small figures


def fragment(
    title: str, head: Sequence[str], rows: list, sentence: str, draw: Callable[[], Figure] | None
) -> str:
    """A result in HTML.

    Args:
      title: in plain text, as are all others.
      head, rows: of the table.
      sentence: below it; may be empty.
      draw: makes the figure; None for none.
    """
    parts = [f"<b>{html.escape(title)}</b>"]
    if rows:
        parts.append(html_table(head, rows))
    if sentence:
        parts += paragraphs([html.escape(sentence)])
    if draw:
        parts.append(_picture(title, draw))
    return f"<div>{''.join(parts)}</div>"


def _picture(title, draw):
    """The figure as a part of the page; empty without matplotlib."""
    try:
        figure = draw()
    except ImportError:
        return ""
    content = io.BytesIO()
    figure.savefig(content, dpi=DOTS_PER_INCH, format="png")
    return image(title, content.getvalue())


@as_html.register
def _measurement(measurement: Measurement) -> str:
    """Every quantity that is one number, f_xc of the infinite gas, S(q) and g(r)."""
    rows = []
    for name, entry in NUMBERS.items():
        quantity = measurement.quantities.get(name)
        # two numbers, one for each spin, are no cell of a table
        if quantity is None or np.size(quantity.value) != 1:
            continue
        value = np.ravel(quantity.value).item()
        error = np.ravel(quantity.error).item()
        rows.append((name, entry.title, str(Estimate(value, error)), quantity.unit))
    for name, value in measurement.facts["infinite_gas"].items():
        # published values have no error
        text = str(Estimate(**value)) if isinstance(value, dict) else f"{value:.6g}"
        rows.append((name, "infinite gas", text, "hartree per electron"))
    gas = measurement.system
    state = f"{gas.label}, {gas.dim}D, r_s {gas.rs:g}, Θ {gas.theta:g}"
    return fragment(
        title=f"{state}: {measurement.facts['samples']} samples",
        head=("", "quantity", "value", "unit"),
        rows=rows,
        sentence=sentence_of(measurement.facts),
        draw=lambda: run_figures.structure(measurement.quantities, gas),
    )


@as_html.register
def _table(table: Table) -> str:
    """The columns of the page, and r_s f_xc along the isotherms."""
    head, rows = overview(table)
    return fragment(
        title=f"Equation of state, {len(rows)} gases",
        head=head,
        rows=rows,
        sentence="Per electron, hartree and k_B; all columns are in Table.columns.",
        draw=lambda: _isotherms(table),
    )


def _isotherms(table: Table) -> Figure:
    """r_s f_xc of the infinite gas over r_s, a line for each cell and Theta."""
    from matplotlib.figure import Figure

    def column(name):
        return table.columns[name].astype(float)

    rs = column("rs_bohr")
    # r_s takes the trend out
    value = rs * column("f_xc_ha")
    error = rs * column("f_xc_error_ha")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    lines = np.stack([column("electrons"), column("zeta"), column("theta")], axis=1)
    for line in np.unique(lines, axis=0):
        of_line = np.all(lines == line, axis=1)
        selected = np.flatnonzero(of_line)
        # along increasing r_s
        order = np.argsort(rs[selected])
        selected = selected[order]
        electrons, zeta, theta = line
        axis.errorbar(
            rs[selected],
            value[selected],
            error[selected],
            fmt=".-",
            label=f"N {electrons:g}, ζ {zeta:g}, Θ {theta:g}",
        )
    axis.set(xscale="log", xlabel="r_s (bohr)", ylabel="r_s f_xc (hartree bohr)")
    axis.legend(fontsize=7)
    return figure
