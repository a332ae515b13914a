r"""What p(K) says of quasi-particles: Landau's energy functional, fitted to ln p.

With N_a the number of electrons in a shell of plane waves of one spin and dN_a its deviation from
the mean,

.. math:: -T \ln p(K) \approx c + \sum_a \epsilon_a\, \delta N_a + \tfrac12 \sum_{ab} f_{ab}\, \delta N_a \delta N_b ,

a Boltzmann machine on occupations: eps are the energies of quasi-particles in the mean state, f
their interaction. For the ideal gas eps = k^2 / 2 and f = 0, exactly; fitted is what ln p has
beyond that, so that shells too rarely filled or emptied to be fitted keep their ideal levels.  The
number of electrons of each spin is fixed, so that eps is known up to a constant for each.  The
fit's worth is the share of the variance of ln p that it explains in samples that it was not fitted
to.
Source: Landau, Sov. Phys. JETP 3, 920 (1957); Pines and Nozieres, The Theory of Quantum Liquids
(1966), chapter 1.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from heg.gas.plane_waves import Orbitals
from heg.gas.system import System
from heg.observables.structure import group_by_length

ACTIVE = (
    0.01  # shells whose mean occupation per plane wave is farther than this from 0 and 1 take part
)
MOST = 24  # shells of both spins, those of largest variance
RIDGE = 1e-6  # in units of the variance of each regressor


class Landau(NamedTuple):
    """The fit.

    Attributes:
      k: of each shell, 1/bohr.                             [A]
      spin: 0 up, 1 down.                                   [A]
      occupation: mean, per plane wave.                     [A]
      ideal: k^2 / 2, hartree.                              [A]
      energy: eps, hartree; for each spin, its mean, weighted by the variance of N, is that of k^2 / 2.    [A]
      interaction: f, hartree.                              [A, A]
      mass: m*/m of levels k^2 / 2m* that explain ln p best; not a number where one K alone is
        occupied.
      explained: shares of the variance of ln p explained by those levels, by fitted ones, and with f.    [3]
    """

    k: np.ndarray
    spin: np.ndarray
    occupation: np.ndarray
    ideal: np.ndarray
    energy: np.ndarray
    interaction: np.ndarray
    mass: float
    explained: np.ndarray


def landau_fit(system: System, orbitals: Orbitals, states: np.ndarray, log_p: np.ndarray) -> Landau:
    """Fits Landau's functional on one half of the samples and judges it by the other.

    Args:
      states: independent draws of K.                       [B, N]
      log_p: ln p(K).                                       [B]
    Raises:
      ValueError: too few samples for the number of terms.
    """
    shells = group_by_length(np.linalg.norm(orbitals.k, axis=1), system)
    counts, spin, place = _active(system, shells, np.asarray(states))
    energy = -system.temperature * np.asarray(log_p)
    ideal = np.sum(orbitals.energy[np.asarray(states)], axis=1)
    deviation = counts - counts.mean(axis=0)
    first, second = np.triu_indices(len(place))
    # an electron in a plane wave of its own shell meets no other: N^2 = N there
    sole = (first == second) & (shells.count[place][first] == 1)
    first, second = first[~sole], second[~sole]
    products = deviation[:, first] * deviation[:, second]
    half = len(energy) // 2
    if half < 2 * (products.shape[1] + len(place)):
        raise ValueError(
            f"{len(energy)} samples are too few to fit {products.shape[1]} terms: draw more"
        )
    by_mass, inverse_mass = _explained(ideal[:, None], energy, energy, half)
    by_levels, _ = _explained(deviation, energy - ideal, energy, half)
    by_both, weights = _explained(
        np.concatenate([deviation, products], axis=1), energy - ideal, energy, half
    )
    pairs = np.zeros((len(place),) * 2)
    pairs[first, second] = weights[len(place) :]
    variance, shift = deviation.var(axis=0), weights[: len(place)].copy()
    for one in np.unique(spin):
        shift[spin == one] -= np.average(shift[spin == one], weights=variance[spin == one])
    length = shells.length[place]
    return Landau(
        k=length,
        spin=spin,
        occupation=counts.mean(axis=0) / shells.count[place],
        ideal=length**2 / 2,
        energy=length**2 / 2 + shift,
        interaction=pairs + pairs.T,
        mass=float(1 / inverse_mass[0]) if inverse_mass[0] else math.nan,
        explained=np.array([by_mass, by_levels, by_both]),
    )


def _active(system, shells, states):
    """Electrons in each shell that takes part, with spin and shell of each.  [B, A], [A], [A]"""
    tables = []
    for part in system.parts:
        rows = np.arange(len(states))[:, None]
        table = np.zeros((len(states), len(shells.count)))
        np.add.at(table, (rows, shells.place[states[:, part]]), 1)
        tables.append(table)
    counts = np.concatenate(tables, axis=1)
    spin, place = np.divmod(np.arange(counts.shape[1]), len(shells.count))
    occupation = counts.mean(axis=0) / shells.count[place]
    variance = counts.var(
        axis=0
    )  # zero where a shell is filled in part, always by as many electrons
    active = np.flatnonzero((np.minimum(occupation, 1 - occupation) > ACTIVE) & (variance > 0))
    active = np.sort(active[np.argsort(-variance[active])][:MOST])
    return counts[:, active], spin[active], place[active]


def _explained(regressors, target, energy, half):
    """Share of the energy's variance in the second half explained by a fit of the target to the
    first, and weights.

    What of the energy is not in the target is taken as known.
    """
    mean, centre = regressors[:half].mean(axis=0), target[:half].mean()
    known = regressors[:half] - mean
    squares = known.T @ known / half
    squares += RIDGE * np.diag(np.maximum(np.diagonal(squares), 1e-300))
    weights = np.linalg.solve(squares, known.T @ (target[:half] - centre) / half)
    missed = target[half:] - centre - (regressors[half:] - mean) @ weights
    return 1 - np.mean(missed**2) / max(np.var(energy[half:]), 1e-300), weights


def trained_levels(system: System, orbitals: Orbitals, params: dict) -> np.ndarray:
    """The levels eps_k of p(K) by spin, hartree: those of the ideal gas but for what was trained.
    [spins, M]"""
    return np.asarray(orbitals.energy + system.fermi_energy * jnp.asarray(params["~"]["levels"]))
