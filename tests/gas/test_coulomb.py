"""Coulomb energies against lattice constants, published energies and symmetries."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import (
    GASES,
    POLARIZED_2D,
    POLARIZED_3D,
    hartree_fock_energy,
    random_positions,
    reference_rows,
)

from heg.gas import coulomb
from heg.gas.coulomb import lattice, madelung
from heg.gas.system import System

each_gas = pytest.mark.parametrize("gas", GASES.values(), ids=GASES)
coulomb_energy = jax.jit(coulomb.coulomb_energy, static_argnums=(1, 2))
HARTREE_FOCK = [
    row for row in reference_rows("groundstate_3d_smallN.csv") if row["method"].startswith("RHF")
]


@pytest.mark.parametrize(
    "gas, expected",
    [(POLARIZED_3D, -2.8372974795), (POLARIZED_2D, -3.9002649200)],
    ids=["3D", "2D"],
)
def test_madelung_constants_of_the_simple_cubic_and_square_lattices(gas, expected):
    np.testing.assert_allclose(madelung(gas) * gas.box, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kappa", [4.0, 6.0, 10.0])
@each_gas
def test_independent_of_splitting(gas, kappa, key):
    x = random_positions(gas, key)
    np.testing.assert_allclose(coulomb_energy(x, gas, kappa), coulomb_energy(x, gas), rtol=1e-10)
    np.testing.assert_allclose(
        lattice(gas.dim, kappa).madelung, lattice(gas.dim).madelung, rtol=1e-10
    )


def test_rock_salt():
    # eight ions in a cell of side 2, neighbours at distance 1: minus the Madelung constant for each
    # of four ion pairs
    cell = System(2, 0, 3, rs=2 / (8 * math.pi / 3) ** (1 / 3), theta=1.0)
    ions = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    charges = (-1.0) ** ions.sum(axis=1)

    @jax.vmap
    def pair_potential(r):
        pair = jnp.stack([r, jnp.zeros(3)])
        return coulomb_energy(pair, cell) - madelung(cell)

    first, second = np.triu_indices(8, 1)
    potential = pair_potential(ions[first] - ions[second])
    pairs = charges[first] * charges[second] * potential
    energy = jnp.sum(pairs) + 8 * madelung(cell) / 2
    # Benson's series: M = 12 pi sum over odd m, n > 0 of sech^2(pi sqrt(m^2 + n^2) / 2), the
    # textbook's 1.747565
    odd = np.arange(1, 30, 2)
    length = np.hypot(odd[:, None], odd)
    series = 12 * math.pi * np.sum(np.cosh(math.pi / 2 * length) ** -2.0)
    np.testing.assert_allclose(series, 1.747565, rtol=0, atol=5e-7)
    np.testing.assert_allclose(-energy / 4, series, rtol=1e-10)


@each_gas
def test_lattice_translations_and_permutations_change_nothing(gas, key):
    x = random_positions(gas, key)
    energy = coulomb_energy(x, gas)
    moved = x.at[0].add(gas.box * jnp.arange(1, gas.dim + 1)) + 0.7
    np.testing.assert_allclose(coulomb_energy(moved, gas), energy, rtol=1e-10)
    np.testing.assert_allclose(coulomb_energy(x[::-1], gas), energy, rtol=1e-10)


@each_gas
def test_energy_scales_with_the_inverse_length(gas, key):
    x = random_positions(gas, key)
    wide = System(gas.n_up, gas.n_down, gas.dim, 3 * gas.rs, gas.theta, gas.twist)
    np.testing.assert_allclose(coulomb_energy(3 * x, wide), coulomb_energy(x, gas) / 3, rtol=1e-10)


@each_gas
def test_close_pair_repels_like_bare_charges(gas):
    # psi(r) - 1/r tends to v_M, and there is no term linear in r
    x = jnp.zeros((2, gas.dim)).at[0, 0].set(1e-4 * gas.box)
    np.testing.assert_allclose(coulomb_energy(x, gas) - 1e4 / gas.box, 2 * madelung(gas), rtol=1e-6)


@each_gas
def test_force_is_minus_the_slope(gas, key):
    x = random_positions(gas, key)
    direction = jax.random.normal(key, x.shape)
    along = lambda t: coulomb_energy(x + t * direction, gas)
    h = 1e-4 * gas.rs
    near = along(h) - along(-h)
    far = along(2 * h) - along(-2 * h)
    slope = (8 * near - far) / (12 * h)
    np.testing.assert_allclose(jax.jit(jax.grad(along))(0.0), slope, rtol=1e-8)


@pytest.mark.parametrize(
    "row", HARTREE_FOCK, ids=lambda row: f"rs={row['rs']}-madelung-{row['madelung']}"
)
def test_hartree_fock_energy_of_fourteen_electrons(row):
    gas = System(7, 7, 3, rs=float(row["rs"]), theta=0.1)
    images = 0.0 if row["madelung"] == "yes" else 14 * madelung(gas) / 2
    expected = float(row["value_Ha"]) + images
    np.testing.assert_allclose(sum(hartree_fock_energy(gas)), expected, rtol=0, atol=1e-6)
