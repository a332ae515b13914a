r"""The exact canonical ideal Fermi gas.

With Z_r(m) the partition function of r fermions in the orbitals m, m+1, ..., M-1,

.. math:: Z_r(m) = Z_r(m+1) + e^{-\beta\epsilon_m} Z_{r-1}(m+1),

one scan over the orbitals gives every Z_r(m); F = -T ln Z_N(0), and the occupation numbers are its
derivatives.  Let the last electron have taken orbital l, with r electrons left to place.  The next
one takes orbital m with probability e^{-beta eps_m} Z_{r-1}(m+1) / Z_r(l+1): the start of
heg.model.occupations.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float, Int
from scipy.optimize import brentq
from scipy.special import expit

from heg.gas.plane_waves import Orbitals, plane_waves, shell_ends
from heg.gas.system import System
from heg.statistics import Estimate

LOG_ZERO = -1e30  # stands for ln 0: -inf would make gradients NaN
MAX_CANDIDATES = 4 * 10**6  # plane waves to choose from
TAIL = 60.0  # levels above the Fermi level by more than TAIL * T weigh e^-60: no double sees them
NEVER = 1e6  # beta * energy of a level that is never occupied: e^-NEVER is 0 in a double
NEVER_FILLED = 60.0  # beta (energy - mu) of a level that is empty to all digits
MORE_NODES = 30  # than electrons: 30 electrons too many have a weight below 1e-16 of theirs
NEGLIGIBLE = 1e-18  # weight of a node that no double sees
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
    vacuum = jnp.where(jnp.arange(electrons + 1) == 0, 0.0, LOG_ZERO)

    def add_orbital(row, level):
        occupied = jnp.concatenate([jnp.array([LOG_ZERO]), row[:-1] - level])
        row = jnp.maximum(jnp.logaddexp(row, occupied), LOG_ZERO)
        return row, row

    # row m holds Z_0(m) ... Z_N(m), from the last orbital down
    _, rows = lax.scan(add_orbital, vacuum, levels, reverse=True)
    return jnp.concatenate([rows, vacuum[None]])


def log_partition(levels: Float[Array, " orbitals"], electrons: int) -> Float[Array, ""]:
    """ln Z of `electrons` spinless fermions; `levels` are beta * energy."""
    return log_partition_table(levels, electrons)[0, electrons]


@functools.partial(jax.jit, static_argnums=1)
def occupation_numbers(
    levels: Float[Array, " orbitals"], electrons: int
) -> Float[Array, " orbitals"]:
    """Mean occupation of each orbital, -d ln Z / d(beta eps); `levels` are beta * energy."""
    return -jax.grad(log_partition)(levels, electrons)


class ShellPairs(NamedTuple):
    """<n_i n_j>, i != j, which depends on the shells of i and j alone.

    Attributes:
      shell: of each orbital.                               [M]
      occupation: <n_i> of an orbital of each shell.        [S]
      pairs: of two orbitals; on the diagonal of two of one shell.    [S, S]
    """

    shell: Int[np.ndarray, " orbitals"]
    occupation: Float[np.ndarray, " shells"]
    pairs: Float[np.ndarray, "shells shells"]


def shell_pairs(levels: Float[np.ndarray, " orbitals"], electrons: int) -> ShellPairs:
    """Occupations of pairs of orbitals in the ideal gas, by shells.

    From <n_i (1 - n_j)> e^{beta eps_i} = <n_j (1 - n_i)> e^{beta eps_j}, which holds as the levels
    are filled in any order; between orbitals of one shell, from sum_j <n_i n_j> = N <n_i>.

    Args:
      levels: beta * energy, sorted.
      electrons: of the spin.
    Accuracy: 1e-9 (tests/gas/test_ideal.py, against second derivatives of ln Z).
    """
    ends = shell_ends(levels)
    size = np.diff(ends, prepend=0)
    every = np.asarray(occupation_numbers(padded(levels), electrons))
    level = np.asarray(levels)[ends - 1]
    occupation = every[ends - 1]
    same = np.eye(len(size), dtype=bool)
    gap = np.where(same, 1.0, level[:, None] - level)
    # solved for <n_i n_j> with e^{-|gap|}, which cannot overflow
    boltzmann = np.exp(-np.abs(gap))
    column = occupation[:, None]
    upper = np.where(gap > 0, column, occupation)
    lower = np.where(gap > 0, occupation, column)
    pairs = (upper - lower * boltzmann) / (1 - boltzmann)
    pairs = np.where(same, 0.0, pairs)
    # the sum rule leaves the rest to the other orbitals of the same shell
    within = (electrons - 1) * occupation - pairs @ size
    pairs = pairs + np.diag(within / np.maximum(size - 1, 1))
    return ShellPairs(
        shell=np.repeat(np.arange(len(size)), size),
        occupation=occupation,
        pairs=pairs,
    )


def pair_occupations(
    levels: Float[np.ndarray, " orbitals"], electrons: int
) -> Float[np.ndarray, "orbitals orbitals"]:
    """<n_i n_j> of the ideal gas, n_i on the diagonal; arguments and accuracy as `shell_pairs`."""
    shell, occupation, by_shell = shell_pairs(levels, electrons)
    pairs = by_shell[np.ix_(shell, shell)]
    np.fill_diagonal(pairs, occupation[shell])
    return pairs


class Projection(NamedTuple):
    """One grand canonical gas of those that add up to a canonical one.

    Attributes:
      weight: w_m; that of two conjugate nodes is given to one of them.
      occupation: n(phi_m), complex.                        [M]
    """

    weight: complex
    occupation: Complex[np.ndarray, " orbitals"]


def projections(levels: Float[np.ndarray, " orbitals"], electrons: int) -> Iterator[Projection]:
    r"""Weighted grand canonical gases of complex chemical potential that add up to the canonical.

    .. math:: \langle n_i n_j \rangle_N
              = \mathrm{Re} \sum_m w_m\, n_i(\phi_m)\, n_j(\phi_m) \quad (i \ne j), \qquad
              n_i(\phi) = \frac{1}{e^{l_i - \mu - i \phi} + 1}

    It is Cauchy's integral for the coefficient Z_N of the grand partition function, on the circle
    |z| = e^mu where the mean number is N, by the trapezoidal rule.

    Args:
      levels: beta * energy, sorted.
      electrons: N.
    Accuracy: rounding, as N and N + nodes electrons are all that the rule confuses
      (tests/gas/test_ideal.py).
    Source: Ormand et al., Phys. Rev. C 49, 1422 (1994), doi:10.1103/PhysRevC.49.1422: projection on
      particle number.
    """
    levels = np.asarray(levels)
    gas = _grand_canonical(levels - _chemical_potential(levels, electrons))
    # an odd number: no node lies at phi = pi, where a level may have a pole
    nodes = 2 * ((electrons + MORE_NODES) // 2) + 1
    angles = 2 * np.pi * np.arange(nodes // 2 + 1) / nodes
    logs = np.array([gas.log_weight(angle, electrons) for angle in angles])
    conjugates = np.where(angles > 0, 2, 1)
    weights = np.exp(logs - logs[0]) * conjugates
    weights /= np.sum(weights.real)
    least = NEGLIGIBLE * abs(weights[0])
    for angle, weight in zip(angles, weights):
        if abs(weight) > least:
            yield Projection(weight, gas.occupation(angle))


class _GrandCanonical(NamedTuple):
    """Levels about a chemical potential, through numbers below 1 alone.

    Attributes:
      size: e^{-|l - mu|}.                                  [M]
      filled: whether the level is below mu.                [M]
    """

    size: np.ndarray
    filled: np.ndarray

    def _boltzmann(self, angle):
        """e^{-|l - mu|} turned by the phase: e^{mu + i phi - l}, or its inverse where filled."""
        return self.size * np.exp(1j * np.where(self.filled, -angle, angle))

    def log_weight(self, angle, electrons):
        """ln of the grand partition function times e^{-i N phi}; a real constant is left out."""
        logs = np.sum(np.log1p(self._boltzmann(angle)))
        return logs + 1j * angle * (np.count_nonzero(self.filled) - electrons)

    def occupation(self, angle):
        """n(phi) of each level.  [M]"""
        boltzmann = self._boltzmann(angle)
        return np.where(self.filled, 1, boltzmann) / (1 + boltzmann)


def _grand_canonical(above):
    """The gas of levels `above` its chemical potential, l - mu."""
    return _GrandCanonical(np.exp(-np.abs(above)), above < 0)


def _chemical_potential(levels, electrons):
    """beta mu of the grand canonical gas of so many electrons on average."""
    low = levels[0] - NEVER_FILLED
    high = levels[-1] + NEVER_FILLED
    if electrons >= len(levels):
        return high
    return brentq(lambda mu: np.sum(expit(mu - levels)) - electrons, low, high)


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
        occupation = np.asarray(occupation_numbers(levels, count))[: len(energy)]
        log_z += float(log_partition(levels, count))
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

    levels = jnp.asarray(energy)

    def log_z(beta):
        return sum(log_partition(beta * levels, count) for count in spins)

    return float(beta**2 * jax.grad(jax.grad(log_z))(beta))


@functools.lru_cache(maxsize=4)
def choose_cutoff(system: System, tolerance: float) -> Cutoff:
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
    Returns:
      Orbitals and the bound reached.
    Raises:
      ValueError: it takes more plane waves than can be handled.
    """
    highest = _filled_level(system)
    refuse_too_many(system)
    candidates = plane_waves(system, highest + TAIL * system.temperature)
    energy = candidates.energy
    window = np.searchsorted(energy, highest + WINDOW * system.temperature)
    missing = _missing_probability(system, energy, int(window))
    ends = shell_ends(energy)
    ends = ends[ends >= max(system.spins)]
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
    log_tail = np.logaddexp.accumulate(-levels[::-1])[::-1]  # ln q, from each orbital on
    log_tail = np.append(log_tail, -np.inf)
    missing = 0.0
    for count in system.spins:
        log_ratio = _log_ratio(levels[: max(window, count + 1)], count)
        missing = missing + np.exp(np.minimum(log_ratio + log_tail, 0.0))
    return missing


def _log_ratio(levels, electrons):
    """ln (Z_{N-1} / Z_N) for the given levels (beta * energy)."""
    table = log_partition_table(padded(levels), electrons)
    return float(table[0, electrons - 1] - table[0, electrons])


def padded(levels: Float[Array | np.ndarray, " orbitals"]) -> Float[np.ndarray, " padded"]:
    """The levels with some that are never occupied, up to a power of two.

    So few lengths occur, and few programs are compiled.
    """
    levels = np.asarray(levels)
    length = 1 << (len(levels) - 1).bit_length()
    return np.pad(levels, (0, length - len(levels)), constant_values=NEVER)


def refuse_too_many(system: System) -> None:
    """Refuse a gas of more plane waves than can be handled, before they are made.

    Raises:
      ValueError: it needs more than MAX_CANDIDATES.
    """
    cutoff = _filled_level(system) + TAIL * system.temperature
    radius = np.sqrt(2 * cutoff) * system.box / (2 * np.pi)  # in the space of n
    count = np.pi * radius**2 if system.dim == 2 else 4 / 3 * np.pi * radius**3
    if count > MAX_CANDIDATES:
        raise ValueError(
            f"theta is {system.theta}: that takes {count:.1g} plane waves, "
            f"{MAX_CANDIDATES:.0e} is the most; lower it"
        )


def _filled_level(system):
    """Energy of the first orbital that is empty at T = 0, hartree."""
    cutoff = system.fermi_energy
    energy = plane_waves(system, cutoff).energy
    while len(energy) <= max(system.spins):
        cutoff *= 1.5
        energy = plane_waves(system, cutoff).energy
    return energy[max(system.spins)]


@functools.lru_cache(maxsize=16)
def ideal_reference(system: System) -> dict[str, Estimate]:
    """Exact F, E, kinetic, potential (hartree) and S (k_B) of the ideal gas, per electron.

    Accuracy: the error of the cutoff is below 1e-12 T.
    """
    levels = choose_cutoff(system, 1e-12).orbitals.energy
    ideal = thermodynamics(levels, system.beta, system.spins)
    energy = Estimate(ideal.energy / system.electrons, 0.0)
    return {
        "F": Estimate(ideal.free_energy / system.electrons, 0.0),
        "E": energy,
        "kinetic": energy,
        "potential": Estimate(0.0, 0.0),
        "S": Estimate(ideal.entropy / system.electrons, 0.0),
    }


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
