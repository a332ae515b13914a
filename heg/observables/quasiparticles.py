r"""Quasi-particles of p(K): Landau's energy functional, fitted to ln p.

With N_a the number of electrons in a shell of plane waves of one spin and dN_a its deviation from
the mean,

.. math:: -T \ln p(K) \approx c + \sum_a \epsilon_a\, \delta N_a
          + \tfrac12 \sum_{ab} f_{ab}\, \delta N_a \delta N_b ,

a Boltzmann machine on occupations.  eps are the energies of quasi-particles in the mean state, f
their interaction.  For the ideal gas eps = k^2 / 2 and f = 0, exactly.  Only what ln p has beyond
that is fitted, so that shells too rarely filled or emptied keep their ideal levels.

The number of electrons of each spin is fixed, so eps is known up to a constant for each.  The fit
is judged by the share of the variance of ln p that it explains in samples it was not fitted to.

Sources: Landau, Sov. Phys. JETP 3, 920 (1957); Pines and Nozieres, The Theory of Quantum Liquids
(1966), chapter 1.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from heg.gas.plane_waves import Orbitals
from heg.gas.system import System
from heg.observables.shells import Shells, group_by_length

LEAST_OCCUPATION = 0.01  # shells take part whose mean occupation is at least so far from 0 and 1
MAX_SHELLS = 24  # of both spins, those of largest variance
RIDGE = 1e-6  # in units of the variance of each regressor
TINY = 1e-300  # keeps quotients of vanishing variances finite


class Landau(NamedTuple):
    """Landau's functional, as fitted.

    Attributes:
      k: of each shell, 1/bohr.                             [A]
      spin: 0 up, 1 down.                                   [A]
      occupation: mean, per plane wave.                     [A]
      ideal: k^2 / 2, hartree.                              [A]
      energy: eps, hartree.  For each spin its mean, weighted by the variance of N, is that of
        k^2 / 2.                                            [A]
      interaction: f, hartree.                              [A, A]
      mass: m*/m of levels k^2 / 2m* that explain ln p best; not a number where one K alone is
        occupied.
      explained: shares of the variance of ln p explained by those levels, by fitted ones, and with
        f; not numbers where ln p does not vary.            [3]
    """

    k: np.ndarray
    spin: np.ndarray
    occupation: np.ndarray
    ideal: np.ndarray
    energy: np.ndarray
    interaction: np.ndarray
    mass: float
    explained: np.ndarray


class _ActiveShells(NamedTuple):
    """Shells that take part in the fit.

    Attributes:
      counts: electrons in each in every sample.            [B, A]
      spin: 0 up, 1 down.                                   [A]
      length: mean wavevector, 1/bohr.                      [A]
      size: plane waves in each.                            [A]
    """

    counts: np.ndarray
    spin: np.ndarray
    length: np.ndarray
    size: np.ndarray

    @property
    def occupation(self):
        """Mean occupation per plane wave.  [A]"""
        return self.counts.mean(axis=0) / self.size

    @property
    def deviation(self):
        """dN_a of every sample.  [B, A]"""
        return self.counts - self.counts.mean(axis=0)


class _Fit(NamedTuple):
    """Linear fit.

    Attributes:
      weights: of the regressors.                           [R]
      explained: share of the variance of the other samples; not a number where they have none.
    """

    weights: np.ndarray
    explained: float


def landau_fit(
    system: System,
    orbitals: Orbitals,
    states: Int[np.ndarray, "samples electrons"],
    log_p: Float[np.ndarray, " samples"],
) -> Landau:
    """Fits Landau's functional to one half of the samples and judges it by the other.

    Args:
      system: the gas.
      orbitals: plane waves of p(K).
      states: independent draws of K.
      log_p: ln p(K).
    Raises:
      ValueError: too few samples for the number of terms.
    """
    states = np.asarray(states)
    # energy of a state as p(K) has it, up to a constant
    energy = -system.temperature * np.asarray(log_p)
    ideal = np.sum(orbitals.energy[states], axis=1)
    lengths = np.linalg.norm(orbitals.k, axis=1)
    shells = group_by_length(lengths, system)
    active = _active_shells(system, shells, states)
    deviation = active.deviation
    first, second = _interacting_pairs(active.size)
    products = deviation[:, first] * deviation[:, second]
    count = len(active.size)
    _require_samples(len(energy), len(first), count)

    # levels k^2 / 2m*, fitted levels, and fitted levels with their interaction
    beyond_ideal = energy - ideal
    by_mass = _fit(ideal[:, None], energy, energy)
    by_levels = _fit(deviation, beyond_ideal, energy)
    # first the levels, then the interaction
    terms = np.concatenate([deviation, products], axis=1)
    by_both = _fit(terms, beyond_ideal, energy)

    # each pair once: f_ab on one side of the diagonal, f_aa / 2 on it
    half_interaction = np.zeros((count, count))
    half_interaction[first, second] = by_both.weights[count:]
    variance = deviation.var(axis=0)
    shift = _without_constant(by_both.weights[:count], variance, active.spin)
    levels = active.length**2 / 2
    # the weight of k^2 / 2 is m / m*
    inverse_mass = by_mass.weights[0]
    return Landau(
        k=active.length,
        spin=active.spin,
        occupation=active.occupation,
        ideal=levels,
        energy=levels + shift,
        interaction=half_interaction + half_interaction.T,
        mass=float(1 / inverse_mass) if inverse_mass else math.nan,
        explained=np.array([by_mass.explained, by_levels.explained, by_both.explained]),
    )


def _active_shells(system: System, shells: Shells, states: np.ndarray) -> _ActiveShells:
    """Shells of both spins whose occupation fluctuates, at most MAX_SHELLS."""
    of_spins = [_count_by_shell(shells, states[:, part]) for part in system.parts]
    counts = np.concatenate(of_spins, axis=1)
    # a column for each shell of the up spins, then for each of the down spins
    columns = np.arange(counts.shape[1])
    spin, shell = np.divmod(columns, len(shells.count))
    occupation = counts.mean(axis=0) / shells.count[shell]
    from_ends = np.minimum(occupation, 1 - occupation)
    open_shell = from_ends > LEAST_OCCUPATION
    # zero where a shell is filled in part, always by as many electrons
    variance = counts.var(axis=0)
    candidates = np.flatnonzero(open_shell & (variance > 0))
    order = np.argsort(-variance[candidates])
    by_variance = candidates[order]
    # in order of spin and length again
    active = np.sort(by_variance[:MAX_SHELLS])
    return _ActiveShells(
        counts=counts[:, active],
        spin=spin[active],
        length=shells.length[shell[active]],
        size=shells.count[shell[active]],
    )


def _count_by_shell(shells, states):
    """Electrons of one spin in each shell, in every sample.  [B, S]"""
    counts = np.zeros((len(states), len(shells.count)))
    samples = np.arange(len(states))[:, None]
    # not counts[...] += 1, which would count two electrons of one shell once
    np.add.at(counts, (samples, shells.index[states]), 1)
    return counts


def _interacting_pairs(size):
    """Pairs a <= b of shells whose product is a term of its own."""
    first, second = np.triu_indices(len(size))
    # an electron in a plane wave of its own shell meets no other: N^2 = N there
    sole = (first == second) & (size[first] == 1)
    return first[~sole], second[~sole]


def _require_samples(samples, products, shells):
    """Refuses a fit to fewer than two samples of one half for each term."""
    if samples // 2 < 2 * (products + shells):
        terms = products + shells
        raise ValueError(f"{samples} samples are too few to fit {terms} terms: draw more")


def _fit(regressors, target, energy):
    """Fit of the target to the first half of the samples, judged by the second.

    What of the energy is not in the target is taken as known: the share explained is that of the
    variance of the energy.
    """
    half = len(energy) // 2
    # both counted from the means of the first half: the fit has no constant
    deviation = regressors - regressors[:half].mean(axis=0)
    residual = target - target[:half].mean()
    weights = _ridge_regression(deviation[:half], residual[:half])
    predicted = deviation[half:] @ weights
    missed = residual[half:] - predicted
    judged = energy[half:]
    # equal energies have a variance of rounding errors alone
    varies = np.ptp(judged) > 0
    mean_square = np.mean(missed**2)
    explained = 1 - mean_square / np.var(judged) if varies else math.nan
    return _Fit(weights, explained)


def _ridge_regression(regressors, target):
    """Weights of regressors without a constant; the ridge keeps collinear ones finite."""
    count = len(target)
    # normal equations of the mean squares
    squares = regressors.T @ regressors / count
    variances = np.maximum(np.diagonal(squares), TINY)
    ridge = RIDGE * np.diag(variances)
    covariances = regressors.T @ target / count
    return np.linalg.solve(squares + ridge, covariances)


def _without_constant(shift, variance, spin):
    """Shifts of the levels less their mean for each spin, weighted by the variance of N."""
    # the number of electrons of a spin is fixed: a shift of all its levels changes nothing
    shift = shift.copy()
    for one in np.unique(spin):
        own = spin == one
        shift[own] -= np.average(shift[own], weights=variance[own])
    return shift


def trained_levels(
    system: System, orbitals: Orbitals, params: dict
) -> Float[np.ndarray, "spins orbitals"]:
    """Levels eps_k of p(K) by spin, hartree: those of the ideal gas plus what was trained."""
    if not params:
        return np.tile(orbitals.energy, (len(system.spins), 1))
    trained = jnp.asarray(params["~"]["levels"])
    return np.asarray(orbitals.energy + system.fermi_energy * trained)
