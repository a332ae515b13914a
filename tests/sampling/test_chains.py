import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import GASES, assert_equal_within_errors, generator, mean_and_error

from heg.sampling.chains import adapt_width, first_width, mala, metropolis


def gaussian(x):
    """ln of the density up to a constant, and its gradient."""
    return -jnp.sum(x**2) / 2, -x


CHAIN_KINDS = {
    "metropolis": lambda *arguments: metropolis(lambda x: gaussian(x)[0], *arguments),
    "mala": lambda *arguments: mala(gaussian, *arguments),
}
each_kind = pytest.mark.parametrize("walk", CHAIN_KINDS.values(), ids=CHAIN_KINDS)


def walk_many(walk, x, width, key, moves):
    """A chain from each x."""
    return many_walks(walk, moves)(x, width, jax.random.split(key, len(x)))


@functools.cache
def many_walks(walk, moves):
    """Chains as a function of (x, width, keys), compiled."""
    one = lambda x, width, key: walk(x, width, key, moves)
    walks = jax.jit(jax.vmap(one, (0, None, 0)))
    return lambda *arguments: jax.device_get(walks(*arguments))


@each_kind
def test_chains_keep_the_moments_of_a_gaussian(walk, key):
    x = 3 * generator(key).normal(size=(4000, 1, 2))  # three times too wide
    end = walk_many(walk, x, 1.5, key, moves=60)
    assert_equal_within_errors(*mean_and_error(end.x.ravel() ** 2), 1.0, bound=0.03)
    assert_equal_within_errors(*mean_and_error(end.x.ravel() ** 4), 3.0, bound=0.15)


@each_kind
def test_acceptance_falls_from_one_as_the_proposal_widens(walk, key):
    x = generator(key).normal(size=(2000, 1, 2))
    narrow, wider, widest = (
        walk_many(walk, x, width, key, 1).acceptance.mean() for width in (1e-4, 1.0, 10.0)
    )
    assert narrow > 0.999 and 0.4 < wider < 0.95 and widest < 0.1


def test_the_drift_raises_the_acceptance(key):
    # of a Gaussian in many dimensions, at the same width
    x = generator(key).normal(size=(500, 10, 3))
    with_drift, without = (
        walk_many(walk, x, 0.7, key, 20).acceptance.mean()
        for walk in reversed(CHAIN_KINDS.values())
    )
    assert with_drift > 0.8 and without < 0.5


def test_rejected_walkers_stay(key):
    x = np.zeros((50, 1, 2))  # at the maximum: every move lowers the probability
    steep = lambda *arguments: metropolis(lambda x: 1e6 * gaussian(x)[0], *arguments)
    end = walk_many(steep, x, 1.0, key, 1)
    assert end.acceptance.mean() == 0
    np.testing.assert_array_equal(end.x, x)


def test_a_drift_that_diverges_does_not_carry_a_walker_away(key):
    # ln|x| of a node: the drift at 1e-6 is half a million widths long
    node = lambda x: (jnp.log(jnp.sum(x**2)) - jnp.sum(x**2) / 2, 2 * x / jnp.sum(x**2) - x)
    end = walk_many(
        lambda *arguments: mala(node, *arguments), np.full((2000, 1, 2), 1e-6), 1.0, key, 40
    )
    assert end.acceptance.mean() > 0.3
    # density x^2 e^{-x^2 / 2} in the plane: the mean of x^2 is 4
    assert_equal_within_errors(*mean_and_error(np.sum(end.x**2, axis=(1, 2))), 4.0, bound=0.08)


def test_width_follows_the_acceptance():
    assert adapt_width(1.0, 0.5, 0.4) > 1 > adapt_width(1.0, 0.3, 0.4)
    np.testing.assert_allclose(adapt_width(1.0, 0.4, 0.4), 1.0, rtol=1e-12)
    # by a tenth at most, whatever happened
    np.testing.assert_allclose(
        [adapt_width(2.0, 1.0, 0.1), adapt_width(2.0, 0.0, 0.1)], [2.2, 2 / 1.1], rtol=1e-12
    )


@pytest.mark.parametrize("gas", GASES.values(), ids=GASES)
def test_first_proposal_is_of_the_size_of_an_electron(gas):
    assert 0.1 * gas.rs < first_width(gas) < gas.rs
