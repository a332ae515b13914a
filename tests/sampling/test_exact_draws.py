import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import (
    GASES,
    POLARIZED_2D,
    SPINS_3D,
    assert_equal_within_errors,
    exact_draws,
    hartree_fock_energy,
    lowest_shells,
    make_exact_draw,
    mean_and_error,
    random_positions,
)

from heg.gas.coulomb import coulomb_energy
from heg.gas.plane_waves import make_waves
from heg.gas.system import System
from heg.sampling.exact_draws import (
    adapt_width,
    draw_determinant,
    first_width,
    make_chain,
    mala,
    metropolis,
)

CHAINS = 2000


def draw_many(system, orbitals, state, key, draws):
    """Independent draws of one spin.  [draws, N, d]"""
    waves, shape = make_waves(system, orbitals), (len(state), system.dim)
    draw = lambda key: draw_determinant(
        lambda z: waves(z, jnp.asarray(state)), system.box, shape, key
    )
    return jax.jit(jax.vmap(draw))(jax.random.split(key, draws))


def distance_counts(x, box, edges):
    """Pairs of each configuration by distance of nearest images.  [B, bins]"""
    first, second = np.triu_indices(x.shape[1], 1)
    r = np.asarray(x[:, first] - x[:, second])
    distance = np.linalg.norm(r - box * np.round(r / box), axis=-1)
    within = (distance[..., None] >= edges[:-1]) & (distance[..., None] < edges[1:])
    return within.sum(axis=1)


def test_draws_have_the_one_and_two_body_density_of_the_determinant(key):
    # rho_2(r) = N^2 - |sum_k e^{ikr}|^2 by its Fourier components: sum over i != j of e^{-iG(x_i -
    # x_j)} averages to minus the number of occupied pairs with k - k' = G; the density itself is
    # uniform
    orbitals, unit = lowest_shells(POLARIZED_2D, 5), 2 * math.pi / POLARIZED_2D.box
    state = np.array([0, 1, 2, 4])  # an open shell
    n = orbitals.n[state]
    x = np.asarray(draw_many(POLARIZED_2D, orbitals, state, key, 8000))
    assert np.all((x >= 0) & (x < POLARIZED_2D.box))
    for g in [(1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2), (2, 1), (3, 0), (4, 1)]:
        phases = np.exp(-1j * unit * x @ np.array(g))
        amplitude = phases.sum(axis=1)
        for part in (amplitude.real, amplitude.imag):
            assert_equal_within_errors(*mean_and_error(part), 0.0, bound=0.03)
        transfers = np.sum(np.all(n[:, None] - n == np.array(g), axis=-1))
        structure = np.abs(amplitude) ** 2 - len(state)
        assert_equal_within_errors(*mean_and_error(structure), -transfers, bound=0.05)


def test_coulomb_energy_of_the_fermi_sea_is_that_of_hartree_fock(key):
    sea = System(7, 7, 3, rs=5.0, theta=0.1, twist=(0.0,) * 3)
    up, down = (
        draw_many(sea, lowest_shells(sea, 7), np.arange(7), key, 4000)
        for key in jax.random.split(key)
    )
    energy = jax.jit(jax.vmap(lambda x: coulomb_energy(x, sea)))(
        jnp.concatenate([up, down], axis=1)
    )
    # bound: 0.7 per cent of it
    assert_equal_within_errors(*mean_and_error(energy), hartree_fock_energy(sea)[1], bound=0.01)


@pytest.mark.parametrize("kind", ["metropolis", "mala"])
def test_exact_draws_and_equilibrated_chains_have_the_same_moments(kind, key):
    model, params, drawn, failures = exact_draws(SPINS_3D, 9, CHAINS)
    assert failures == 0

    chain, moves = (
        make_chain(kind, model.log_psi, model.score),
        {"metropolis": 150, "mala": 80}[kind],
    )
    walk = lambda state, x, key: chain(params.flow, state, x, first_width(SPINS_3D), key, moves)
    many = jax.jit(jax.vmap(walk))
    start = drawn._replace(x=random_positions(SPINS_3D, key, CHAINS))
    walked = many(*start, jax.random.split(key, CHAINS))
    longer = many(start.state, walked.x, jax.random.split(jax.random.fold_in(key, 1), CHAINS))
    assert 0.2 < walked.acceptance.mean() < 0.9

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
    draw, params = make_exact_draw(SPINS_3D, 9), exact_draws(SPINS_3D, 9, CHAINS).params
    state, keys = (
        jnp.tile(jnp.arange(2, dtype=jnp.int32), (CHAINS, 2)),
        jax.random.split(key, CHAINS),
    )
    x, reordered = (draw(params.flow, state, order).x for order in (keys, keys[::-1]))
    np.testing.assert_allclose(reordered[::-1], x, rtol=0, atol=1e-9)
    assert np.ptp(x, axis=0).min() > 0.9 * SPINS_3D.box


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
    return jax.jit(jax.vmap(lambda x, key: walk(x, width, key, moves)))(
        x, jax.random.split(key, len(x))
    )


@each_kind
def test_chains_keep_the_moments_of_a_gaussian(walk, key):
    x = 3 * jax.random.normal(key, (4000, 1, 2))  # three times too wide
    end = walk_many(walk, x, 1.5, key, moves=60)
    assert_equal_within_errors(*mean_and_error(end.x.ravel() ** 2), 1.0, bound=0.03)
    assert_equal_within_errors(*mean_and_error(end.x.ravel() ** 4), 3.0, bound=0.15)


@each_kind
def test_acceptance_falls_from_one_as_the_proposal_widens(walk, key):
    x = jax.random.normal(key, (2000, 1, 2))
    narrow, wider, widest = (
        walk_many(walk, x, width, key, 1).acceptance.mean() for width in (1e-4, 1.0, 10.0)
    )
    assert narrow > 0.999 and 0.4 < wider < 0.95 and widest < 0.1


def test_the_drift_raises_the_acceptance(key):
    # of a Gaussian in many dimensions, at the same width
    x = jax.random.normal(key, (500, 10, 3))
    with_drift, without = (
        walk_many(walk, x, 0.7, key, 20).acceptance.mean()
        for walk in reversed(CHAIN_KINDS.values())
    )
    assert with_drift > 0.8 and without < 0.5


def test_rejected_walkers_stay(key):
    x = jnp.zeros((50, 1, 2))  # at the maximum: every move lowers the probability
    steep = lambda *arguments: metropolis(lambda x: 1e6 * gaussian(x)[0], *arguments)
    end = walk_many(steep, x, 1.0, key, 1)
    assert end.acceptance.mean() == 0
    np.testing.assert_array_equal(end.x, x)


def test_a_drift_that_diverges_does_not_carry_a_walker_away(key):
    # ln|x| of a node: the drift at 1e-6 is half a million widths long
    node = lambda x: (jnp.log(jnp.sum(x**2)) - jnp.sum(x**2) / 2, 2 * x / jnp.sum(x**2) - x)
    end = walk_many(
        lambda *arguments: mala(node, *arguments), jnp.full((2000, 1, 2), 1e-6), 1.0, key, 40
    )
    assert end.acceptance.mean() > 0.3
    # density x^2 e^{-x^2 / 2} in the plane: the mean of x^2 is 4
    assert_equal_within_errors(*mean_and_error(jnp.sum(end.x**2, axis=(1, 2))), 4.0, bound=0.08)


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
