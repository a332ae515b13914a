"""What a density matrix with frozen parameters says of the gas: all results from means over blocks
of samples."""

from collections.abc import Callable
from importlib import metadata
from typing import NamedTuple

import jax
import numpy as np

from heg.config import Config, suggestion
from heg.gas.ideal import choose_cutoff, heat_capacity, ideal_reference, system_facts
from heg.gas.plane_waves import Orbitals
from heg.gas.size_correction import size_correction, uncertainty
from heg.gas.system import System
from heg.observables.programs import Instruments, block_size
from heg.observables.quasiparticles import Landau, landau_fit, trained_levels
from heg.observables.second_order.contributions import Rows
from heg.observables.second_order.corrected import corrected, number, second_order_facts
from heg.observables.second_order.perturbation import second_order
from heg.observables.thermodynamics import (
    Observed,
    Quantity,
    distributions,
    limits,
    pressure,
    thermodynamics,
)
from heg.reference.published import out_of_range, published
from heg.statistics import Estimate, independent, intercept
from heg.training.state import OCCUPYING, REPEATING, TrainState, stream
from heg.training.step import Solver
from heg.training.verdict import sentence_of

STATES = 20_000  # draws of p(K) to which Landau's functional is fitted
AT_ONCE = 10**8  # orbitals of all draws between two looks at whether to stop


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


class Measurement(NamedTuple):
    """What is known of a run.

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
    facts: dict

    def estimate(self, name: str) -> Estimate:
        """A quantity that is one number, in its unit.

        Raises:
          ValueError: there is no such quantity, or it is an array.
        """
        if name not in self.quantities:
            raise ValueError(
                f"the measurement has no {name!r}: {suggestion(name, self.quantities)}"
            )
        value, error = self.quantities[name][:2]
        if np.ndim(value):
            raise ValueError(f"{name} has {np.size(value)} values: take quantities[{name!r}]")
        return Estimate(float(value), float(error))

    def __repr__(self) -> str:
        """A line: the gas, samples, F and the verdict on the run."""
        gas = f"{self.system.label}, {self.system.dim}D, r_s {self.system.rs:g}, Theta {self.system.theta:g}"
        found = f"{self.facts['samples']} samples, F {self.estimate('F')} Ha. {sentence_of(self.facts)}".rstrip()
        return f"<Measurement of {gas}: {found}>"


class Drawn(NamedTuple):
    """Draws of p(K).

    Attributes:
      states: occupied orbitals.                            [STATES, N]
      log_p: ln p(K).                                       [STATES]
    """

    states: np.ndarray
    log_p: np.ndarray


def draw_states(frozen: Frozen, stop: Callable[[], bool]) -> Drawn | None:
    """STATES draws of the p(K) of a run, always the same; None if stopped."""
    orbitals = frozen.solver.cutoff.orbitals
    keys = jax.random.split(stream(frozen.state, OCCUPYING), STATES)
    wanted = max(1, -(-STATES * len(orbitals.energy) // AT_ONCE))
    # parts of equal size, for which one program serves
    parts = next(count for count in range(wanted, STATES + 1) if STATES % count == 0)
    drawn = []
    for part in range(parts):
        if stop():
            return None
        some = slice(part * STATES // parts, (part + 1) * STATES // parts)
        drawn.append(
            jax.tree.map(np.asarray, frozen.instruments.occupy(frozen.state.average, keys[some]))
        )
    return Drawn(*map(np.concatenate, zip(*drawn)))


def evaluate(
    frozen: Frozen,
    blocks: Observed,
    history: list[dict[str, str]],
    drawn: Drawn,
    beyond: Rows | None,
    stop: Callable[[], bool],
) -> Measurement | None:
    """All results from means over blocks of samples, and the quality of the run; None if stopped.

    Called by all processes.

    Args:
      frozen: the run.
      blocks: means over blocks of samples.
      history: of the training.
      drawn: of `draw_states`.
      beyond: of the second order; none: it is left out.
      stop: says the same to all.
    """
    system, orbitals = frozen.system, frozen.solver.cutoff.orbitals
    quantities = thermodynamics(system, blocks) | distributions(
        system, orbitals, frozen.instruments.grid, blocks
    )
    quantities |= limits(system, frozen.instruments.grid, blocks) | _against_ideal(
        system, quantities
    )
    if stop():
        return None
    landau, within, over = _of_states(frozen, drawn)
    quantities |= {
        "E_variance_within_K": number(within, "hartree^2 per cell"),
        "F_variance_over_K": number(over, "hartree^2 per cell"),
    }
    if extrapolated := zero_variance(history):
        quantities["F_at_zero_variance"] = number(extrapolated, "hartree per electron")
    second = {}
    if beyond is not None:
        found = second_order(system, beyond.rows, beyond.known, beyond.beyond, beyond.relaxation)
        second = found._asdict()
        quantities |= corrected(system, frozen.instruments.grid, quantities, found, beyond.rows)
    levels = trained_levels(system, orbitals, frozen.state.average.occupations)
    facts = {
        "units": {name: quantity.unit for name, quantity in quantities.items()},
        "system": system_facts(system, frozen.solver.cutoff),
        "ideal": ideal_values(system),
        "infinite_gas": (infinite := infinite_gas(system, quantities)),
        "outside_of_fits": [
            sentence
            for name, sentence in out_of_range(system.dim, system.rs, system.theta).items()
            if f"f_xc_{name}_ha" in infinite
        ],
        "second_order": second_order_facts(second, beyond),
        "step": int(frozen.state.step),
        "samples": len(blocks.energies["F"]) * block_size(frozen.config.sampler.batch),
        "version": metadata.version("heg"),
    }
    return Measurement(system, orbitals, quantities, second, landau, levels, facts)


def zero_variance(history: list[dict[str, str]]) -> Estimate | None:
    """F per electron extrapolated linearly to zero variance of E_loc over the last half of a run;
    None if too short.

    F is bounded from below by its exact value, the extrapolation is not: at finite temperature the
      variance of E_loc
    over K does not vanish for the exact density matrix, so that the number is a hint of what is
    missing, no result.
    """
    rows = history[len(history) // 2 :]
    if len(rows) < 10:
        return None
    of = lambda name: np.array([float(row[name]) for row in rows])
    found, spread = intercept(of("E_variance_cell_ha2"), of("F_ha"), of("F_error_ha"))
    # what the fit leaves beyond the errors of the points counts as error too
    return Estimate(found.mean, found.error * max(spread, 1.0) ** 0.5)


def difference(one: dict, other: dict) -> dict[str, Estimate]:
    """P from two runs that differ in r_s alone (same temperature in hartree), or C from two that
    differ in temperature.

    Args:
      one, other: summary.json or observables.json of each.
    Returns:
      "pressure" (hartree / bohr^d) at the mean volume, or "heat_capacity" of dE / dT and
      "heat_capacity_of_entropy" of T dS / dT (k_B per electron) at the mean temperature; both to
      second order in the difference.
    Raises:
      ValueError: they differ in anything else, or in nothing.
      KeyError, TypeError: one is no such file.
    """
    gases = one["system"], other["system"]
    for name in ("n_up", "n_down", "dim", "twist", "coupling"):
        if gases[0][name] != gases[1][name]:
            raise ValueError(
                f"the runs differ in {name}: give two that differ in r_s or in temperature alone"
            )
    rs, temperature = (
        np.array([gas[name] for gas in gases]) for name in ("rs_bohr", "temperature_ha")
    )
    same_rs, same_temperature = (bool(np.isclose(*pair, rtol=1e-6)) for pair in (rs, temperature))
    if same_rs == same_temperature:
        raise ValueError(
            "the runs must differ either in r_s, at the same temperature in hartree, or in temperature"
        )
    electrons, dim = gases[0]["n_up"] + gases[0]["n_down"], gases[0]["dim"]

    def slope(name, at, factor):
        ends = [
            Estimate(np.ravel(part[name]["mean"])[0], np.ravel(part[name]["error"])[0])
            for part in (one, other)
        ]
        factor /= at[1] - at[0]
        return Estimate(
            float(factor * (ends[1].mean - ends[0].mean)),
            float(abs(factor) * np.hypot(*(e.error for e in ends))),
        )

    if same_temperature:
        return {
            "pressure": slope("F", np.array([gas["box_bohr"] ** dim for gas in gases]), -electrons)
        }
    return {
        "heat_capacity": slope("E", temperature, 1.0),
        "heat_capacity_of_entropy": slope("S", temperature, temperature.mean()),
    }


def _of_states(frozen, drawn):
    """Landau's fit to p(K), the variance of E_loc within K, and that of F_loc over K."""
    system, params, of = frozen.system, frozen.state.average, frozen.instruments
    landau = landau_fit(system, frozen.solver.cutoff.orbitals, drawn.states, drawn.log_p)
    batch = frozen.config.sampler.batch
    keys = jax.random.split(stream(frozen.state, REPEATING), (2, batch))
    first, second = np.asarray(of.twice(params, drawn.states[np.arange(batch) % STATES], keys))
    product = (first - first.mean()) * (
        second - second.mean()
    )  # of independent noise: the variance of its mean in K
    return landau, independent((first - second) ** 2 / 2), independent(product)


def _against_ideal(system, found):
    """f_xc, and the entropy over that of the ideal gas: at low temperature m*/m."""
    exact = ideal_reference(system)
    free_energy, entropy, ideal = found["F"], found["S"], exact["S"].mean
    against = {"f_xc": free_energy._replace(value=free_energy.value - exact["F"].mean)}
    if ideal > 0:  # none where the cell is in its ground state to all digits
        against["entropy_ratio"] = Quantity(
            entropy.value / ideal, entropy.error / ideal, None, "none"
        )
    return against


def ideal_values(system: System) -> dict[str, float]:
    """Exact values of the ideal gas of the same N, polarisation and twist, in the units of the
    results."""
    exact = {name: float(estimate.mean) for name, estimate in ideal_reference(system).items()}
    levels = choose_cutoff(system, 1e-12).orbitals.energy
    return exact | {
        "pressure": float(pressure(system, exact["kinetic"], 0.0)),
        "heat_capacity": heat_capacity(levels, system.beta, system.spins) / system.electrons,
    }


def infinite_gas(system: System, found: dict[str, Quantity]) -> dict:
    """What the infinite gas has and the cell has not, f_xc with it, and published ones (AMGB: the
    ground state's).

    Args:
      system: the cell.
      found: its "f_xc" and, where it is known, its "f_xc_second_order".
    """
    correction = size_correction(system)
    error = uncertainty(system)
    facts = {
        "exchange_correction_ha": correction.exchange,
        "potential_correction_ha": correction.potential,
        "kinetic_correction_ha": correction.kinetic,
        "f_xc_correction_ha": {"mean": correction.free_energy, "error": error},
    }
    for name, label in (
        ("f_xc", "f_xc_of_the_bound_ha"),
        ("f_xc_second_order", "f_xc_second_order_ha"),
    ):
        if name in found:
            cell = found[name]
            mean = float(cell.value) + correction.free_energy
            facts[label] = {"mean": mean, "error": float(np.hypot(cell.error, error))}
    return facts | {f"f_xc_{name}_ha": value for name, value in published(system).items()}
