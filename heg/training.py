"""One training step: sample, estimate, move the parameters.  The state of a run as one value."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from heg.bijection import folded_measure, lowest_determinant
from heg.config import Config, ModelConfig, OptimizerConfig
from heg.control_variates import (
    Regression,
    baseline,
    controlled,
    first_regression,
    make_controls,
    update_regression,
)
from heg.flow import FlowSize, make_flow
from heg.free_energy import (
    Model,
    Params,
    batch_estimate,
    clip_deviation,
    evaluate,
    gradient,
    gradient_from_scores,
    per_electron,
    scores,
)
from heg.hamiltonian import make_local_energy
from heg.ideal import Cutoff, choose_cutoff
from heg.kinetic import make_kinetic_energy
from heg.natural_gradient import bound_step, natural_gradient
from heg.occupations import TransformerSize, make_occupations
from heg.parallel import divisor, jit, map_walkers, walkers_at_once
from heg.sampling import Walkers, adapt_width, first_width, make_chain, make_draw
from heg.statistics import Estimate
from heg.system import System
from heg.wavefunction import make_log_psi, make_score

LATE = 3  # power of the step in the average of the parameters
TRUST = 0.5  # standard deviation of the change of ln |Psi|^2 in one step; one of length 0.1 in the metric gives 0.2
TRUSTEES = 32  # walkers that are asked
HALVINGS = 20  # of a step


class TrainState(NamedTuple):
    """Exactly what a checkpoint holds.

    Attributes:
      step: steps done.                                     []
      params, opt_state: of the model and the optimiser.
      average: of the flow over the last part of the steps, with p(K) as it is: what is measured.
      walkers: the last batch.
      regression: of the energies, for control variates and b(K).
      width: of the chains' proposal, bohr.                 []
      redrawn: draws repeated so far.                       []
      key: of the run; step and purpose are folded in.
    """

    step: jax.Array
    params: Params
    opt_state: optax.OptState
    average: Params
    walkers: Walkers
    regression: Regression
    width: jax.Array
    redrawn: jax.Array
    key: jax.Array


class Walk(NamedTuple):
    """Walkers of one step and how they came about.

    Attributes:
      walkers: the batch.
      width: of the next proposal of chains, bohr.
      acceptance: of the moves of chains; 1 for exact draws.
      redrawn, lost: draws repeated, draws given up.
    """

    walkers: Walkers
    width: jax.Array
    acceptance: jax.Array
    redrawn: jax.Array
    lost: jax.Array


class StepInfo(NamedTuple):
    """What a step saw, of the parameters it started from.

    Attributes:
      estimates: F, E, kinetic, potential (hartree), S (k_B) per electron.
      variance: of E_loc, hartree^2 per cell.
      acceptance: of the moves of chains; 1 for exact draws.
      redrawn, lost: draws repeated, draws given up.
      min_det: lowest determinant of a layer found.
    """

    estimates: dict[str, Estimate]
    variance: jax.Array
    acceptance: jax.Array
    redrawn: jax.Array
    lost: jax.Array
    min_det: jax.Array


class Solver(NamedTuple):
    """A run made ready: its system, cutoff, model, and the jitted functions of the loop.

    Attributes:
      init: key -> TrainState.
      step: TrainState -> TrainState, StepInfo.
      measure: params, key -> Samples, Walk; one batch at frozen parameters.
      folded: params, keys -> folded_measure of uniform samples.
    """

    system: System
    cutoff: Cutoff
    model: Model
    init: Callable
    step: Callable
    measure: Callable
    folded: Callable


def build_model(system: System, cutoff: Cutoff, config: ModelConfig, chunk: int) -> Model:
    """p(K), flow, wavefunction and Hamiltonian of the configured sizes; exact draws `chunk` walkers at a time."""
    size = TransformerSize(config.transformer_layers, config.transformer_width, config.transformer_heads)
    occupations = make_occupations(system, cutoff.orbitals, size)
    flow = make_flow(system, FlowSize(config.flow_layers, config.flow_width))
    log_psi = make_log_psi(system, cutoff.orbitals, flow)
    local_energy = make_local_energy(system, make_kinetic_energy(system, cutoff.orbitals, flow))
    score = make_score(system, cutoff.orbitals, flow)
    controls, draw = make_controls(system, cutoff.orbitals), make_draw(system, cutoff.orbitals, flow, chunk)
    return Model(occupations, flow, log_psi, score, local_energy, controls, draw)


def build_optimizer(system: System, config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Descends F given in units that make both blocks dimensionless: T for p(K), E_F + 1/r_s^{3/2} for the flow."""
    units = Params(system.temperature, 2 * (system.fermi_energy + system.coupling * system.rs**-1.5))
    scale = lambda grads: Params(*(jax.tree.map(lambda g: g / unit, grad) for grad, unit in zip(grads, units)))
    in_units = optax.stateless(lambda grads, params: scale(grads))
    rate = lambda step: -config.learning_rate / (1 + step / config.decay)
    if config.optimizer == "adam":
        return optax.with_extra_args_support(
            optax.chain(in_units, optax.scale_by_adam(), optax.scale_by_schedule(rate))
        )
    return optax.chain(
        in_units,
        natural_gradient(config.damping),
        optax.scale_by_schedule(rate),
        bound_step(config.max_norm),
    )


def build(config: Config) -> Solver:
    """Everything that the loop needs, jitted.

    Raises:
      ValueError: the system is impossible.
    """
    system = config.system.build()
    cutoff = choose_cutoff(system, config.model.orbital_tolerance)
    chunk = config.sampler.chunk or walkers_at_once(system, config.sampler.batch)
    # samples need first derivatives of the pairs only, d^2 times less memory
    sampled = divisor(config.sampler.batch, chunk * system.dim**2)
    model = build_model(system, cutoff, config.model, sampled)
    optimizer, natural = build_optimizer(system, config.optimizer), config.optimizer.optimizer == "natural"
    draw, walk = _make_sampler(system, model, config.sampler, sampled)

    def init(key):
        key_p, key_flow, key_draw = jax.random.split(jax.random.fold_in(key, 0), 3)
        params = Params(model.occupations.init(key_p), model.flow.init(key_flow))
        first = _first_walk(system, config.sampler, lambda: draw(params, key_draw), key_draw)
        regression, step = first_regression(), jnp.zeros((), int)
        opt_state = optimizer.init(params)
        return TrainState(step, params, opt_state, params, first.walkers, regression, first.width, first.redrawn, key)

    def step(state):
        params, key = state.params, jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step)
        walkers, width, acceptance, redrawn, lost = walk(params, state.walkers, state.width, key)
        samples = evaluate(model, params, walkers, chunk)
        f_deviation, e_deviation = _deviations(system, state.regression, samples)
        if natural:
            centred = scores(model, params, walkers, chunk)
            grads = gradient_from_scores(centred, params, f_deviation, e_deviation)
        else:
            centred, grads = None, gradient(model, params, walkers, f_deviation, e_deviation)
        updates, opt_state = optimizer.update(grads, state.opt_state, params, scores=centred)
        estimates = {
            name: batch_estimate(values) for name, values in per_electron(samples, state.regression, system).items()
        }
        variance = jnp.var(jnp.real(samples.energy.total), ddof=1)
        min_det = lowest_determinant(model, system, params.flow, walkers)
        params = optax.apply_updates(params, trusted(model, params, updates, walkers))
        after = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            average=Params(params.occupations, late_average(state.average.flow, params.flow, state.step + 1)),
            walkers=walkers,
            regression=update_regression(state.regression, samples.controls, samples.energy),
            width=width,
            redrawn=state.redrawn + redrawn,
            key=state.key,
        )
        return after, StepInfo(estimates, variance, acceptance, redrawn, lost, min_det)

    def measure(params, key):
        drawn = draw(params, key)
        return evaluate(model, params, drawn.walkers, chunk), drawn

    def folded(params, keys):
        return folded_measure(model, system, params.flow, keys, chunk)

    return Solver(system, cutoff, model, *map(jit, (init, step, measure, folded)))


def _make_sampler(system, model, config, chunk):
    """Exact draws, params, key -> Walk; and what a step does, params, walkers, width, key -> Walk."""
    width, one, none = jnp.asarray(first_width(system)), jnp.ones(()), jnp.zeros((), int)

    def new_states(params, key):
        sample = lambda key: model.occupations.sample(params.occupations, key)
        return map_walkers(sample, jax.random.split(key, config.batch), chunk)

    def draw(params, key):
        key_state, key_x = jax.random.split(key)
        state = new_states(params, key_state)
        draws = model.draw(params.flow, state, jax.random.split(key_x, config.batch))
        return Walk(Walkers(state, draws.x), width, one, draws.redrawn, draws.lost)

    walk = make_chain(config.sampler, model.log_psi, model.score)

    def chain(params, walkers, width, key):
        key_state, key_walk = jax.random.split(key)
        state, keys = new_states(params, key_state), jax.random.split(key_walk, config.batch)
        one = lambda walker: walk(params.flow, walker[0], walker[1], width, walker[2], config.moves)
        x, accepted = map_walkers(one, (state, walkers.x, keys), chunk)
        acceptance = accepted.mean()
        walkers = Walkers(state, jnp.mod(x, system.box))
        return Walk(walkers, adapt_width(width, acceptance, config.acceptance), acceptance, none, none)

    exact = lambda params, walkers, width, key: draw(params, key)
    return draw, exact if config.sampler == "exact" else chain


def _first_walk(system, config, draw, key):
    """Where chains start: exact draws.  Exact draws at every step need no start: anywhere."""
    if config.sampler != "exact":
        return draw()
    shape = config.batch, system.electrons, system.dim
    x = system.box * jax.random.uniform(key, shape)
    walkers = Walkers(jnp.zeros(shape[:2], jnp.int32), x)
    none = jnp.zeros((), int)
    return Walk(walkers, jnp.asarray(first_width(system)), jnp.ones(()), none, none)


def _deviations(system, regression, samples):
    """Clipped deviations of F_loc, less its control variates, from its mean, and of E_loc from b(K)."""
    energy = controlled(regression, samples.controls, samples.energy).total
    f_loc = system.temperature * samples.log_p + jnp.real(energy)
    e_deviation = samples.energy.total - baseline(regression, samples.controls)
    return clip_deviation(f_loc - f_loc.mean()), clip_deviation(e_deviation)


def late_average(average: dict, params: dict, step: jax.Array) -> dict:
    """Running average of the parameters with weights that rise as step^LATE; after the first step, its parameters.

    What is left of the noise of the steps averages out, the beginning is forgotten.
    Source: Shamir and Zhang, Proc. Machine Learning Research 28(1), 71 (2013), arXiv:1212.1824.
    """
    weight = (LATE + 1) / (step + LATE)
    return jax.tree.map(lambda old, new: old + weight * (new - old), average, params)


def trusted(model: Model, params: Params, updates: Params, walkers: Walkers) -> Params:
    """The updates, those of the flow halved until ln |Psi|^2 of some walkers changes by less than TRUST.

    A step that is short in the Fisher metric is not short where the first order is small and the second is not: long
    waves of the flow, which the small structure factor of a Fermi gas hides from the metric.
    """
    if not params.flow:
        return updates
    few = jax.tree.map(lambda leaf: leaf[:TRUSTEES], walkers)
    log_prob = lambda flow: map_walkers(lambda of: 2 * jnp.real(model.log_psi(flow, of.x, of.state)), few, TRUSTEES)
    before = log_prob(params.flow)
    halved = lambda number: jax.tree.map(lambda leaf: leaf * 0.5**number, updates.flow)

    def too_far(number):
        change = jnp.std(log_prob(optax.apply_updates(params.flow, halved(number))) - before)
        return ~(change < TRUST) & (number < HALVINGS)

    return updates._replace(flow=halved(lax.while_loop(too_far, lambda number: number + 1, 0)))
