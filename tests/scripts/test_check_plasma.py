"""The Metropolis chain beside which the classical plasma is set."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heg import plasma
from heg.gas.coulomb import coulomb_energy

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import check_plasma  # noqa: E402


@pytest.mark.parametrize(("dim", "points"), [(2, 64), (3, 24)])
def test_two_electrons_have_the_energy_of_quadrature(dim, points):
    gas = plasma(2, dim, 2.0)
    # one electron at the origin, the other everywhere
    axes = [gas.box * (np.arange(points) + 0.5) / points] * dim
    places = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, dim)
    energy = lambda r: gas.coupling * coulomb_energy(jnp.stack([jnp.zeros(dim), r]), gas)
    energies = np.asarray(jax.jit(jax.vmap(energy))(places))
    weights = np.exp(-(energies - energies.min()))
    exact = np.average(energies, weights=weights) / 2
    found = check_plasma.energy_of(gas, walkers=32, sweeps=120, seed=1)
    assert abs(found.mean - exact) < 4 * found.error
    assert found.error < 5e-3 * abs(exact)
