"""Programs that measure a density matrix with frozen parameters, compiled once for gas and model.

`instruments` gives those of one gas.  Samples and their energies come from the programs of the
training, so that only what training does not know is compiled beside them.  Gases that differ by
r_s, Theta or coupling alone share all of it, as long as they have as many plane waves.
"""

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from heg.config import ModelConfig, SamplerConfig
from heg.gas.plane_waves import Orbitals, lowest_plane_waves
from heg.gas.system import System
from heg.model.density_matrix import Model, Params, build_model
from heg.observables.structure import Grid, grid_of
from heg.observables.thermodynamics import Observed, make_look, observe
from heg.parallel.compilation import Program
from heg.parallel.devices import divisor, map_walkers, walkers_at_once
from heg.training.control_variates import Regression
from heg.training.state import key_of_run
from heg.training.step import Solver

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
      observe: system, params, Regression, Samples, Walkers, key -> Observed, means over blocks.
      occupy: system, params, keys -> Drawn.
    """

    observe: Program
    occupy: Program


@dataclasses.dataclass(frozen=True, eq=False)
class Instruments:
    """Compiled measurements of one gas, as functions of the parameters.

    Attributes:
      solver: of the gas.
      grid: of S(q) and g(r).
      programs: compiled for all gases of its shape.
    """

    solver: Solver
    grid: Grid
    programs: MeasurementPrograms

    def observe(self, params: Params, regression: Regression, key: jax.Array) -> ObservedBatch:
        """All observables of a batch of exact draws.

        Args:
          params: of the density matrix.
          regression: of the control variates of the energies.
          key: of the draws.
        """
        # the order of these keys is part of what a seed means
        key_draw, key_move = jax.random.split(key)
        samples, walk = self.solver.measure(params, key_draw)
        means = self.programs.observe(
            self.solver.system, params, regression, samples, walk.walkers, key_move
        )
        return ObservedBatch(means, walk.redrawn, walk.lost)

    def shapes_of_means(self, params: Params, regression: Regression) -> Observed:
        """Shapes and types of the means of a batch; nothing is compiled."""
        system = self.solver.system
        key = key_of_run(0)
        samples, walk = self.solver.shapes_of_measurement(params, key)
        return self.programs.observe.shapes(system, params, regression, samples, walk.walkers, key)

    def compile_ahead(
        self, params: Params, regression: Regression, threads: ThreadPoolExecutor
    ) -> None:
        """Compiles what `observe` needs in the threads, while this one goes on.

        Args:
          params, regression: as of `observe`; their shapes alone count.
          threads: of heg.parallel.compilation.compiler_threads.
        """
        system = self.solver.system
        training = self.solver.programs
        key = key_of_run(0)
        samples, walk = self.solver.shapes_of_measurement(params, key)
        walkers = walk.walkers
        training.evaluate.ahead(threads, system, params, walkers)
        training.draw.ahead(threads, system, params, walkers.state, key)
        training.states.ahead(threads, system, params, key)
        self.programs.observe.ahead(threads, system, params, regression, samples, walkers, key)

    def occupy(self, params: Params, keys: jax.Array) -> Drawn:
        """Draws of p(K), one for each key."""
        return self.programs.occupy(self.solver.system, params, keys)


def block_size(batch: int) -> int:
    """Samples in a block of a batch: the largest divisor that is at most MAX_BLOCK."""
    return max(size for size in range(1, MAX_BLOCK + 1) if batch % size == 0)


def instruments(solver: Solver, sampler: SamplerConfig) -> Instruments:
    """Instruments for the gas and the model of a solver."""
    orbitals = len(solver.cutoff.orbitals.energy)
    return Instruments(
        solver=solver,
        grid=grid_of(solver.system),
        programs=measurement_programs(solver.system.shape, orbitals, solver.sizes, sampler),
    )


@functools.lru_cache(maxsize=2)
def measurement_programs(
    gas: System, orbitals: int, sizes: ModelConfig, sampler: SamplerConfig
) -> MeasurementPrograms:
    """Programs for all gases of one shape, compiled when they are first called.

    Args:
      gas: of heg.gas.system.System.shape.
      orbitals: number of plane waves of p(K).
      sizes, sampler: as configured.
    """
    chunk = sampler.chunk or walkers_at_once(gas, sampler.batch)
    at_unit_density = _Measurements(
        sizes=sizes,
        sampler=sampler,
        orbitals=lowest_plane_waves(gas, orbitals),
        grid=grid_of(gas),
        chunk=chunk,
        # drawing a sample needs less memory than its energy
        chunk_of_draws=chunk * gas.dim**2,
    )
    return MeasurementPrograms(
        observe=Program(at_unit_density.observe),
        occupy=Program(at_unit_density.occupy),
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

    def observe(self, system, params, regression, samples, walkers, key):
        """Means over blocks of one batch."""
        model = self.model(system)
        orbitals = self.orbitals.at_density(system.rs)
        grid = self.grid.at_density(system.rs)
        look = make_look(system, orbitals, model, grid)

        def look_at(walker_and_key):
            walker, key = walker_and_key
            return look(params, walker, key)

        batch = self.sampler.batch
        keys = jax.random.split(key, batch)
        structure, momentum = map_walkers(look_at, (walkers, keys), self.chunk)
        observed = observe(samples, structure, momentum, regression, system)
        return _means_of_blocks(observed, block_size(batch))

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


def _means_of_blocks(tree, size):
    """Means over blocks of `size` samples of arrays with the samples along the first axis."""

    def mean(leaf):
        return leaf.reshape(-1, size, *leaf.shape[1:]).mean(axis=1)

    return jax.tree.map(mean, tree)
