"""heg-solve without its command line: configuration, one training step, the loop, the final measurement."""

import time
from importlib import metadata
from pathlib import Path
from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from heg import storage
from heg.config import Config, ModelConfig, OptimizerConfig, changed_fields, tables
from heg.flow import FlowSize, make_flow
from heg.free_energy import (
    Baseline,
    Model,
    Params,
    Samples,
    batch_estimate,
    clip_deviation,
    empty_baseline,
    evaluate,
    gradient,
    per_electron,
    predict,
    scores,
    update_baseline,
)
from heg.hamiltonian import make_local_energy
from heg.ideal import Cutoff, choose_cutoff, thermodynamics
from heg.natural_gradient import bound_step, natural_gradient
from heg.occupations import TransformerSize, make_occupations
from heg.sampling import Walkers, adapt_width, first_width, make_draw, metropolis
from heg.statistics import Estimate, independent
from heg.system import System
from heg.wavefunction import make_log_psi

DESCENTS = 8  # walkers from which the lowest determinant is sought, those with the closest pairs
REDRAWN_BOUND = 1e-4  # share of draws that may be repeated
REDRAWN_FEW = 3  # repeated draws that never stop a run


HISTORY = "history.csv"
LOST = "step {step}: {lost} samples could not be drawn, the flow is no longer a bijection: lower max_norm"


class RunError(Exception):
    """The run cannot go on; the message is one sentence for the user."""


class TrainState(NamedTuple):
    """Exactly what a checkpoint holds.

    Attributes:
      step: steps done.                                     []
      params, opt_state: of the model and the optimiser.
      walkers: the last batch.
      baseline: b(K) of the flow's gradient.
      width: of the Metropolis proposal, bohr.              []
      redrawn: draws repeated so far.                       []
      key: of the run; step and purpose are folded in.
    """

    step: jax.Array
    params: Params
    opt_state: optax.OptState
    walkers: Walkers
    baseline: Baseline
    width: jax.Array
    redrawn: jax.Array
    key: jax.Array


class StepInfo(NamedTuple):
    """What a step saw, of the parameters it started from.

    Attributes:
      estimates: F, E, kinetic, potential (hartree), S (k_B) per electron.
      variance: of E_loc, hartree^2 per cell.
      acceptance: of Metropolis moves; 1 for exact draws.
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
      measure: params, key -> Samples, lost; one batch at frozen parameters.
    """

    system: System
    cutoff: Cutoff
    model: Model
    init: Callable
    step: Callable
    measure: Callable


def build_model(system: System, cutoff: Cutoff, config: ModelConfig) -> Model:
    """p(K), flow, wavefunction and Hamiltonian of the configured sizes."""
    size = TransformerSize(config.transformer_layers, config.transformer_width, config.transformer_heads)
    occupations = make_occupations(system, cutoff.orbitals, size)
    flow = make_flow(system, FlowSize(config.flow_layers, config.flow_width))
    log_psi = make_log_psi(system, cutoff.orbitals, flow)
    return Model(
        occupations, flow, log_psi, make_local_energy(system, log_psi), make_draw(system, cutoff.orbitals, flow)
    )


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
        in_units, natural_gradient(config.damping), optax.scale_by_schedule(rate), bound_step(config.max_norm)
    )


def build(config: Config) -> Solver:
    """Everything that the loop needs, jitted.

    Raises:
      ValueError: the system is impossible.
    """
    system = config.system.build()
    cutoff = choose_cutoff(system, config.model.orbital_tolerance)
    model = build_model(system, cutoff, config.model)
    optimizer = build_optimizer(system, config.optimizer)
    sampler = config.sampler

    def new_states(params, key):
        keys = jax.random.split(key, sampler.batch)
        return jax.vmap(model.occupations.sample, (None, 0))(params.occupations, keys)

    def log_prob(params):
        return lambda x, state: 2 * jnp.real(model.log_psi(params.flow, x, state))

    def draw(params, key):
        key_state, key_x = jax.random.split(key)
        state = new_states(params, key_state)
        draws = model.draw(params.flow, state, jax.random.split(key_x, sampler.batch))
        return Walkers(state, draws.x, jax.vmap(log_prob(params))(draws.x, state)), draws

    def init(key):
        key_p, key_flow, key_draw = jax.random.split(jax.random.fold_in(key, 0), 3)
        params = Params(model.occupations.init(key_p), model.flow.init(key_flow))
        walkers, draws = draw(params, key_draw)
        width = jnp.asarray(first_width(system))
        zero = jnp.zeros((), int)
        return TrainState(zero, params, optimizer.init(params), walkers, empty_baseline(), width, draws.redrawn, key)

    def walk(state, key):
        """New walkers, acceptance, width, redrawn, lost."""
        if sampler.sampler == "exact":
            walkers, draws = draw(state.params, key)
            return walkers, jnp.ones(()), state.width, draws.redrawn, draws.lost
        key_state, key_walk = jax.random.split(key)
        walkers = state.walkers._replace(state=new_states(state.params, key_state))
        walkers, acceptance = metropolis(log_prob(state.params), walkers, state.width, key_walk, sampler.moves)
        walkers = walkers._replace(x=jnp.mod(walkers.x, system.box))
        zero = jnp.zeros((), int)
        return walkers, acceptance, adapt_width(state.width, acceptance, sampler.acceptance), zero, zero

    def step(state):
        params, key = state.params, jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step)
        walkers, acceptance, width, redrawn, lost = walk(state, key)
        samples = evaluate(model, params, walkers, sampler.chunk)
        baseline, f_deviation, e_deviation = _deviations(model, system, state.baseline, walkers, samples)
        grads = gradient(model, params, walkers, f_deviation, e_deviation)
        centred = scores(model, params, walkers, sampler.chunk) if config.optimizer.optimizer == "natural" else None
        updates, opt_state = optimizer.update(grads, state.opt_state, params, scores=centred)
        info = StepInfo(
            {name: batch_estimate(values) for name, values in per_electron(samples, system).items()},
            jnp.var(jnp.real(samples.energy.total), ddof=1),
            acceptance,
            redrawn,
            lost,
            _lowest_determinant(model, params, walkers),
        )
        params = optax.apply_updates(params, updates)
        after = TrainState(
            state.step + 1, params, opt_state, walkers, baseline, width, state.redrawn + redrawn, state.key
        )
        return after, info

    def measure(params, key):
        walkers, draws = draw(params, key)
        return evaluate(model, params, walkers, sampler.chunk), draws.lost

    return Solver(system, cutoff, model, jax.jit(init), jax.jit(step), jax.jit(measure))


def _deviations(model, system, baseline, walkers, samples):
    """The next baseline, and the clipped deviations of F_loc from its mean and of E_loc from b(K)."""
    energy = samples.energy.total
    ideal = jax.vmap(model.occupations.ideal_energy)(walkers.state)
    following = update_baseline(baseline, ideal, jnp.real(energy))
    # the first batch has none before it: its own fit, biased by 1/B
    fit = jax.tree.map(lambda old, new: jnp.where(baseline.weight > 0, old, new), baseline, following)
    f_loc = system.temperature * samples.log_p + jnp.real(energy)
    return following, clip_deviation(f_loc - f_loc.mean()), clip_deviation(energy - predict(fit, ideal))


def _lowest_determinant(model, params, walkers):
    electrons = walkers.x.shape[1]
    if electrons == 1 or not params.flow:
        return jnp.ones(())
    first, second = np.triu_indices(electrons, 1)
    closest = jnp.min(jnp.linalg.norm(walkers.x[:, first] - walkers.x[:, second], axis=-1), axis=1)
    start = walkers.x[jnp.argsort(closest)[:DESCENTS]]
    return jnp.min(jax.vmap(model.flow.lowest_determinant, (None, 0))(params.flow, start))


def solve(config: Config, say: Callable, show: Callable, stop: Callable[[], bool]) -> dict:
    """Runs, or continues to its end, the run in config.run.run_dir.

    Args:
      config: of the run.
      say: takes sentences for the user.
      show: takes the number of steps done and the StepInfo of the last one.
      stop: true when the run is to end in order, with a checkpoint.
    Returns:
      The summary, as in summary.json; empty if the run was stopped before its end.
    Raises:
      ValueError: the configuration is impossible, or differs from that of the run in a field that may not change.
      RunError: the run cannot go on.
      StorageError, OSError: a file cannot be used.
    """
    run_dir, begin = Path(config.run.run_dir), time.monotonic()
    _claim(run_dir, config)
    solver = build(config)
    first = solver.init(jax.random.key(config.run.seed))
    state, before = _newest(run_dir, first, say)
    save = lambda: storage.save_tree(
        run_dir / f"checkpoint-{int(state.step)}.h5", state, seconds=before + time.monotonic() - begin
    )
    initial = measure(solver, config, first, stop)
    storage.rewind_history(run_dir / HISTORY, int(state.step))
    while int(state.step) < config.run.steps and not stop():
        state, info = solver.step(state)
        _check(config, state, info)
        storage.append_history(run_dir / HISTORY, history_row(int(state.step), info))
        show(int(state.step), info)
        if int(state.step) % config.run.save_every == 0:
            save()
    save()
    final = measure(solver, config, state, stop)
    if stop() or not initial or not final:
        return {}
    summary = summarise(solver, config, state, initial, final) | {"seconds": before + time.monotonic() - begin}
    storage.save_json(run_dir / "summary.json", summary)
    return summary


def measure(solver: Solver, config: Config, state: TrainState, stop: Callable[[], bool]) -> dict[str, np.ndarray]:
    """F, E, kinetic, potential, S per electron of independent samples at frozen parameters; kept in samples-<step>.h5.

    Samples that the run directory holds already are read, not drawn again.  Empty if stopped.

    Raises:
      RunError: a draw failed for good.
    """
    path = Path(config.run.run_dir) / f"samples-{int(state.step)}.h5"
    names = ("F", "E", "kinetic", "potential", "S")
    count, batch = config.run.samples, config.sampler.batch
    if path.exists():
        try:
            return storage.load_tree(path, {name: np.zeros(count) for name in names})[0]
        except storage.StorageError:
            pass  # of another number of samples, or damaged: drawn again, the same numbers
    key, parts = jax.random.fold_in(jax.random.fold_in(state.key, 2), state.step), []
    for number in range(-(-count // batch)):
        if stop():
            return {}
        samples, lost = solver.measure(state.params, jax.random.fold_in(key, number))
        if lost:
            raise RunError(LOST.format(lost=int(lost), step=int(state.step)))
        parts.append(per_electron(samples, solver.system))
    values = {name: np.concatenate([part[name] for part in parts])[:count] for name in names}
    storage.save_tree(path, values, units="hartree per electron; S: k_B per electron")
    return values


def history_row(step: int, info: StepInfo) -> dict[str, float]:
    """A row of history.csv: what the parameters before this step gave, per electron unless the name says otherwise."""
    row = {"step": step}
    for name, (mean, error) in info.estimates.items():
        unit = "kb" if name == "S" else "ha"
        row |= {f"{name}_{unit}": float(mean), f"{name}_error_{unit}": float(error)}
    row |= {"E_variance_cell_ha2": float(info.variance), "acceptance": float(info.acceptance)}
    return row | {"redrawn": int(info.redrawn), "lost": int(info.lost), "min_det": float(info.min_det)}


def summarise(solver: Solver, config: Config, state: TrainState, initial: dict, final: dict) -> dict:
    """What summary.json says, but for the time: means with errors from independent samples at frozen parameters."""
    system, exact = solver.system, ideal_reference(solver.system)
    estimates = lambda values: {name: independent(value)._asdict() for name, value in values.items()}
    energy = final["E"]
    return estimates(final) | {
        "units": "hartree per electron; S: k_B per electron",
        "initial": estimates(initial),
        "ideal": {name: estimate._asdict() for name, estimate in exact.items()},
        "system": system_facts(solver),
        "steps": int(state.step),
        "samples": config.run.samples,
        "quality": {
            "E_variance_cell_ha2": float(np.var(energy, ddof=1) * system.electrons**2),
            "largest_deviation_sigma": float(np.max(np.abs(energy - energy.mean())) / max(np.std(energy), 1e-300)),
            "E_error_of_half_ha": independent(energy[: len(energy) // 2]).error if len(energy) > 3 else None,
            "min_det": float(_lowest_determinant(solver.model, state.params, state.walkers)),
            "redrawn": int(state.redrawn),
        },
        "version": metadata.version("heg"),
    }


def ideal_reference(system: System) -> dict[str, Estimate]:
    """Exact F, E, kinetic, potential, S of the ideal gas, per electron; cutoff error below 1e-12 T."""
    ideal = thermodynamics(choose_cutoff(system, 1e-12).orbitals.energy, system.beta, system.spins)
    free_energy, energy, entropy = (value / system.electrons for value in ideal)
    values = {"F": free_energy, "E": energy, "kinetic": energy, "potential": 0.0, "S": entropy}
    return {name: Estimate(value, 0.0) for name, value in values.items()}


def system_facts(solver: Solver) -> dict:
    """The gas and its cutoff in numbers, units in the names."""
    system, cutoff = solver.system, solver.cutoff
    return {
        "n_up": system.n_up,
        "n_down": system.n_down,
        "dim": system.dim,
        "rs_bohr": system.rs,
        "theta": system.theta,
        "twist": list(system.twist),
        "coupling": system.coupling,
        "box_bohr": system.box,
        "fermi_energy_ha": system.fermi_energy,
        "temperature_ha": system.temperature,
        "orbitals": len(cutoff.orbitals.energy),
        "orbitals_missing_probability": cutoff.missing,
        "cutoff_error_of_ideal_F_ha": system.temperature * cutoff.missing / system.electrons,
    }


def _claim(run_dir, config):
    """Makes the directory and notes the configuration, or checks it against that of the run that is there."""
    path = run_dir / "config.toml"
    config.system.build()
    if path.exists():
        changed = changed_fields(config, storage.load_config(path))
        if changed:
            raise ValueError(f"{run_dir} holds another run: {'; '.join(changed)}; choose another --run-dir")
    elif any(run_dir.glob("checkpoint-*.h5")) or (run_dir / HISTORY).exists():
        raise ValueError(f"{run_dir} holds a run without its config.toml: choose another --run-dir")
    run_dir.mkdir(parents=True, exist_ok=True)
    storage.save_config(path, tables(config))


def _newest(run_dir, template, say):
    """State of the newest checkpoint that can be read, and the seconds spent so far; the template if there is none."""
    for path in storage.checkpoints(run_dir):
        try:
            state, attributes = storage.load_tree(path, template)
        except storage.StorageError as error:
            say(f"{error}; the checkpoint before it is used.")
            continue
        say(f"Continuing from {path.name}.")
        return state, float(attributes["seconds"])
    return template, 0.0


def _check(config, state, info):
    """Stops the run when its energies or its samples cannot be trusted."""
    step = int(state.step)
    if int(info.lost):
        raise RunError(LOST.format(lost=int(info.lost), step=step))
    if int(state.redrawn) > max(REDRAWN_FEW, REDRAWN_BOUND * (step + 1) * config.sampler.batch):
        raise RunError(f"step {step}: {int(state.redrawn)} draws had no verified inverse, too many: lower max_norm")
    if not np.isfinite(float(info.estimates["F"].mean)):
        raise RunError(f"step {step}: the energy is not finite; the last checkpoint is from before: lower max_norm")
