"""What measures a density matrix with frozen parameters, compiled once for a gas and a model."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from heg.config import ModelConfig, SamplerConfig
from heg.gas.ideal import choose_cutoff
from heg.gas.system import System
from heg.model.density_matrix import build_model
from heg.observables.structure import Grid, grid_of
from heg.observables.thermodynamics import make_sample, observe
from heg.parallel.devices import divisor, jit, map_walkers, walkers_at_once
from heg.sampling.batch import Walkers, make_walks
from heg.sampling.exact_draws import make_draw

BLOCK = 32  # samples in a block at most: what is kept are means of blocks


class Instruments(NamedTuple):
    """Compiled functions of Params.

    Attributes:
      grid: of S(q) and g(r).
      observe: params, Regression, key -> Observed of each block of a batch, draws repeated, draws
        lost.
      occupy: params, keys -> draws of K and ln p(K).
      twice: params, states [B, N], keys [2, B] -> F_loc, hartree per cell, of two x at each K,
        without control variates.                                           [2, B]
    """

    grid: Grid
    observe: Callable
    occupy: Callable
    twice: Callable


def block_size(batch: int) -> int:
    """Samples in a block of a batch: a divisor of it, BLOCK at most."""
    return max(size for size in range(1, BLOCK + 1) if batch % size == 0)


def instruments(system: System, sizes: ModelConfig, sampler: SamplerConfig) -> Instruments:
    """Those of a gas and a model.  What is compiled serves later gases that differ by r_s or
    coupling alone."""
    compiled = programs(system.of_unit_density, sizes, sampler)
    return Instruments(
        grid_of(system), *(functools.partial(program, system) for program in compiled)
    )


@functools.lru_cache(maxsize=2)
def programs(gas: System, sizes: ModelConfig, sampler: SamplerConfig) -> tuple[Callable, ...]:
    """The functions of Instruments with a System before their arguments, compiled when they are
    first called.

    Args:
      gas: with r_s = 1 and coupling = 1, which stand for all others.
      sizes, sampler: as configured.
    """
    chunk = sampler.chunk or walkers_at_once(gas, sampler.batch)
    # the plane waves that training had
    cutoff, grid = choose_cutoff(gas, sizes.orbital_tolerance), grid_of(gas)
    sampled = divisor(
        sampler.batch, chunk * gas.dim**2
    )  # samples need less memory than their energies
    size = block_size(sampler.batch)
    orbitals_of = lambda system: cutoff.orbitals.at_density(system.rs)
    model_of = lambda system: build_model(system, orbitals_of(system), sizes)

    def observe_batch(system, params, regression, key):
        model = model_of(system)
        key_draw, key_move = jax.random.split(key)
        orbitals = orbitals_of(system)
        walk = make_walks(system, orbitals, model, sampler, sampled).draw(params, key_draw)
        of_walker = make_sample(system, orbitals, model, grid.at_density(system.rs))
        keys = jax.random.split(key_move, sampler.batch)
        of_each = map_walkers(
            lambda walker: of_walker(params, *walker), (walk.walkers, keys), chunk
        )
        observed = observe(*of_each, regression, system)
        means = jax.tree.map(
            lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]).mean(axis=1), observed
        )
        return means, walk.redrawn, walk.lost

    def occupy(system, params, keys):
        model = model_of(system)
        many = divisor(len(keys), chunk * gas.dim**2)
        states = map_walkers(
            lambda key: model.occupations.sample(params.occupations, key), keys, many
        )
        log_prob = lambda state: model.occupations.log_prob(params.occupations, state)
        return states, map_walkers(log_prob, states, many)

    def twice(system, params, states, keys):
        model = model_of(system)
        draw_x = make_draw(system, orbitals_of(system), model.flow, sampled)

        def f_loc(walker):
            log_p = model.occupations.log_prob(params.occupations, walker.state)
            energy, _ = model.local_energy(params.flow, walker.x, walker.state)
            return system.temperature * log_p + jnp.real(energy.total)

        both = jnp.concatenate([states, states])
        walkers = Walkers(both, draw_x(params.flow, both, keys.reshape(-1)).x)
        return map_walkers(f_loc, walkers, chunk).reshape(2, -1)

    return tuple(map(jit, (observe_batch, occupy, twice)))
