"""The cost of all observables beside that of the energies of the same samples.

    python scripts/bench_measure.py

Both draw exact samples; `all` adds S(q), g(r), the displacement of pairs and n(k), with one
displaced electron of each spin.  Flows of random parameters; the two are timed in turn, medians.
"""

import statistics
import time

import cyclopts
import jax

from heg.config import Config, ModelConfig, RunConfig, SamplerConfig, SystemConfig
from heg.observables.programs import instruments
from heg.parallel import processes
from heg.training.step import build

GASES = (
    SystemConfig(13, 2, rs=10.0, theta=0.15, polarization="1", twist=(0.25, 0.25)),
    SystemConfig(29, 2, rs=10.0, theta=0.15, polarization="1", twist=(0.25, 0.25)),
    SystemConfig(14, 3, rs=2.0, theta=0.25),
    SystemConfig(33, 3, rs=1.0, theta=1.0, polarization="1"),
)


def main(*, batch: int = 256, repetitions: int = 7) -> None:
    """Prints a table.

    Args:
      batch: samples in a call.
      repetitions: calls of each kind that are timed.
    """
    processes.start()
    print(f"{'gas':28}{'energies, ms/sample':>20}{'all, ms/sample':>16}{'more':>8}")
    for gas in GASES:
        config = Config(gas, RunConfig("none"), ModelConfig(), SamplerConfig(batch=batch))
        medians = milliseconds(config, repetitions)
        energies = medians["energies"]
        everything = medians["observe"]
        title = f"{gas.dim}D, N = {gas.electrons}, zeta {gas.polarization}"
        more = everything / energies - 1
        print(f"{title:28}{energies:20.3f}{everything:16.3f}{more:8.1%}", flush=True)


def milliseconds(config: Config, repetitions: int) -> dict[str, float]:
    """Median milliseconds for a sample of the energies alone and of all observables."""
    solver = build(config)
    tools = instruments(solver, config.sampler)
    state = solver.init(jax.random.key(0))
    params = state.params._replace(flow=disturbed(state.params.flow))

    def energies(params, regression, key):
        samples, _ = solver.measure(params, key)
        return solver.per_electron(samples, regression)

    programs = {"energies": energies, "observe": tools.observe}
    times = {name: [] for name in programs}
    for number in range(repetitions + 1):
        key = jax.random.fold_in(jax.random.key(2), number)
        for name, program in programs.items():
            seconds = seconds_of(program, params, state.regression, key)
            times[name].append(1e3 * seconds / config.sampler.batch)
    # the first call of each compiles
    return {name: statistics.median(calls[1:]) for name, calls in times.items()}


def seconds_of(program, *arguments) -> float:
    """Seconds of one call, to its end."""
    begin = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    return time.perf_counter() - begin


def disturbed(flow):
    """Parameters of a flow with noise added: the untrained flow is the identity."""
    key = jax.random.key(1)
    return jax.tree.map(lambda leaf: leaf + 0.01 * jax.random.normal(key, leaf.shape), flow)


if __name__ == "__main__":
    cyclopts.run(main)
