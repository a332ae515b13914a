"""How a process uses the machine."""

import os
from collections.abc import Callable

import jax
import numpy as np
import scipy.linalg  # noqa: F401  loads the BLAS that XLA calls on a CPU
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from threadpoolctl import threadpool_limits

from heg.system import System

CACHE = 4 * 2**20  # bytes that each core of a CPU has near it
WALKER_NUMBERS = 8  # times N^2 d^4: numbers in use at once by the kinetic energy of one walker
FEWEST = 4  # walkers computed at once, lest the cost of starting an operation rule


def prepare_process() -> None:
    """To be called once by a command before it computes anything: each core of a CPU is a device, BLAS has one thread.

    XLA's threads split one operation after the other, which are small here; devices share the walkers instead.  BLAS is
    called from threads of XLA for many matrices at once, and threads of its own would only wait for each other.
    """
    threadpool_limits(limits=1, user_api="blas")
    # macOS cannot tell which cores the process may use
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", cores)


def devices_mesh() -> Mesh:
    """All devices, along the axis `walkers`."""
    return Mesh(np.array(jax.devices()), ("walkers",))


def jit(function: Callable) -> Callable:
    """jax.jit whose arguments and results are whole on every device, so that it is compiled once."""
    everywhere = NamedSharding(devices_mesh(), PartitionSpec())
    return jax.jit(function, in_shardings=everywhere, out_shardings=everywhere)


def map_walkers(function: Callable, walkers, chunk: int):
    """The function of one walker for all of them, `chunk` at a time on each device.

    Args:
      function: walker -> any pytree of arrays.
      walkers: a pytree of arrays with the walkers along the first axis, shared evenly among the devices; where these do
        not divide it, some walkers are computed twice.
      chunk: bounds memory.
    """
    batch, share = len(jax.tree.leaves(walkers)[0]), PartitionSpec("walkers")
    mapped = jax.shard_map(
        lambda walkers: lax.map(function, walkers, batch_size=chunk),
        mesh=devices_mesh(),
        in_specs=share,
        out_specs=share,
        check_vma=False,
    )
    rest = -batch % jax.device_count()
    if not rest:
        return mapped(walkers)
    again = np.arange(batch + rest) % batch
    return jax.tree.map(lambda leaf: leaf[:batch], mapped(jax.tree.map(lambda leaf: leaf[again], walkers)))


def walkers_at_once(system: System, batch: int) -> int:
    """Walkers computed at once that fit the memory at hand: a quarter of an accelerator's, the cache of a CPU's core.

    What a walker needs is N^2 d^4 numbers a few times over: the second derivatives of its pairs (heg.kinetic).

    Args:
      system: gives N and d.
      batch: walkers in all; the result divides each device's share of them.
    """
    device = jax.local_devices()[0]
    memory = CACHE if device.platform == "cpu" else device.memory_stats()["bytes_limit"] / 4
    most = memory / (WALKER_NUMBERS * 8 * system.electrons**2 * system.dim**4)
    return divisor(batch, max(most, FEWEST))


def divisor(batch: int, most: float) -> int:
    """The largest divisor of each device's share of the batch that is at most `most`: no rest to compile for."""
    share = -(-batch // jax.device_count())
    return max(number for number in range(1, share + 1) if share % number == 0 and number <= max(most, 1))
