r"""Matrix elements of H between a determinant and its doubles, by sampling.

The programs are compiled once for a gas and a model.

With z = f(x) and any number b,

.. math:: W_{KK'} = \langle\Psi_K|H|\Psi_{K'}\rangle
          = \mathbb{E}_{x \sim |\Psi_K|^2}\Big[(E_{loc}(x) - b)^*
          \frac{\Phi_{K'}(z)}{\Phi_K(z)}\Big] :

the flow and its Jacobian drop out of the ratio. Instead of b all that has known elements is taken
from E_loc (heg.observables.second_order.pair_operators). W is real, as the flow is odd: x -> -x
turns Psi into its conjugate.

Near a node of Psi_K, at the distance d, such a term goes as 1 / d^2: its mean exists, its variance
does not. So each x is drawn from Psi_K or from a guide, a double of K with other nodes, with equal
chance, and has the weight

.. math:: w = \frac{2 |\Psi_K|^2}{|\Psi_K|^2 + |\Psi_G|^2} ,

with which all terms are bounded where the nodes of the two do not meet.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from heg.config import ModelConfig
from heg.gas.plane_waves import Orbitals, lowest_plane_waves, plane_waves
from heg.gas.system import System
from heg.model.flow import FlowSize, make_flow
from heg.model.kinetic import make_kinetic_energy
from heg.model.local_energy import make_local_energy
from heg.model.wavefunction import make_log_slater
from heg.observables.second_order.doubles import count_doubles, make_ratios
from heg.observables.second_order.pair_operators import make_pair_operators
from heg.observables.structure import Grid, grid_of, make_structure
from heg.parallel.compilation import Program
from heg.parallel.devices import map_walkers, sum_walkers, walkers_at_once
from heg.sampling.exact_draws import make_draw
from heg.training.control_variates import make_controls

RATIO_NUMBERS = 8  # times the number of doubles: numbers in use at once by the ratios of one walker


class Looked(NamedTuple):
    """Samples of x at given K.

    Attributes:
      x, z: bohr.                                           [B, N, d]
      weight: w.                                            [B]
      energy: E_loc, hartree per cell.                      [B] complex
      potential: its Coulomb part.                          [B]
      of_state: 1, ideal and Hartree-Fock interaction energy of K, hartree.    [B, 3]
      operators: local values of heg.observables.second_order.pair_operators.    [B, O] complex
      redrawn: draws that were repeated.                    [] int
      lost: draws that were given up.                       [] int
    """

    x: Float[Array, "batch electrons dim"]
    z: Float[Array, "batch electrons dim"]
    weight: Float[Array, " batch"]
    energy: Complex[Array, " batch"]
    potential: Float[Array, " batch"]
    of_state: Float[Array, "batch 3"]
    operators: Complex[Array, "batch operators"]
    redrawn: Int[Array, ""]
    lost: Int[Array, ""]


class Sums(NamedTuple):
    """Sums over samples of a = Re[(E_loc - b)^* Phi_K' / Phi_K] for each double.

    Attributes:
      first: of a.                                          [D]
      second: of a^2.                                       [D]
    """

    first: Float[Array | np.ndarray, " doubles"]
    second: Float[Array | np.ndarray, " doubles"]


class Response(NamedTuple):
    """Covariances of observables with a weight of the samples.

    Attributes:
      potential: hartree per cell.                          []
      s: of S(q), by pairs of spins and shell.              [spin pairs, S]
      g: of g(r), by pairs of spins and bin.                [spin pairs, bins]
    """

    potential: Float[Array, ""]
    s: Float[Array, "spin_pairs shells"]
    g: Float[Array, "spin_pairs bins"]


class AmplitudePrograms(NamedTuple):
    """Compiled functions; their first argument is the System.

    Attributes:
      look: system, flow params, states [B, N], guides [B, N], keys [B] -> Looked.
      project: system, z [B, N, d], state [N], w (E_loc - b) [B] -> Sums.
      respond: system, x and z [B, N, d], potential [B], w [B], state [N], weights of the doubles
        [D] -> Response to the sum of the weighted ratios.
    """

    look: Program
    project: Program
    respond: Program


def wide_orbitals(gas: System, orbitals: Orbitals, largest: int) -> Orbitals:
    """All plane waves that a transfer up to |n|^2 = `largest` reaches from those of p(K).

    Those of p(K) come first and in their order.
    """
    # the last orbital has the longest k, as they are in order of energy
    unit = gas.wavevector_unit
    last = orbitals.n[-1] + np.asarray(gas.twist)
    highest = np.linalg.norm(last)
    reach = unit * (highest + np.sqrt(largest))
    return plane_waves(gas, reach**2 / 2)


@functools.lru_cache(maxsize=2)
def amplitude_programs(
    gas: System, orbitals: int, sizes: ModelConfig, batch: int, largest: int
) -> AmplitudePrograms:
    """Compiled functions for all gases of one shape.

    Args:
      gas: of heg.gas.system.System.shape.
      orbitals: number of plane waves of p(K).
      sizes: of the model.
      batch: samples of one K.
      largest: |n|^2 of the largest momentum transfer.
    """
    drawn_orbitals = lowest_plane_waves(gas, orbitals)
    # the ratios of a walker take far more memory than its local energy
    ratio_bytes = 8 * RATIO_NUMBERS * count_doubles(gas, largest)
    sampling = _Sampling(
        flow_size=FlowSize(sizes.flow_layers, sizes.flow_width),
        orbitals=wide_orbitals(gas, drawn_orbitals, largest),
        grid=grid_of(gas),
        largest=largest,
        energies_at_once=walkers_at_once(gas, batch),
        # `project` and `respond` take one half of the samples each
        ratios_at_once=walkers_at_once(gas, batch // 2, ratio_bytes),
    )
    return AmplitudePrograms(
        look=Program(sampling.look),
        project=Program(sampling.project),
        respond=Program(sampling.respond),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Sampling:
    """The functions of AmplitudePrograms before they are compiled.

    Each builds its model anew from the System it is given, whose r_s, Theta and coupling are
    traced: so one compilation serves all densities and temperatures.

    Attributes:
      flow_size: of the model.
      orbitals: plane waves of p(K) and of all doubles, at r_s = 1.
      grid: of the structure factor and the pair correlation, at r_s = 1.
      largest: |n|^2 of the largest momentum transfer.
      energies_at_once: walkers whose local energies a device computes at once.
      ratios_at_once: walkers whose ratios it computes at once.
    """

    flow_size: FlowSize
    orbitals: Orbitals
    grid: Grid
    largest: int
    energies_at_once: int
    ratios_at_once: int

    def look(self, system, flow_params, states, guides, keys):
        orbitals = self.orbitals.at_density(system.rs)
        flow = make_flow(system, self.flow_size)
        kinetic_energy = make_kinetic_energy(system, orbitals, flow)
        local_energy = make_local_energy(system, kinetic_energy)
        controls = make_controls(system, orbitals)
        operators = make_pair_operators(system, orbitals)
        log_slater = make_log_slater(system, orbitals)  # ln |Phi|
        draw = make_draw(system, orbitals, flow, self.energies_at_once)

        # every x from its state or from its guide, with equal chance
        split = jax.vmap(jax.random.split, out_axes=1)
        toss = jax.vmap(jax.random.bernoulli)
        coin_keys, draw_keys = split(keys)
        is_by_guide = toss(coin_keys)
        drawn = jnp.where(is_by_guide[:, None], guides, states)
        draws = draw(flow_params, drawn, draw_keys)

        def values_at(walker):
            x, state, guide = walker
            energy, z = local_energy(flow_params, x, state)
            # w = 2 / (1 + |Psi_G / Psi_K|^2); the Jacobian of the flow drops out
            log_ratio = log_slater(z, state) - log_slater(z, guide)
            weight = 2 * jax.nn.sigmoid(2 * log_ratio)
            return {
                "z": z,
                "weight": weight,
                "energy": energy.total,
                "potential": energy.potential,
                "of_state": controls(z, state).of_state,
                "operators": operators(z, state),
            }

        values = map_walkers(values_at, (draws.x, states, guides), self.energies_at_once)
        return Looked(x=draws.x, **values, redrawn=draws.redrawn, lost=draws.lost)

    def project(self, system, z, state, deviation):
        ratios = self._ratios(system)

        def sums(walkers, counted):
            """Sums over some walkers; `counted` is 0 for those that fill up the devices."""
            z, deviation = walkers
            ratio = jax.vmap(ratios, (0, None))(z, state)
            # real, as W is: the imaginary part is noise
            factor = jnp.conj(counted * deviation)
            amplitude = factor[:, None] * ratio
            terms = jnp.real(amplitude)
            first = jnp.sum(terms, axis=0)
            second = jnp.sum(terms**2, axis=0)
            return Sums(first, second)

        return sum_walkers(sums, (z, deviation), self.ratios_at_once)

    def respond(self, system, x, z, potential, weight, state, weights):
        ratios = self._ratios(system)
        grid = self.grid.at_density(system.rs)
        structure = make_structure(system, grid)

        def values_at(walker):
            x, z = walker
            of_x = structure(x, z)
            # all doubles at once, as a response is linear in the amplitudes
            ratio = jnp.real(ratios(z, state)) @ weights
            return {
                "ratio": ratio,
                "s": of_x.s,
                "g": of_x.g,
            }

        values = map_walkers(values_at, (x, z), self.ratios_at_once)
        # a covariance, so that the mean of the observable need not be known
        weighted_ratio = weight * values["ratio"]
        return Response(
            potential=_covariance(potential, weighted_ratio),
            s=_covariance(values["s"], weighted_ratio),
            g=_covariance(values["g"], weighted_ratio),
        )

    def _ratios(self, system):
        orbitals = self.orbitals.at_density(system.rs)
        return make_ratios(system, orbitals, self.largest)


def _covariance(values, weight):
    """Unbiased covariance with the weight, over the first axis."""
    count = len(weight)
    deviation = weight - weight.mean()
    # "b,b...->..."
    products = jnp.tensordot(deviation, values, axes=1)
    return products / (count - 1)
