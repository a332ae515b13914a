"""The density matrix rho = sum_K p(K) |Psi_K><Psi_K|, as pure functions of its parameters."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax

from heg.config import ModelConfig
from heg.gas.plane_waves import Orbitals
from heg.gas.plasma import Plasma
from heg.gas.system import System
from heg.model.classical import (
    ClassicalEnergy,
    OneState,
    make_local_free_energy,
    make_log_root,
    make_root_score,
)
from heg.model.flow import Flow, FlowSize, make_flow
from heg.model.kinetic import make_kinetic_energy
from heg.model.local_energy import LocalEnergy, make_local_energy
from heg.model.occupations import Occupations, TransformerSize, make_occupations
from heg.model.wavefunction import Score, make_log_psi, make_score

# (parameters of the flow, x [N, d], state [N]) of one walker
LogPsi = Callable[[dict, jax.Array, jax.Array], jax.Array]
ScoreFunction = Callable[[dict, jax.Array, jax.Array], Score]
Energy = LocalEnergy | ClassicalEnergy  # of a sample: its kind knows what the terms mean
LocalEnergyFunction = Callable[[dict, jax.Array, jax.Array], tuple[Energy, jax.Array]]


class Params(NamedTuple):
    """Parameters of p(K) and of the flow."""

    occupations: dict
    flow: dict


@dataclasses.dataclass(frozen=True)
class Model:
    """The density matrix of one gas.

    The last three are functions of (parameters of the flow, x [N, d], state [N]) of one walker.

    Attributes:
      occupations: p(K).
      flow: x -> z.
      log_psi: ln Psi, complex.
      score: derivatives of ln Psi.
      local_energy: LocalEnergy, hartree per cell, and z [N, d].
    """

    occupations: Occupations | OneState
    flow: Flow
    log_psi: LogPsi
    score: ScoreFunction
    local_energy: LocalEnergyFunction


@functools.singledispatch
def build_model(system: System, orbitals: Orbitals, config: ModelConfig) -> Model:
    """The density matrix of a gas, its networks of the configured sizes.

    Args:
      system: the gas.
      orbitals: plane waves that may be occupied.           [M]
      config: sizes of the transformer and of the flow.
    """
    transformer = TransformerSize(
        layers=config.transformer_layers,
        width=config.transformer_width,
        heads=config.transformer_heads,
    )
    occupations = make_occupations(system, orbitals, transformer)
    flow = make_flow(system, FlowSize(config.flow_layers, config.flow_width))
    kinetic_energy = make_kinetic_energy(system, orbitals, flow)
    return Model(
        occupations=occupations,
        flow=flow,
        log_psi=make_log_psi(system, orbitals, flow),
        score=make_score(system, orbitals, flow),
        local_energy=make_local_energy(system, kinetic_energy),
    )


@build_model.register
def _(system: Plasma, orbitals: Orbitals, config: ModelConfig) -> Model:
    """The density of a classical plasma, its flow of the configured size."""
    flow = make_flow(system, FlowSize(config.flow_layers, config.flow_width))
    return Model(
        occupations=OneState(system.electrons),
        flow=flow,
        log_psi=make_log_root(system, flow),
        score=make_root_score(flow),
        local_energy=make_local_free_energy(system, flow),
    )
