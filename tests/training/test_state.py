import jax
import numpy as np
import pytest

from heg.training.state import MEASURING, RANDOM, TrainState, key_of_run, stream

EMPTY = TrainState(*[None] * len(TrainState._fields))


@pytest.mark.parametrize("seed", [0, 5, 2**40 + 3, -7])
def test_key_of_a_run_is_that_of_jax(seed):
    expected = jax.random.key(seed, impl=RANDOM)
    np.testing.assert_array_equal(
        jax.random.key_data(key_of_run(seed)), jax.random.key_data(expected)
    )


@pytest.mark.parametrize("step, number", [(0, 0), (1, 15), (123456789, 2**32 - 1)])
def test_streams_are_those_that_jax_folds_in(step, number):
    key = key_of_run(2**33 + 17)
    state = EMPTY._replace(step=np.array(step), key=jax.random.key_data(key))
    expected = jax.random.fold_in(jax.random.fold_in(key, MEASURING), step)
    np.testing.assert_array_equal(
        jax.random.key_data(stream(state, MEASURING)), jax.random.key_data(expected)
    )
    expected = jax.random.fold_in(expected, number)
    np.testing.assert_array_equal(
        jax.random.key_data(stream(state, MEASURING, number)), jax.random.key_data(expected)
    )
