r"""The exact canonical ideal Fermi gas.

With Z_r(m) the partition function of r fermions in the orbitals m, m+1, ..., M-1,

.. math:: Z_r(m) = Z_r(m+1) + e^{-\beta\epsilon_m} Z_{r-1}(m+1),

one scan over the orbitals gives every Z_r(m); F = -T ln Z_N(0), and the occupation numbers are its
derivatives.  Let the last electron have taken orbital l, with r electrons left to place.  The next
one takes orbital m with probability e^{-beta eps_m} Z_{r-1}(m+1) / Z_r(l+1): the start of
heg.model.occupations.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from heg.gas.plane_waves import Orbitals, lowest_plane_waves, plane_waves, shell_ends
from heg.gas.system import System
from heg.statistics import Estimate

LOG_ZERO = -1e30  # stands for ln 0: -inf would make gradients NaN
MAX_CANDIDATES = 4 * 10**6  # plane waves to choose from
TAIL = 60.0  # levels above the Fermi level by more than TAIL * T weigh e^-60: no double sees them
NEVER = 1e6  # beta * energy of a level that is never occupied: e^-NEVER is 0 in a double
FEWEST_LEVELS = 256  # levels of the shortest table; with a shorter one nothing would be saved
EXACT_TOLERANCE = 1e-12  # missing probability below which the ideal gas counts as complete
WINDOW = 20.0  # levels within WINDOW * T settle the ratio Z_{N-1} / Z_N from above


class IdealGas(NamedTuple):
    """Exact thermodynamics of the ideal gas, per cell.

    Attributes:
      free_energy, energy: hartree.
      entropy: k_B.
    """

    free_energy: float
    energy: float
    entropy: float


class Cutoff(NamedTuple):
    """The orbitals kept and what they miss.

    Attributes:
      orbitals: the plane waves kept, whole shells.
      missing: upper bound of the ideal gas's probability of occupying any other.
    """

    orbitals: Orbitals
    missing: float


@functools.partial(jax.jit, static_argnums=1)
def log_partition_table(
    levels: Float[Array, " orbitals"], electrons: int
) -> Float[Array, "orbitals+1 counts"]:
    """ln Z_r(m) for every m and r.

    Args:
      levels: beta * energy of the orbitals.
      electrons: the largest r.
    Returns:
      Table by m and r; LOG_ZERO where Z = 0.
    Accuracy: rounding, about 1e-16 M relative.
    """
    # without orbitals Z_0 = 1 and all other Z_r = 0
    count = jnp.arange(electrons + 1)
    vacuum = jnp.where(count == 0, 0.0, LOG_ZERO)

    def add_orbital(row, level):
        # Z_r(m) = Z_r(m+1) + e^{-level} Z_{r-1}(m+1): the orbital is empty or occupied
        impossible = jnp.array([LOG_ZERO])
        occupied = jnp.concatenate([impossible, row[:-1] - level])
        either = jnp.logaddexp(row, occupied)
        # two zeros may not add up to less than zero
        row = jnp.maximum(either, LOG_ZERO)
        return row, row

    # row m holds Z_0(m) ... Z_N(m), from the last orbital down
    _, rows = lax.scan(add_orbital, vacuum, levels, reverse=True)
    return jnp.concatenate([rows, vacuum[None]])


@functools.partial(jax.jit, static_argnums=1)
def log_partition(levels: Float[Array, " orbitals"], electrons: int) -> Float[Array, ""]:
    """ln Z of `electrons` spinless fermions; `levels` are beta * energy."""
    return log_partition_table(levels, electrons)[0, electrons]


def occupation_numbers(
    levels: Float[Array | np.ndarray, " orbitals"], electrons: int
) -> Float[Array, " orbitals"]:
    """Mean occupation of each orbital, -d ln Z / d(beta eps); `levels` are beta * energy."""
    return _log_z_and_occupation(levels, electrons).occupation


class _LogZAndOccupation(NamedTuple):
    """ln Z [] and the mean occupation of each orbital [M]."""

    log_z: jax.Array
    occupation: jax.Array


# one program for both: the second needs the first
@functools.partial(jax.jit, static_argnums=1)
def _log_z_and_occupation(levels, electrons):
    log_z, slope = jax.value_and_grad(log_partition)(levels, electrons)
    return _LogZAndOccupation(log_z, -slope)


def thermodynamics(
    energy: Float[Array | np.ndarray, " orbitals"], beta: float, spins: tuple[int, ...]
) -> IdealGas:
    """F, E and S of the ideal gas with the given levels, the spins independent of each other.

    Args:
      energy: levels, hartree.
      beta: 1/hartree.
      spins: electrons of each spin.
    Returns:
      Totals of the cell.
    Raises:
      ValueError: fewer orbitals than electrons of one spin.
    Accuracy: 1e-10 relative (tests/gas/test_ideal.py, against 700-digit arithmetic).
    """
    most = max(spins)
    # Pauli: each orbital takes one electron of a spin
    if most > len(energy):
        raise ValueError(
            f"{most} electrons of one spin do not fit in {len(energy)} orbitals: raise the cutoff"
        )
    energy = np.asarray(energy)
    # the padding is never occupied, so that it changes nothing
    levels = jnp.asarray(padded(beta * energy))
    log_z = 0.0
    mean_energy = 0.0
    for count in spins:
        # independent spins: the partition functions multiply, the energies add
        result = _log_z_and_occupation(levels, count)
        log_z += float(result.log_z)
        occupation = np.asarray(result.occupation)[: len(energy)]
        mean_energy += occupation @ energy
    free_energy = -log_z / beta
    entropy = beta * (mean_energy - free_energy)
    return IdealGas(
        free_energy=float(free_energy),
        energy=float(mean_energy),
        entropy=float(entropy),
    )


def heat_capacity(
    energy: Float[Array | np.ndarray, " orbitals"], beta: float, spins: tuple[int, ...]
) -> float:
    """C = beta^2 d^2 ln Z / d beta^2 at fixed volume, k_B per cell.

    The arguments are those of `thermodynamics`.
    """

    curvature = _log_z_curvature(np.asarray(energy), float(beta), spins)
    return float(beta**2 * curvature)


@functools.partial(jax.jit, static_argnums=2)
def _log_z_curvature(energy, beta, spins):
    """d^2 ln Z / d beta^2."""

    def log_z(beta):
        return sum(log_partition(beta * energy, count) for count in spins)

    return jax.grad(jax.grad(log_z))(beta)


@functools.singledispatch
@functools.lru_cache(maxsize=4)
def choose_cutoff(system: System, tolerance: float, fewest: int = 1) -> Cutoff:
    r"""The fewest shells that miss less than `tolerance` of the ideal gas's probability.

    The probability that orbital k is occupied is at most e^{-beta eps_k} Z_{N-1}/Z_N, so the
    probability of occupying any orbital left out is at most a q, with a = Z_{N-1}/Z_N and q the sum
    of e^{-beta eps} over them.  The ratio a falls as orbitals are added (Z_r is log-concave in r:
    Newton's inequalities for elementary symmetric polynomials), so that a window of the lowest
    orbitals gives it from above.  With the missing probability m, the free energy is too high by
    -T ln(1 - m).

    Args:
      system: the gas.
      tolerance: bound on the missing probability, summed over spins.
      fewest: plane waves that are kept in any case.
    Returns:
      Orbitals and the bound reached.
    Raises:
      ValueError: it takes more plane waves than can be handled.
    """
    highest = _filled_level(system)
    refuse_too_many(system)
    candidates = plane_waves(system, highest + TAIL * system.temperature)
    if len(candidates.energy) < fewest:
        last = lowest_plane_waves(system, fewest).energy[-1]
        candidates = plane_waves(system, last)
    energy = candidates.energy
    end_of_window = highest + WINDOW * system.temperature
    window = int(np.searchsorted(energy, end_of_window))
    missing = _missing_probability(system, energy, window)
    ends = shell_ends(energy)
    # the fewest whole shells that hold the electrons and reach the tolerance
    ends = ends[ends >= max(fewest, *system.spins)]
    enough = ends[missing[ends] < tolerance]
    count = int(enough[0]) if len(enough) else int(ends[-1])
    return Cutoff(
        orbitals=candidates.first(count),
        missing=float(missing[count]),
    )


def _missing_probability(system, energy, window):
    """The bound a q, summed over spins, of keeping the lowest 0 ... M orbitals.  [M + 1]

    Args:
      system: the gas.
      energy: of all orbitals that matter, hartree.          [M]
      window: how many of the lowest give the ratio a.
    """
    levels = system.beta * energy
    # ln q, from each orbital on, and from none
    from_the_last = np.logaddexp.accumulate(-levels[::-1])
    log_tail = np.append(from_the_last[::-1], -np.inf)
    missing = 0.0
    for count in system.spins:
        lowest = levels[: max(window, count + 1)]
        log_bound = _log_ratio(lowest, count) + log_tail
        # no probability is above one
        missing = missing + np.exp(np.minimum(log_bound, 0.0))
    return missing


def _log_ratio(levels, electrons):
    """ln (Z_{N-1} / Z_N) for the given levels (beta * energy)."""
    table = np.asarray(log_partition_table(padded(levels), electrons))
    all_orbitals = table[0]
    return float(all_orbitals[electrons - 1] - all_orbitals[electrons])


def padded(levels: Float[Array | np.ndarray, " orbitals"]) -> Float[np.ndarray, " padded"]:
    """The levels with some that are never occupied, up to a power of two, FEWEST_LEVELS at least.

    So few lengths occur, and few programs are compiled.
    """
    levels = np.asarray(levels)
    power_of_two = 1 << (len(levels) - 1).bit_length()
    more = max(FEWEST_LEVELS, power_of_two) - len(levels)
    return np.pad(levels, (0, more), constant_values=NEVER)


def refuse_too_many(system: System) -> None:
    """Refuse a gas of more plane waves than can be handled, before they are made.

    Raises:
      ValueError: it needs more than MAX_CANDIDATES.
    """
    cutoff = _filled_level(system) + TAIL * system.temperature
    highest_k = np.sqrt(2 * cutoff)
    # the vectors n fill a circle or a sphere
    radius = highest_k * system.box / (2 * np.pi)
    if system.dim == 2:
        count = np.pi * radius**2
    else:
        count = 4 / 3 * np.pi * radius**3
    if count > MAX_CANDIDATES:
        raise ValueError(
            f"theta is {system.theta}: that takes {count:.1g} plane waves, "
            f"{MAX_CANDIDATES:.0e} is the most; lower it"
        )


def _filled_level(system):
    """Energy of the first orbital that is empty at T = 0, hartree."""
    filled = max(system.spins)
    return lowest_plane_waves(system, filled + 1).energy[-1]


@functools.singledispatch
@functools.lru_cache(maxsize=16)
def ideal_reference(system: System) -> dict[str, Estimate]:
    """Exact F, E, kinetic, potential (hartree) and S (k_B) of the ideal gas, per electron.

    Accuracy: the error of the cutoff is below 1e-12 T.
    """
    levels = choose_cutoff(system, EXACT_TOLERANCE).orbitals.energy
    ideal = thermodynamics(levels, system.beta, system.spins)
    energy = Estimate(ideal.energy / system.electrons, 0.0)
    return {
        "F": Estimate(ideal.free_energy / system.electrons, 0.0),
        "E": energy,
        "kinetic": energy,
        "potential": Estimate(0.0, 0.0),
        "S": Estimate(ideal.entropy / system.electrons, 0.0),
    }


@functools.singledispatch
def ideal_values(system: System) -> dict[str, float]:
    """Exact values of the ideal gas, in the units of the results of a measurement.

    They are those of `ideal_reference`, the pressure (hartree / bohr^d) and the heat capacity (k_B
    per electron).
    """
    reference = ideal_reference(system)
    values = {name: float(estimate.mean) for name, estimate in reference.items()}
    # the virial theorem, p = 2 K / (d L^d)
    twice_kinetic = system.electrons * 2 * values["kinetic"]
    values["pressure"] = twice_kinetic / (system.dim * system.volume)
    levels = choose_cutoff(system, EXACT_TOLERANCE).orbitals.energy
    capacity = heat_capacity(levels, system.beta, system.spins)
    values["heat_capacity"] = capacity / system.electrons
    return values


@functools.singledispatch
def system_facts(system: System, cutoff: Cutoff) -> dict[str, Any]:
    """The gas and its cutoff in numbers, units in the names."""
    cutoff_error = system.temperature * cutoff.missing / system.electrons
    return {
        "n_up": system.n_up,
        "n_down": system.n_down,
        "dim": system.dim,
        "rs_bohr": system.rs,
        "theta": system.theta,
        "twist": list(system.twist),
        "coupling": system.coupling,
        "box_bohr": system.box,
        "fermi_energy_ha": system.fermi_energy,
        "temperature_ha": system.temperature,
        "orbitals": len(cutoff.orbitals.energy),
        "orbitals_missing_probability": cutoff.missing,
        "cutoff_error_of_ideal_F_ha_per_electron": cutoff_error,
    }
