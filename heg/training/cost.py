"""What a run asks for, told before it starts: operations, memory, time."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from heg.config import Config
from heg.gas.coulomb import lattice
from heg.parallel.devices import bytes_of_walker, map_walkers, walkers_at_once
from heg.training.step import Solver

FUNCTION = 10  # operations counted for a sine, exponential or hyperbolic tangent
# on two cores (docs/performance.md): time over that of the operations at the rate of large
# products, and the rest
EXCESS, START = 5.0, 35.0  # in seconds: to compile, start and end
PRODUCT = 1024  # rows of the product that is timed
SAMPLE = ("draw K", "draw x", "kinetic", "Coulomb")  # phases of the final measurement
STEP = (*SAMPLE, "scores", "solve")  # of a training step


def cost(solver: Solver, config: Config, rate: float) -> dict:
    """Parameters, samples in all, memory of a step in MiB on the devices of one process, and
    seconds of the whole run.

    Accuracy: the memory counts the largest arrays (scores, their products, Fisher matrix, second
      derivatives of pairs);
    what the program and XLA need besides is not in it.  The time was right within a factor of 1.5
    for 2 to 33 electrons on two cores (docs/performance.md); on other machines it says no more than
    minutes, hours or days.

    Args:
      solver, config: of the run.
      rate: of large matrix products, as `product_rate` measures it, operations per second.
    """
    of_p, of_flow = parameters(solver)
    run, batch = config.run, config.sampler.batch
    at_once = config.sampler.chunk or walkers_at_once(solver.system, batch)
    numbers = (
        batch * (of_p + 2 * of_flow + batch) + 3 * of_flow**2
    )  # scores, their products, the Fisher matrix
    memory = 8 * numbers + jax.local_device_count() * at_once * bytes_of_walker(solver.system)
    exact = operations(solver, config)
    trained = exact | {"draw x": _of_walk(config, exact)}
    of_step, of_sample = sum(trained[name] for name in STEP), sum(exact[name] for name in SAMPLE)
    needed = run.steps * batch * of_step + 2 * run.samples * of_sample
    return {
        "parameters_of_p": of_p,
        "parameters_of_flow": of_flow,
        "samples": run.steps * batch + 2 * run.samples,
        "memory_mib": memory / 2**20,
        "seconds": START + EXCESS * needed / rate,
    }


def _of_walk(config, phases):
    """Operations by which a walker of a training step comes to its x."""
    moves = config.sampler.moves * phases["log Psi"]
    return {"exact": phases["draw x"], "metropolis": moves, "mala": 2 * moves}[
        config.sampler.sampler
    ]


def parameters(solver: Solver) -> tuple[int, int]:
    """How many p(K) and the flow have."""
    return tuple(
        sum(leaf.size for leaf in jax.tree.leaves(part)) for part in solver.template.params
    )


def operations(solver: Solver, config: Config) -> dict[str, float]:
    """Floating-point operations that a walker needs in each phase of STEP, and of ln Psi alone;
    leading orders in N."""
    system, (spins, d) = solver.system, (solver.system.spins, solver.system.dim)
    n, layers, width, features = (
        d * system.electrons,
        config.model.flow_layers,
        config.model.flow_width,
        d + 1,
    )
    pairs = system.electrons * (system.electrons - 1) / 2
    network = lambda order: (
        pairs * width * (FUNCTION + 2 * sum(features**power for power in range(order + 1)))
    )
    cubes = sum(count**3 for count in spins)
    of_p, of_flow = parameters(solver)
    orbitals, batch, highest = (
        len(solver.cutoff.orbitals.energy),
        config.sampler.batch,
        lattice(d).highest,
    )
    candidates = sum(8 * count**3 * sum(1 / m for m in range(1, count + 1)) for count in spins)
    response = system.electrons**3 * (6 * d**4 + 4 * d**5)  # heg.model.kinetic.squared_response
    transformer = 2 * of_p + orbitals * (4 * config.model.transformer_width + FUNCTION)
    return {
        "draw K": system.electrons * transformer,
        "draw x": 5 * layers * (2 / 3 * n**3 + network(1)) + candidates + 16 * cubes,
        "log Psi": layers * (2 / 3 * n**3 + network(1)) + 8 / 3 * cubes,
        "kinetic": layers * (6 * n**3 + response + 3 * network(2)) + 8 * (1 + d) * cubes,
        "Coulomb": 30 * pairs + 8 * system.electrons * (2 * highest + 1) ** (d - 1) * (highest + 1),
        "scores": layers * (2 * n**3 + 3 * network(1)) + 8 * cubes,
        "solve": 2 * of_p * min(of_p, batch) + 4 * of_flow**2,
    }


def product_rate() -> float:
    """Operations per second of large matrix products in double precision, one on each device of all
    processes."""
    many = jax.device_count()
    product = jax.jit(lambda a: map_walkers(lambda a: a @ a, a, 1).sum())
    return many * 2 * PRODUCT**3 / fastest(product, jnp.ones((many, PRODUCT, PRODUCT)))


def fastest(function: Callable, *arguments) -> float:
    """Seconds of the fastest of five calls, after one that compiles."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begin)
    return min(times)
