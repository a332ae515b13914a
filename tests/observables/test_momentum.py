"""n(k) beside quadrature of the one-body density matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import (
    assert_equal_within_errors,
    lowest_shells,
    make_exact_draw,
    make_model,
    mean_and_error,
    random_params,
)

from heg.gas.system import System
from heg.observables.momentum import (
    Momentum,
    control_weight,
    make_momentum,
    momentum_distribution,
    momentum_shells,
)

PAIR = System(2, 0, 2, rs=2.0, theta=0.8, twist=(0.25, 0.1))
DRAWS = 20_000
POINTS = 48  # of the mesh along each side
ORBITALS = 9


@pytest.fixture(scope="module")
def drawn():
    """Momentum of exact draws of a pair at one K, and n(k) of that pair by quadrature."""
    model = make_model(PAIR, ORBITALS)
    orbitals = lowest_shells(PAIR, ORBITALS)
    params = random_params(model, jax.random.key(3))
    state = jnp.array([0, 2], jnp.int32)
    draw = make_exact_draw(PAIR, ORBITALS)
    keys = jax.random.split(jax.random.key(4), DRAWS)
    draws = draw(params.flow, jnp.tile(state, (DRAWS, 1)), keys)
    z = jax.vmap(lambda x: model.flow.forward(params.flow, x)[0])(draws.x)
    of_one = make_momentum(PAIR, orbitals, model.log_psi)
    keys = jax.random.split(jax.random.key(5), DRAWS)
    samples = jax.jit(jax.vmap(lambda x, z, key: of_one(params.flow, x, z, state, key)))(
        draws.x, z, keys
    )
    # with Psi(u, 0) on a mesh, n(k) = N |integral of e^{-iku} Psi(u, 0)|^2
    mesh = PAIR.box * np.indices((POINTS, POINTS)).reshape(2, -1).T / POINTS
    configurations = jnp.stack([jnp.asarray(mesh) + 1e-7, jnp.zeros(mesh.shape)], axis=1)
    psi = np.exp(
        np.asarray(jax.vmap(model.log_psi, (None, 0, None))(params.flow, configurations, state))
    )
    shells, waves = momentum_shells(PAIR, orbitals)
    integral = np.exp(-1j * waves.k @ mesh.T) @ psi * (PAIR.box / POINTS) ** 2
    n = shells.mean(2 * np.abs(integral) ** 2)
    return Momentum(*map(np.asarray, samples)), n, shells, waves, state


def test_the_quadrature_counts_the_electrons(drawn):
    _, n, shells, _, _ = drawn
    assert 1.9 < n @ shells.count <= 2 + 1e-6


def test_the_estimator_is_that_of_the_true_density_matrix(drawn):
    samples, n, _, _, _ = drawn
    mean, error = mean_and_error(samples.moved[:, 0])
    assert_equal_within_errors(mean, error, n, 0.02)


def test_bare_determinants_occupy_what_is_in_K_and_take_noise_out(drawn):
    samples, n, shells, waves, state = drawn
    in_k = np.zeros(len(waves.k))
    in_k[np.asarray(state)] = 1
    occupied = shells.mean(in_k)
    np.testing.assert_allclose(samples.occupied[0, 0], occupied, atol=1e-12)
    assert_equal_within_errors(*mean_and_error(samples.bare[:, 0]), occupied, 0.02)
    blocks = Momentum(*(part.reshape(500, -1, *part.shape[1:]).mean(axis=1) for part in samples))
    weight = control_weight(blocks)
    assert 0.3 < weight[0, 0] < 1.5
    mean, error = mean_and_error(momentum_distribution(samples, weight)[:, 0])
    assert_equal_within_errors(mean, error, n, 0.01)
    _, plain = mean_and_error(samples.moved[:, 0])
    assert np.mean(error**2) < 0.7 * np.mean(plain**2)


def test_without_a_flow_no_noise_is_left():
    model = make_model(PAIR, ORBITALS, flow_layers=0)
    orbitals = lowest_shells(PAIR, ORBITALS)
    state = jnp.array([1, 4], jnp.int32)
    x = jnp.array([[0.3, 0.2], [1.1, 2.0]])
    found = make_momentum(PAIR, orbitals, model.log_psi)({}, x, x, state, jax.random.key(0))
    np.testing.assert_allclose(found.moved, found.bare, atol=1e-10)
