import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import POLARIZED_2D, POLARIZED_3D
from threadpoolctl import threadpool_info

from heg.gas.system import System
from heg.parallel.devices import (
    CACHE,
    FEWEST,
    WALKER_NUMBERS,
    divisor,
    jit,
    map_walkers,
    walkers_at_once,
)


def test_blas_has_one_thread():
    # as conftest.py asks for: XLA's threads call it
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    assert pools and all(pool["num_threads"] == 1 for pool in pools)


@pytest.mark.parametrize("batch, chunk", [(12, 2), (12, 4), (12, 12), (7, 2), (1, 4)])
def test_every_walker_is_mapped_once_whatever_the_chunk_and_the_devices(batch, chunk, key):
    x = jax.random.normal(key, (batch, 3))
    mapped = jit(
        lambda x: map_walkers(
            lambda walker: {"a": jnp.cumsum(walker), "b": walker @ walker}, x, chunk
        )
    )(x)
    np.testing.assert_allclose(mapped["a"], np.cumsum(x, axis=1), rtol=1e-12)
    np.testing.assert_allclose(mapped["b"], np.sum(np.square(x), axis=1), rtol=1e-12)


def test_walkers_are_shared_among_the_devices(key):
    batch = 4 * jax.device_count()
    mapped = jax.jit(lambda x: map_walkers(jnp.sin, x, 2))(jax.random.normal(key, (batch,)))
    assert {len(shard.data) for shard in mapped.addressable_shards} == {4}


def test_keys_of_walkers_are_mapped_too(key):
    # an odd number, which two devices do not divide
    keys = jax.random.split(key, 5)
    drawn = jit(lambda keys: map_walkers(lambda key: jax.random.normal(key, (2,)), keys, 2))(keys)
    np.testing.assert_array_equal(drawn, jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys))


def test_result_of_jit_is_whole_on_every_device(key):
    mapped = jit(lambda x: map_walkers(jnp.sin, x, 2))(
        jax.random.normal(key, (4 * jax.device_count(),))
    )
    assert all(len(shard.data) == len(mapped) for shard in mapped.addressable_shards)


def test_chunk_divides_the_share_of_a_device():
    share = 60
    batch = share * jax.device_count()
    assert [divisor(batch, most) for most in (0.3, 1, 7, 29.5, 1e9)] == [1, 1, 6, 20, 60]


@pytest.mark.parametrize(
    "gas", [POLARIZED_2D, POLARIZED_3D, System(13, 0, 2, 10.0, 0.15, (0.25, 0.25))]
)
def test_chunk_fits_the_cache_of_a_core(gas):
    chunk = walkers_at_once(gas, 1024 * jax.device_count())
    assert chunk * WALKER_NUMBERS * 8 * gas.electrons**2 * gas.dim**4 <= CACHE
    large = System(114, 0, 3, 5.0, 0.15, (0.0,) * 3)
    assert walkers_at_once(large, 1024 * jax.device_count()) == FEWEST
