"""What a table is expected to take before it begins: orbitals, memory, and a rough time."""

import dataclasses
from typing import NamedTuple

from heg.config import Config
from heg.eos.grid import FINAL_SAMPLES, MIN_STEPS, TableConfig, points, run_config
from heg.training.cost import START, cost
from heg.training.step import Solver, build


class RowForecast(NamedTuple):
    """What the points of one cell, Theta and twist are expected to take.

    Attributes:
      electrons, polarization, theta, twist: of the gas.
      points: number of r_s.
      orbitals: that p(K) keeps.
      memory_mib: of the largest arrays of a training step.
      seconds_least: with the fewest steps and samples that the survey may end with.
      seconds_most: with as many as the limits allow.
    """

    electrons: int
    polarization: str
    theta: float
    twist: tuple[float, ...]
    points: int
    orbitals: int
    memory_mib: float
    seconds_least: float
    seconds_most: float


def forecast(table: TableConfig, rate: float) -> list[RowForecast]:
    """Expected cost of each row of r_s of a grid, every point from nothing.

    Args:
      table: settings of the table.
      rate: of large matrix products (heg.training.cost.product_rate), operations per second.

    Raises:
      ValueError: a gas is impossible; the message names the field.

    Accuracy: memory as in heg.training.cost.  The true time lies between the two only roughly: the
      second order, the surfaces and the figures come on top, and the speed of a machine is known
      within a factor of three or so.
    """
    rows: dict[tuple, list] = {}
    for point in points(table.grid):
        gas = point.system
        key = (gas.electrons, gas.polarization, gas.theta, gas.twist)
        rows.setdefault(key, []).append(point)
    forecasts = []
    compiled = set()
    for of_row in rows.values():
        gas = of_row[0].system
        # r_s changes neither the operations nor what is compiled
        config = run_config(table, of_row[0], run_dir="unused", start=None)
        solver = build(config)
        count = len(of_row)
        orbitals = len(solver.cutoff.orbitals.energy)
        # a row with the plane waves of one before it takes its programs
        programs = (solver.system.shape, orbitals)
        start = 0.0 if programs in compiled else START
        compiled.add(programs)
        least, most = (
            start + count * _seconds_of_point(solver, config, rate, steps, samples)
            for steps, samples in (
                (MIN_STEPS, 2 * FINAL_SAMPLES),
                (table.grid.steps, table.grid.samples),
            )
        )
        forecasts.append(
            RowForecast(
                electrons=solver.system.electrons,
                polarization=gas.polarization,
                theta=solver.system.theta,
                twist=gas.twist,
                points=count,
                orbitals=orbitals,
                memory_mib=cost(solver, config, rate)["memory_mib"],
                seconds_least=least,
                seconds_most=most,
            )
        )
    return forecasts


def _seconds_of_point(
    solver: Solver, config: Config, rate: float, steps: int, samples: int
) -> float:
    """Time of the steps and samples of a point; compilation is left out."""
    # the cost of a run counts its samples twice, those of the measurement come but once
    counted = FINAL_SAMPLES + samples // 2
    run = dataclasses.replace(config.run, steps=steps, samples=counted)
    whole = cost(solver, dataclasses.replace(config, run=run), rate)
    return whole["seconds"] - START
