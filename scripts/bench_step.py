"""Milliseconds for each sample and memory of every phase of a training step.

    python scripts/bench_step.py --dim 2 --electrons 13 29 --polarization 1 \\
        --json step.json --plot step.png

The generic path and a floor stand beside them.

All ratios are within this run.  The generic path is what the formulas stand beside: the kinetic
energy forward over forward and the scores by reverse differentiation of the same ln Psi, 50
Metropolis moves in place of an exact draw. The floor of a phase is the larger of its operations
over the rate of a large matrix product and of the bytes it must write over the rate of a copy, both
measured here.  The flow is one that keeps electrons apart, as after training.
"""

import itertools
import json
import math
import platform
import statistics
import time
from fractions import Fraction
from pathlib import Path
from typing import Annotated, NamedTuple

import cyclopts
import jax
import jax.numpy as jnp
import numpy as np

from heg import Config, RunConfig, SamplerConfig, SystemConfig, build
from heg.gas.coulomb import coulomb_energy
from heg.model.density_matrix import Params
from heg.model.kinetic import generic_kinetic_energy, make_kinetic_energy
from heg.parallel.devices import divisor, map_walkers, walkers_at_once
from heg.parallel.processes import start
from heg.sampling.batch import Walkers
from heg.sampling.chains import first_width, make_chain
from heg.sampling.exact_draws import make_draw
from heg.training.cost import STEP, operations, parameters, product_rate
from heg.training.free_energy import scores
from heg.training.state import SAMPLING, stream
from heg.training.step import build_optimizer

MOVES = 50  # Metropolis moves of the generic path: the published program's (docs/performance.md)
GENERIC_WALKERS = 16
ROUNDS = 6  # of timing
SECONDS = 30.0  # of timing, after which there are no more rounds than two
GENERIC_LARGEST = 100  # coordinates beyond which the generic path is left out
PHASES = ("draw K", "draw x", "log Psi", "kinetic", "Coulomb", "scores", "solve", "step")
GENERIC = ("Metropolis", "generic kinetic", "generic scores")


class Timed:
    """A compiled function and what it costs.

    Attributes:
      mib: temporary memory, MiB.
      compile_seconds: to compile it.
      ms: fewest milliseconds for a walker so far.
    """

    def __init__(self, function, arguments, walkers):
        begin = time.perf_counter()
        compiled = jax.jit(function).lower(*arguments).compile()
        self.compile_seconds = time.perf_counter() - begin
        self.mib = compiled.memory_analysis().temp_size_in_bytes / 2**20
        self.compiled = compiled
        self.arguments = arguments
        self.walkers = walkers
        self.ms = math.inf

    def run(self):
        """Runs it once, to its end."""
        jax.block_until_ready(self.compiled(*self.arguments))

    def again(self):
        """Runs it for a tenth of a second, once at least."""
        begin = time.perf_counter()
        end = begin + 0.1
        while begin < end:
            self.run()
            now = time.perf_counter()
            self.ms = min(self.ms, 1e3 * (now - begin) / self.walkers)
            begin = now


def in_rounds(functions: dict[str, Timed]) -> dict[str, Timed]:
    """Times the functions in turn: a slow spell of the machine then favours none of them."""
    begin = time.perf_counter()
    for number in range(ROUNDS):
        if number < 2 or time.perf_counter() - begin < SECONDS:
            for function in functions.values():
                function.again()
    return functions


class Rates(NamedTuple):
    """Speed of a machine.

    Attributes:
      operations: of large matrix products, one on each device, per second.
      bytes: of a copy, per second.
    """

    operations: float
    bytes: float


def rates() -> Rates:
    """The speed of this machine."""
    vector = jnp.ones(2**24)
    copy = Timed(lambda a: a + 1, (vector,), 1)
    in_rounds({"copy": copy})
    return Rates(product_rate(), 2 * vector.nbytes / copy.ms * 1e3)


def correlated(flow: dict, system) -> dict:
    """Parameters of a flow whose layers push electrons apart as after training.

    Their eta is about -0.15 exp(-(r / r_s)^2 / 2).
    """
    x = np.random.default_rng(0).random((2000, system.dim))
    distance = system.box / np.pi * np.linalg.norm(np.sin(np.pi * x), axis=1) / system.rs
    features = np.column_stack([np.cos(2 * np.pi * x), distance])
    eta = -0.15 * np.exp(-(distance**2) / 2)
    fitted = {}
    for kind, network in flow.items():
        outputs = []
        for hidden in network["hidden"]:
            activations = np.tanh(features @ np.asarray(hidden))
            outputs.append(_damped_fit(activations, eta))
        fitted[kind] = dict(network, output=jnp.stack(outputs))
    return fitted


def _damped_fit(a, y):
    """Least squares of a @ w = y, damped so that the weights are mild."""
    return np.linalg.solve(a.T @ a + np.eye(a.shape[1]), a.T @ y)


def floors(solver, config, peak: Rates) -> dict[str, float]:
    """Least milliseconds for a walker in each phase, from its operations or the bytes that it must
    write."""
    of_p, of_flow = parameters(solver)
    counts = operations(solver, config)
    written = dict.fromkeys(counts, 0) | {"scores": 8 * (of_p + 2 * of_flow)}
    counts["step"] = sum(counts[name] for name in STEP)
    written["step"] = sum(written[name] for name in STEP)
    least = {}
    for name in counts:
        seconds = max(counts[name] / peak.operations, written[name] / peak.bytes)
        least[name] = 1e3 * seconds
    return least


class Samples(NamedTuple):
    """What the phases of a step are given: exact draws, and their scores, centred."""

    keys: jax.Array
    walkers: Walkers
    scores: tuple


def phases(solver, config, state):
    """Functions and arguments of each phase; those of the generic path at a few walkers."""
    samples = _draw(solver, config, state)
    system = solver.system
    result = _own_phases(solver, config, state, samples)
    result |= {"Metropolis": _metropolis(solver, config, state, samples)}
    if system.electrons * system.dim <= GENERIC_LARGEST:
        result |= _generic_phases(solver, config, state, samples)
    return result


def _chunks(solver, config):
    """Walkers at once: of the kinetic energy, and of what needs less memory for each."""
    system = solver.system
    batch = config.sampler.batch
    chunk = walkers_at_once(system, batch)
    return chunk, divisor(batch, chunk * system.dim**2)


def _mapped(function, chunk):
    """A function of one walker, of several arrays, for all of them."""
    return lambda *walkers: map_walkers(lambda walker: function(*walker), walkers, chunk)


def _sample_states(solver, config, params):
    """The program that draws K from keys."""
    _, light_chunk = _chunks(solver, config)
    draw = lambda key: solver.model.occupations.sample(params.occupations, key)
    return _mapped(draw, light_chunk)


def _draw_of_x(solver, config):
    """The program that draws x from the flow, K and keys."""
    _, light_chunk = _chunks(solver, config)
    return make_draw(solver.system, solver.cutoff.orbitals, solver.model.flow, light_chunk)


def _draw(solver, config, state):
    params = state.params
    chunk, _ = _chunks(solver, config)
    keys = jax.random.split(jax.random.key(1), config.sampler.batch)
    states = jax.jit(_sample_states(solver, config, params))(keys)
    draws = jax.jit(_draw_of_x(solver, config))(params.flow, states, keys)
    walkers = Walkers(states, draws.x)
    centre = jax.jit(lambda walkers: scores(solver.model, params, walkers, chunk))
    return Samples(keys, walkers, centre(walkers))


def _own_phases(solver, config, state, samples):
    """The phases of a training step."""
    system = solver.system
    model = solver.model
    params = state.params
    keys, walkers, centred = samples
    chunk, light_chunk = _chunks(solver, config)
    kinetic = make_kinetic_energy(system, solver.cutoff.orbitals, model.flow)
    optimizer = build_optimizer(system, config.optimizer)

    def log_psi(state, x):
        return model.log_psi(params.flow, x, state)

    def kinetic_energy(state, x):
        return kinetic(params.flow, x, state)[0]

    def solve(grads, centred):
        updates, _ = optimizer.update(grads, state.opt_state, params, scores=centred)
        return updates

    def step(state, key):
        # Solver.step as one program: the key of a step is made outside of programs
        programs = solver.programs
        states = programs.states(system, state.params, key)
        walk = programs.draw(system, state.params, states, key)
        samples = programs.evaluate(system, state.params, walk.walkers)
        min_det = programs.lowest(system, state.params.flow, walk.walkers)
        return programs.update(system, state, walk, samples, min_det)

    return {
        "draw K": (_sample_states(solver, config, params), (keys,)),
        "draw x": (_draw_of_x(solver, config), (params.flow, walkers.state, keys)),
        "log Psi": (_mapped(log_psi, light_chunk), walkers),
        "kinetic": (_mapped(kinetic_energy, chunk), walkers),
        "Coulomb": (_mapped(lambda x: coulomb_energy(x, system), chunk), (walkers.x,)),
        "scores": (lambda walkers: scores(model, params, walkers, chunk), (walkers,)),
        "solve": (solve, (params, centred)),
        "step": (step, (state, stream(state, SAMPLING))),
    }


def _metropolis(solver, config, state, samples):
    """A chain from where the walkers are."""
    model = solver.model
    _, light_chunk = _chunks(solver, config)
    chain = make_chain("metropolis", model.log_psi, model.score)
    width = first_width(solver.system)

    def moves(occupied, x, key):
        return chain(state.params.flow, occupied, x, width, key, MOVES)

    return _mapped(moves, light_chunk), (*samples.walkers, samples.keys)


def _generic_phases(solver, config, state, samples):
    """Kinetic energy and scores by differentiation of ln Psi."""
    chunk, _ = _chunks(solver, config)
    flow = state.params.flow
    few = jax.tree.map(lambda leaf: leaf[:GENERIC_WALKERS], tuple(samples.walkers))

    def forward(state, x):
        return generic_kinetic_energy(lambda x: solver.model.log_psi(flow, x, state), x)

    def reverse(state, x):
        def parts(flow):
            log_psi = solver.model.log_psi(flow, x, state)
            return jnp.stack([log_psi.real, log_psi.imag])

        return jax.jacrev(parts)(flow)

    return {
        "generic kinetic": (_mapped(forward, 1), few),  # fastest one by one
        "generic scores": (_mapped(reverse, chunk), few),
    }


def measure(gas: SystemConfig, batch: int, peak: Rates) -> dict:
    """One row: every phase of one system."""
    config = Config(gas, RunConfig("unused"), sampler=SamplerConfig(batch=batch))
    solver = build(config)
    state = solver.init(jax.random.key(0))
    flow = correlated(state.params.flow, solver.system)
    state = state._replace(params=Params(state.params.occupations, flow))
    row = {
        "dim": gas.dim,
        "electrons": gas.electrons,
        "polarization": str(gas.polarization),
        "batch": batch,
    }
    least = floors(solver, config, peak)
    timed = {}
    for name, (function, arguments) in phases(solver, config, state).items():
        walkers = min(GENERIC_WALKERS, batch) if name.startswith("generic") else batch
        timed[name] = Timed(function, arguments, walkers)
    for name, values in in_rounds(timed).items():
        key = name.replace(" ", "_")
        row |= {f"{key}_ms_per_sample": values.ms, f"{key}_mib": values.mib}
        line = f"  {name:16}{values.ms:10.4f} ms{values.mib:10.1f} MiB"
        if name in least:
            row[f"{key}_floor_ms"] = least[name]
            line += f"{least[name]:10.4f} ms floor{values.ms / least[name]:8.1f} times"
        print(line, flush=True)
    row["compile_s"] = timed["step"].compile_seconds
    return row | ratios(row)


def ratios(row: dict) -> dict:
    """Generic over closed form, and an exact draw of x in Metropolis moves."""
    ms = lambda name: _milliseconds(row, name)
    result = {"draw_in_metropolis_moves": ms("draw x") / ms("Metropolis") * MOVES}
    if "generic_kinetic_ms_per_sample" in row:
        generic = sum(map(ms, ("draw K", *GENERIC, "Coulomb", "solve")))
        result |= {
            "generic_step_ms_per_sample": generic,
            "kinetic_ratio_to_generic": ms("generic kinetic") / ms("kinetic"),
            "step_ratio_to_generic": generic / ms("step"),
        }
    for name, value in result.items():
        print(f"  {name} = {value:.1f}")
    print(f"  compilation of the step {row['compile_s']:.1f} s")
    return result


def _milliseconds(row, name):
    """Milliseconds for a sample in a phase of a row."""
    return row[f"{name.replace(' ', '_')}_ms_per_sample"]


def exponents(rows: list[dict]) -> dict[str, float]:
    """Slope of ln(ms) over ln N of each phase, by least squares."""
    log_n = [math.log(row["electrons"]) for row in rows]
    slopes = {}
    for name in PHASES:
        log_ms = [math.log(_milliseconds(row, name)) for row in rows]
        slopes[name] = statistics.linear_regression(log_n, log_ms).slope
    return slopes


def plot(rows: list[dict], path: Path) -> None:
    """Cost of a sample over N."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    kind = lambda row: (row["dim"], row["polarization"])
    for dim, polarization in sorted(set(map(kind, rows))):
        chosen = [row for row in rows if kind(row) == (dim, polarization)]
        electrons = [row["electrons"] for row in chosen]
        for name, style in (("step", "o-"), ("kinetic", "s--"), ("draw_x", "^:")):
            label = f"{dim}D, zeta = {polarization}, {name.replace('_', ' ')}"
            values = [row[f"{name}_ms_per_sample"] for row in chosen]
            axis.loglog(electrons, values, style, label=label)
    axis.set_xlabel("electrons")
    axis.set_ylabel("ms per sample")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=150)


app = cyclopts.App(help=__doc__)
LIST = cyclopts.Parameter(consume_multiple=True)


@app.default
def main(
    *,
    dim: Annotated[tuple[int, ...], LIST] = (2,),
    electrons: Annotated[tuple[int, ...], LIST] = (13, 29),
    polarization: Annotated[tuple[str, ...], LIST] = ("1",),
    batch: int = 256,
    json_file: Annotated[Path | None, cyclopts.Parameter("--json")] = None,
    plot_file: Annotated[Path | None, cyclopts.Parameter("--plot")] = None,
) -> None:
    """Every phase of a step for each combination of the lists that exists."""
    start()
    peak = rates()
    device = jax.devices()[0].device_kind
    print(f"{device} x {jax.device_count()}, {platform.machine()}, JAX {jax.__version__}")
    print(f"matrix product {peak.operations / 1e9:.1f} GFlop/s, copy {peak.bytes / 1e9:.1f} GB/s")
    rows = []
    for d, zeta in itertools.product(dim, polarization):
        rows += _sizes(d, electrons, zeta, batch, peak)
    if json_file:
        Path(json_file).write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    if plot_file:
        plot(rows, plot_file)


def _sizes(dim, electrons, zeta, batch, peak):
    """Rows of one kind of gas over N, as far as whole numbers of electrons have the
    polarisation."""
    rs = 10.0 if dim == 2 else 5.0
    theta = 0.15
    rows = []
    for n in electrons:
        if (n * (1 + Fraction(zeta)) / 2).denominator == 1:
            gas = f"{dim}D, N = {n}, zeta = {zeta}, r_s = {rs:g}, Theta = {theta:g}"
            print(f"{gas}, {batch} samples")
            twist = (0.25,) * dim
            rows.append(measure(SystemConfig(n, dim, rs, theta, zeta, twist), batch, peak))
    if len(rows) > 1:
        fitted = ", ".join(f"{name} {value:.2f}" for name, value in exponents(rows).items())
        print(f"exponents of N, {dim}D, zeta = {zeta}: {fitted}")
    return rows


if __name__ == "__main__":
    app()
