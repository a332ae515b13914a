import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import (
    GASES,
    GASES_OF_TWO_SPINS,
    POLARIZED_2D,
    SPINS_2D,
    all_states,
    assert_equal_within_errors,
    lowest_shells,
    make_exact_draw,
    make_model,
    random_params,
    random_positions,
)

from heg.gas.system import System

each_gas = pytest.mark.parametrize("gas", GASES.values(), ids=GASES)
each_gas_of_two_spins = pytest.mark.parametrize(
    "gas", GASES_OF_TWO_SPINS.values(), ids=GASES_OF_TWO_SPINS
)


def random_wavefunction(gas, key, orbitals=9):
    """ln Psi as a function of (x, state) at random parameters, and its orbitals."""
    model = make_model(gas, orbitals)
    params = random_params(model, key).flow

    def log_psi(x, state):
        return np.asarray(model.log_psi(params, x, state))

    return log_psi, lowest_shells(gas, orbitals)


@each_gas
def test_antisymmetric_within_a_spin(gas, key):
    log_psi, _ = random_wavefunction(gas, key)
    x = np.asarray(random_positions(gas, key))
    state = all_states(gas.spins, 5)[-1]
    swap = np.arange(gas.electrons)
    swap[[0, 1]] = [1, 0]
    np.testing.assert_allclose(np.exp(log_psi(x[swap], state) - log_psi(x, state)), -1, rtol=1e-10)


@each_gas
def test_total_momentum_of_the_occupied_waves(gas, key):
    log_psi, orbitals = random_wavefunction(gas, key)
    x = np.asarray(random_positions(gas, key))
    state = all_states(gas.spins, 5)[-2]
    shift = np.linspace(0.3, 1.1, gas.dim)
    momentum = orbitals.k[state].sum(axis=0)
    assert np.any(momentum != 0)
    ratio = np.exp(log_psi(x + shift, state) - log_psi(x, state))
    np.testing.assert_allclose(ratio, np.exp(1j * momentum @ shift), rtol=1e-10)


@each_gas
def test_bloch_phase_of_one_electron_is_the_twist(gas, key):
    log_psi, _ = random_wavefunction(gas, key)
    x = np.asarray(random_positions(gas, key))
    state = all_states(gas.spins, 5)[3]
    moved = x.copy()
    moved[0] += gas.box
    phase = np.exp(2j * math.pi * sum(gas.twist))
    np.testing.assert_allclose(np.exp(log_psi(moved, state) - log_psi(x, state)), phase, rtol=1e-10)


@pytest.mark.parametrize("spins", [(2, 0), (1, 1)], ids=["polarized", "spins"])
def test_orthonormal_by_quadrature_over_the_relative_coordinate(spins, key):
    gas = System(*spins, 2, rs=2.0, theta=0.8, twist=(0.0, 0.0))
    model = make_model(gas, 9)
    params = random_params(model, key).flow
    orbitals = lowest_shells(gas, 9)
    # the states of zero total momentum: of others the centre of mass would see to the orthogonality
    at_rest = [s for s in all_states(gas.spins, 9) if not np.any(orbitals.n[s].sum(axis=0))]
    points = 160  # midpoints, which avoid contact, where |Psi|^2 has a kink
    axis = (np.arange(points) + 0.5) / points * gas.box
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    x = np.stack([grid, np.zeros_like(grid)], axis=1)

    log_psi_on_grid = jax.jit(jax.vmap(model.log_psi, (None, 0, None)))
    psi = np.stack([np.exp(log_psi_on_grid(params, x, state)) for state in at_rest[:4]])
    area = gas.box**2 * (gas.box / points) ** 2
    overlaps = psi.conj() @ psi.T * area
    np.testing.assert_allclose(overlaps, np.eye(4), rtol=0, atol=2e-6)


def test_orthonormal_over_exact_draws(key):
    # E over x ~ |Psi_K|^2 of Psi_K'(x) / Psi_K(x) is <Psi_K|Psi_K'>; the ratio has variance one
    gas = System(5, 0, 2, rs=2.0, theta=0.8, twist=(0.0, 0.0))
    model = make_model(gas, 9)
    params = random_params(model, key).flow
    state = np.arange(5, dtype=np.int32)
    # (1, 0) and (-1, 0) moved to two diagonals: the total momentum stays zero
    index = {tuple(n): number for number, n in enumerate(lowest_shells(gas, 9).n)}
    occupied = [(0, 0), (0, 1), (0, -1), (1, 1), (-1, -1)]
    other = np.array(sorted(index[n] for n in occupied), dtype=np.int32)

    draws = 4000
    draw = make_exact_draw(gas, 9)
    states = np.tile(state, (draws, 1))
    drawn = draw(params, states, jax.random.split(key, draws))
    log_psi = jax.jit(jax.vmap(model.log_psi, (None, 0, None)))
    log_ratio = np.subtract(log_psi(params, drawn.x, other), log_psi(params, drawn.x, state))
    ratio = np.exp(log_ratio)
    overlap = np.array([ratio.real.mean(), ratio.imag.mean()])
    error = np.array([ratio.real.std(), ratio.imag.std()]) / math.sqrt(draws)
    assert_equal_within_errors(overlap, error, 0.0, bound=0.02)
    assert np.sum(error**2) * draws > 0.5  # the states do differ where the draws fall


def test_without_flow_it_is_the_plane_wave_determinant(key):
    log_psi = make_model(SPINS_2D, 9, flow_layers=0).log_psi
    x = np.asarray(random_positions(SPINS_2D, key))
    state = jnp.array([1, 4, 2])
    k = lowest_shells(SPINS_2D, 9).k[np.asarray(state)]

    def wave(a, electron):
        return np.exp(1j * k[a] @ x[electron])

    up = wave(0, 0) * wave(1, 1) - wave(1, 0) * wave(0, 1)
    down = wave(2, 2)
    expected = up * down / math.sqrt(2) / SPINS_2D.box**3
    np.testing.assert_allclose(np.exp(log_psi({}, x, state)), expected, rtol=1e-10)


def test_vanishes_where_two_electrons_of_one_spin_meet(key):
    log_psi, _ = random_wavefunction(POLARIZED_2D, key)
    x = np.asarray(random_positions(POLARIZED_2D, key))

    def modulus(r):
        near = x.copy()
        near[1] = x[0] + r
        return np.exp(log_psi(near, np.arange(3)).real)

    np.testing.assert_allclose(modulus(2e-5) / modulus(1e-5), 2.0, rtol=1e-3)


@each_gas_of_two_spins
def test_score_is_the_derivative_of_the_logarithm(gas, key):
    model = make_model(gas, 9, 3)
    params = random_params(model, key).flow
    x = np.asarray(random_positions(gas, key))
    state = np.array([1, 4, 6][: gas.n_up] + [0, 6][: gas.n_down])

    def parts(params, x):
        value = model.log_psi(params, x, state)
        return jnp.stack([value.real, value.imag])

    derivatives = jax.jit(jax.jacrev(parts, (0, 1)))(params, x)
    by_params, (real, imaginary) = jax.device_get(derivatives)
    score = jax.device_get(model.score(params, x, state))
    np.testing.assert_allclose(score.x, real + 1j * imaginary, rtol=1e-10, atol=1e-13)
    scores = jax.tree.leaves(score.params)
    for value, expected in zip(scores, jax.tree.leaves(by_params), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-13)
        size = np.max(np.abs(value), axis=tuple(range(2, value.ndim)))
        assert np.all(size[0] > 1e-4)  # the real part of every layer
        assert np.max(size[1]) > 1e-4
