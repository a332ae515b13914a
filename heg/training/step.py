"""One training step: sample, estimate, move the parameters."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from heg.config import Config, ModelConfig, OptimizerConfig, SamplerConfig
from heg.gas.ideal import Cutoff, choose_cutoff
from heg.gas.plane_waves import Orbitals
from heg.gas.system import System
from heg.model.density_matrix import Model, Params
from heg.model.flow import FlowSize, make_flow
from heg.model.kinetic import make_kinetic_energy
from heg.model.local_energy import make_local_energy
from heg.model.occupations import TransformerSize, make_occupations
from heg.model.wavefunction import make_log_psi, make_score
from heg.parallel.devices import divisor, everywhere, jit, walkers_at_once
from heg.sampling.batch import anywhere, make_walks
from heg.sampling.exact_draws import make_draw
from heg.sampling.folds import Quality, folded_measure, lowest_determinant
from heg.training.control_variates import (
    baseline,
    controlled,
    first_regression,
    make_controls,
    update_regression,
)
from heg.training.free_energy import (
    batch_estimate,
    clip_deviation,
    evaluate,
    gradient,
    gradient_from_scores,
    per_electron,
    scores,
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

LATE = 3  # power of the step in the average of the parameters


class Solver(NamedTuple):
    """A run made ready: its system, cutoff, model, and the compiled functions of the loop.

    Attributes:
      init: key -> TrainState.
      step: TrainState -> TrainState, StepInfo.
      measure: params, key -> Samples, Walk; one batch of exact draws at frozen parameters.
      per_electron: Samples, Regression -> values of each sample, as in heg.training.free_energy.
      quality: params, Walkers, keys of uniform positions -> Quality.
      template: a TrainState of zeros, to read checkpoints by.
    """

    system: System
    cutoff: Cutoff
    model: Model
    init: Callable
    step: Callable
    measure: Callable
    per_electron: Callable
    quality: Callable
    template: TrainState


class Programs(NamedTuple):
    """The parts of the loop, compiled once for all gases that differ by r_s or coupling alone:
    their first argument.

    Attributes:
      cutoff: of the gas of r_s = 1.
      init: system, key -> TrainState; chains begin from a draw.
      draw: system, params, key -> Walk.
      chain: system, params, Walkers, width, key -> Walk.
      evaluate: system, params, Walkers -> Samples.
      update: system, TrainState, Walk, Samples -> TrainState, StepInfo.
      values: system, Samples, Regression -> values of each sample per electron.
      quality: system, params, Walkers, keys -> Quality.
    """

    cutoff: Cutoff
    init: Callable
    draw: Callable
    chain: Callable
    evaluate: Callable
    update: Callable
    values: Callable
    quality: Callable


def build_model(system: System, orbitals: Orbitals, config: ModelConfig, chunk: int) -> Model:
    """p(K), flow, wavefunction and Hamiltonian of the configured sizes; exact draws `chunk` walkers
    at a time."""
    size = TransformerSize(
        config.transformer_layers, config.transformer_width, config.transformer_heads
    )
    occupations = make_occupations(system, orbitals, size)
    flow = make_flow(system, FlowSize(config.flow_layers, config.flow_width))
    log_psi = make_log_psi(system, orbitals, flow)
    local_energy = make_local_energy(system, make_kinetic_energy(system, orbitals, flow))
    score = make_score(system, orbitals, flow)
    controls, draw = make_controls(system, orbitals), make_draw(system, orbitals, flow, chunk)
    return Model(occupations, flow, log_psi, score, local_energy, controls, draw)


def build_optimizer(
    system: System, config: OptimizerConfig
) -> optax.GradientTransformationExtraArgs:
    """Descends F given in units that make both blocks dimensionless: T for p(K), E_F + 1/r_s^{3/2}
    for the flow."""
    units = Params(
        system.temperature, 2 * (system.fermi_energy + system.coupling * system.rs**-1.5)
    )
    scale = lambda grads: Params(
        *(jax.tree.map(lambda g: g / unit, grad) for grad, unit in zip(grads, units))
    )
    in_units = optax.stateless(lambda grads, params: scale(grads))
    rate = optax.scale(-config.learning_rate)
    decay = optax.scale_by_schedule(lambda step: 1 / (1 + step / config.decay))
    if config.optimizer == "adam":
        return optax.with_extra_args_support(
            optax.chain(in_units, optax.scale_by_adam(), rate, decay)
        )
    return optax.chain(
        in_units, natural_gradient(config.damping), rate, bound_step(config.max_norm), decay
    )


def build(config: Config) -> Solver:
    """Everything that the loop needs.  What it compiles serves later gases that differ by r_s or
    coupling alone.

    Raises:
      ValueError: the system is impossible.
    """
    system, exact = config.system.build(), config.sampler.sampler == "exact"
    cutoff, init, draw, chain, evaluate, update, values, quality = programs(
        system.of_unit_density, config.model, config.sampler, config.optimizer
    )
    # r_s and coupling stay plain numbers: what depends on them is then indexed freely inside
    # shard_map
    orbitals = cutoff.orbitals.at_density(system.rs)

    def first(key):
        state = init(system, everywhere(jax.random.key_data(key)))
        if exact:
            return state
        walk = draw(system, state.params, stream(state, FIRST_BATCH))
        return state._replace(walkers=walk.walkers, redrawn=walk.redrawn)

    def step(state):
        key, params = stream(state, SAMPLING), state.params
        walk = (
            draw(system, params, key)
            if exact
            else chain(system, params, state.walkers, state.width, key)
        )
        return update(system, state, walk, evaluate(system, params, walk.walkers))

    def measure(params, key):
        walk = draw(system, params, key)
        return evaluate(system, params, walk.walkers), walk

    model = build_model(
        system, orbitals, config.model, walkers_at_once(system, config.sampler.batch)
    )
    cutoff = cutoff._replace(orbitals=orbitals)
    of_gas = lambda program: functools.partial(program, system)
    shapes = jax.eval_shape(init, system, jax.random.key_data(key_of_run(0)))
    template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return Solver(
        system, cutoff, model, first, step, measure, of_gas(values), of_gas(quality), template
    )


@functools.lru_cache(maxsize=4)
def programs(
    gas: System, sizes: ModelConfig, sampler: SamplerConfig, optimizer: OptimizerConfig
) -> Programs:
    """Programs for the gas and configurations, compiled when they are first called.

    Args:
      gas: with r_s = 1 and coupling = 1, which stand for all others.
      sizes, sampler, optimizer: as configured.
    """
    cutoff = choose_cutoff(gas, sizes.orbital_tolerance)
    chunk = sampler.chunk or walkers_at_once(gas, sampler.batch)
    # samples need first derivatives of the pairs only, d^2 times less memory
    sampled = divisor(sampler.batch, chunk * gas.dim**2)
    model_of = lambda system: build_model(
        system, cutoff.orbitals.at_density(system.rs), sizes, sampled
    )
    walks_of = lambda system: make_walks(system, model_of(system), sampler, sampled)

    def init(system, key_data):
        key = jax.random.fold_in(key_from(key_data), STARTING)
        model, (key_p, key_flow, key_x) = model_of(system), jax.random.split(key, 3)
        params = Params(model.occupations.init(key_p), model.flow.init(key_flow))
        walk, opt_state = (
            anywhere(system, sampler.batch, key_x),
            build_optimizer(system, optimizer).init(params),
        )
        zero, regression = jnp.zeros((), int), first_regression()
        return TrainState(
            zero, params, opt_state, params, walk.walkers, regression, walk.width, zero, key_data
        )

    def quality(system, params, walkers, keys):
        model = model_of(system)
        return Quality(
            lowest_determinant(model, system, params.flow, walkers),
            folded_measure(model, system, params.flow, keys, divisor(len(keys), chunk)),
        )

    def update(system, state, walk, samples):
        model, params = model_of(system), state.params
        f_deviation, e_deviation = _deviations(system, state.regression, samples)
        if optimizer.optimizer == "natural":
            centred = scores(model, params, walk.walkers, chunk)
            grads = gradient_from_scores(centred, params, f_deviation, e_deviation)
        else:
            centred, grads = None, gradient(model, params, walk.walkers, f_deviation, e_deviation)
        updates, opt_state = build_optimizer(system, optimizer).update(
            grads, state.opt_state, params, scores=centred
        )
        params = optax.apply_updates(params, trusted(model, params, updates, walk.walkers))
        after = state._replace(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            average=Params(
                params.occupations, late_average(state.average.flow, params.flow, state.step + 1)
            ),
            walkers=walk.walkers,
            regression=update_regression(state.regression, samples.controls, samples.energy),
            width=walk.width,
            redrawn=state.redrawn + walk.redrawn,
        )
        finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves((samples, grads, params))]
        return after, _look(system, model, state, walk, samples)._replace(
            finite=jnp.all(jnp.array(finite))
        )

    functions = (
        init,
        lambda system, *arguments: walks_of(system).draw(*arguments),
        lambda system, *arguments: walks_of(system).chain(*arguments),
        lambda system, params, walkers: evaluate(model_of(system), params, walkers, chunk),
        update,
        lambda system, samples, regression: per_electron(samples, regression, system),
        quality,
    )
    return Programs(cutoff, *map(jit, functions))


def _look(system, model, state, walk, samples):
    """StepInfo, as far as the samples go."""
    deviation = jnp.abs(samples.energy.total - samples.energy.total.mean())
    values = per_electron(samples, state.regression, system)
    return StepInfo(
        estimates={name: batch_estimate(of_name) for name, of_name in values.items()},
        variance=jnp.var(jnp.real(samples.energy.total), ddof=1),
        acceptance=walk.acceptance,
        redrawn=walk.redrawn,
        lost=walk.lost,
        min_det=lowest_determinant(model, system, state.params.flow, walk.walkers),
        finite=jnp.array(True),
        worst=jnp.argmax(
            jnp.where(jnp.isfinite(samples.energy.total), jnp.nan_to_num(deviation), jnp.inf)
        ),
    )


def _deviations(system, regression, samples):
    """Clipped deviations of F_loc, less its control variates, from its mean, and of E_loc from
    b(K)."""
    energy = controlled(regression, samples.controls, samples.energy).total
    f_loc = system.temperature * samples.log_p + jnp.real(energy)
    e_deviation = samples.energy.total - baseline(regression, samples.controls)
    return clip_deviation(f_loc - f_loc.mean()), clip_deviation(e_deviation)


def late_average(average: dict, params: dict, step: jax.Array) -> dict:
    """Running average of the parameters with weights that rise as step^LATE; after the first step,
    its parameters.

    What is left of the noise of the steps averages out, the beginning is forgotten.
    Source: Shamir and Zhang, Proc. Machine Learning Research 28(1), 71 (2013), arXiv:1212.1824.
    """
    weight = (LATE + 1) / (step + LATE)
    return jax.tree.map(lambda old, new: old + weight * (new - old), average, params)
