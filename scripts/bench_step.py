"""Milliseconds for each sample and memory of every phase of a training step, the generic path and a
floor beside.

    python scripts/bench_step.py --dim 2 --electrons 13 29 --polarization 1 --json step.json --plot
    step.png

All ratios are within this run.  The generic path is what the formulas stand beside: the kinetic
energy forward over forward and the scores by reverse differentiation of the same ln Psi, 50
Metropolis moves in place of an exact draw. The floor of a phase is the larger of its operations
over the rate of a large matrix product and of the bytes it must write over the rate of a copy, both
measured here.  The flow is one that keeps electrons apart, as after training.
"""

import json
import math
import platform
import statistics
import time
from fractions import Fraction
from pathlib import Path
from typing import Annotated

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
from heg.sampling.exact_draws import Walkers, first_width, make_chain
from heg.training.cost import STEP, operations, parameters, product_rate
from heg.training.free_energy import scores
from heg.training.step import build_optimizer

MOVES = 50  # Metropolis moves of the generic path: the published program's (docs/performance.md)
GENERIC_WALKERS = 16
ROUNDS, SECONDS = 6, 30.0  # of timing: after that time there are two rounds at least
GENERIC_LARGEST = 100  # coordinates beyond which the generic path is left out
PHASES = ("draw K", "draw x", "log Psi", "kinetic", "Coulomb", "scores", "solve", "step")
GENERIC = ("Metropolis", "generic kinetic", "generic scores")


class Timed:
    """A compiled function: temporary memory in MiB, seconds to compile, and the fewest milliseconds
    for a walker."""

    def __init__(self, function, arguments, walkers):
        begin = time.perf_counter()
        compiled = jax.jit(function).lower(*arguments).compile()
        self.compile_seconds = time.perf_counter() - begin
        self.mib = compiled.memory_analysis().temp_size_in_bytes / 2**20
        self.run, self.walkers, self.ms = (
            lambda: jax.block_until_ready(compiled(*arguments)),
            walkers,
            math.inf,
        )

    def again(self):
        """Runs it for a tenth of a second, once at least."""
        end = time.perf_counter() + 0.1
        while (begin := time.perf_counter()) < end:
            self.run()
            self.ms = min(self.ms, 1e3 * (time.perf_counter() - begin) / self.walkers)


def in_rounds(functions: dict[str, Timed]) -> dict[str, Timed]:
    """Times the functions in turn, so that a slow spell of the machine does not favour one of
    them."""
    begin = time.perf_counter()
    for number in range(ROUNDS):
        if number < 2 or time.perf_counter() - begin < SECONDS:
            for function in functions.values():
                function.again()
    return functions


def rates() -> tuple[float, float]:
    """Operations of large matrix products, one on each device, and bytes of a copy, per second."""
    vector = jnp.ones(2**24)
    copy = in_rounds({"copy": Timed(lambda a: a + 1, (vector,), 1)})["copy"]
    return product_rate(), 2 * vector.nbytes / copy.ms * 1e3


def correlated(flow: dict, system) -> dict:
    """Parameters of a flow whose layers push electrons apart as after training: eta = -0.15 exp(-(r
    / r_s)^2 / 2)."""
    x = np.random.default_rng(0).random((2000, system.dim))
    distance = system.box / np.pi * np.linalg.norm(np.sin(np.pi * x), axis=1) / system.rs
    features = np.column_stack([np.cos(2 * np.pi * x), distance])
    aim = -0.15 * np.exp(-(distance**2) / 2)

    def output(hidden):
        a = np.tanh(features @ hidden)
        return np.linalg.solve(a.T @ a + np.eye(a.shape[1]), a.T @ aim)  # damped: mild weights

    fit = lambda network: dict(
        network, output=jnp.stack([output(np.asarray(w)) for w in network["hidden"]])
    )
    return {kind: fit(network) for kind, network in flow.items()}


def floors(solver, config, peak: tuple[float, float]) -> dict[str, float]:
    """Least milliseconds for a walker in each phase, from its operations or the bytes that it must
    write."""
    of_p, of_flow = parameters(solver)
    written = {"scores": 8 * (of_p + 2 * of_flow)}
    needed = {
        name: (count, written.get(name, 0)) for name, count in operations(solver, config).items()
    }
    needed["step"] = tuple(sum(needed[name][kind] for name in STEP) for kind in (0, 1))
    return {
        name: 1e3 * max(amount / rate for amount, rate in zip(needed[name], peak))
        for name in needed
    }


def phases(solver, config, state):
    """Functions and arguments of each phase; those of the generic path at a few walkers."""
    system, model, batch = solver.system, solver.model, config.sampler.batch
    params, chunk = state.params, walkers_at_once(system, batch)
    keys = jax.random.split(jax.random.key(1), batch)
    many = lambda one: lambda *walkers: map_walkers(lambda walker: one(*walker), walkers, chunk)
    light = lambda one: (
        lambda walkers: map_walkers(one, walkers, divisor(batch, chunk * system.dim**2))
    )
    sample = light(lambda key: model.occupations.sample(params.occupations, key))
    states = jax.jit(sample)(keys)
    walkers = Walkers(states, jax.jit(model.draw)(params.flow, states, keys).x)
    few = jax.tree.map(lambda leaf: leaf[:GENERIC_WALKERS], (*walkers, keys))
    kinetic = make_kinetic_energy(system, solver.cutoff.orbitals, model.flow)
    optimizer = build_optimizer(system, config.optimizer)
    centred = jax.jit(lambda walkers: scores(model, params, walkers, chunk))(walkers)
    solve = lambda grads, centred: optimizer.update(grads, state.opt_state, params, scores=centred)[
        0
    ]

    chain = make_chain("metropolis", model.log_psi, model.score)
    moves = lambda state, x, key: chain(params.flow, state, x, first_width(system), key, MOVES)

    def reverse(state, x, key):
        log_psi = lambda flow: model.log_psi(flow, x, state)
        return jax.jacrev(lambda flow: jnp.stack([log_psi(flow).real, log_psi(flow).imag]))(
            params.flow
        )

    forward = lambda state, x, key: generic_kinetic_energy(
        lambda x: model.log_psi(params.flow, x, state), x
    )
    one_by_one = lambda one: (
        lambda *walkers: map_walkers(lambda walker: one(*walker), walkers, 1)
    )  # fastest so
    found = {
        "draw K": (sample, (keys,)),
        "draw x": (model.draw, (params.flow, states, keys)),
        "log Psi": (
            light(lambda walker: model.log_psi(params.flow, walker.x, walker.state)),
            (walkers,),
        ),
        "kinetic": (many(lambda state, x: kinetic(params.flow, x, state)[0]), walkers),
        "Coulomb": (many(lambda x: coulomb_energy(x, system)), (walkers.x,)),
        "scores": (lambda walkers: scores(model, params, walkers, chunk), (walkers,)),
        "solve": (solve, (params, centred)),
        "step": (solver.step, (state,)),
        "Metropolis": (light(lambda walker: moves(*walker)), ((*walkers, keys),)),
    }
    if system.electrons * system.dim <= GENERIC_LARGEST:
        found |= {
            "generic kinetic": (one_by_one(forward), few),
            "generic scores": (many(reverse), few),
        }
    return found


def measure(gas: SystemConfig, batch: int, peak: tuple[float, float]) -> dict:
    """One row: every phase of one system."""
    config = Config(gas, RunConfig("unused"), sampler=SamplerConfig(batch=batch))
    solver = build(config)
    state = solver.init(jax.random.key(0))
    state = state._replace(
        params=Params(state.params.occupations, correlated(state.params.flow, solver.system))
    )
    row = {
        "dim": gas.dim,
        "electrons": gas.electrons,
        "polarization": str(gas.polarization),
        "batch": batch,
    }
    least = floors(solver, config, peak)
    walkers = lambda name: min(GENERIC_WALKERS, batch) if name.startswith("generic") else batch
    prepared = phases(solver, config, state).items()
    found = in_rounds({name: Timed(*function, walkers(name)) for name, function in prepared})
    for name, values in found.items():
        print(f"  {name:16}{values.ms:10.4f} ms{values.mib:10.1f} MiB", end="")
        key = name.replace(" ", "_")
        row |= {f"{key}_ms_per_sample": values.ms, f"{key}_mib": values.mib}
        if name in least:
            row[f"{key}_floor_ms"] = least[name]
            print(f"{least[name]:10.4f} ms floor{values.ms / least[name]:8.1f} times", end="")
        print(flush=True)
    row["compile_s"] = found["step"].compile_seconds
    return row | ratios(row)


def ratios(row: dict) -> dict:
    """Generic over closed form, and an exact draw of x in Metropolis moves."""
    ms = lambda name: row[f"{name.replace(' ', '_')}_ms_per_sample"]
    found = {"draw_in_metropolis_moves": ms("draw x") / ms("Metropolis") * MOVES}
    if "generic_kinetic_ms_per_sample" in row:
        generic = sum(map(ms, ("draw K", *GENERIC, "Coulomb", "solve")))
        found |= {
            "generic_step_ms_per_sample": generic,
            "kinetic_ratio_to_generic": ms("generic kinetic") / ms("kinetic"),
            "step_ratio_to_generic": generic / ms("step"),
        }
    for name, value in found.items():
        print(f"  {name} = {value:.1f}")
    print(f"  compilation of the step {row['compile_s']:.1f} s")
    return found


def exponents(rows: list[dict]) -> dict[str, float]:
    """Slope of ln(ms) over ln N of each phase, by least squares."""
    log_n = [math.log(row["electrons"]) for row in rows]
    slope = lambda name: (
        statistics.linear_regression(
            log_n, [math.log(row[f"{name.replace(' ', '_')}_ms_per_sample"]) for row in rows]
        ).slope
    )
    return {name: slope(name) for name in PHASES}


def plot(rows: list[dict], path: Path) -> None:
    """Cost of a sample over N."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for dim, polarization in sorted({(row["dim"], row["polarization"]) for row in rows}):
        chosen = [row for row in rows if (row["dim"], row["polarization"]) == (dim, polarization)]
        for name, style in (("step", "o-"), ("kinetic", "s--"), ("draw_x", "^:")):
            label = f"{dim}D, zeta = {polarization}, {name.replace('_', ' ')}"
            values = [row[f"{name}_ms_per_sample"] for row in chosen]
            axis.loglog([row["electrons"] for row in chosen], values, style, label=label)
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
    print(
        f"{jax.devices()[0].device_kind} x {jax.device_count()}, {platform.machine()}, JAX {jax.__version__}"
    )
    print(f"matrix product {peak[0] / 1e9:.1f} GFlop/s, copy {peak[1] / 1e9:.1f} GB/s")
    rows = []
    for d, zeta in ((d, zeta) for d in dim for zeta in polarization):
        group = []
        for n in (n for n in electrons if (n * (1 + Fraction(zeta)) / 2).denominator == 1):
            rs, theta = (10.0, 0.15) if d == 2 else (5.0, 0.15)
            print(f"{d}D, N = {n}, zeta = {zeta}, r_s = {rs:g}, Theta = {theta:g}, {batch} samples")
            group.append(measure(SystemConfig(n, d, rs, theta, zeta, (0.25,) * d), batch, peak))
        if len(group) > 1:
            fitted = ", ".join(f"{name} {value:.2f}" for name, value in exponents(group).items())
            print(f"exponents of N, {d}D, zeta = {zeta}: {fitted}")
        rows += group
    if json_file:
        Path(json_file).write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    if plot_file:
        plot(rows, plot_file)


if __name__ == "__main__":
    app()
