"""The proof that a layer cannot fold, beside the layers themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import GASES, make_model, random_params, random_positions

from heg.gas.system import System
from heg.model.monotone import largest_attraction

CROWD = System(5, 0, 2, rs=10.0, theta=0.2, twist=(0.0, 0.0))


def crowds(gas, key, count=12):
    """Configurations in a fraction of r_s, and one spread over the cell."""
    keys = jax.random.split(key, count)
    sizes = np.geomspace(0.02, 3.0, count) * gas.rs
    shape = (gas.electrons, gas.dim)
    near = [size * jax.random.normal(key, shape) for size, key in zip(sizes, keys)]
    return jnp.stack([*near, random_positions(gas, key)])


def lowest_slopes(model, params, x):
    """Smallest eigenvalue of the symmetric part of J, of every layer and configuration."""

    def of_layer(layer):
        _, jacobian = jax.vmap(lambda x: model.flow.apply(layer, x))(x)
        return jnp.linalg.eigvalsh((jacobian + jacobian.swapaxes(1, 2)) / 2)[:, 0]

    return jax.lax.map(of_layer, model.flow.layers(params))


@pytest.mark.parametrize("gas", GASES.values(), ids=GASES)
def test_no_jacobian_is_less_monotone_than_the_bound_says(gas, key):
    model = make_model(gas, 5)
    params = random_params(model, key, flow=0.4).flow
    bound = float(largest_attraction(model.flow, params))
    lowest = float(lowest_slopes(model, params, crowds(gas, key)).min())
    assert lowest >= 1 - bound
    # the bound is of use: not a hundred times what is seen
    assert bound < 100 * (1 - lowest)


def test_a_flow_below_the_bound_is_never_seen_to_fold(key):
    model = make_model(CROWD, 5)
    params = random_params(model, key, flow=0.5).flow
    before = float(largest_attraction(model.flow, params))
    # smaller weights move electrons less
    while float(largest_attraction(model.flow, params)) >= 1:
        params = jax.tree.map(lambda leaf: leaf / 2, params)
    assert before > 0
    determinants = jax.vmap(lambda x: model.flow.lowest_determinants(params, x))
    assert float(determinants(crowds(CROWD, key)).min()) > 0


def test_the_identity_attracts_nothing(key):
    gas = GASES["3D-polarized"]
    model = make_model(gas, 5)
    assert float(largest_attraction(model.flow, model.flow.init(key))) == 0
