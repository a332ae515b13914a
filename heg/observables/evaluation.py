"""Evaluation of a measurement: all results from means over blocks of samples, parameters frozen.

`evaluate` collects them in a `Measurement`.  `difference` gives pressure and heat capacity a second
time, from two runs.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import numpy as np

from heg.config import Config, suggestion
from heg.display import as_html, optional_package
from heg.gas.ideal import ideal_reference, ideal_values, system_facts
from heg.gas.plane_waves import Orbitals
from heg.gas.plasma import Plasma
from heg.gas.size_correction import size_correction, uncertainty
from heg.gas.system import System
from heg.observables.programs import Drawn, Instruments, block_size
from heg.observables.quantities import QUANTITIES, Quantity, with_units
from heg.observables.quasiparticles import Landau, landau_fit, trained_levels
from heg.observables.second_order.contributions import Rows
from heg.observables.second_order.corrected import corrected, second_order_facts
from heg.observables.second_order.perturbation import second_order
from heg.observables.thermodynamics import (
    Observed,
    distributions,
    limits,
    thermodynamic_quantities,
)
from heg.parallel.devices import everywhere
from heg.reference.published import out_of_range, published
from heg.statistics import Estimate, independent, intercept
from heg.training.state import OCCUPYING, REPEATING, TrainState, stream
from heg.training.step import Solver
from heg.training.verdict import sentence_of

STATES = 20_000  # draws of p(K) to which Landau's functional is fitted
AT_ONCE = 10**8  # orbitals of all draws between two looks at whether to stop
MIN_ROWS = 10  # of the history, for a line through them
GRIDS = ("q", "r", "k")
# the grid of each distribution
GRID_OF = {
    "q": "q",
    "S_q": "q",
    "S_q_first_order": "q",
    "r": "r",
    "g_r": "r",
    "g_r_first_order": "r",
    "g_bare": "r",
    "displacement": "r",
    "k": "k",
    "k_count": "k",
    "n_k": "k",
}
SAME = 1e-6  # relative difference below which two gases have the same r_s or temperature


class Frozen(NamedTuple):
    """A run whose parameters do not change any more.

    Attributes:
      config: of the run.
      solver: built from it.
      state: of the checkpoint.
      instruments: compiled for it.
    """

    config: Config
    solver: Solver
    state: TrainState
    instruments: Instruments

    @property
    def system(self) -> System:
        """The gas."""
        return self.solver.system

    @property
    def orbitals(self) -> Orbitals:
        """The plane waves of p(K)."""
        return self.solver.cutoff.orbitals


class Measurement(NamedTuple):
    """Results of a run.

    Attributes:
      system, orbitals: the gas and the plane waves of p(K).
      quantities: by name; scalars, and arrays beside their grids q, r, k.
      second_order: F_2 and the parts of its error, hartree per electron; empty if it was left out.
      landau: the fit to p(K).
      levels: trained levels, hartree.                      [spins, M]
      facts: what observables.json holds beside them.
    """

    system: System
    orbitals: Orbitals
    quantities: dict[str, Quantity]
    second_order: dict
    landau: Landau
    levels: np.ndarray
    facts: dict[str, Any]

    def estimate(self, name: str) -> Estimate:
        """A quantity that is one number, in its unit.

        Raises:
          ValueError: there is no such quantity, or it is an array.
        """
        if name not in self.quantities:
            raise ValueError(
                f"the measurement has no {name!r}: {suggestion(name, self.quantities)}"
            )
        quantity = self.quantities[name]
        if np.ndim(quantity.value):
            size = np.size(quantity.value)
            raise ValueError(f"{name} has {size} values: take quantities[{name!r}]")
        return Estimate(float(quantity.value), float(quantity.error))

    def _repr_html_(self) -> str:
        """Every number, the verdict and a small figure, for notebooks."""
        return as_html(self)

    def to_pandas(self) -> Any:
        """The quantities that are one number as a pandas DataFrame.

        Its columns are value, error, unit and title; its index is the name.

        Raises:
          ImportError: pandas is not installed (extra `pandas`).
        """
        pandas = optional_package("pandas", "Measurement.to_pandas")
        rows = {}
        for name, quantity in self.quantities.items():
            if np.ndim(quantity.value):
                continue
            value = float(quantity.value)
            error = float(quantity.error)
            rows[name] = (value, error, quantity.unit, QUANTITIES[name].title)
        columns = ["value", "error", "unit", "title"]
        return pandas.DataFrame.from_dict(rows, orient="index", columns=columns)

    def to_xarray(self) -> Any:
        """All quantities as an xarray Dataset, each with its unit and, as <name>_error, its error.

        Dimensions are q, r and k, whose lengths are coordinates; pair (up up, up down, down down)
        and spin (up, down).

        Raises:
          ImportError: xarray is not installed (extra `xarray`).
        """
        xarray = optional_package("xarray", "Measurement.to_xarray")
        variables = {}
        coordinates = {}
        for name, quantity in self.quantities.items():
            dims = _dims(name, np.shape(quantity.value))
            # the names of the CF conventions, by which xarray labels its plots
            notes = {"units": quantity.unit, "long_name": QUANTITIES[name].title}
            if name in GRIDS:
                coordinates[name] = (dims, quantity.value, notes)
                continue
            variables[name] = (dims, quantity.value, notes)
            variables[f"{name}_error"] = (dims, quantity.error, notes)
        return xarray.Dataset(variables, coordinates, self.facts["system"])

    def __repr__(self) -> str:
        """One line: the gas, samples, F and the verdict on the run."""
        system = self.system
        point = ", ".join(f"{name} {value:g}" for name, value in system.point.items())
        gas = f"{system.label}, {system.dim}D, {point}"
        samples = self.facts["samples"]
        verdict = sentence_of(self.facts)
        result = f"{samples} samples, F {self.estimate('F')} Ha. {verdict}"
        return f"<Measurement of {gas}: {result.rstrip()}>"


def _dims(name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the axes of a quantity."""
    if not shape:
        return ()
    grid = GRID_OF.get(name)
    if grid is None:  # one number for each spin
        return ("spin",)
    if len(shape) == 1:
        return (grid,)
    return ("spin" if grid == "k" else "pair", grid)


def draw_states(frozen: Frozen, stop: Callable[[], bool]) -> Drawn | None:
    """STATES draws of the p(K) of a run, always the same; None if stopped."""
    params = frozen.state.average
    key = stream(frozen.state, OCCUPYING)
    keys = jax.random.split(key, STATES)
    size = _draws_at_once(len(frozen.orbitals.energy))
    states = []
    log_p = []
    for start in range(0, STATES, size):
        if stop():
            return None
        drawn = frozen.instruments.occupy(params, keys[start : start + size])
        states.append(np.asarray(drawn.states))
        log_p.append(np.asarray(drawn.log_p))
    return Drawn(np.concatenate(states), np.concatenate(log_p))


def _draws_at_once(orbitals):
    """Draws of K between two looks at whether to stop: a divisor of STATES, about AT_ONCE orbitals.

    All parts are of one size, so that one program serves for them.
    """
    needed = -(-STATES * orbitals // AT_ONCE)  # rounded up
    parts = min(max(1, needed), STATES)
    while STATES % parts:
        parts += 1
    return STATES // parts


def evaluate(
    frozen: Frozen,
    blocks: Observed,
    history: list[dict[str, str]],
    drawn: Drawn,
    beyond: Rows | None,
    stop: Callable[[], bool],
) -> Measurement | None:
    """All results of a measurement, and the quality of the run; None if stopped.

    Called by all processes.

    Args:
      frozen: the run.
      blocks: means over blocks of samples.
      history: rows of the training's history.
      drawn: of `draw_states`.
      beyond: of the second order; None leaves it out.
      stop: gives the same answer to all processes.
    """
    system = frozen.system
    orbitals = frozen.orbitals
    grid = frozen.instruments.grid
    # what needs the blocks alone
    quantities = thermodynamic_quantities(system, blocks)
    quantities |= distributions(system, orbitals, grid, blocks)
    quantities |= limits(system, grid, blocks)
    quantities |= against_ideal(system, quantities)
    if stop():  # before what takes time again
        return None
    landau = landau_fit(system, orbitals, drawn.states, drawn.log_p)
    quantities |= _quality(frozen, drawn, history)
    second: dict[str, Any] = {}
    if beyond is not None:
        result = second_order(
            system,
            rows=beyond.rows,
            known=beyond.known,
            beyond=beyond.beyond,
            relaxed=beyond.relaxation,
            third=beyond.third,
        )
        second = result._asdict()
        quantities |= corrected(
            system,
            grid,
            quantities,
            result,
            rows=beyond.rows,
            relaxed=beyond.relaxation,
        )
    return Measurement(
        system=system,
        orbitals=orbitals,
        quantities=quantities,
        second_order=second,
        landau=landau,
        levels=trained_levels(system, orbitals, frozen.state.average.occupations),
        facts=_facts(frozen, blocks, quantities, second_order_facts(second, beyond)),
    )


def against_ideal(system: System, quantities: dict[str, Quantity]) -> dict[str, Quantity]:
    """Free energy and entropy beside those of the ideal gas of the same cell.

    They are f_xc, and the ratio of the entropies: m*/m at low temperature.

    Args:
      system: the gas.
      quantities: its "F" and "S".
    """
    ideal = ideal_reference(system)
    free_energy = quantities["F"]
    # the ideal values are exact: the error stays
    against = {"f_xc": free_energy._replace(value=free_energy.value - ideal["F"].mean)}
    ideal_entropy = ideal["S"].mean
    # without ratio where the cell is in its ground state to all digits
    if ideal_entropy > 0:
        entropy = quantities["S"]
        ratio = Estimate(
            mean=float(entropy.value) / ideal_entropy,
            error=float(entropy.error) / ideal_entropy,
        )
        against |= with_units({"entropy_ratio": ratio}, system.dim)
    return against


def _quality(frozen, drawn, history):
    """Variances of the local energies, and F at zero variance where the history is long enough.

    Both variances vanish for the exact density matrix.
    """
    results = _variances(frozen, drawn.states)
    extrapolated = zero_variance(history)
    if extrapolated is not None:
        results["F_at_zero_variance"] = extrapolated
    return with_units(results, frozen.system.dim)


def _variances(frozen, states):
    """Variance of E_loc within K and of F_loc over K, from two independent x at each K."""
    params = frozen.state.average
    batch = frozen.config.sampler.batch
    # the states again from the start where the batch is larger
    chosen = everywhere(states[np.arange(batch) % STATES])
    f_loc = []
    for key in jax.random.split(stream(frozen.state, REPEATING)):
        samples = frozen.solver.measure_at(params, chosen, key)
        energy = np.asarray(samples.energy.total).real
        f_loc.append(frozen.system.temperature * np.asarray(samples.log_p) + energy)
    first, second = f_loc
    # half of the square of a difference has the mean of the variance
    within = (first - second) ** 2 / 2
    # the noise of the two is independent: the mean of the product is the variance over K
    over = (first - first.mean()) * (second - second.mean())
    return {
        "E_variance_within_K": independent(within),
        "F_variance_over_K": independent(over),
    }


def _facts(frozen, blocks, quantities, beyond):
    """Entries of observables.json beside the quantities themselves."""
    system = frozen.system
    infinite = infinite_gas(system, quantities)
    return {
        "units": {name: quantity.unit for name, quantity in quantities.items()},
        "system": system_facts(system, frozen.solver.cutoff),
        "ideal": ideal_values(system),
        "infinite_gas": infinite,
        "outside_of_fits": _outside_of_fits(system, infinite),
        "second_order": beyond,
        "step": int(frozen.state.step),
        "samples": len(blocks.energies["F"]) * block_size(frozen.config.sampler.batch),
        "version": metadata.version("heg"),
    }


def zero_variance(history: Sequence[Mapping[str, str | float]]) -> Estimate | None:
    """F per electron extrapolated linearly to zero variance of E_loc over the last half of a run.

    It is a hint of what is missing, and no bound.  At finite temperature the variance of E_loc over
    K does not vanish for the exact density matrix.

    Args:
      history: rows of history.csv.
    Returns:
      The estimate, hartree; None if the run is too short.
    """
    rows = history[len(history) // 2 :]
    if len(rows) < MIN_ROWS:
        return None

    def column(name):
        return np.array([float(row[name]) for row in rows])

    free_energy = QUANTITIES["F"]
    line, spread = intercept(
        column("E_variance_cell_ha2"),
        column(free_energy.column),
        column(free_energy.error_column),
    )
    # what the fit leaves beyond the errors of the points counts as error too
    return Estimate(line.mean, line.error * max(spread, 1.0) ** 0.5)


def difference(one: dict, other: dict) -> dict[str, Estimate]:
    """Pressure or heat capacity from two runs that differ in volume or in temperature alone.

    Args:
      one, other: summary.json or observables.json of each.
    Returns:
      Of two runs of other r_s and the same temperature in hartree: "pressure" (hartree / bohr^d) at
      the mean volume.  Of other temperatures: "heat_capacity" from dE / dT and
      "heat_capacity_of_entropy" from T dS / dT (k_B per electron) at the mean temperature.  All are
      right to second order in the difference.
    Raises:
      ValueError: they differ in anything else, or in nothing.
      KeyError, TypeError: one is no such file.
    """
    gas = one["system"]
    other_gas = other["system"]
    for name in ("n_up", "n_down", "dim", "twist", "coupling"):
        if gas[name] != other_gas[name]:
            raise ValueError(
                f"the runs differ in {name}: give two that differ in r_s or in temperature alone"
            )
    temperatures = gas["temperature_ha"], other_gas["temperature_ha"]
    same_rs = bool(np.isclose(gas["rs_bohr"], other_gas["rs_bohr"], rtol=SAME))
    same_temperature = bool(np.isclose(*temperatures, rtol=SAME))
    # one of the two must differ, and one must not
    if same_rs == same_temperature:
        raise ValueError(
            "the runs must differ either in r_s, at the same temperature in hartree, "
            "or in temperature"
        )
    # P = -dF / dL^d, F of the cell
    if same_temperature:
        dim = gas["dim"]
        electrons = gas["n_up"] + gas["n_down"]
        volumes = gas["box_bohr"] ** dim, other_gas["box_bohr"] ** dim
        return {"pressure": _slope("F", one, other, volumes, -electrons)}
    # C = dE / dT = T dS / dT
    mean_temperature = float(np.mean(temperatures))
    return {
        "heat_capacity": _slope("E", one, other, temperatures, 1.0),
        "heat_capacity_of_entropy": _slope("S", one, other, temperatures, mean_temperature),
    }


def _slope(name, one, other, ends, factor):
    """`factor` times the change of a quantity between two runs over that of its variable."""
    first = _estimate_of(one, name)
    last = _estimate_of(other, name)
    scale = factor / (ends[1] - ends[0])
    change = last.mean - first.mean
    # the runs are independent
    error = np.hypot(first.error, last.error)
    return Estimate(float(scale * change), float(abs(scale) * error))


def _estimate_of(summary, name):
    # a number, or a list of one
    mean = np.ravel(summary[name]["mean"])
    error = np.ravel(summary[name]["error"])
    return Estimate(mean[0], error[0])


@ideal_values.register
def _(system: Plasma) -> dict[str, float]:
    """Zero: all values are those beyond the classical ideal gas."""
    names = (*ideal_reference(system), "pressure", "heat_capacity")
    return dict.fromkeys(names, 0.0)


def infinite_gas(system: System, quantities: dict[str, Quantity]) -> dict[str, Any]:
    """Corrections from the cell to the infinite gas, f_xc with them, and published f_xc, hartree.

    Published values of the ground state (AMGB) stand for the gas at any temperature.

    Args:
      system: the cell.
      quantities: its "f_xc" and, where it is known, its "f_xc_second_order".
    """
    correction = size_correction(system)
    error = uncertainty(system)
    facts: dict[str, Any] = {
        "exchange_correction_ha": correction.exchange,
        "potential_correction_ha": correction.potential,
        "kinetic_correction_ha": correction.kinetic,
        "f_xc_correction_ha": {"mean": correction.free_energy, "error": error},
    }
    labels = {"f_xc": "f_xc_of_the_bound_ha", "f_xc_second_order": "f_xc_second_order_ha"}
    for name, label in labels.items():
        if name in quantities:
            cell = quantities[name]
            facts[label] = {
                "mean": float(cell.value) + correction.free_energy,
                "error": float(np.hypot(cell.error, error)),
            }
    for name, value in published(system).items():
        facts[f"f_xc_{name}_ha"] = value
    return facts


def _outside_of_fits(system, infinite):
    """A sentence for each published f_xc shown whose fit does not reach this gas."""
    sentences = out_of_range(system.dim, system.rs, system.theta)
    return [sentence for name, sentence in sentences.items() if f"f_xc_{name}_ha" in infinite]
