"""Figures of a table of the equation of state, as PNG files.

matplotlib is optional: the extra `plot` brings it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from heg.eos.table import Series, Table
from heg.runs.files import save_figure

if TYPE_CHECKING:
    # imported where it is used, so that tables without figures need no matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE_POINTS = 20
PUBLISHED = {
    "gdsmfb": "Groth et al. 2017",
    "amgb": "ground state, Attaccalite et al.",
}
PUBLISHED_STYLES = {"gdsmfb": "--", "amgb": ":"}  # fits that are drawn, in this order


def draw(table: Table, run_dir: Path) -> dict[str, Path]:
    """Draws the figures of every cell of a table.

    Args:
      table: of the equation of state.
      run_dir: directory of the PNG files.
    Returns:
      The files by caption.
    Raises:
      ImportError: matplotlib is not installed.
    """
    pictures = {}
    for cell, series in table.series.items():
        name = series.surface.data.gas.label
        gas = f"{cell[0]} up + {cell[1]} down electrons"
        # the largest cell stands for the infinite gas, whose thermodynamics is shown once
        if series is table.largest(series.zeta):
            figure = _excess_free_energy(table, series)
            caption = f"f_xc along isotherms and isochores, {gas}"
            pictures[caption] = save_figure(figure, run_dir / f"f_xc-{name}.png")
            figure = _pressure_and_heat_capacity(table, series)
            caption = f"Pressure and heat capacity, {gas}"
            pictures[caption] = save_figure(figure, run_dir / f"p-{name}.png")
        figure = _deviations(table, series)
        caption = f"What was measured beside the surface's derivatives, {gas}, in standard errors"
        pictures[caption] = save_figure(figure, run_dir / f"deviations-{name}.png")
    return pictures


class _Rows(NamedTuple):
    """The rows of one cell of a table."""

    table: Table
    series: Series

    def column(self, name: str) -> np.ndarray:
        """A column of the table, for these rows alone.  [rows]"""
        return self.table.columns[name][self.series.rows].astype(float)

    @property
    def rs(self) -> np.ndarray:
        """Wigner-Seitz radii, bohr.  [rows]"""
        return self.column("rs_bohr")

    @property
    def theta(self) -> np.ndarray:
        """Temperatures over the Fermi energy.  [rows]"""
        return self.column("theta")


def _excess_free_energy(table: Table, series: Series) -> Figure:
    """r_s f_xc of the infinite gas: over r_s for each Theta, over Theta for each r_s."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    isotherms, isochores = figure.subplots(1, 2, sharey=True)
    rows = _Rows(table, series)
    # matplotlib has ten colours
    for number, theta in enumerate(np.unique(rows.theta)):
        colour = f"C{number % 10}"
        _isotherm(isotherms, rows, theta, colour)
    for number, rs in enumerate(np.unique(rows.rs)):
        colour = f"C{number % 10}"
        _isochore(isochores, rows, rs, colour)
    _logarithmic(isotherms, rows.rs)
    _logarithmic(isochores, rows.theta)
    _label_published(isotherms, table)
    isotherms.set(xlabel="r_s (bohr)", ylabel="r_s f_xc (hartree bohr)")
    isochores.set(xlabel="Θ")
    for axis in (isotherms, isochores):
        axis.legend(fontsize=7)
    return figure


def _isotherm(axis: Axes, rows: _Rows, theta: float, colour: str) -> None:
    """r_s f_xc over r_s at one Theta."""
    along = rows.rs
    selected = _sorted_rows(rows.theta == theta, along)
    _points(axis, rows, selected, along, colour)
    # the surface between the rows
    rs = _curve(along[selected])
    same_theta = np.full_like(rs, theta)
    energies = _of_surface(rows, rs, same_theta)
    axis.plot(rs, energies, color=colour, linewidth=0.9)
    # without points, for the legend alone
    axis.plot([], [], color=colour, label=f"Θ = {theta:g}")
    _published(axis, rows, selected, along, colour)


def _isochore(axis: Axes, rows: _Rows, rs: float, colour: str) -> None:
    """r_s f_xc over Theta at one r_s."""
    along = rows.theta
    selected = _sorted_rows(rows.rs == rs, along)
    _points(axis, rows, selected, along, colour)
    # the surface between the rows
    theta = _curve(along[selected])
    same_rs = np.full_like(theta, rs)
    energies = _of_surface(rows, same_rs, theta)
    axis.plot(theta, energies, color=colour, linewidth=0.9)
    # without points, for the legend alone
    axis.plot([], [], color=colour, label=f"r_s = {rs:g}")
    _published(axis, rows, selected, along, colour)


def _sorted_rows(mask, values):
    """Numbers of the rows in a mask, by ascending values."""
    selected = np.flatnonzero(mask)
    return selected[np.argsort(values[selected])]


def _curve(values):
    return np.geomspace(values.min(), values.max(), CURVE_POINTS)


def _points(axis: Axes, rows: _Rows, selected, along, colour: str) -> None:
    """r_s f_xc of some rows with errors."""
    value = rows.rs * rows.column("f_xc_ha")
    error = rows.rs * rows.column("f_xc_error_ha")
    axis.errorbar(
        along[selected],
        value[selected],
        error[selected],
        fmt="o",
        markersize=4,
        color=colour,
    )


def _published(axis: Axes, rows: _Rows, selected, along, colour: str) -> None:
    """r_s f_xc of the published fits, at some rows and smoothly between them."""
    # one point makes no curve
    if len(selected) < 2:
        return
    ends = along[selected]
    between = _curve(ends)
    for name, style in PUBLISHED_STYLES.items():
        column = f"f_xc_{name}_ha"
        if column not in rows.table.columns:
            continue
        published = rows.rs * rows.column(column)
        smooth = PchipInterpolator(np.log(ends), published[selected])
        values = smooth(np.log(between))
        axis.plot(between, values, style, color=colour, linewidth=0.9)


def _of_surface(rows: _Rows, all_rs, all_theta) -> list[float]:
    """r_s f_xc of the surface along a curve of states."""
    zeta = float(rows.column("zeta")[0])
    energies = []
    for rs, theta in zip(all_rs, all_theta):
        excess = rows.table.excess_free_energy(rs, theta, zeta)
        energies.append(rs * excess.mean)  # r_s takes the trend out: curves lie close together
    return energies


def _label_published(axis: Axes, table: Table) -> None:
    """Adds the published fits to the legend, in grey as they have many colours."""
    for name, style in PUBLISHED_STYLES.items():
        if f"f_xc_{name}_ha" in table.columns:
            axis.plot([], [], style, color="grey", label=PUBLISHED[name])


def _pressure_and_heat_capacity(table: Table, series: Series) -> Figure:
    """Pressure over the classical one, n T, and the heat capacity, over Theta for each r_s."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    pressure, heat_capacity = figure.subplots(1, 2)
    rows = _Rows(table, series)
    dim = int(table.columns["dim"][0])
    unit_gas = series.surface.data.gas.of_unit_density
    density = unit_gas.density / rows.rs**dim
    classical = density * rows.column("temperature_ha")
    unit = f"ha_per_bohr{dim}"
    _isochores(
        pressure,
        rows,
        rows.column(f"p_{unit}") / classical,
        rows.column(f"p_error_{unit}") / classical,
    )
    _isochores(
        heat_capacity,
        rows,
        rows.column("c_kb"),
        rows.column("c_error_kb"),
    )
    for number, rs in enumerate(np.unique(rows.rs)):
        # colours by r_s, as in the lines
        pressure.plot([], [], color=f"C{number}", label=f"r_s = {rs:g}")
    ideal_pressure = rows.column(f"p_ideal_{unit}")
    _ideal_gas(pressure, rows, ideal_pressure / classical)
    _ideal_gas(heat_capacity, rows, rows.column("c_ideal_kb"))
    pressure.set(xlabel="Θ", ylabel="p / n k_B T (measured)")
    heat_capacity.set(xlabel="Θ", ylabel="c_V (k_B per electron, of the surface)")
    for axis in (pressure, heat_capacity):
        _logarithmic(axis, rows.theta)
        axis.legend(fontsize=7)
    return figure


def _isochores(axis: Axes, rows: _Rows, value, error) -> None:
    """A quantity with its error over Theta, a line for each r_s."""
    for number, rs in enumerate(np.unique(rows.rs)):
        selected = _sorted_rows(rows.rs == rs, rows.theta)
        axis.errorbar(
            rows.theta[selected],
            value[selected],
            error[selected],
            fmt="o-",
            markersize=4,
            linewidth=0.8,
            color=f"C{number}",
        )


def _ideal_gas(axis: Axes, rows: _Rows, value) -> None:
    # in these units the ideal gas depends on Theta alone: one line for all r_s
    order = np.argsort(rows.theta)
    axis.plot(rows.theta[order], value[order], "k--", linewidth=0.8, label="ideal gas")


def _logarithmic(axis: Axes, values) -> None:
    """A logarithmic axis with the values of the table as its ticks."""
    ticks = np.unique(values)
    axis.set_xscale("log")
    axis.minorticks_off()
    axis.set_xticks(ticks, [f"{value:g}" for value in ticks])


def _deviations(table: Table, series: Series) -> Figure:
    """Maps over r_s and Theta of e, s and p as measured, less those of the surface."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    rows = _Rows(table, series)
    # F itself is what the surface goes through
    axes = figure.subplots(1, 3)
    for axis, letter in zip(axes, "esp"):
        deviations = rows.column(f"{letter}_deviation_sigma")
        image = _map(axis, rows, deviations)
        axis.set(xlabel="r_s", ylabel="Θ", title=letter)
    figure.colorbar(image, ax=figure.axes)
    return figure


def _map(axis: Axes, rows: _Rows, values):
    """A map over r_s and Theta with its numbers."""
    grid = _grid(rows, values)
    # the same colours in all maps: white is agreement, full colour five errors
    image = axis.imshow(
        grid,
        cmap="RdBu",
        vmin=-5,
        vmax=5,
        origin="lower",
        aspect="auto",
    )
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value):
            axis.text(
                column,
                row,
                f"{value:.1f}",
                ha="center",
                va="center",
                fontsize=8,
            )
    axis.set_xticks(*_ticks(rows.rs))
    axis.set_yticks(*_ticks(rows.theta))
    return image


def _ticks(values):
    """Places and labels of the different values along an axis of a map."""
    labels = [f"{value:g}" for value in np.unique(values)]
    return range(len(labels)), labels


def _grid(rows: _Rows, values) -> np.ndarray:
    """Values by Theta and r_s; not a number where the table has no row.  [theta, rs]"""
    all_rs = np.unique(rows.rs)
    all_theta = np.unique(rows.theta)
    shape = (len(all_theta), len(all_rs))
    grid = np.full(shape, np.nan)
    row = np.searchsorted(all_theta, rows.theta)
    column = np.searchsorted(all_rs, rows.rs)
    grid[row, column] = values
    return grid
