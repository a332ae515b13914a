"""Energies of the states, from a regression on sampled ones."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from heg.observables.second_order.doubles import Doubles


class Levels(NamedTuple):
    """Energies of the states, e_K = c + alpha epsilon_K + gamma U_K, from a regression.

    Attributes:
      weights: c, alpha, gamma.                             [3]
      covariance: of alpha and gamma.                       [2, 2]
      operators: coefficients of the operators of heg.observables.second_order.pair_operators in
        the local energy.                                   [O]
    """

    weights: Float[np.ndarray, "3"]
    covariance: Float[np.ndarray, "2 2"]
    operators: Float[np.ndarray, " operators"]

    def gap(self, doubles: Doubles) -> Float[np.ndarray, "*doubles"]:
        """Delta of each double, hartree."""
        _, alpha, gamma = self.weights
        return alpha * doubles.ideal + gamma * doubles.fock

    def directions(self) -> Float[np.ndarray, "2 2"]:
        """Shifts of alpha and gamma by one standard error along independent directions.

        Each row is a shift of (alpha, gamma).
        """
        # alpha and gamma are correlated: the errors of each alone would count too much
        variances, vectors = np.linalg.eigh(self.covariance)
        errors = np.sqrt(np.maximum(variances, 0.0))
        return (vectors * errors).T
