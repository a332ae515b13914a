import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import (
    GASES,
    ground_state,
    lowest_shells,
    make_model,
    random_params,
    random_positions,
)

from heg.gas.system import System

each_gas = pytest.mark.parametrize("gas", GASES.values(), ids=GASES)


def local_energy(gas, key, flow_layers=2):
    """x, state -> E_loc at random parameters; the same ones for gases that differ by r_s or
    coupling alone."""
    model = make_model(gas, 9, flow_layers)
    params = random_params(model, key).flow
    return lambda x, state: model.local_energy(params, x, state)[0]


@each_gas
def test_ideal_gas_has_no_variance(gas, key):
    free = dataclasses.replace(gas, coupling=0.0)
    energy = local_energy(free, key, flow_layers=0)
    state = ground_state(free).at[gas.n_up - 1].set(6)
    x = random_positions(free, key, 5)
    values = jax.vmap(lambda x: energy(x, state).total)(x)
    expected = lowest_shells(free, 9).energy[state].sum()
    np.testing.assert_allclose(values, expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["2D-polarized", "3D-spins"])
def test_kinetic_and_potential_energy_scale_with_density_and_coupling(name, key):
    # the flow measures lengths in the box and r_s; between opposite spins in 2D the cusp brings the
    # bohr
    gas = GASES[name]
    other = dataclasses.replace(gas, rs=3 * gas.rs, coupling=0.25)
    x = random_positions(gas, key)
    state = ground_state(gas)
    energy = local_energy(gas, key)(x, state)
    scaled = local_energy(other, key)(3 * x, state)
    np.testing.assert_allclose(scaled.kinetic, energy.kinetic / 9, rtol=1e-10)
    np.testing.assert_allclose(scaled.potential, 0.25 * energy.potential / 3, rtol=1e-10)
    np.testing.assert_allclose(scaled.total, scaled.kinetic + scaled.potential, rtol=1e-12)


def test_cusp_cancels_the_repulsion_where_opposite_spins_meet_in_two_dimensions(key):
    pair = System(1, 1, 2, rs=2.0, theta=0.8, twist=(0.0, 0.0))
    state = ground_state(pair)
    energy = local_energy(pair, key)
    distances = pair.rs * np.array([1e-2, 1e-3, 1e-4])
    separation = distances[:, None] * np.array([0.6, 0.8])
    x = jnp.zeros((3, 2, 2)).at[:, 0].set(separation)
    local = jax.vmap(lambda x: energy(x, state))(x)
    assert np.all(local.potential > 0.9 / distances)
    assert np.ptp(local.total.real) < 0.1  # while the potential rises from 50 to 5000
