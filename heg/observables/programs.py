"""Programs that measure a density matrix with frozen parameters, compiled once for gas and model.

`instruments` gives those of one gas.  Gases that differ by r_s or coupling alone share what is
compiled.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heg.config import ModelConfig, SamplerConfig
from heg.gas.ideal import choose_cutoff
from heg.gas.plane_waves import Orbitals
from heg.gas.system import System
from heg.model.density_matrix import Model, Params, build_model
from heg.observables.structure import Grid, grid_of
from heg.observables.thermodynamics import Observed, make_sample, observe
from heg.parallel.devices import divisor, jit, map_walkers, walkers_at_once
from heg.sampling.batch import Walkers, make_walks
from heg.sampling.exact_draws import make_draw
from heg.training.control_variates import Regression

MAX_BLOCK = 32  # samples in a block: what is kept are means of blocks


class ObservedBatch(NamedTuple):
    """Observables of a batch of exact draws.

    Attributes:
      means: over each block.
      redrawn, lost: draws repeated, draws given up.
    """

    means: Observed
    redrawn: jax.Array
    lost: jax.Array


class Drawn(NamedTuple):
    """Draws of p(K).

    Attributes:
      states: occupied orbitals.                            [draws, N]
      log_p: ln p(K).                                       [draws]
    """

    states: np.ndarray
    log_p: np.ndarray


class MeasurementPrograms(NamedTuple):
    """Compiled functions whose first argument is a System, for all of one shape.

    Attributes:
      observe: system, params, Regression, key -> ObservedBatch.
      occupy: system, params, keys -> Drawn.
      twice: system, params, states, keys -> F_loc, as of `Instruments.twice`.
    """

    observe: Callable
    occupy: Callable
    twice: Callable


@dataclasses.dataclass(frozen=True, eq=False)
class Instruments:
    """Compiled measurements of one gas, as functions of the parameters.

    Attributes:
      system: the gas.
      grid: of S(q) and g(r).
      programs: compiled for all gases of its shape.
    """

    system: System
    grid: Grid
    programs: MeasurementPrograms

    def observe(self, params: Params, regression: Regression, key: jax.Array) -> ObservedBatch:
        """All observables of a batch of exact draws.

        Args:
          params: of the density matrix.
          regression: of the control variates of the energies.
          key: of the draws.
        """
        return self.programs.observe(self.system, params, regression, key)

    def occupy(self, params: Params, keys: jax.Array) -> Drawn:
        """Draws of p(K), one for each key."""
        return self.programs.occupy(self.system, params, keys)

    def twice(self, params: Params, states: jax.Array, keys: jax.Array) -> jax.Array:
        """F_loc of two independent x at each K, hartree per cell, without control variates.

        Args:
          params: of the density matrix.
          states: occupied orbitals.                        [B, N]
          keys: of the draws.                               [2, B]
        Returns:
          T ln p(K) + Re E_loc.                             [2, B]
        """
        return self.programs.twice(self.system, params, states, keys)


def block_size(batch: int) -> int:
    """Samples in a block of a batch: the largest divisor that is at most MAX_BLOCK."""
    return max(size for size in range(1, MAX_BLOCK + 1) if batch % size == 0)


def instruments(system: System, sizes: ModelConfig, sampler: SamplerConfig) -> Instruments:
    """Instruments of a gas and a model; their programs are those of the gas of r_s = 1."""
    return Instruments(
        system=system,
        grid=grid_of(system),
        programs=measurement_programs(system.of_unit_density, sizes, sampler),
    )


@functools.lru_cache(maxsize=2)
def measurement_programs(
    gas: System, sizes: ModelConfig, sampler: SamplerConfig
) -> MeasurementPrograms:
    """Programs for all gases of the shape of this one, compiled when they are first called.

    Args:
      gas: with r_s = 1 and coupling = 1, which stand for all others.
      sizes, sampler: as configured.
    """
    chunk = sampler.chunk or walkers_at_once(gas, sampler.batch)
    at_unit_density = _Measurements(
        sizes=sizes,
        sampler=sampler,
        # the plane waves that training had
        orbitals=choose_cutoff(gas, sizes.orbital_tolerance).orbitals,
        grid=grid_of(gas),
        chunk=chunk,
        # drawing a sample needs less memory than its energy
        chunk_of_draws=chunk * gas.dim**2,
    )
    return MeasurementPrograms(
        observe=jit(at_unit_density.observe),
        occupy=jit(at_unit_density.occupy),
        twice=jit(at_unit_density.twice),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Measurements:
    """Functions behind `MeasurementPrograms`, before they are compiled.

    Attributes:
      sizes, sampler: as configured.
      orbitals, grid: of the gas of r_s = 1.
      chunk: walkers whose energies are computed at once.
      chunk_of_draws: walkers drawn at once, at most.
    """

    sizes: ModelConfig
    sampler: SamplerConfig
    orbitals: Orbitals
    grid: Grid
    chunk: int
    chunk_of_draws: int

    def model(self, system: System) -> Model:
        """The density matrix of a gas."""
        # built anew inside each program: it closes over r_s and coupling, which are traced
        orbitals = self.orbitals.at_density(system.rs)
        return build_model(system, orbitals, self.sizes)

    def drawn_at_once(self, count: int) -> int:
        """Walkers drawn at once of so many in all."""
        return divisor(count, self.chunk_of_draws)

    def observe(self, system, params, regression, key):
        """Means over blocks of one batch."""
        batch = self.sampler.batch
        model = self.model(system)
        # the order of these keys is part of what a seed means
        key_draw, key_move = jax.random.split(key)
        orbitals = self.orbitals.at_density(system.rs)
        at_once = self.drawn_at_once(batch)
        walks = make_walks(system, orbitals, model, self.sampler, at_once)
        walk = walks.draw(params, key_draw)

        grid = self.grid.at_density(system.rs)
        sample = make_sample(system, orbitals, model, grid)

        def sample_walker(walker_and_key):
            walker, key = walker_and_key
            return sample(params, walker, key)

        keys = jax.random.split(key_move, batch)
        samples, structure, momentum = map_walkers(
            sample_walker,
            (walk.walkers, keys),
            self.chunk,
        )
        observed = observe(samples, structure, momentum, regression, system)
        means = _means_of_blocks(observed, block_size(batch))
        return ObservedBatch(means, walk.redrawn, walk.lost)

    def occupy(self, system, params, keys):
        """Draws of K and their probabilities."""
        occupations = self.model(system).occupations
        chunk = self.drawn_at_once(len(keys))

        def draw(key):
            return occupations.sample(params.occupations, key)

        def log_prob(state):
            return occupations.log_prob(params.occupations, state)

        states = map_walkers(draw, keys, chunk)
        log_p = map_walkers(log_prob, states, chunk)
        return Drawn(states, log_p)

    def twice(self, system, params, states, keys):
        """F_loc of two draws of x at each K."""
        model = self.model(system)

        # T ln p + Re E_loc
        def f_loc(walker):
            log_p = model.occupations.log_prob(params.occupations, walker.state)
            energy, _ = model.local_energy(params.flow, walker.x, walker.state)
            e_loc = jnp.real(energy.total)
            return system.temperature * log_p + e_loc

        # the same K twice, with keys of its own each time
        both = jnp.concatenate([states, states])
        orbitals = self.orbitals.at_density(system.rs)
        at_once = self.drawn_at_once(self.sampler.batch)
        draw = make_draw(system, orbitals, model.flow, at_once)
        draws = draw(params.flow, both, keys.reshape(-1))
        walkers = Walkers(both, draws.x)
        values = map_walkers(f_loc, walkers, self.chunk)
        return values.reshape(2, -1)


def _means_of_blocks(tree, size):
    """Means over blocks of `size` samples of arrays with the samples along the first axis."""

    def mean(leaf):
        return leaf.reshape(-1, size, *leaf.shape[1:]).mean(axis=1)

    return jax.tree.map(mean, tree)
