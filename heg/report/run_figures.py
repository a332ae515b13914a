"""Figures of a run, as matplotlib's Figure.

matplotlib is optional: the extra `plot` brings it, and every function here needs it.

Raises:
  ImportError: every function here, where matplotlib is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from heg.gas.plasmon import plasmon_structure
from heg.gas.system import System
from heg.observables.quantities import Quantity
from heg.observables.quasiparticles import Landau
from heg.observables.structure import total
from heg.statistics import Estimate

if TYPE_CHECKING:
    # imported where it is used, so that a run without figures needs no matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAIRS = ("up up", "up down", "down down")
SPINS = ("up", "down")
POINTS: dict[str, Any] = {"fmt": ".-", "markersize": 3, "linewidth": 0.8}  # measured, with errors


def training_curve(history: dict[str, np.ndarray], ideal: Estimate) -> Figure:
    """F and S of every step with their errors, the ideal gas beside them.

    Args:
      history: columns of history.csv.
      ideal: exact entropy of the ideal gas, k_B per electron.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    _steps(top, history, history["F_ha"], history["F_error_ha"])
    _steps(bottom, history, history["S_kb"], history["S_error_kb"])
    top.set_ylabel("F / N (hartree)")
    bottom.set_ylabel("S / N (k_B)")
    bottom.axhline(ideal.mean, color="grey", linestyle="--", label="ideal gas")
    bottom.legend()
    bottom.set_xlabel("step")
    return figure


def _steps(axis: Axes, history, mean, error) -> None:
    axis.errorbar(history["step"], mean, error, fmt=".", markersize=3, elinewidth=0.7)


def structure(quantities: dict[str, Quantity], system: System) -> Figure:
    """S(q) with the plasmon's limit, g(r) of the electrons and of bare determinants.

    Args:
      quantities: S_q on the grid q, g_r and g_bare on the grid r.
      system: the gas.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _structure_factor(left, quantities, system)
    _pair_correlation(right, quantities, system)
    for axis in (left, right):
        axis.legend(fontsize=7)
    return figure


def _structure_factor(axis: Axes, quantities, system: System) -> None:
    """S(q) of each pair of spins and of all electrons, and its limit for long waves."""
    q = quantities["q"].value
    s = quantities["S_q"]
    for pair, value, error in zip(PAIRS, s.value, s.error):
        axis.errorbar(q, value, error, label=pair, **POINTS)
    if len(s.value) > 1:
        # without an error: those of the pairs are correlated
        of_all = total(s.value)
        axis.plot(q, of_all, "k.-", markersize=3, linewidth=0.8, label="all")
    if system.coupling:
        # the plasmon exhausts the sum rules for long waves alone: not drawn beyond k_F
        small = q[q < system.fermi_wavevector]
        limit = plasmon_structure(system, small)
        axis.plot(small, limit, "k--", linewidth=0.8, label="plasmon, q → 0")
    axis.set(xlabel="q (1/bohr)", ylabel="S(q)")


def _pair_correlation(axis: Axes, quantities, system: System) -> None:
    """g(r) of each pair of spins, with that of bare determinants in the same colour."""
    r = quantities["r"].value
    g = quantities["g_r"]
    bare = quantities["g_bare"].value
    for pair, value, error, exchange in zip(PAIRS, g.value, g.error, bare):
        # the bare determinants in the colour that matplotlib has chosen
        measured = axis.errorbar(r, value, error, label=pair, **POINTS)
        axis.plot(
            r,
            exchange,
            ":",
            color=measured.lines[0].get_color(),
            linewidth=1,
            label=f"{pair}, exchange alone",
        )
    # beyond half of the cell distances are those to periodic images
    axis.axvline(system.box / 2, color="grey", linewidth=0.6)
    axis.set(
        xlabel="r (bohr); the line: half of the cell",
        ylabel="g(r)",
        xlim=(0, None),
        ylim=(0, None),
    )


def momentum(quantities: dict[str, Quantity], ideal: np.ndarray) -> Figure:
    """n(k) of each spin beside that of the ideal gas.

    Args:
      quantities: n_k on the grid k.
      ideal: n(k) of the ideal gas.  [spins, shells]
    """
    figure, axis = _one_axis()
    k = quantities["k"].value
    n = quantities["n_k"]
    for spin, (value, error) in enumerate(zip(n.value, n.error)):
        colour = f"C{spin}"
        axis.errorbar(
            k,
            value,
            error,
            fmt="o",
            markersize=3,
            color=colour,
            label=SPINS[spin],
        )
        axis.plot(
            k,
            ideal[spin],
            "--",
            linewidth=0.8,
            color=colour,
            label=f"{SPINS[spin]}, ideal gas",
        )
    axis.set(xlabel="k (1/bohr)", ylabel="n(k)")
    axis.legend(fontsize=7)
    return figure


def levels(landau: Landau) -> Figure:
    """Quasi-particle energies of Landau's fit against k^2 / 2."""
    figure, axis = _one_axis()
    for spin in np.unique(landau.spin):
        own = landau.spin == spin
        axis.plot(landau.ideal[own], landau.energy[own], "o", markersize=4, label=SPINS[spin])
    # the diagonal is drawn through a point in view
    middle = np.mean(landau.ideal)
    axis.axline(
        (middle, middle),
        slope=1,
        color="grey",
        linestyle="--",
        linewidth=0.8,
        label="ideal gas",
    )
    axis.set(xlabel="k² / 2 (hartree)", ylabel="ε (hartree)")
    axis.legend(fontsize=7)
    return figure


def second_order(result: dict) -> Figure:
    """F_2 of the doubles up to a momentum transfer, and what all parts together give.

    Args:
      result: fields of heg.observables.second_order.perturbation.SecondOrder.
    """
    figure, axis = _one_axis()
    value = 1e3 * result["by_transfer"]
    error = 1e3 * result["by_transfer_error"]
    # a transfer that no double has adds nothing
    new = np.append(False, np.diff(value) != 0)
    transfer = np.sqrt(np.arange(len(value)))
    axis.errorbar(
        transfer[new],
        value[new],
        error[new],
        fmt=".-",
        markersize=4,
        linewidth=0.8,
        label="doubles sampled",
    )
    # mHa; the doubles are the largest part, not the only one
    all_parts = 1e3 * result["value"]
    width = 1e3 * result["error"]
    axis.axhspan(all_parts - width, all_parts + width, color="C1", alpha=0.2)
    axis.axhline(all_parts, color="C1", linewidth=0.8, label="F₂ with its error")
    axis.set(xlabel="largest momentum transfer (2π / L)", ylabel="F₂ / N (mHa)")
    axis.legend(fontsize=7)
    return figure


def sample_energies(energies: np.ndarray) -> Figure:
    """Histogram of the energies of the final samples, less their control variates.

    Args:
      energies: hartree per electron.                       [samples]
    """
    figure, axis = _one_axis()
    axis.hist(energies, bins=80, log=True)  # tails are what one looks for
    axis.axvline(energies.mean(), color="black", linewidth=0.8, label="mean")
    axis.set(xlabel="E / N less control variates (hartree)", ylabel="samples")
    axis.legend(fontsize=7)
    return figure


def _one_axis() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    return figure, figure.subplots()
