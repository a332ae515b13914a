"""One training step: sample, estimate, move the parameters."""

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from heg.config import Config, ModelConfig, OptimizerConfig, SamplerConfig
from heg.gas.ideal import Cutoff, choose_cutoff
from heg.gas.plane_waves import Orbitals, lowest_plane_waves
from heg.gas.system import System
from heg.model.density_matrix import Model, Params, build_model
from heg.model.monotone import largest_attraction
from heg.parallel.compilation import Program
from heg.parallel.devices import divisor, everywhere, walkers_at_once
from heg.sampling.batch import Walk, Walkers, Walks, anywhere, make_walks
from heg.sampling.folds import Quality, folded_measure, lowest_determinant
from heg.training.control_variates import (
    Regression,
    baseline,
    first_regression,
    make_controls,
    update_regression,
)
from heg.training.free_energy import (
    Samples,
    Scores,
    batch_estimate,
    clip_deviation,
    evaluate,
    gradient,
    gradient_from_scores,
    per_electron,
    scores,
    weights,
)
from heg.training.natural_gradient import bound_step, natural_gradient, trusted
from heg.training.state import (
    FIRST_BATCH,
    SAMPLING,
    STARTING,
    StepInfo,
    TrainState,
    key_from,
    key_of_run,
    stream,
)

FOLD_SAMPLES = 10_000  # uniform points at which the sign of det J is looked at
LATE = 3  # power of the step in the average of the parameters


# eq=False here and below: arrays have no hash, and jit asks one of the object behind a method; it
# is then that of the object's identity
@dataclasses.dataclass(frozen=True, eq=False)
class Solver:
    """A run made ready: its system, cutoff, model, and the functions of the loop.

    Attributes:
      system: the gas.
      cutoff: its plane waves.
      sizes: of its networks.
      template: a TrainState of zeros, to read checkpoints by.
      programs: the compiled functions.
      exact: True for exact draws in training, False for chains.
    """

    system: System
    cutoff: Cutoff
    sizes: ModelConfig
    template: TrainState
    programs: "TrainingPrograms"
    exact: bool

    @functools.cached_property
    def model(self) -> Model:
        """The density matrix.  The programs of a run make their own."""
        # it is kept: its arrays must outlive a trace in which it is first asked for
        with jax.ensure_compile_time_eval():
            return build_model(self.system, self.cutoff.orbitals, self.sizes)

    def compile_ahead(self, threads: ThreadPoolExecutor) -> None:
        """Compiles all programs of a run in the threads, while this one goes on.

        Args:
          threads: of heg.parallel.compilation.compiler_threads.
        """
        system = self.system
        programs = self.programs
        # shapes alone count: the template stands for every state, the key for every key
        state = self.template
        params = state.params
        key = key_of_run(0)
        samples, walk = self.shapes_of_measurement(params, key)
        states = walk.walkers.state
        if not self.exact:  # the acceptance of chains is of another type
            walk = programs.chain.shapes(system, params, walk.walkers, walk.width, key)
        min_det = programs.lowest.shapes(system, params.flow, walk.walkers)
        # the longest one first: with a core for each program the run waits for it
        programs.update.ahead(threads, system, state, walk, samples, min_det)
        programs.lowest.ahead(threads, system, params.flow, walk.walkers)
        programs.init.ahead(threads, system, state.key)
        programs.states.ahead(threads, system, params, key)
        programs.draw.ahead(threads, system, params, states, key)
        programs.evaluate.ahead(threads, system, params, walk.walkers)
        programs.values.ahead(threads, system, samples, state.regression)
        if not self.exact:
            programs.chain.ahead(threads, system, params, walk.walkers, walk.width, key)
        # wanted last, after the training
        programs.quality.ahead(threads, system, params.flow, key, min_det)

    def init(self, key: jax.Array) -> TrainState:
        """The state before the first step; chains begin from a batch of exact draws."""
        state = self.programs.init(self.system, everywhere(jax.random.key_data(key)))
        if self.exact:
            return state
        walk = self._exact_draws(state.params, stream(state, FIRST_BATCH))
        return state._replace(walkers=walk.walkers, redrawn=walk.redrawn)

    def step(self, state: TrainState) -> tuple[TrainState, StepInfo]:
        """The state after one step, and the record of the step."""
        system = self.system
        params = state.params
        key = stream(state, SAMPLING)
        if self.exact:
            walk = self._exact_draws(params, key)
        else:
            states = self.programs.states(system, params, key)
            walkers = Walkers(states, state.walkers.x)
            walk = self.programs.chain(system, params, walkers, state.width, key)
        samples = self.programs.evaluate(system, params, walk.walkers)
        min_det = self.programs.lowest(system, params.flow, walk.walkers)
        return self.programs.update(system, state, walk, samples, min_det)

    def measure(self, params: Params, key: jax.Array) -> tuple[Samples, Walk]:
        """One batch of exact draws at frozen parameters."""
        walk = self._exact_draws(params, key)
        return self.programs.evaluate(self.system, params, walk.walkers), walk

    def shapes_of_measurement(self, params: Params, key: jax.Array) -> tuple[Samples, Walk]:
        """Shapes and types of what `measure` gives; nothing is compiled."""
        system = self.system
        states = self.programs.states.shapes(system, params, key)
        walk = self.programs.draw.shapes(system, params, states, key)
        return self.programs.evaluate.shapes(system, params, walk.walkers), walk

    def measure_at(self, params: Params, states: jax.Array, key: jax.Array) -> Samples:
        """Exact draws of x at given K, as many as there are in a batch.

        Args:
          params: of the density matrix.
          states: occupied orbitals.                        [B, N]
          key: of the draws.
        """
        walk = self.programs.draw(self.system, params, states, key)
        return self.programs.evaluate(self.system, params, walk.walkers)

    def _exact_draws(self, params: Params, key: jax.Array) -> Walk:
        states = self.programs.states(self.system, params, key)
        return self.programs.draw(self.system, params, states, key)

    def per_electron(self, samples: Samples, regression: Regression) -> dict[str, jax.Array]:
        """Values of each sample, as in heg.training.free_energy."""
        return self.programs.values(self.system, samples, regression)

    def quality(self, params: Params, walkers: Walkers, key: jax.Array) -> Quality:
        """Signs of folds of the flow, at the walkers and at FOLD_SAMPLES uniform positions.

        Args:
          params: of which those of the flow count.
          walkers: from which the lowest determinant is sought.
          key: of the uniform positions.
        """
        system = self.system
        min_det = self.programs.lowest(system, params.flow, walkers)
        return self.programs.quality(system, params.flow, key, min_det)


@dataclasses.dataclass(frozen=True)
class TrainingPrograms:
    """Methods of StepFunctions, under their names, compiled when they are first called, or ahead.

    They serve all gases that differ by r_s, Theta or coupling alone: their first argument.

    Attributes:
      init, states, draw, chain, evaluate, update, values, lowest, quality: as in StepFunctions.
    """

    init: Program
    states: Program
    draw: Program
    chain: Program
    evaluate: Program
    update: Program
    values: Program
    lowest: Program
    quality: Program


def build(config: Config) -> Solver:
    """A run made ready.

    What it compiles serves later gases that differ by r_s, coupling or Theta alone, as long as they
    have as many plane waves.

    Raises:
      ValueError: the system is impossible.
    """
    system = config.system.build()
    sizes = config.model
    # the plane waves of r_s = 1, scaled: rounding is then alike at every density
    unit_cutoff = choose_cutoff(system.of_unit_density, sizes.orbital_tolerance, sizes.min_orbitals)
    count = len(unit_cutoff.orbitals.energy)
    compiled = training_programs(system.shape, count, sizes, config.sampler, config.optimizer)
    some_key = jax.random.key_data(key_of_run(0))
    shapes = compiled.init.shapes(system, some_key)
    return Solver(
        system=system,
        cutoff=unit_cutoff._replace(orbitals=unit_cutoff.orbitals.at_density(system.rs)),
        sizes=sizes,
        template=jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes),
        programs=compiled,
        exact=config.sampler.sampler == "exact",
    )


@functools.lru_cache(maxsize=4)
def training_programs(
    gas: System,
    orbitals: int,
    sizes: ModelConfig,
    sampler: SamplerConfig,
    optimizer: OptimizerConfig,
) -> TrainingPrograms:
    """Programs for all gases of one shape.

    Args:
      gas: of heg.gas.system.System.shape.
      orbitals: number of plane waves of p(K).
      sizes, sampler, optimizer: as configured.
    """
    chunk = sampler.chunk or walkers_at_once(gas, sampler.batch)
    functions = StepFunctions(
        orbitals=lowest_plane_waves(gas, orbitals),
        sizes=sizes,
        sampler=sampler,
        optimizer=optimizer,
        chunk=chunk,
        # draws need first derivatives of the pairs only, d^2 times less memory
        draw_chunk=divisor(sampler.batch, chunk * gas.dim**2),
    )
    return TrainingPrograms(
        init=Program(functions.init),
        states=Program(functions.states),
        draw=Program(functions.draw),
        chain=Program(functions.chain),
        evaluate=Program(functions.evaluate),
        update=Program(functions.update),
        values=Program(functions.values),
        lowest=Program(functions.lowest),
        quality=Program(functions.quality),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class StepFunctions:
    """The parts of the loop as pure functions, not yet compiled.

    Each takes the gas as its first argument and builds the model of that gas anew.  The reason is
    compilation: r_s, Theta and coupling are then tracers, and one program serves every gas that
    differs by them alone.  A model built outside the trace would write its own r_s into the program
    as a constant.

    Attributes:
      orbitals: plane waves of p(K), of the gas of r_s = 1.
      sizes, sampler, optimizer: as configured.
      chunk: walkers at once where second derivatives are needed.
      draw_chunk: walkers at once where they are drawn or moved.
    """

    orbitals: Orbitals
    sizes: ModelConfig
    sampler: SamplerConfig
    optimizer: OptimizerConfig
    chunk: int
    draw_chunk: int

    def init(self, system: System, key_data: jax.Array) -> TrainState:
        """The state before the first step, at uniform positions; from the data of the run's key."""
        key = jax.random.fold_in(key_from(key_data), STARTING)
        # the order of the three streams decides what a seed means: p(K), flow, positions
        key_p, key_flow, key_x = jax.random.split(key, 3)
        model = self._model(system)
        params = Params(
            occupations=model.occupations.init(key_p),
            flow=model.flow.init(key_flow),
        )
        walk = anywhere(system, self.sampler.batch, key_x)
        zero = jnp.zeros((), int)
        return TrainState(
            step=zero,
            params=params,
            opt_state=build_optimizer(system, self.optimizer).init(params),
            average=params,
            walkers=walk.walkers,
            regression=first_regression(),
            width=walk.width,
            redrawn=zero,
            key=key_data,
        )

    def states(self, system: System, params: Params, key: jax.Array) -> jax.Array:
        """A batch of new K.  [B, N]"""
        return self._walks(system).states(params, key)

    def draw(self, system: System, params: Params, states: jax.Array, key: jax.Array) -> Walk:
        """Exact draws of x at given K."""
        return self._walks(system).draw(params, states, key)

    def chain(
        self,
        system: System,
        params: Params,
        walkers: Walkers,
        width: jax.Array,
        key: jax.Array,
    ) -> Walk:
        """The walkers moved on by Markov chains with a proposal of this width, bohr."""
        return self._walks(system).chain(params, walkers, width, key)

    def evaluate(self, system: System, params: Params, walkers: Walkers) -> Samples:
        """ln p, E_loc and the controls of every walker."""
        orbitals = self._orbitals(system)
        model = build_model(system, orbitals, self.sizes)
        controls = make_controls(system, orbitals)
        return evaluate(model, controls, params, walkers, self.chunk)

    def update(
        self,
        system: System,
        state: TrainState,
        walk: Walk,
        samples: Samples,
        min_det: jax.Array,
    ) -> tuple[TrainState, StepInfo]:
        """The state after a step on these samples, and the record of the step."""
        model = self._model(system)
        slope = self._gradient(system, model, state, walk, samples)
        updates, opt_state = build_optimizer(system, self.optimizer).update(
            slope.gradient, state.opt_state, state.params, scores=slope.scores
        )
        # a step that is short in the metric may still change ln |Psi|^2 too much
        updates = trusted(model, state.params, updates, walk.walkers)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        after = state._replace(
            step=step,
            params=params,
            opt_state=opt_state,
            average=Params(
                occupations=params.occupations,
                flow=late_average(state.average.flow, params.flow, step),
            ),
            walkers=walk.walkers,
            regression=update_regression(
                state.regression, samples.controls, samples.energy, state.step
            ),
            width=walk.width,
            redrawn=state.redrawn + walk.redrawn,
        )
        # the record is of the parameters before the step, its check of the new ones too
        finite = _all_finite((samples, slope.gradient, params))
        return after, _step_info(system, state, walk, samples, min_det, finite)

    def values(
        self, system: System, samples: Samples, regression: Regression
    ) -> dict[str, jax.Array]:
        """Values of each sample per electron, and its weights, as in heg.training.free_energy."""
        return per_electron(samples, regression, system) | weights(samples, system)

    def lowest(self, system: System, flow: dict, walkers: Walkers) -> jax.Array:
        """The lowest determinant of a layer found, as in heg.sampling.folds.

        A program of its own, as each step wants it and the quality of the whole run.
        """
        return lowest_determinant(self._model(system), system, flow, walkers)

    def quality(self, system: System, flow: dict, key: jax.Array, min_det: jax.Array) -> Quality:
        """Signs of folds of the flow, as in heg.sampling.folds; min_det is that of `lowest`."""
        model = self._model(system)
        keys = jax.random.split(key, FOLD_SAMPLES)
        # uniform positions come in another number than the batch, and need a divisor of their own
        chunk = divisor(FOLD_SAMPLES, self.chunk)
        return Quality(
            min_det=min_det,
            folded=folded_measure(model, system, flow, keys, chunk),
            attraction=largest_attraction(model.flow, flow),
        )

    def _orbitals(self, system: System) -> Orbitals:
        return self.orbitals.at_density(system.rs)

    def _model(self, system: System) -> Model:
        return build_model(system, self._orbitals(system), self.sizes)

    def _walks(self, system: System) -> Walks:
        orbitals = self._orbitals(system)
        model = build_model(system, orbitals, self.sizes)
        return make_walks(system, orbitals, model, self.sampler, self.draw_chunk)

    def _gradient(self, system, model, state, walk, samples):
        """The gradient of F, and the scores if the optimiser wants them."""
        params = state.params
        walkers = walk.walkers
        of_state, of_e = _deviations(system, state.regression, samples)
        if self.optimizer.optimizer == "natural":
            # the scores serve twice, for the gradient and for the Fisher matrices
            centred = scores(model, params, walkers, self.chunk)
            by_scores = gradient_from_scores(centred, params, of_state, of_e)
            return _Slope(by_scores, centred)
        by_surrogate = gradient(model, params, walkers, of_state, of_e)
        return _Slope(by_surrogate, None)


class _Slope(NamedTuple):
    """The gradient of F, and the scores of the natural gradient; None for other optimisers."""

    gradient: Params
    scores: Scores | None


class _Deviations(NamedTuple):
    """Clipped deviations of the samples from their means, hartree.  [B]

    Attributes:
      of_state: of T ln p(K) + b(K) from its mean.
      energy: of E_loc from b(K), complex.
    """

    of_state: jax.Array
    energy: jax.Array


def _deviations(system, regression, samples):
    b = baseline(regression, samples.controls)
    # E_loc would bring the noise of x into p(K), many times T in a cold gas
    of_state = system.temperature * samples.log_p + b
    from_mean = of_state - of_state.mean()
    from_baseline = samples.energy.total - b
    return _Deviations(
        of_state=clip_deviation(from_mean),
        energy=clip_deviation(from_baseline),
    )


def _all_finite(tree):
    finite = []
    for leaf in jax.tree.leaves(tree):
        finite.append(jnp.all(jnp.isfinite(leaf)))
    return jnp.all(jnp.array(finite))


def _step_info(system, state, walk, samples, min_det, finite):
    # E_loc as it is, without control variates: its variance is to be seen
    energy = samples.energy.total
    values = per_electron(samples, state.regression, system)
    estimates = {name: batch_estimate(value) for name, value in values.items()}
    deviation = jnp.abs(energy - energy.mean())
    # one energy that is not finite spoils the mean; it alone then counts as the worst
    finite_deviation = jnp.nan_to_num(deviation)
    badness = jnp.where(jnp.isfinite(energy), finite_deviation, jnp.inf)
    return StepInfo(
        estimates=estimates,
        variance=jnp.var(jnp.real(energy), ddof=1),
        acceptance=walk.acceptance,
        redrawn=walk.redrawn,
        lost=walk.lost,
        min_det=min_det,
        finite=finite,
        worst=jnp.argmax(badness),
    )


def build_optimizer(
    system: System, config: OptimizerConfig
) -> optax.GradientTransformationExtraArgs:
    """The descent of F by the configured optimiser.

    Units make the gradients of both blocks dimensionless: T for p(K), and twice that of
    heg.gas.system.System.energy_of_flow for the flow.
    """
    unit_of_p = system.temperature
    unit_of_flow = 2 * system.energy_of_flow

    def in_units(grads, params):
        del params
        return Params(
            occupations=jax.tree.map(lambda leaf: leaf / unit_of_p, grads.occupations),
            flow=jax.tree.map(lambda leaf: leaf / unit_of_flow, grads.flow),
        )

    dimensionless = optax.stateless(in_units)
    rate = optax.scale(-config.learning_rate)  # downhill
    decay = optax.scale_by_schedule(lambda step: 1 / (1 + step / config.decay))
    # Adam has no metric in which a step could be bounded
    if config.optimizer == "adam":
        adam = optax.chain(dimensionless, optax.scale_by_adam(), rate, decay)
        return optax.with_extra_args_support(adam)
    return optax.chain(
        dimensionless,
        natural_gradient(config.damping),
        rate,
        bound_step(config.max_norm * system.step_scale),
        decay,
    )


def late_average(average: dict, params: dict, step: jax.Array) -> dict:
    """Running average of the parameters with weights that rise as step^LATE.

    After the first step it is that step's parameters.  What is left of the noise of the steps
    averages out, the beginning is forgotten.
    Source: Shamir and Zhang, Proc. Machine Learning Research 28(1), 71 (2013), arXiv:1212.1824.
    """
    # one at the first step
    weight = (LATE + 1) / (step + LATE)
    return jax.tree.map(lambda old, new: old + weight * (new - old), average, params)
