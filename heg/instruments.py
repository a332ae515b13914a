"""What measures a density matrix with frozen parameters, compiled once for a gas and a model."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from heg.chunks import divisor, walkers_at_once
from heg.config import ModelConfig, SamplerConfig
from heg.free_energy import evaluate, per_electron, sample_of
from heg.ideal import choose_cutoff
from heg.observables import make_sample, observe
from heg.parallel import jit, map_walkers
from heg.sampling import Walkers
from heg.structure import Grid, make_grid
from heg.system import System
from heg.training import build_model
from heg.walks import make_walks

BLOCK = 32  # samples in a block at most: what is kept are means of blocks


class Instruments(NamedTuple):
    """Compiled functions of Params.

    Attributes:
      grid: of S(q) and g(r).
      observe: params, Regression, key -> Observed of each block of a batch, draws repeated, draws lost.
      energies: the same -> F, E, ... of each sample of the same batch, nothing else.
      occupy: params, keys -> draws of K and ln p(K).
      twice: params, states [B, N], keys [2, B] -> F_loc, hartree per cell, of two x at each K, without control
        variates.                                           [2, B]
    """

    grid: Grid
    observe: Callable
    energies: Callable
    occupy: Callable
    twice: Callable


def block_size(batch: int) -> int:
    """Samples in a block of a batch: a divisor of it, BLOCK at most."""
    return max(size for size in range(1, BLOCK + 1) if batch % size == 0)


@functools.lru_cache(maxsize=2)
def instruments(system: System, sizes: ModelConfig, sampler: SamplerConfig) -> Instruments:
    """Those of a gas and a model; compiled when they are first called."""
    chunk = sampler.chunk or walkers_at_once(system, sampler.batch)
    # the plane waves that training had: chosen at r_s = 1
    kind = dataclasses.replace(system, rs=1.0, coupling=1.0)
    orbitals, grid = choose_cutoff(kind, sizes.orbital_tolerance).orbitals.at_density(system.rs), make_grid(system)
    sampled = divisor(sampler.batch, chunk * system.dim**2)  # samples need less memory than their energies
    model = build_model(system, orbitals, sizes, sampled)
    draw, of_walker = make_walks(system, model, sampler, sampled).draw, make_sample(system, orbitals, model, grid)
    size = block_size(sampler.batch)

    def observe_batch(params, regression, key):
        key_draw, key_move = jax.random.split(key)
        walk = draw(params, key_draw)
        keys = jax.random.split(key_move, sampler.batch)
        of_each = map_walkers(lambda walker: of_walker(params, *walker), (walk.walkers, keys), chunk)
        observed = observe(*of_each, regression, system)
        means = jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]).mean(axis=1), observed)
        return means, walk.redrawn, walk.lost

    def energies(params, regression, key):
        walk = draw(params, jax.random.split(key)[0])
        return per_electron(evaluate(model, params, walk.walkers, chunk), regression, system)

    def occupy(params, keys):
        states = map_walkers(lambda key: model.occupations.sample(params.occupations, key), keys, chunk)
        log_prob = lambda state: model.occupations.log_prob(params.occupations, state)
        return states, map_walkers(log_prob, states, chunk)

    def twice(params, states, keys):
        def f_loc(walker):
            samples, _ = sample_of(model, params, walker)
            return system.temperature * samples.log_p + jnp.real(samples.energy.total)

        draws = [model.draw(params.flow, states, of_one).x for of_one in keys]
        return jnp.stack([map_walkers(f_loc, Walkers(states, x), chunk) for x in draws])

    return Instruments(grid, *map(jit, (observe_batch, energies, occupy, twice)))
