"""Walkers shared among the devices of all processes, in chunks that fit their memory.

Parameters are whole on every device.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from heg.gas.system import System
from heg.parallel.processes import gathered

WHOLE = PartitionSpec()
SHARED = PartitionSpec("walkers")
CACHE = 4 * 2**20  # bytes that each core of a CPU has near it
WALKER_NUMBERS = 8  # times N^2 d^4: numbers in use at once by the kinetic energy of one walker
FEWEST = 4  # walkers computed at once: with fewer, the cost of starting an operation dominates


def devices_mesh() -> Mesh:
    """All devices, along the axis `walkers`."""
    return Mesh(np.array(jax.devices()), ("walkers",))


def everywhere(tree):
    """Numbers that all processes hold, a pytree, as arrays that are whole on every device."""
    whole = NamedSharding(devices_mesh(), WHOLE)

    def on_every_device(leaf):
        leaf = np.asarray(leaf)
        # each process fills the devices that it has
        return jax.make_array_from_callback(leaf.shape, whole, lambda part: leaf[part])

    return jax.tree.map(on_every_device, tree)


def jit(function: Callable) -> Callable:
    """jax.jit with arguments and results that are whole on every device: compiled once for all."""
    whole = NamedSharding(devices_mesh(), WHOLE)
    return jax.jit(function, in_shardings=whole, out_shardings=whole)


def map_walkers(function: Callable, walkers, chunk: int):
    """The function of one walker for all of them, `chunk` at a time on each device.

    Args:
      function: walker -> any pytree of arrays.
      walkers: a pytree of arrays with the walkers along the first axis, shared evenly among the
        devices; where these do not divide it, some walkers are computed twice.
      chunk: walkers at once; bounds memory.
    Returns:
      The results of all walkers along the first axis.
    """

    def map_share(walkers):
        return lax.map(function, walkers, batch_size=chunk)

    mapped = jax.shard_map(
        map_share,
        mesh=devices_mesh(),
        in_specs=SHARED,
        out_specs=SHARED,
        check_vma=False,
    )
    batch = _length(walkers)
    if batch % jax.device_count() == 0:
        return mapped(walkers)
    # the devices must have equal shares: what is computed twice is cut off again
    results = mapped(_filled_up(walkers))
    return jax.tree.map(lambda leaf: leaf[:batch], results)


def sum_walkers(function: Callable, walkers, chunk: int):
    """The sum over all walkers of what a function makes of some of them at once.

    Args:
      function: walkers along the first axis, weight of each (1; 0 for walkers that fill up) -> a
        pytree of their sums.
      walkers: a pytree of arrays with the walkers along the first axis, shared evenly among the
        devices.
      chunk: walkers at once, a divisor of each device's share; bounds memory.
    """
    batch = _length(walkers)
    walkers = _filled_up(walkers)
    weights = jnp.asarray(np.arange(_length(walkers)) < batch, float)

    def sum_share(walkers, weights):
        chunks = jax.tree.map(
            lambda leaf: leaf.reshape(-1, chunk, *leaf.shape[1:]), (walkers, weights)
        )

        def add(total, one_chunk):
            return jax.tree.map(jnp.add, total, function(*one_chunk)), None

        # one chunk after the other, so that only the sums of one are in memory
        total, _ = lax.scan(add, _zero_sum(function, chunks), chunks)
        return lax.psum(total, "walkers")

    summed = jax.shard_map(
        sum_share,
        mesh=devices_mesh(),
        in_specs=SHARED,
        out_specs=WHOLE,
        check_vma=False,
    )
    return summed(walkers, weights)


def _zero_sum(function, chunks):
    """Zeros of the shapes and types of the sums over one chunk."""
    # traced for its shapes alone: nothing is computed
    first_chunk = jax.tree.map(lambda leaf: leaf[0], chunks)
    sums = jax.eval_shape(function, *first_chunk)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sums)


def _length(walkers):
    return len(jax.tree.leaves(walkers)[0])


def _filled_up(walkers):
    """Walkers repeated from the first on, up to a number that the devices divide."""
    batch = _length(walkers)
    missing = -batch % jax.device_count()
    indices = np.arange(batch + missing) % batch
    return jax.tree.map(lambda leaf: leaf[indices], walkers)


def shared_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b, the rows of a shared among the devices.  [R, C], [C, D] -> [R, D]"""
    product = jax.shard_map(
        jnp.matmul,
        mesh=devices_mesh(),
        in_specs=(SHARED, WHOLE),
        out_specs=SHARED,
        check_vma=False,
    )
    # rows of zeros make the shares equal
    rows = len(a)
    missing = -rows % jax.device_count()
    padded = jnp.pad(a, ((0, missing), (0, 0)))
    return product(padded, b)[:rows]


def walkers_at_once(system: System, batch: int, size: int | None = None) -> int:
    """Walkers computed at once that fit the memory at hand.

    That is a quarter of an accelerator's memory, or the cache of a CPU's core.

    Args:
      system: gives N and d.
      batch: walkers in all; the result divides each device's share of them.
      size: bytes of one walker; none: those of the kinetic energy.
    """
    fitting = _memory_of_device() / (size or bytes_of_walker(system))
    return divisor(batch, max(fitting, FEWEST))


def _memory_of_device():
    """Bytes that a chunk of walkers may fill."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return CACHE
    # the smallest of all: every process must find the same number of walkers
    return min(gathered(device.memory_stats()["bytes_limit"])) / 4


def bytes_of_walker(system: System) -> int:
    """Memory of the second derivatives of one walker's pairs (heg.model.kinetic).

    They are N^2 d^4 numbers, a few times over.
    """
    return WALKER_NUMBERS * 8 * system.electrons**2 * system.dim**4


def divisor(batch: int, most: float) -> int:
    """The largest divisor of each device's share of the batch that is at most `most`.

    With a divisor there is no smaller last chunk, which would be compiled once more.
    """
    share = -(-batch // jax.device_count())
    fitting = [number for number in range(1, share + 1) if number <= max(most, 1)]
    return max(number for number in fitting if share % number == 0)
