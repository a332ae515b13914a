"""How the devices of all processes share the walkers; parameters are whole on every device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def devices_mesh() -> Mesh:
    """All devices, along the axis `walkers`."""
    return Mesh(np.array(jax.devices()), ("walkers",))


def everywhere(tree):
    """Numbers that all processes hold, a pytree, as arrays that are whole on every device."""
    whole = NamedSharding(devices_mesh(), PartitionSpec())

    def array(leaf):
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, whole, lambda part: leaf[part])

    return jax.tree.map(array, tree)


def jit(function: Callable) -> Callable:
    """jax.jit whose arguments and results are whole on every device, so that it is compiled
    once."""
    whole = NamedSharding(devices_mesh(), PartitionSpec())
    return jax.jit(function, in_shardings=whole, out_shardings=whole)


def map_walkers(function: Callable, walkers, chunk: int):
    """The function of one walker for all of them, `chunk` at a time on each device.

    Args:
      function: walker -> any pytree of arrays.
      walkers: a pytree of arrays with the walkers along the first axis, shared evenly among the
        devices; where these do not divide it, some walkers are computed twice.
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
    return jax.tree.map(
        lambda leaf: leaf[:batch], mapped(jax.tree.map(lambda leaf: leaf[again], walkers))
    )


def shared_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b, the rows of a shared among the devices.  [R, C], [C, D] -> [R, D]"""
    share, rest = PartitionSpec("walkers"), -len(a) % jax.device_count()
    product = jax.shard_map(
        jnp.matmul,
        mesh=devices_mesh(),
        in_specs=(share, PartitionSpec()),
        out_specs=share,
        check_vma=False,
    )
    return product(jnp.pad(a, ((0, rest), (0, 0))), b)[: len(a)]


def sum_walkers(function: Callable, walkers, chunk: int):
    """The sum over all walkers of what a function makes of some of them at once.

    Args:
      function: walkers along the first axis, weight of each (1; 0 for walkers that fill up) -> a
        pytree of their sums.
      walkers: a pytree of arrays with the walkers along the first axis, shared evenly among the
        devices.
      chunk: walkers at once, a divisor of each device's share; bounds memory.
    """
    batch, share = len(jax.tree.leaves(walkers)[0]), PartitionSpec("walkers")
    whole = batch + -batch % jax.device_count()
    walkers = jax.tree.map(lambda leaf: leaf[np.arange(whole) % batch], walkers)
    weight = jnp.asarray(np.arange(whole) < batch, float)

    def of_device(*walkers):
        parts = jax.tree.map(lambda leaf: leaf.reshape(-1, chunk, *leaf.shape[1:]), walkers)
        first = jax.tree.map(lambda leaf: leaf[0], parts)
        zero = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, *first)
        )
        add = lambda total, part: (jax.tree.map(jnp.add, total, function(*part)), None)
        return lax.psum(lax.scan(add, zero, parts)[0], "walkers")

    mapped = jax.shard_map(
        of_device, mesh=devices_mesh(), in_specs=share, out_specs=PartitionSpec(), check_vma=False
    )
    return mapped(walkers, weight)
