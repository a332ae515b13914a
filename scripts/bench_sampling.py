"""Seconds to a given error of F with exact draws, Metropolis and MALA; what control variates and
baseline save.

    python scripts/bench_sampling.py --electrons 13 29 --error 1e-4 --json sampling.json

A chain's samples at a new K are independent of the last ones after some autocorrelation times of
the local energy: here EQUILIBRATION of them, which leaves e^-10 of the start (the integrated time
is twice the exponential one).  The time is measured on chains at fixed K, from exact draws, in
moves.  The flow is the one of bench_step.py.
"""

import json
import math
from pathlib import Path
from typing import Annotated

import cyclopts
import jax
import jax.numpy as jnp
import numpy as np
from bench_step import LIST, Timed, correlated, in_rounds

from heg import Config, RunConfig, SamplerConfig, SystemConfig, build
from heg.parallel.devices import jit, map_walkers, walkers_at_once
from heg.parallel.processes import start
from heg.sampling.exact_draws import adapt_width, first_width, make_chain
from heg.statistics import autocorrelation_time
from heg.training.control_variates import baseline, controlled, first_regression, update_regression
from heg.training.free_energy import evaluate, per_electron, scores

BATCHES = 30  # from which the regression is fitted
EQUILIBRATION = 5  # integrated autocorrelation times between independent samples
RECORDS, EVERY = 800, 4  # length of the chains, and moves between their records
TARGET = {"metropolis": 0.4, "mala": 0.6}  # acceptance


def make_chains(solver, params, kind, chunk):
    """Walkers, width, keys, moves -> where the chain of every walker ended."""
    chain = make_chain(kind, solver.model.log_psi, solver.model.score)
    return lambda walkers, width, keys, moves: map_walkers(
        lambda walker: chain(params.flow, *walker[:2], width, walker[2], moves),
        (*walkers, keys),
        chunk,
    )


def energies(solver, params, walkers, chain, width, chunk):
    """Local energies along the chains.  [RECORDS, B]"""
    split = lambda number: jax.random.split(
        jax.random.fold_in(jax.random.key(7), number), len(walkers.x)
    )

    def record(walkers, number):
        walkers = walkers._replace(x=chain(walkers, width, split(number), EVERY).x)
        return walkers, jnp.real(evaluate(solver.model, params, walkers, chunk).energy.total)

    return jit(lambda walkers: jax.lax.scan(record, walkers, jnp.arange(RECORDS))[1])(walkers)


def adapted_width(solver, walkers, chain, target):
    """Width of the proposal at which the share `target` of the moves is accepted."""
    width, step = (
        jnp.asarray(first_width(solver.system)),
        jit(lambda *arguments: chain(*arguments, 5)),
    )
    for number in range(40):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(3), number), len(walkers.x))
        width = adapt_width(width, step(walkers, width, keys).acceptance.mean(), target)
    return width


def fitted_regression(solver, params):
    """The regression of the energies as after training at these parameters, on samples of its
    own."""
    regression = first_regression()
    for number in range(BATCHES):
        samples, _ = solver.measure(params, jax.random.fold_in(jax.random.key(11), number))
        regression = update_regression(regression, samples.controls, samples.energy)
    return regression


def regression_gains(solver, params, walkers, samples, regression, chunk) -> dict[str, float]:
    """Variances without over with what the regression takes away.

    Of F: by the control variates.  Of the flow's gradient: by b(K) in place of the mean energy.
    """
    energy, temperature = samples.energy.total, solver.system.temperature
    matrix = jit(lambda walkers: scores(solver.model, params, walkers, chunk).flow)(walkers)
    matrix = matrix.reshape(len(energy), 2, -1)

    def variance(deviation):
        parts = jnp.stack([deviation.real, deviation.imag], axis=1)
        return jnp.sum(jnp.var(jnp.einsum("bc,bcp->bp", parts, matrix), axis=0))

    quiet = controlled(regression, samples.controls, samples.energy).total
    b = baseline(regression, samples.controls)
    f_loc = lambda energy: temperature * samples.log_p + energy.real
    return {
        "F_variance_ratio": float(jnp.var(f_loc(energy)) / jnp.var(f_loc(quiet))),
        "gradient_variance_ratio": float(variance(energy - b.mean()) / variance(energy - b)),
    }


def measure(gas: SystemConfig, batch: int, error: float) -> dict:
    """One row: costs of an independent sample by each sampler."""
    config = Config(gas, RunConfig("unused"), sampler=SamplerConfig(batch=batch))
    solver, chunk = build(config), walkers_at_once(config.system.build(), batch)
    params = solver.init(jax.random.key(0)).params
    params = params._replace(flow=correlated(params.flow, solver.system))
    samples, drawn = solver.measure(params, jax.random.key(1))
    regression = fitted_regression(solver, params)
    walkers, sigma = (
        drawn.walkers,
        float(np.std(per_electron(samples, regression, solver.system)["F"])),
    )
    keys = jax.random.split(jax.random.key(2), batch)
    functions = {
        "evaluate": Timed(
            lambda walkers: evaluate(solver.model, params, walkers, chunk), (walkers,), batch
        ),
        "draw": Timed(lambda key: solver.measure(params, key)[1], (jax.random.key(5),), batch),
        "draw_K": Timed(
            lambda keys: map_walkers(
                lambda key: solver.model.occupations.sample(params.occupations, key), keys, chunk
            ),
            (keys,),
            batch,
        ),
    }
    times = {}
    for kind, target in TARGET.items():
        chain = make_chains(solver, params, kind, chunk)
        width = adapted_width(solver, walkers, chain, target)
        series = np.asarray(energies(solver, params, walkers, chain, width, chunk))
        times[kind] = EVERY * autocorrelation_time(series - series.mean(axis=0))
        functions[kind] = Timed(
            lambda walkers, keys: chain(walkers, width, keys, 20), (walkers, keys), 20 * batch
        )
    found = {name: function.ms for name, function in in_rounds(functions).items()}
    count = (sigma / error) ** 2
    row = {"dim": gas.dim, "electrons": gas.electrons, "samples": count, "F_sigma_ha": sigma}
    costs = {"exact": found["draw"] + found["evaluate"]}
    for kind, tau in times.items():
        costs[kind] = (
            found["draw_K"] + math.ceil(EQUILIBRATION * tau) * found[kind] + found["evaluate"]
        )
        row |= {f"{kind}_autocorrelation_moves": tau, f"{kind}_ms_per_move": found[kind]}
    for kind, cost in costs.items():
        row |= {f"{kind}_ms_per_sample": cost, f"{kind}_seconds": count * cost / 1e3}
    return row | regression_gains(solver, params, walkers, samples, regression, chunk)


def main(
    *,
    dim: int = 2,
    electrons: Annotated[tuple[int, ...], LIST] = (13, 29),
    polarization: str = "1",
    rs: float = 10.0,
    theta: float = 0.15,
    batch: int = 256,
    error: float = 1e-4,
    json_file: Annotated[Path | None, cyclopts.Parameter("--json")] = None,
) -> None:
    """Seconds to the error of F per electron asked for (hartree)."""
    start()
    rows = []
    for n in electrons:
        rows.append(
            measure(SystemConfig(n, dim, rs, theta, polarization, (0.25,) * dim), batch, error)
        )
        print("\n".join(f"{name:36}{value:.6g}" for name, value in rows[-1].items()), flush=True)
    if json_file:
        json_file.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    cyclopts.run(main)
