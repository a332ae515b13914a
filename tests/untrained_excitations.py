"""Double excitations of untrained density matrices, where every matrix element is known."""

import jax
import numpy as np

from heg import Config, ModelConfig, RunConfig, build
from heg.observables.second_order.excitations import Excitations
from heg.observables.second_order.levels import Levels
from heg.observables.second_order.pair_operators import count_operators

LARGEST = 4
SMALL = ModelConfig(transformer_layers=0, flow_layers=0, orbital_tolerance=1e-2)


def untrained(gas):
    """An untrained density matrix: ideal p(K) of determinants, W the bare interaction."""
    config = Config(gas, RunConfig("unused"), model=SMALL)
    solver = build(config)
    params = solver.init(jax.random.key(0)).average
    return Excitations(solver.system, config, params, 0, LARGEST), solver


def bare_levels(excitations, interaction):
    """Ideal and Hartree-Fock energies; of the operators the interaction, with this weight."""
    operators = np.zeros(count_operators(excitations.system))
    operators[0] = interaction
    return Levels(np.array([0.0, 1.0, 1.0]), np.zeros((2, 2)), operators)
