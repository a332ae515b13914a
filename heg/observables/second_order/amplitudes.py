r"""Matrix elements of H between a determinant and its doubles, by sampling; compiled once for a gas
and a model.

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

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heg.config import ModelConfig
from heg.gas.ideal import choose_cutoff
from heg.gas.plane_waves import Orbitals, plane_waves
from heg.gas.system import System
from heg.model.flow import FlowSize, make_flow
from heg.model.kinetic import make_kinetic_energy
from heg.model.local_energy import make_local_energy
from heg.model.wavefunction import make_log_slater
from heg.observables.second_order.doubles import count_doubles, make_ratios
from heg.observables.second_order.pair_operators import make_pair_operators
from heg.observables.structure import grid_of, make_structure
from heg.parallel.devices import jit, map_walkers, sum_walkers, walkers_at_once
from heg.sampling.exact_draws import make_draw
from heg.training.control_variates import make_controls

RATIO_NUMBERS = 8  # times the number of doubles: numbers in use at once by the ratios of one walker


class Looked(NamedTuple):
    """Samples of x at given K.

    Attributes:
      x, z: bohr.                                           [B, N, d]
      weight: w.                                            [B]
      energy: E_loc, hartree per cell, complex.             [B]
      potential: its Coulomb part.                          [B]
      of_state: 1, ideal and Hartree-Fock interaction energy of K, hartree.    [B, 3]
      operators: local values of heg.observables.second_order.pair_operators.        [B, O] complex
      redrawn, lost: draws repeated, draws given up.        [] int
    """

    x: jax.Array
    z: jax.Array
    weight: jax.Array
    energy: jax.Array
    potential: jax.Array
    of_state: jax.Array
    operators: jax.Array
    redrawn: jax.Array
    lost: jax.Array


class Sums(NamedTuple):
    """Over samples, of a = Re[(E_loc - b)^* Phi_K' / Phi_K] for each double: of a and of a^2.  [D]
    each"""

    first: jax.Array
    second: jax.Array


class Response(NamedTuple):
    """How observables go along with a weight of the samples: their covariances with it.

    Attributes:
      potential: hartree per cell.                          []
      s: of S(q), by pairs of spins and shell.              [spin pairs, S]
      g: of g(r), by pairs of spins and bin.                [spin pairs, bins]
    """

    potential: jax.Array
    s: jax.Array
    g: jax.Array


class AmplitudePrograms(NamedTuple):
    """Compiled functions; their first argument is the System.

    Attributes:
      look: system, flow params, states [B, N], guides [B, N], keys [B] -> Looked.
      project: system, z [B, N, d], state [N], w (E_loc - b) [B] -> Sums.
      respond: system, x and z [B, N, d], potential [B], w [B], state [N], weights of the doubles
        [D] -> Response to the sum of the weighted ratios.
    """

    look: Callable
    project: Callable
    respond: Callable


def wide_orbitals(gas: System, orbitals: Orbitals, largest: int) -> Orbitals:
    """The plane waves of p(K), in front, and all that a transfer up to |n|^2 = `largest` reaches
    from them."""
    unit = 2 * np.pi / gas.box
    reach = unit * (np.linalg.norm(orbitals.n[-1] + np.asarray(gas.twist)) + np.sqrt(largest))
    return plane_waves(gas, reach**2 / 2)


@functools.lru_cache(maxsize=2)
def programs(gas: System, sizes: ModelConfig, batch: int, largest: int) -> AmplitudePrograms:
    """For all gases that differ by r_s or coupling alone.

    Args:
      gas: with r_s = 1 and coupling = 1.
      sizes: of the model.
      batch: samples of one K.
      largest: |n|^2 of the largest momentum transfer.
    """
    grid = grid_of(gas)
    orbitals = wide_orbitals(gas, choose_cutoff(gas, sizes.orbital_tolerance).orbitals, largest)
    chunk = walkers_at_once(gas, batch)
    few = walkers_at_once(gas, batch // 2, 8 * RATIO_NUMBERS * count_doubles(gas, largest))

    def look(system, flow_params, states, guides, keys):
        waves = orbitals.at_density(system.rs)
        flow = make_flow(system, FlowSize(sizes.flow_layers, sizes.flow_width))
        local_energy = make_local_energy(system, make_kinetic_energy(system, waves, flow))
        controls = make_controls(system, waves)
        operators = make_pair_operators(system, waves)
        log_slater = make_log_slater(system, waves)
        choices, keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        by_guide = jax.vmap(jax.random.bernoulli)(choices)
        drawn = jnp.where(by_guide[:, None], guides, states)
        draws = make_draw(system, waves, flow, chunk)(flow_params, drawn, keys)

        def look_at(walker):
            x, state, guide = walker
            energy, z = local_energy(flow_params, x, state)
            of_state = controls(z, state).of_state
            weight = 2 * jax.nn.sigmoid(2 * (log_slater(z, state) - log_slater(z, guide)))
            return z, weight, energy.total, energy.potential, of_state, operators(z, state)

        found = map_walkers(look_at, (draws.x, states, guides), chunk)
        return Looked(draws.x, *found, draws.redrawn, draws.lost)

    def project(system, z, state, deviation):
        ratios = make_ratios(system, orbitals.at_density(system.rs), largest)

        def sums(walkers, weight):
            z, deviation = walkers
            ratio = jax.vmap(ratios, (0, None))(z, state)
            terms = jnp.real(jnp.conj(weight * deviation)[:, None] * ratio)
            return Sums(jnp.sum(terms, axis=0), jnp.sum(terms**2, axis=0))

        return sum_walkers(sums, (z, deviation), few)

    def respond(system, x, z, potential, weight, state, weights):
        ratios = make_ratios(system, orbitals.at_density(system.rs), largest)
        structure = make_structure(system, grid.at_density(system.rs))

        def of_walker(walker):
            x, z = walker
            of_x = structure(x, z)
            return jnp.real(ratios(z, state)) @ weights, of_x.s, of_x.g

        ratio, s, g = map_walkers(of_walker, (x, z), few)
        return Response(*(_covariance(values, weight * ratio) for values in (potential, s, g)))

    return AmplitudePrograms(jit(look), jit(project), jit(respond))


def _covariance(values, weight):
    """Unbiased, over the first axis."""
    count = len(weight)
    return jnp.tensordot(weight - weight.mean(), values, axes=1) / (count - 1)
