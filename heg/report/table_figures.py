"""Figures of a table of the equation of state.  matplotlib is optional: the extra `plot` brings
it."""

from pathlib import Path

import numpy as np

from heg.eos.table import Table
from heg.runs.files import replace

FINE = 20  # points of a curve
PUBLISHED = {
    "gdsmfb": "Groth et al. 2017",
    "ksdt": "Karasiev et al. 2014",
    "amgb": "ground state, Attaccalite et al.",
}


def draw(table: Table, run_dir: Path) -> dict[str, Path]:
    """All figures of all cells as PNG files by caption.

    Raises:
      ImportError: matplotlib is not installed.
    """
    found = {}
    for cell, series in table.series.items():
        name = series.surface.data.gas.label
        gas = f"{cell[0]} up + {cell[1]} down electrons"
        if series is table.largest(series.zeta):
            found |= {
                f"f_xc along isotherms and isochores, {gas}": _curves(
                    table, series, run_dir / f"f_xc-{name}.png"
                ),
                f"Pressure and heat capacity, {gas}": _pressure(
                    table, series, run_dir / f"p-{name}.png"
                ),
            }
        found[f"What was measured beside the surface's derivatives, {gas}, in standard errors"] = (
            _deviations(table, series, run_dir / f"deviations-{name}.png")
        )
    return found


def _curves(table, series, path):
    """r_s f_xc of the infinite gas: over r_s for each Theta, over Theta for each r_s."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    of = lambda name: table.columns[name][series.rows].astype(float)
    rs, theta, zeta = of("rs_bohr"), of("theta"), float(of("zeta")[0])
    value, error = rs * of("f_xc_ha"), rs * of("f_xc_error_ha")
    for axis, along, fixed, label in ((axes[0], rs, theta, "Θ"), (axes[1], theta, rs, "r_s")):
        for place, kept in enumerate(np.unique(fixed)):
            own, colour = np.flatnonzero(fixed == kept), f"C{place % 10}"
            own = own[np.argsort(along[own])]
            axis.errorbar(along[own], value[own], error[own], fmt="o", markersize=4, color=colour)
            fine = np.geomspace(along[own].min(), along[own].max(), FINE)
            states = [(x, kept) if axis is axes[0] else (kept, x) for x in fine]
            energy = [table.excess_free_energy(*state, zeta) for state in states]
            axis.plot(
                fine,
                [state[0] * one.mean for state, one in zip(states, energy)],
                color=colour,
                linewidth=0.9,
            )
            axis.plot([], [], color=colour, label=f"{label} = {kept:g}")
            for style, published in zip(("--", ":"), ("gdsmfb", "amgb")):
                if (name := f"f_xc_{published}_ha") in table.columns:
                    axis.plot(along[own], (rs * of(name))[own], style, color=colour, linewidth=0.9)
        _logarithmic(axis, along)
        axis.legend(fontsize=7)
    for style, published in (("--", "gdsmfb"), (":", "amgb")):
        if f"f_xc_{published}_ha" in table.columns:
            axes[0].plot([], [], style, color="grey", label=PUBLISHED[published])
            axes[0].legend(fontsize=7)
    axes[0].set(xlabel="r_s (bohr)", ylabel="r_s f_xc (hartree bohr)")
    axes[1].set(xlabel="Θ")
    replace(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    return path


def _pressure(table, series, path):
    """Pressure over the classical one, n T, and the heat capacity, over Theta for each r_s."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    dim = int(table.columns["dim"][0])
    of = lambda name: table.columns[name][series.rows].astype(float)
    rs, theta, gas = of("rs_bohr"), of("theta"), series.surface.data.gas
    classical = gas.density / rs**dim * of("temperature_ha")
    for place, kept in enumerate(np.unique(rs)):
        own, colour = np.flatnonzero(rs == kept), f"C{place}"
        own = own[np.argsort(theta[own])]
        for axis, name, unit, scale in (
            (left, "p", f"ha_per_bohr{dim}", classical),
            (right, "c", "kb", np.ones(len(rs))),
        ):
            value, error = of(f"{name}_{unit}") / scale, of(f"{name}_error_{unit}") / scale
            axis.errorbar(
                theta[own],
                value[own],
                error[own],
                fmt="o-",
                markersize=4,
                linewidth=0.8,
                color=colour,
            )
        left.plot([], [], color=colour, label=f"r_s = {kept:g}")
    own = np.argsort(theta)
    left.plot(
        theta[own],
        (of(f"p_ideal_ha_per_bohr{dim}") / classical)[own],
        "k--",
        linewidth=0.8,
        label="ideal gas",
    )
    right.plot(theta[own], of("c_ideal_kb")[own], "k--", linewidth=0.8, label="ideal gas")
    left.set(xlabel="Θ", ylabel="p / n k_B T (measured)")
    right.set(xlabel="Θ", ylabel="c_V (k_B per electron, of the surface)")
    for axis in (left, right):
        _logarithmic(axis, theta)
        axis.legend(fontsize=7)
    replace(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    return path


def _logarithmic(axis, values):
    """A logarithmic axis with the values of the table as its ticks."""
    axis.set_xscale("log")
    axis.minorticks_off()
    axis.set_xticks(np.unique(values), [f"{value:g}" for value in np.unique(values)])


def _deviations(table, series, path):
    """Maps over r_s and Theta."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    of = lambda name: table.columns[name][series.rows].astype(float)
    rs, theta = of("rs_bohr"), of("theta")
    columns, rows = np.unique(rs), np.unique(theta)
    for axis, letter in zip(figure.subplots(1, 3), "esp"):
        grid = np.full((len(rows), len(columns)), np.nan)
        grid[np.searchsorted(rows, theta), np.searchsorted(columns, rs)] = of(
            f"{letter}_deviation_sigma"
        )
        picture = axis.imshow(grid, cmap="RdBu", vmin=-5, vmax=5, origin="lower", aspect="auto")
        for (row, column), value in np.ndenumerate(grid):
            if np.isfinite(value):
                axis.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8)
        axis.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
        axis.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
        axis.set(xlabel="r_s", ylabel="Θ", title=letter)
    figure.colorbar(picture, ax=figure.axes)
    replace(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    return path
