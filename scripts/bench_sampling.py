"""Seconds to a given error of F with exact draws, Metropolis and MALA.

Beside them stands what control variates and baseline save.

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
from heg.sampling.chains import adapt_width, first_width, make_chain
from heg.statistics import autocorrelation_time
from heg.training.control_variates import (
    baseline,
    controlled,
    first_regression,
    make_controls,
    update_regression,
)
from heg.training.free_energy import evaluate, per_electron, scores

BATCHES = 30  # from which the regression is fitted
EQUILIBRATION = 5  # integrated autocorrelation times between independent samples
RECORDS = 800  # of each chain
MOVES_BETWEEN = 4  # records
TARGET = {"metropolis": 0.4, "mala": 0.6}  # acceptance


def make_chains(solver, params, kind, chunk):
    """Walkers, width, keys, moves -> where the chain of every walker ended."""
    chain = make_chain(kind, solver.model.log_psi, solver.model.score)

    def chains(walkers, width, keys, moves):
        def one_chain(walker):
            state, x, key = walker
            return chain(params.flow, state, x, width, key, moves)

        return map_walkers(one_chain, (*walkers, keys), chunk)

    return chains


def keys_of(seed, number, walkers):
    """A key for each walker, of the stream `seed`."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), number), len(walkers.x))


def energies(solver, params, walkers, chain, width, chunk):
    """Local energies along the chains.  [RECORDS, B]"""
    controls = make_controls(solver.system, solver.cutoff.orbitals)

    def record(walkers, number):
        ended = chain(walkers, width, keys_of(7, number, walkers), MOVES_BETWEEN)
        walkers = walkers._replace(x=ended.x)
        samples = evaluate(solver.model, controls, params, walkers, chunk)
        return walkers, jnp.real(samples.energy.total)

    def records(walkers):
        _, energy = jax.lax.scan(record, walkers, jnp.arange(RECORDS))
        return energy

    return jit(records)(walkers)


def adapted_width(solver, walkers, chain, target):
    """Width of the proposal at which the share `target` of the moves is accepted."""
    width = jnp.asarray(first_width(solver.system))
    five_moves = jit(lambda walkers, width, keys: chain(walkers, width, keys, 5))
    for number in range(40):
        ended = five_moves(walkers, width, keys_of(3, number, walkers))
        width = adapt_width(width, ended.acceptance.mean(), target)
    return width


def fitted_regression(solver, params):
    """The regression of the energies as after training at these parameters, on samples of its
    own."""
    regression = first_regression()
    for number in range(BATCHES):
        samples, _ = solver.measure(params, jax.random.fold_in(jax.random.key(11), number))
        regression = update_regression(regression, samples.controls, samples.energy, number)
    return regression


def regression_gains(solver, params, walkers, samples, regression, chunk) -> dict[str, float]:
    """Variances without over with what the regression takes away.

    Of F: by the control variates.  Of the flow's gradient: by b(K) in place of the mean energy.
    """
    energy = samples.energy.total
    temperature = solver.system.temperature
    matrix = jit(lambda walkers: scores(solver.model, params, walkers, chunk).flow)(walkers)
    matrix = matrix.reshape(len(energy), 2, -1)

    def variance(deviation):
        parts = jnp.stack([deviation.real, deviation.imag], axis=1)
        gradients = jnp.einsum("bc,bcp->bp", parts, matrix)
        return jnp.sum(jnp.var(gradients, axis=0))

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
    solver = build(config)
    system = solver.system
    chunk = walkers_at_once(system, batch)
    params = solver.init(jax.random.key(0)).params
    params = params._replace(flow=correlated(params.flow, system))
    samples, drawn = solver.measure(params, jax.random.key(1))
    regression = fitted_regression(solver, params)
    walkers = drawn.walkers
    timed = functions_of_exact_draws(solver, params, walkers, chunk)
    autocorrelation = {}
    for kind, target in TARGET.items():
        chain = make_chains(solver, params, kind, chunk)
        width = adapted_width(solver, walkers, chain, target)
        series = energies(solver, params, walkers, chain, width, chunk)
        autocorrelation[kind] = autocorrelation_moves(np.asarray(series))
        timed[kind] = timed_chain(chain, walkers, width)
    in_rounds(timed)
    sigma = float(np.std(per_electron(samples, regression, system)["F"]))
    count = (sigma / error) ** 2
    row = {
        "dim": gas.dim,
        "electrons": gas.electrons,
        "samples": count,
        "F_sigma_ha": sigma,
    }
    costs = {"exact": timed["draw"].ms + timed["evaluate"].ms}
    for kind, tau in autocorrelation.items():
        moves = math.ceil(EQUILIBRATION * tau)
        costs[kind] = timed["draw_K"].ms + moves * timed[kind].ms + timed["evaluate"].ms
        row[f"{kind}_autocorrelation_moves"] = tau
        row[f"{kind}_ms_per_move"] = timed[kind].ms
    for kind, cost in costs.items():
        row[f"{kind}_ms_per_sample"] = cost
        row[f"{kind}_seconds"] = count * cost / 1e3
    return row | regression_gains(solver, params, walkers, samples, regression, chunk)


def autocorrelation_moves(series) -> float:
    """Moves between independent records of the chains, each about its own mean."""
    return MOVES_BETWEEN * autocorrelation_time(series - series.mean(axis=0))


def functions_of_exact_draws(solver, params, walkers, chunk) -> dict[str, Timed]:
    """Draws of K, of (K, x), and their energies, compiled."""
    batch = len(walkers.x)
    keys = jax.random.split(jax.random.key(2), batch)
    controls = make_controls(solver.system, solver.cutoff.orbitals)

    def energies(walkers):
        return evaluate(solver.model, controls, params, walkers, chunk)

    def draw(key):
        return solver.measure(params, key)[1]

    def draw_states(keys):
        sample = lambda key: solver.model.occupations.sample(params.occupations, key)
        return map_walkers(sample, keys, chunk)

    return {
        "evaluate": Timed(energies, (walkers,), batch),
        "draw": Timed(draw, (jax.random.key(5),), batch),
        "draw_K": Timed(draw_states, (keys,), batch),
    }


def timed_chain(chain, walkers, width) -> Timed:
    """Twenty moves of every walker, compiled; its time is that of one move."""
    batch = len(walkers.x)
    keys = jax.random.split(jax.random.key(2), batch)
    moves = lambda walkers, keys: chain(walkers, width, keys, 20)
    return Timed(moves, (walkers, keys), 20 * batch)


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
        gas = SystemConfig(n, dim, rs, theta, polarization, (0.25,) * dim)
        row = measure(gas, batch, error)
        rows.append(row)
        for name, value in row.items():
            print(f"{name:36}{value:.6g}", flush=True)
    if json_file:
        json_file.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    cyclopts.run(main)
