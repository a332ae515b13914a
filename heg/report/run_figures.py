"""Figures of a run, as matplotlib's Figure.  matplotlib is optional: the extra `plot` brings it.

Raises:
  ImportError: every function here, where matplotlib is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from heg.gas.plasmon import plasmon_structure
from heg.gas.system import System
from heg.observables.quasiparticles import Landau
from heg.observables.structure import total
from heg.observables.thermodynamics import Quantity
from heg.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import (
        Figure,
    )  # imported where it is used, so that a run without figures needs no matplotlib


def training_curve(history: dict[str, np.ndarray], ideal: Estimate) -> Figure:
    """F and S of every step with their errors, the ideal gas beside them.

    Args:
      history: columns of history.csv.
      ideal: exact entropy of the ideal gas, k_B per electron.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    for axis, name, label in ((top, "F", "F / N (hartree)"), (bottom, "S", "S / N (k_B)")):
        unit = "ha" if name == "F" else "kb"
        mean, error = history[f"{name}_{unit}"], history[f"{name}_error_{unit}"]
        axis.errorbar(history["step"], mean, error, fmt=".", markersize=3, elinewidth=0.7)
        axis.set_ylabel(label)
    bottom.axhline(ideal.mean, color="grey", linestyle="--", label="ideal gas")
    bottom.legend()
    bottom.set_xlabel("step")
    return figure


PAIRS, SPINS = ("up up", "up down", "down down"), ("up", "down")


def structure(quantities: dict[str, Quantity], system: System) -> Figure:
    """S(q) with the plasmon's limit, g(r) of the electrons and of bare determinants."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    q, r = quantities["q"].value, quantities["r"].value
    s, g, bare = quantities["S_q"], quantities["g_r"], quantities["g_bare"]
    for place, (of_pair, error) in enumerate(zip(s.value, s.error)):
        left.errorbar(q, of_pair, error, fmt=".-", markersize=3, linewidth=0.8, label=PAIRS[place])
    if len(s.value) > 1:
        left.plot(q, total(s.value), "k.-", markersize=3, linewidth=0.8, label="all")
    if system.coupling:
        near = q < system.fermi_wavevector
        left.plot(
            q[near],
            plasmon_structure(system, q[near]),
            "k--",
            linewidth=0.8,
            label="plasmon, q → 0",
        )
    left.set(xlabel="q (1/bohr)", ylabel="S(q)")
    for place, (of_pair, error) in enumerate(zip(g.value, g.error)):
        line = right.errorbar(
            r, of_pair, error, fmt=".-", markersize=3, linewidth=0.8, label=PAIRS[place]
        )
        colour = line.lines[0].get_color()
        right.plot(
            r,
            bare.value[place],
            ":",
            color=colour,
            linewidth=1,
            label=f"{PAIRS[place]}, exchange alone",
        )
    right.axvline(system.box / 2, color="grey", linewidth=0.6)
    right.set(
        xlabel="r (bohr); the line: half of the cell", ylabel="g(r)", xlim=(0, None), ylim=(0, None)
    )
    for axis in (left, right):
        axis.legend(fontsize=7)
    return figure


def momentum(quantities: dict[str, Quantity], ideal: np.ndarray) -> Figure:
    """n(k) of each spin beside that of the ideal gas [spins, S]."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    axis = figure.subplots()
    k, n = quantities["k"].value, quantities["n_k"]
    for spin, (of_spin, error) in enumerate(zip(n.value, n.error)):
        colour, name = f"C{spin}", SPINS[spin]
        axis.errorbar(k, of_spin, error, fmt="o", markersize=3, color=colour, label=name)
        axis.plot(k, ideal[spin], "--", linewidth=0.8, color=colour, label=f"{name}, ideal gas")
    axis.set(xlabel="k (1/bohr)", ylabel="n(k)")
    axis.legend(fontsize=7)
    return figure


def levels(landau: Landau) -> Figure:
    """Quasi-particle energies of Landau's fit against k^2 / 2."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    axis = figure.subplots()
    for spin in np.unique(landau.spin):  # none where one K alone is occupied
        of_spin = landau.spin == spin
        axis.plot(
            landau.ideal[of_spin], landau.energy[of_spin], "o", markersize=4, label=SPINS[spin]
        )
    axis.axline(
        (np.mean(landau.ideal) if len(landau.ideal) else 0.0,) * 2,
        slope=1,
        color="grey",
        linestyle="--",
        linewidth=0.8,
        label="ideal gas",
    )
    axis.set(xlabel="k² / 2 (hartree)", ylabel="ε (hartree)")
    axis.legend(fontsize=7)
    return figure


def second_order(found: dict) -> Figure:
    """F_2 of the doubles up to a momentum transfer, and what all parts together give.

    Args:
      found: fields of heg.observables.second_order.perturbation.SecondOrder.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    axis = figure.subplots()
    value, error = 1e3 * found["by_transfer"], 1e3 * found["by_transfer_error"]
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
    total, width = 1e3 * found["value"], 1e3 * found["error"]
    axis.axhspan(total - width, total + width, color="C1", alpha=0.2)
    axis.axhline(total, color="C1", linewidth=0.8, label="F₂ with its error")
    axis.set(xlabel="largest momentum transfer (2π / L)", ylabel="F₂ / N (mHa)")
    axis.legend(fontsize=7)
    return figure


def local_energies(energies: np.ndarray) -> Figure:
    """Histogram of the local energies of the final samples, hartree per electron."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.8), layout="constrained")
    axis = figure.subplots()
    axis.hist(energies, bins=80, log=True)
    axis.axvline(energies.mean(), color="black", linewidth=0.8, label="mean")
    axis.set(xlabel="E_loc / N (hartree)", ylabel="samples")
    axis.legend(fontsize=7)
    return figure
