"""Expected cost of a run before it starts: operations, memory and time."""

import time
from collections.abc import Callable

import jax
import numpy as np

from heg.config import Config
from heg.gas.coulomb import lattice
from heg.parallel.devices import bytes_of_walker, everywhere, jit, map_walkers, walkers_at_once
from heg.training.step import Solver

FUNCTION = 10  # operations counted for a sine, exponential or hyperbolic tangent
# both measured on two cores (docs/performance.md)
EXCESS = 5.0  # time of a run over that of its operations at the rate of large products
START = 35.0  # seconds to compile, start and end
PRODUCT = 1024  # rows of the product that is timed
CALLS = 5  # timed calls, of which the fastest counts
NUMBER_BYTES = 8  # double precision
SAMPLE = ("draw K", "draw x", "kinetic", "Coulomb")  # phases of the final measurement
STEP = (*SAMPLE, "scores", "solve")  # of a training step


def cost(solver: Solver, config: Config, rate: float) -> dict:
    """Parameters, samples in all, memory of a step in MiB, and seconds of the whole run.

    Accuracy: the memory is that of the devices of one process.  It counts the largest arrays
      (scores, their products, Fisher matrix, second derivatives of pairs), but not what the program
      and XLA need besides.  The time was right within a factor of 1.5 for 2 to 33 electrons on two
      cores (docs/performance.md); on other machines it says no more than minutes, hours or days.

    Args:
      solver, config: of the run.
      rate: of large matrix products, as `product_rate` measures it, operations per second.
    """
    of_p, of_flow = parameters(solver)
    run = config.run
    batch = config.sampler.batch
    sampled = operations(solver, config)
    trained = sampled | {"draw x": _walk_operations(config, sampled)}
    of_step = sum(trained[name] for name in STEP)
    of_sample = sum(sampled[name] for name in SAMPLE)
    in_training = run.steps * batch
    measured = 2 * run.samples  # at the untrained and at the trained parameters
    needed = in_training * of_step + measured * of_sample
    return {
        "parameters_of_p": of_p,
        "parameters_of_flow": of_flow,
        "samples": in_training + measured,
        "memory_mib": _memory(solver, config) / 2**20,
        "seconds": START + EXCESS * needed / rate,
    }


def _memory(solver, config):
    """Bytes of the largest arrays of a step on the devices of one process."""
    of_p, of_flow = parameters(solver)
    batch = config.sampler.batch
    scores = batch * (of_p + 2 * of_flow)
    products = batch**2
    # the mean, that of the batch, and the damped one
    fisher_matrix = 3 * of_flow**2
    numbers = scores + products + fisher_matrix
    # second derivatives of the pairs, on every device those of its walkers
    at_once = config.sampler.chunk or walkers_at_once(solver.system, batch)
    of_device = at_once * bytes_of_walker(solver.system)
    of_walkers = jax.local_device_count() * of_device
    return NUMBER_BYTES * numbers + of_walkers


def _walk_operations(config, phases):
    """Operations by which a walker of a training step comes to its x."""
    # a gradient costs about as much as the value
    moves = config.sampler.moves * phases["log Psi"]
    by_sampler = {"exact": phases["draw x"], "metropolis": moves, "mala": 2 * moves}
    return by_sampler[config.sampler.sampler]


def parameters(solver: Solver) -> tuple[int, int]:
    """Numbers of parameters of p(K) and of the flow."""
    occupations, flow = solver.template.params
    return _size(occupations), _size(flow)


def _size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def operations(solver: Solver, config: Config) -> dict[str, float]:
    """Floating-point operations that a walker needs in each phase of STEP, and of ln Psi alone;
    leading orders in N."""
    system = solver.system
    dim = system.dim
    electrons = system.electrons
    coordinates = dim * electrons
    pairs = electrons * (electrons - 1) / 2
    layers = config.model.flow_layers
    batch = config.sampler.batch
    of_p, of_flow = parameters(solver)
    # a determinant of N x N, and one of dN x dN, by its LU factors
    cubes = sum(count**3 for count in system.spins)
    factors = 2 / 3 * coordinates**3
    value_and_slope = _pair_operations(pairs, dim, config.model.flow_width, order=1)
    curvature = _pair_operations(pairs, dim, config.model.flow_width, order=2)
    response = electrons**3 * (6 * dim**4 + 4 * dim**5)  # heg.model.kinetic.squared_response
    candidates = sum(_candidate_operations(count) for count in system.spins)
    # the Jacobian of a layer and its determinant
    log_jacobians = layers * (factors + value_and_slope)
    # five steps of Newton's method are counted, each with a value, a Jacobian and a solve
    inverse = 5 * layers * (factors + value_and_slope)
    derivatives = layers * (6 * coordinates**3 + response + 3 * curvature)
    back_through_layers = layers * (2 * coordinates**3 + 3 * value_and_slope)
    # p(K) solves the smaller of its two systems, the flow keeps its Fisher matrix
    solve_p = 2 * of_p * min(of_p, batch)
    solve_flow = 4 * of_flow**2
    return {
        "draw K": electrons * _transformer_operations(solver, config),
        "draw x": inverse + candidates + 16 * cubes,
        "log Psi": log_jacobians + 8 / 3 * cubes,
        "kinetic": derivatives + 8 * (1 + dim) * cubes,
        "Coulomb": 30 * pairs + 8 * electrons * _lattice_waves(dim),
        "scores": back_through_layers + 8 * cubes,
        "solve": solve_p + solve_flow,
    }


def _pair_operations(pairs, dim, width, order):
    """The network of all pairs and its derivatives up to the order."""
    features = dim + 1
    derivatives = sum(features**power for power in range(order + 1))
    return pairs * width * (FUNCTION + 2 * derivatives)


def _candidate_operations(count):
    """Positions tried for the electrons of one spin; N / m of them on average for each m left."""
    tries = sum(1 / m for m in range(1, count + 1))
    return 8 * count**3 * tries


def _transformer_operations(solver, config):
    """One token, and the logits of all orbitals."""
    of_p, _ = parameters(solver)
    orbitals = len(solver.cutoff.orbitals.energy)
    return 2 * of_p + orbitals * (4 * config.model.transformer_width + FUNCTION)


def _lattice_waves(dim):
    """Plane waves in the reciprocal part of the Ewald sum, half of them by symmetry."""
    highest = lattice(dim).highest
    return (2 * highest + 1) ** (dim - 1) * (highest + 1)


def product_rate() -> float:
    """Operations per second of large matrix products in double precision, one on each device of all
    processes."""
    devices = jax.device_count()

    @jit
    def products(matrices):
        return map_walkers(lambda matrix: matrix @ matrix, matrices, 1).sum()

    ones = np.ones((devices, PRODUCT, PRODUCT))
    seconds = fastest(products, everywhere(ones))
    # a multiplication and an addition for each term
    return devices * 2 * PRODUCT**3 / seconds


def fastest(function: Callable, *arguments) -> float:
    """Seconds of the fastest of CALLS calls, after one that compiles."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begin)
    return min(times)
