"""Energies of the states, from a regression on sampled ones."""

from typing import NamedTuple

import numpy as np

from heg.observables.second_order.doubles import Doubles


class Levels(NamedTuple):
    """Energies of the states, from a regression on sampled ones.

    Attributes:
      weights: c, alpha, gamma.                             [3]
      covariance: of alpha and gamma.                       [2, 2]
      operators: what goes along with the operators of heg.observables.second_order.pair_operators.    [O]
    """

    weights: np.ndarray
    covariance: np.ndarray
    operators: np.ndarray

    def gap(self, doubles: Doubles) -> np.ndarray:
        """Delta of each double, hartree.  [D]"""
        return self.weights[1] * doubles.ideal + self.weights[2] * doubles.fock

    def directions(self) -> np.ndarray:
        """Shifts of alpha and gamma by one standard error along independent directions.  [2, 2]"""
        squares, vectors = np.linalg.eigh(self.covariance)
        return (vectors * np.sqrt(np.maximum(squares, 0.0))).T
