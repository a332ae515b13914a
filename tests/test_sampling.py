import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import (
    GASES,
    POLARIZED_2D,
    SPINS_3D,
    assert_equal_within_errors,
    exact_draws,
    hartree_fock_energy,
    lowest_shells,
    mean_and_error,
    random_positions,
)

from heg.ewald import coulomb_energy
from heg.sampling import Walkers, adapt_width, draw_determinant, first_width, metropolis, metropolis_step
from heg.system import System

CHAINS = 2000


def draw_many(k, box, key, draws):
    """Independent draws of one spin.  [draws, N, d]"""
    return jax.jit(jax.vmap(lambda key: draw_determinant(k, box, key)))(jax.random.split(key, draws))


def distance_counts(x, box, edges):
    """Pairs of each configuration by distance of nearest images.  [B, bins]"""
    first, second = np.triu_indices(x.shape[1], 1)
    r = np.asarray(x[:, first] - x[:, second])
    distance = np.linalg.norm(r - box * np.round(r / box), axis=-1)
    within = (distance[..., None] >= edges[:-1]) & (distance[..., None] < edges[1:])
    return within.sum(axis=1)


def test_draws_have_the_one_and_two_body_density_of_the_determinant(key):
    # rho_2(r) = N^2 - |sum_k e^{ikr}|^2 by its Fourier components: sum over i != j of e^{-iG(x_i - x_j)} averages to
    # minus the number of occupied pairs with k - k' = G; the density itself is uniform
    orbitals = lowest_shells(POLARIZED_2D, 5).first(5)
    k, unit = orbitals.k[[0, 1, 2, 4]], 2 * math.pi / POLARIZED_2D.box  # an open shell
    n = np.round(k / unit).astype(int)
    x = np.asarray(draw_many(k, POLARIZED_2D.box, key, 8000))
    assert np.all((x >= 0) & (x < POLARIZED_2D.box))
    for g in [(1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2), (2, 1), (3, 0), (4, 1)]:
        phases = np.exp(-1j * unit * x @ np.array(g))
        amplitude = phases.sum(axis=1)
        for part in (amplitude.real, amplitude.imag):
            assert_equal_within_errors(*mean_and_error(part), 0.0, bound=0.03)
        transfers = np.sum(np.all(n[:, None] - n == np.array(g), axis=-1))
        structure = np.abs(amplitude) ** 2 - len(k)
        assert_equal_within_errors(*mean_and_error(structure), -transfers, bound=0.05)


def test_coulomb_energy_of_the_fermi_sea_is_that_of_hartree_fock(key):
    sea = System(7, 7, 3, rs=5.0, theta=0.1, twist=(0.0,) * 3)
    k = lowest_shells(sea, 7).k
    up, down = (draw_many(k, sea.box, key, 4000) for key in jax.random.split(key))
    energy = jax.jit(jax.vmap(lambda x: coulomb_energy(x, sea)))(jnp.concatenate([up, down], axis=1))
    # bound: 0.7 per cent of it
    assert_equal_within_errors(*mean_and_error(energy), hartree_fock_energy(sea)[1], bound=0.01)


def test_exact_draws_and_equilibrated_chains_have_the_same_moments(key):
    model, params, drawn, failures = exact_draws(SPINS_3D, 9, CHAINS)
    assert failures == 0
    log_prob = lambda x, state: 2 * model.log_psi(params.flow, x, state).real
    walk = jax.jit(lambda walkers, key: metropolis(log_prob, walkers, first_width(SPINS_3D), key, moves=150))
    start = drawn._replace(x=random_positions(SPINS_3D, key, CHAINS))
    walked, acceptance = walk(start, key)
    longer, _ = walk(walked, jax.random.fold_in(key, 1))
    assert 0.2 < acceptance < 0.9

    energy = jax.jit(jax.vmap(lambda x: coulomb_energy(x, SPINS_3D)))
    edges = SPINS_3D.box * np.array([0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9])
    moments = lambda x: np.column_stack([energy(x), distance_counts(x, SPINS_3D.box, edges)])
    exact = moments(drawn.x)
    # energies in hartree: 1 % of the Coulomb energy; counts of six pairs
    bound = np.array([0.02] + [0.05] * 6)
    assert_equal_within_errors(*mean_and_error(moments(walked.x) - exact), 0.0, bound)
    # equilibrated: twice as many moves change nothing
    assert_equal_within_errors(*mean_and_error(moments(longer.x) - moments(walked.x)), 0.0, bound)
    # the moments tell |Psi|^2 from the uniform start
    uniform, error = mean_and_error(moments(start.x) - exact)
    assert uniform[0] > 8 * error[0] and uniform[1] > 8 * error[1]


def test_draw_of_a_walker_does_not_depend_on_its_place_in_the_batch(key):
    # so that the number of devices which share a batch changes nothing
    model, params, _, _ = exact_draws(SPINS_3D, 9, CHAINS)
    state, keys = jnp.tile(jnp.arange(2, dtype=jnp.int32), (CHAINS, 2)), jax.random.split(key, CHAINS)
    x, reordered = (model.draw(params.flow, state, order).x for order in (keys, keys[::-1]))
    np.testing.assert_allclose(reordered[::-1], x, rtol=0, atol=1e-9)
    assert np.ptp(x, axis=0).min() > 0.9 * SPINS_3D.box


def gaussian(x, state):
    return -jnp.sum(x**2) / 2


def test_metropolis_keeps_the_variance_of_a_gaussian(key):
    chains = 4000
    x = 3 * jax.random.normal(key, (chains, 1, 2))  # three times too wide
    walkers = Walkers(jnp.zeros((chains, 1), int), x, jnp.zeros(chains))
    walkers, _ = jax.jit(lambda w, key: metropolis(gaussian, w, 1.5, key, moves=60))(walkers, key)
    assert_equal_within_errors(*mean_and_error(walkers.x[..., 0].ravel() ** 2), 1.0, bound=0.03)
    np.testing.assert_allclose(walkers.log_prob, jax.vmap(gaussian)(walkers.x, walkers.state), rtol=1e-12)


def test_acceptance_falls_from_one_as_the_proposal_widens(key):
    x = jax.random.normal(key, (2000, 1, 2))
    walkers = Walkers(jnp.zeros((2000, 1), int), x, jax.vmap(gaussian, (0, None))(x, None))
    narrow, wider, widest = (metropolis_step(gaussian, walkers, width, key)[1] for width in (1e-4, 1.0, 10.0))
    assert narrow > 0.999 and 0.4 < wider < 0.8 and widest < 0.1


def test_rejected_walkers_stay(key):
    x = jnp.zeros((50, 1, 2))  # at the maximum: every move lowers the probability
    walkers = Walkers(jnp.arange(50)[:, None], x, jnp.zeros(50))
    after, acceptance = metropolis_step(lambda x, state: 1e6 * gaussian(x, state), walkers, 1.0, key)
    assert acceptance == 0
    np.testing.assert_array_equal(after.x, x)
    np.testing.assert_array_equal(after.state, walkers.state)


def test_width_follows_the_acceptance():
    assert adapt_width(1.0, 0.5, 0.4) > 1 > adapt_width(1.0, 0.3, 0.4)
    np.testing.assert_allclose(adapt_width(1.0, 0.4, 0.4), 1.0, rtol=1e-12)
    # by a tenth at most, whatever happened
    np.testing.assert_allclose([adapt_width(2.0, 1.0, 0.1), adapt_width(2.0, 0.0, 0.1)], [2.2, 2 / 1.1], rtol=1e-12)


@pytest.mark.parametrize("gas", GASES.values(), ids=GASES)
def test_first_proposal_is_of_the_size_of_an_electron(gas):
    assert 0.1 * gas.rs < first_width(gas) < gas.rs
