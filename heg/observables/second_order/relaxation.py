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
section 2.11; the relative entropy, Cover and Thomas, Elements of Information Theory, section 2.3.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from heg.gas.coulomb import fourier_transform, madelung
from heg.gas.plane_waves import Orbitals
from heg.gas.system import System
from heg.observables.second_order.levels import Levels

STATES_AT_ONCE = 256  # bounds the memory of the differences of all pairs


class Relaxation(NamedTuple):
    """F[p*] - F[p], hartree per cell.

    Attributes:
      value: at most zero, apart from noise.
      error: standard error over the draws, that of the energies, and what orders beyond the second
        make of it, added in squares.
    """

    value: float
    error: float


def state_energies(system: System, orbitals: Orbitals, states: np.ndarray) -> np.ndarray:
    """Ideal and Hartree-Fock interaction energy of determinants, hartree per cell.

    Args:
      system: the gas.
      orbitals: the plane waves of p(K).
      states: occupied orbitals.                            [B, N]
    Returns:
      epsilon_K and U_K.                                    [B, 2]

    Source: Giuliani and Vignale, Quantum Theory of the Electron Liquid (Cambridge, 2005),
      section 1.4; the images of an electron by the Madelung constant.
    """
    ideal = orbitals.energy[states].sum(axis=1)
    exchange = np.zeros(len(states))
    for first in range(0, len(states), STATES_AT_ONCE):
        some = slice(first, first + STATES_AT_ONCE)
        for spin in system.parts:
            exchange[some] += _exchange(system, orbitals.n[states[some, spin]])
    images = system.electrons * madelung(system) / 2
    fock = system.coupling * (images - exchange / system.box**system.dim)
    return np.column_stack([ideal, fock])


def _exchange(system, n):
    """Sum of v(k_i - k_j) over the pairs of one spin.  [B, N_s, d] -> [B]"""
    first, second = np.triu_indices(n.shape[1], 1)
    transfer = np.linalg.norm(n[:, first] - n[:, second], axis=-1)
    wavevector = 2 * np.pi / system.box * transfer
    return fourier_transform(wavevector, system.dim).sum(axis=1)


def relaxation(
    system: System, orbitals: Orbitals, levels: Levels, states: np.ndarray, log_p: np.ndarray
) -> Relaxation:
    """F[p*] - F[p] from draws of p(K).

    Args:
      system: the gas.
      orbitals: the plane waves of p(K).
      levels: energies of the states.
      states: independent draws.                            [B, N]
      log_p: ln p(K) of each.                               [B]

    Accuracy: the noise of the regression would count as missing relaxation; its mean is taken off.
    """
    parts = state_energies(system, orbitals, states)
    u = system.beta * (parts @ levels.weights[1:]) + log_p
    u = u - u.mean()
    count = len(u)
    log_weight = -u - (logsumexp(-u) - np.log(count))
    weight = np.exp(log_weight)  # p* / p, of mean 1
    divergence = logsumexp(-u) - np.log(count)  # as the mean of u is zero
    # what a draw adds to the divergence, for its standard error
    influence = weight + u
    statistical = np.std(influence, ddof=1) / np.sqrt(count)
    # a noisy level costs beta^2 / 2 of its variance on average
    spread = np.cov(parts.T)
    noise = system.beta**2 / 2 * np.sum(levels.covariance * spread)
    slope = system.beta * ((weight - 1) @ parts) / count
    of_levels = np.hypot(np.sqrt(slope @ levels.covariance @ slope), noise)
    beyond = divergence - np.var(u) / 2
    value = -system.temperature * (divergence - noise)
    errors = np.array([statistical, of_levels, beyond])
    return Relaxation(float(value), float(system.temperature * np.linalg.norm(errors)))
