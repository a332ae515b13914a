import math

import jax
import numpy as np
import pytest
from known_systems import (
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
from heg.sampling.chains import first_width, make_chain
from heg.sampling.exact_draws import draw_determinant

CHAINS = 2000


def draw_many(system, orbitals, state, key, draws):
    """Independent draws of one spin.  [draws, N, d]"""
    waves = make_waves(system, orbitals)
    shape = (len(state), system.dim)

    def draw(key):
        return draw_determinant(lambda z: waves(z, state), system.box, shape, key)

    return jax.jit(jax.vmap(draw))(jax.random.split(key, draws))


def distance_counts(x, box, edges):
    """Pairs of each configuration by distance of nearest images.  [B, bins]"""
    x = np.asarray(x)
    first, second = np.triu_indices(x.shape[1], 1)
    r = x[:, first] - x[:, second]
    distance = np.linalg.norm(r - box * np.round(r / box), axis=-1)
    within = (distance[..., None] >= edges[:-1]) & (distance[..., None] < edges[1:])
    return within.sum(axis=1)


def test_draws_have_the_one_and_two_body_density_of_the_determinant(key):
    # rho_2(r) = N^2 - |sum_k e^{ikr}|^2 by its Fourier components: sum over i != j of e^{-iG(x_i -
    # x_j)} averages to minus the number of occupied pairs with k - k' = G; the density itself is
    # uniform
    orbitals = lowest_shells(POLARIZED_2D, 5)
    unit = 2 * math.pi / POLARIZED_2D.box
    state = np.array([0, 1, 2, 4])  # an open shell
    n = orbitals.n[state]
    x = np.asarray(draw_many(POLARIZED_2D, orbitals, state, key, 8000))
    assert np.all((x >= 0) & (x < POLARIZED_2D.box))
    for g in [(1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2), (2, 1), (3, 0), (4, 1)]:
        g = np.array(g)
        amplitude = np.exp(-1j * unit * x @ g).sum(axis=1)
        for part in (amplitude.real, amplitude.imag):
            assert_equal_within_errors(*mean_and_error(part), 0.0, bound=0.03)
        transfers = np.sum(np.all(n[:, None] - n == g, axis=-1))
        structure = np.abs(amplitude) ** 2 - len(state)
        assert_equal_within_errors(*mean_and_error(structure), -transfers, bound=0.05)


def test_coulomb_energy_of_the_fermi_sea_is_that_of_hartree_fock(key):
    sea = System(7, 7, 3, rs=5.0, theta=0.1, twist=(0.0,) * 3)
    orbitals = lowest_shells(sea, 7)
    spins = [draw_many(sea, orbitals, np.arange(7), key, 4000) for key in jax.random.split(key)]
    x = np.concatenate(spins, axis=1)
    energy = jax.jit(jax.vmap(lambda x: coulomb_energy(x, sea)))(x)
    _, expected = hartree_fock_energy(sea)
    # bound: 0.7 per cent of it
    assert_equal_within_errors(*mean_and_error(energy), expected, bound=0.01)


@pytest.mark.parametrize("kind, moves", [("metropolis", 150), ("mala", 80)])
def test_exact_draws_and_equilibrated_chains_have_the_same_moments(kind, moves, key):
    model, params, drawn, failures = exact_draws(SPINS_3D, 9, CHAINS)
    assert failures == 0

    chain = make_chain(kind, model.log_psi, model.score)

    def walk(state, x, key):
        return chain(params.flow, state, x, first_width(SPINS_3D), key, moves)

    # the one test that computes more than it compiles
    many = jax.jit(jax.vmap(walk), compiler_options={"xla_backend_optimization_level": 2})
    uniform = random_positions(SPINS_3D, key, CHAINS)
    walked = many(drawn.state, uniform, jax.random.split(key, CHAINS))
    other_keys = jax.random.split(jax.random.fold_in(key, 1), CHAINS)
    longer = many(drawn.state, walked.x, other_keys)
    assert 0.2 < walked.acceptance.mean() < 0.9

    energy = jax.jit(jax.vmap(lambda x: coulomb_energy(x, SPINS_3D)))
    edges = SPINS_3D.box * np.array([0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9])

    def moments(x):
        return np.column_stack([energy(x), distance_counts(x, SPINS_3D.box, edges)])

    exact = moments(drawn.x)
    # energies in hartree: 1 % of the Coulomb energy; counts of six pairs
    bound = np.array([0.02] + [0.05] * 6)
    assert_equal_within_errors(*mean_and_error(moments(walked.x) - exact), 0.0, bound)
    # equilibrated: twice as many moves change nothing
    assert_equal_within_errors(*mean_and_error(moments(longer.x) - moments(walked.x)), 0.0, bound)
    # the moments tell |Psi|^2 from the uniform start
    difference, error = mean_and_error(moments(uniform) - exact)
    assert difference[0] > 8 * error[0]
    assert difference[1] > 8 * error[1]


def test_draw_of_a_walker_does_not_depend_on_its_place_in_the_batch(key):
    # so that the number of devices which share a batch changes nothing
    draw = make_exact_draw(SPINS_3D, 9)
    params = exact_draws(SPINS_3D, 9, CHAINS).params
    state = np.tile(np.arange(2, dtype=np.int32), (CHAINS, 2))
    keys = jax.random.split(key, CHAINS)
    x = np.asarray(draw(params.flow, state, keys).x)
    reordered = np.asarray(draw(params.flow, state, keys[::-1]).x)
    np.testing.assert_allclose(reordered[::-1], x, rtol=0, atol=1e-9)
    assert np.ptp(x, axis=0).min() > 0.9 * SPINS_3D.box
