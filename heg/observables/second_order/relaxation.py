r"""The relaxation of p(K): what the best probabilities would add to the variational free energy.

For given energies e_K of the states, the probabilities that minimise F are

.. math:: p^*(K) = e^{-\beta e_K} / \sum_{K'} e^{-\beta e_{K'}} .

Training has not quite reached them: p(K) knows e_K from noisy samples alone. What is left is a
relative entropy, known from draws of p(K) and from the energies of the regression,

.. math:: F[p^*] - F[p] = -T\, D(p \| p^*)
          = -T \left( \ln \mathbb{E}_p[e^{-u}] + \mathbb{E}_p[u] \right), \qquad
          u_K = \beta e_K + \ln p(K) .

It is the diagonal part of the second order in what H has beyond -T ln rho, -(beta / 2) Var(T u), to
which it tends for small u.

Sources: the variational principle of Gibbs and Bogoliubov, Feynman, Statistical Mechanics (1972),
chapter 2; the relative entropy, Cover and Thomas, Elements of Information Theory, chapter 2.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from heg.gas.coulomb import fourier_transform, image_energy
from heg.gas.plane_waves import Orbitals
from heg.gas.system import System
from heg.observables.second_order.levels import Levels
from heg.statistics import Estimate

STATES_AT_ONCE = 256  # bounds the memory of the differences of all pairs


class Relaxation(NamedTuple):
    """The change from the trained probabilities p to the best ones p* for given energies.

    Attributes:
      value: F[p*] - F[p], hartree per cell; at most zero, apart from noise.
      error: standard error over the draws, that of the energies, and what orders beyond the second
        make of it, added in squares.
      entropy: -E[ln p*] over p*, k_B per cell.
      entropy_error: standard error over the draws and that of the energies, added in squares.
    """

    value: float
    error: float
    entropy: float
    entropy_error: float


def state_energies(
    system: System, orbitals: Orbitals, states: Int[np.ndarray, "batch electrons"]
) -> Float[np.ndarray, "batch 2"]:
    """Ideal and Hartree-Fock interaction energy of determinants, hartree per cell.

    Args:
      system: the gas.
      orbitals: the plane waves of p(K).
      states: occupied orbitals.
    Returns:
      epsilon_K and U_K.

    Source: Giuliani and Vignale, Quantum Theory of the Electron Liquid (Cambridge, 2005),
      section 1.4; the images of an electron by the Madelung constant.
    """
    ideal = orbitals.energy[states].sum(axis=1)
    exchange = np.zeros(len(states))
    for first in range(0, len(states), STATES_AT_ONCE):
        batch = slice(first, first + STATES_AT_ONCE)
        for spin in system.parts:
            n = orbitals.n[states[batch, spin]]
            exchange[batch] += _exchange(system, n)
    interaction = image_energy(system) - exchange / system.volume
    fock = system.coupling * interaction
    return np.column_stack([ideal, fock])


def _exchange(system, n):
    """Sum of v(k_i - k_j) over the pairs of one spin.  [B, N_s, d] -> [B]"""
    # exchange between electrons of one spin alone
    first, second = np.triu_indices(n.shape[1], 1)
    apart = n[:, first] - n[:, second]
    transfer = np.linalg.norm(apart, axis=-1)
    wavevector = system.wavevector_unit * transfer
    return fourier_transform(wavevector, system.dim).sum(axis=1)


def relaxation(
    system: System,
    orbitals: Orbitals,
    levels: Levels,
    states: Int[np.ndarray, "batch electrons"],
    log_p: Float[np.ndarray, " batch"],
) -> Relaxation:
    """F[p*] - F[p] and the entropy of p*, from draws of p(K).

    Args:
      system: the gas.
      orbitals: the plane waves of p(K).
      levels: energies of the states.
      states: independent draws.
      log_p: ln p(K) of each.

    Accuracy: the noise of the regression would count as missing relaxation; its mean is taken off
      F, not off the entropy.
    """
    beta = system.beta
    count = len(states)
    # e_K up to the constant c, which drops out
    parts = state_energies(system, orbitals, states)
    energies = parts @ levels.weights[1:]
    best = _best_probabilities(beta, energies, log_p)
    u = best.u

    # the part of each draw in the divergence, for its standard error
    influence = best.weight + u
    statistical = np.std(influence, ddof=1) / np.sqrt(count)

    # a noisy level costs beta^2 / 2 of its variance on average
    spread = np.cov(parts.T)
    noise = beta**2 / 2 * np.sum(levels.covariance * spread)
    # slope of the divergence by alpha and gamma, and its variance by their errors
    slope = beta * ((best.weight - 1) @ parts) / count
    variance = slope @ levels.covariance @ slope
    of_levels = np.hypot(np.sqrt(variance), noise)

    # u is small where p is nearly the best: then the divergence is half its variance
    beyond_second_order = best.divergence - np.var(u) / 2
    errors = [statistical, of_levels, beyond_second_order]
    value = -system.temperature * (best.divergence - noise)
    error = system.temperature * np.linalg.norm(errors)
    entropy = _entropy_of_best(best, beta, levels, parts, log_p)
    return Relaxation(float(value), float(error), entropy.mean, entropy.error)


class _Best(NamedTuple):
    """The best probabilities p* at draws of p.

    Attributes:
      u: beta e_K + ln p(K), of mean zero.                  [B]
      divergence: ln E[e^-u], which is all of D(p || p*).
      weight: p* / p, of mean 1.                            [B]
      information: -ln p*.                                  [B]
    """

    u: np.ndarray
    divergence: float
    weight: np.ndarray
    information: np.ndarray

    @property
    def entropy(self) -> float:
        """-E[ln p*] over p*, k_B per cell."""
        return float(np.mean(self.weight * self.information))


def _best_probabilities(beta, energies, log_p):
    u = beta * energies + log_p
    # up to ln Z, which is not known
    u = u - u.mean()
    # the mean of e^-u over the draws
    divergence = logsumexp(-u) - np.log(len(u))
    log_weight = -u - divergence
    log_best = log_p + log_weight
    return _Best(u, divergence, weight=np.exp(log_weight), information=-log_best)


def _entropy_of_best(best, beta, levels, parts, log_p):
    """Entropy of p* with its error, k_B per cell."""
    # the part of each draw: in the weighted mean, and in the normalisation of p*
    excess = best.information - best.entropy
    influence = best.weight * excess + best.weight - 1
    deviation = np.std(influence, ddof=1)
    statistical = deviation / np.sqrt(len(influence))
    # the levels one standard error away, along independent directions
    changes = []
    for direction in levels.directions():
        moved = levels.weights[1:] + direction
        energies = parts @ moved
        best_there = _best_probabilities(beta, energies, log_p)
        changes.append(best_there.entropy - best.entropy)
    of_levels = np.linalg.norm(changes)
    error = float(np.hypot(statistical, of_levels))
    return Estimate(best.entropy, error)
