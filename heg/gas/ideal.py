r"""Exact canonical ideal Fermi gas.

With Z_r(m) the partition function of r fermions in the orbitals m, m+1, ..., M-1,

.. math:: Z_r(m) = Z_r(m+1) + e^{-\beta\epsilon_m} Z_{r-1}(m+1),

one scan over the orbitals gives every Z_r(m); F = -T ln Z_N(0), and the occupation numbers are its
derivatives. The conditional probability that the next electron takes orbital m, the last one having
taken l and r being left to place, is e^{-beta eps_m} Z_{r-1}(m+1) / Z_r(l+1): the start of
heg.model.occupations.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.optimize import brentq
from scipy.special import expit

from heg.gas.plane_waves import Orbitals, plane_waves, shell_ends
from heg.gas.system import System
from heg.statistics import Estimate

LOG_ZERO = -1e30  # stands for ln 0: -inf would make gradients NaN
MOST = 4 * 10**6  # plane waves to choose from
TAIL = 60.0  # levels above the Fermi level by more than TAIL * T weigh e^-60: no double sees them
NEVER = 1e6  # beta * energy of a level that is never occupied: e^-NEVER is 0 in a double
NEVER_FILLED = 60.0  # beta (energy - mu) of a level that is empty to all digits
MORE_NODES = 30  # than electrons: 30 electrons too many have a weight below 1e-16 of theirs
NEGLIGIBLE = 1e-18  # weight of a node that no double sees
WINDOW = 20.0  # levels within WINDOW * T settle the ratio Z_{N-1} / Z_N from above


class IdealGas(NamedTuple):
    """Exact thermodynamics of the ideal gas, per cell.

    Attributes:
      free_energy, energy: hartree.                         []
      entropy: k_B.                                         []
    """

    free_energy: float
    energy: float
    entropy: float


class Cutoff(NamedTuple):
    """The orbitals kept and what they miss.

    Attributes:
      orbitals: the plane waves kept, whole shells.
      missing: upper bound of the ideal gas's probability of occupying any other.     []
    """

    orbitals: Orbitals
    missing: float


@functools.partial(jax.jit, static_argnums=1)
def log_partition_table(levels: jax.Array, electrons: int) -> jax.Array:
    """ln Z_r(m) for every m and r.

    Args:
      levels: beta * energy of the orbitals.                [M]
      electrons: the largest r.
    Returns:
      Table; LOG_ZERO where Z = 0.                          [M + 1, electrons + 1]
    Accuracy: rounding, about 1e-16 M relative.
    """
    vacuum = jnp.where(jnp.arange(electrons + 1) == 0, 0.0, LOG_ZERO)

    def add_orbital(row, level):
        occupied = jnp.concatenate([jnp.array([LOG_ZERO]), row[:-1] - level])
        return (row := jnp.maximum(jnp.logaddexp(row, occupied), LOG_ZERO)), row

    _, rows = lax.scan(add_orbital, vacuum, levels, reverse=True)
    return jnp.concatenate([rows, vacuum[None]])


def log_partition(levels: jax.Array, electrons: int) -> jax.Array:
    """ln Z of `electrons` spinless fermions; `levels` are beta * energy [M]."""
    return log_partition_table(levels, electrons)[0, electrons]


@functools.partial(jax.jit, static_argnums=1)
def occupation_numbers(levels: jax.Array, electrons: int) -> jax.Array:
    """Mean occupation of each orbital, -d ln Z / d(beta eps); `levels` are beta * energy [M]."""
    return -jax.grad(log_partition)(levels, electrons)


class ShellPairs(NamedTuple):
    """<n_i n_j>, i != j, which depends on the shells of i and j alone.

    Attributes:
      shell: of each orbital.                               [M]
      occupation: <n_i> of an orbital of each shell.        [S]
      pairs: of two orbitals; on the diagonal of two of one shell.    [S, S]
    """

    shell: np.ndarray
    occupation: np.ndarray
    pairs: np.ndarray


def shell_pairs(levels: np.ndarray, electrons: int) -> ShellPairs:
    """Of the ideal gas.

    From <n_i (1 - n_j)> e^{beta eps_i} = <n_j (1 - n_i)> e^{beta eps_j}, which holds as the levels
    are filled in any order; between orbitals of one shell, from sum_j <n_i n_j> = N <n_i>.

    Args:
      levels: beta * energy, sorted.                        [M]
      electrons: of the spin.
    Accuracy: 1e-9 (tests/test_ideal.py, against second derivatives of ln Z).
    """
    size = np.diff(ends := shell_ends(levels), prepend=0)
    level = np.asarray(levels)[ends - 1]
    occupation = np.asarray(occupation_numbers(padded(levels), electrons))[ends - 1]
    same = np.eye(len(size), dtype=bool)
    gap = np.where(same, 1.0, level[:, None] - level)
    lower = np.exp(-np.abs(gap))
    up, down = (
        np.where(gap > 0, occupation[:, None], occupation),
        np.where(gap > 0, occupation, occupation[:, None]),
    )
    pairs = np.where(same, 0.0, (up - down * lower) / (1 - lower))
    left = (electrons - 1) * occupation - pairs @ size
    return ShellPairs(
        np.repeat(np.arange(len(size)), size),
        occupation,
        pairs + np.diag(left / np.maximum(size - 1, 1)),
    )


def pair_occupations(levels: np.ndarray, electrons: int) -> np.ndarray:
    """<n_i n_j> of the ideal gas, n_i on the diagonal; arguments and accuracy as in `shell_pairs`.
    [M, M]"""
    shell, occupation, pairs = shell_pairs(levels, electrons)
    pairs = pairs[np.ix_(shell, shell)]
    np.fill_diagonal(pairs, occupation[shell])
    return pairs


def projections(levels: np.ndarray, electrons: int) -> Iterator[tuple[complex, np.ndarray]]:
    r"""Complex chemical potentials, with weights, whose grand canonical gases add up to the
    canonical one.

    .. math:: \langle n_i n_j \rangle_N = \mathrm{Re} \sum_m w_m\, n_i(\phi_m)\, n_j(\phi_m) \quad (i \ne j), \qquad
              n_i(\phi) = \frac{1}{e^{l_i - \mu - i \phi} + 1}

    It is Cauchy's integral for the coefficient Z_N of the grand partition function, on the circle
    |z| = e^mu where the mean number is N, by the trapezoidal rule.

    Args:
      levels: beta * energy, sorted.                        [M]
      electrons: N.
    Yields:
      w_m and n(phi_m) [M]; of two conjugate nodes one, with twice the weight.
    Accuracy: rounding, as N and N + nodes electrons are all that the rule confuses
      (tests/test_ideal.py).
    Source: Ormand et al., Phys. Rev. C 49, 1422 (1994), doi:10.1103/PhysRevC.49.1422: projection on
      particle number.
    """
    levels = np.asarray(levels)
    above = levels - _chemical_potential(levels, electrons)
    filled = above < 0
    size = np.exp(-np.abs(above))
    nodes = (
        2 * ((electrons + MORE_NODES) // 2) + 1
    )  # odd: none at phi = pi, where a level may have a pole
    angles = 2 * np.pi * np.arange(nodes // 2 + 1) / nodes
    log_weights = np.array(
        [
            np.sum(np.log1p(size * np.exp(1j * np.where(filled, -angle, angle))))
            + 1j * angle * (np.count_nonzero(filled) - electrons)
            for angle in angles
        ]
    )
    weights = np.exp(log_weights - log_weights[0]) * np.where(angles > 0, 2, 1)
    weights /= np.sum(weights.real)
    for angle, weight in zip(angles, weights):
        if abs(weight) > NEGLIGIBLE * abs(weights[0]):
            turned = size * np.exp(1j * np.where(filled, -angle, angle))
            yield weight, np.where(filled, 1, turned) / (1 + turned)


def _chemical_potential(levels, electrons):
    """beta mu of the grand canonical gas of so many electrons on average."""
    low, high = levels[0] - NEVER_FILLED, levels[-1] + NEVER_FILLED
    if electrons >= len(levels):
        return high
    return brentq(lambda mu: np.sum(expit(mu - levels)) - electrons, low, high)


def thermodynamics(energy: jax.Array, beta: float, spins: tuple[int, ...]) -> IdealGas:
    """F, E and S of the ideal gas with the given levels, the spins independent of each other.

    Args:
      energy: levels, hartree.                              [M]
      beta: 1/hartree.
      spins: electrons of each spin.
    Returns:
      Totals of the cell.
    Raises:
      ValueError: fewer orbitals than electrons of one spin.
    Accuracy: 1e-10 relative (tests/test_ideal.py, against 700-digit arithmetic).
    """
    if max(spins) > len(energy):
        raise ValueError(
            f"{max(spins)} electrons of one spin do not fit in {len(energy)} orbitals: raise the cutoff"
        )
    levels, energy = padded(beta * np.asarray(energy)), np.asarray(energy)
    log_z = sum(float(log_partition(levels, count)) for count in spins)
    mean_energy = sum(
        np.asarray(occupation_numbers(levels, count))[: len(energy)] @ energy for count in spins
    )
    free_energy = -log_z / beta
    return IdealGas(
        float(free_energy), float(mean_energy), float(beta * (mean_energy - free_energy))
    )


def heat_capacity(energy: jax.Array, beta: float, spins: tuple[int, ...]) -> float:
    """C = beta^2 d^2 ln Z / d beta^2 at fixed volume, k_B per cell; arguments as in
    `thermodynamics`."""
    log_z = lambda beta: sum(log_partition(beta * jnp.asarray(energy), count) for count in spins)
    return float(beta**2 * jax.grad(jax.grad(log_z))(beta))


@functools.lru_cache(maxsize=4)
def choose_cutoff(system: System, tolerance: float) -> Cutoff:
    r"""The fewest shells that miss less than `tolerance` of the ideal gas's probability.

    The probability that orbital k is occupied is at most e^{-beta eps_k} Z_{N-1}/Z_N, so the
    probability of occupying any orbital left out is at most a q, with a = Z_{N-1}/Z_N and q the sum
    of e^{-beta eps} over them.  The ratio a falls as orbitals are added (Z_r is log-concave in r:
    Newton's inequalities for elementary symmetric polynomials), so that a window of the lowest
    orbitals gives it from above.  With the missing probability m, the free energy is too high by -T
    ln(1 - m).

    Args:
      system: the gas.
      tolerance: bound on the missing probability, summed over spins.
    Returns:
      Orbitals and the bound reached.
    Raises:
      ValueError: it takes more plane waves than can be handled.
    """
    highest = _filled_level(system)
    refuse_too_many(system)
    candidates = plane_waves(system, highest + TAIL * system.temperature)
    window = np.searchsorted(candidates.energy, highest + WINDOW * system.temperature)
    levels = system.beta * candidates.energy
    ratios = [_log_ratio(levels[: max(window, count + 1)], count) for count in system.spins]
    log_tail = np.append(np.logaddexp.accumulate(-levels[::-1])[::-1], -np.inf)
    missing = sum(np.exp(np.minimum(ratio + log_tail, 0.0)) for ratio in ratios)
    ends = shell_ends(candidates.energy)
    ends = ends[ends >= max(system.spins)]
    count = next((int(end) for end in ends if missing[end] < tolerance), int(ends[-1]))
    return Cutoff(candidates.first(count), float(missing[count]))


def padded(levels):
    """With levels that are never occupied up to a power of two, so that few lengths are compiled
    for."""
    levels = np.asarray(levels)
    return np.pad(
        levels, (0, (1 << (len(levels) - 1).bit_length()) - len(levels)), constant_values=NEVER
    )


def refuse_too_many(system: System) -> None:
    """Refuses a gas with more plane waves than can be handled, before they are made.

    Raises:
      ValueError: it has.
    """
    radius = (
        np.sqrt(2 * (_filled_level(system) + TAIL * system.temperature)) * system.box / (2 * np.pi)
    )
    count = (np.pi * radius**2, 4 / 3 * np.pi * radius**3)[system.dim - 2]
    if count > MOST:
        raise ValueError(
            f"theta is {system.theta}: that takes {count:.1g} plane waves, {MOST:.0e} is the most; lower it"
        )


def _filled_level(system):
    """Energy of the highest orbital that is filled at T = 0, with room for one electron more,
    hartree."""
    cutoff = system.fermi_energy
    while len(energy := plane_waves(system, cutoff).energy) <= max(system.spins):
        cutoff *= 1.5
    return energy[max(system.spins)]


def _log_ratio(levels, electrons):
    """ln (Z_{N-1} / Z_N) for the given levels (beta * energy)."""
    table = log_partition_table(padded(levels), electrons)
    return float(table[0, electrons - 1] - table[0, electrons])


@functools.lru_cache(maxsize=16)
def ideal_reference(system: System) -> dict[str, Estimate]:
    """Exact F, E, kinetic, potential, S of the ideal gas, per electron; cutoff error below 1e-12
    T."""
    ideal = thermodynamics(choose_cutoff(system, 1e-12).orbitals.energy, system.beta, system.spins)
    free_energy, energy, entropy = (value / system.electrons for value in ideal)
    values = {"F": free_energy, "E": energy, "kinetic": energy, "potential": 0.0, "S": entropy}
    return {name: Estimate(value, 0.0) for name, value in values.items()}


def system_facts(system: System, cutoff: Cutoff) -> dict:
    """The gas and its cutoff in numbers, units in the names."""
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
        "cutoff_error_of_ideal_F_ha_per_electron": system.temperature
        * cutoff.missing
        / system.electrons,
    }
