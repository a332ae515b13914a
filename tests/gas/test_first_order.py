"""The interaction to first order in a cell against sums over all states of small gases."""

import itertools

import numpy as np
import pytest

from heg.gas.coulomb import fourier_transform, madelung
from heg.gas.first_order import first_order
from heg.gas.plane_waves import plane_waves
from heg.gas.system import System


def by_states(system, highest):
    """Mean of the exchange energies of all determinants of one spin, weighted by Boltzmann
    factors."""
    orbitals = plane_waves(system, highest)
    volume = system.box**system.dim
    weight = []
    energy = []
    for state in itertools.combinations(range(len(orbitals.n)), system.electrons):
        weight.append(np.exp(-system.beta * np.sum(orbitals.energy[list(state)])))
        pairs = np.array(list(itertools.combinations(state, 2)))
        apart = orbitals.k[pairs[:, 0]] - orbitals.k[pairs[:, 1]]
        transfers = np.linalg.norm(apart, axis=1)
        energy.append(-np.sum(fourier_transform(transfers, system.dim)) / volume)
    return madelung(system) / 2 + np.average(energy, weights=weight) / system.electrons


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("electrons", [2, 3])
@pytest.mark.parametrize("twist", [0.0, 0.2])
def test_it_is_the_mean_over_all_determinants(dim, electrons, twist):
    system = System(electrons, 0, dim, 2.0, 0.15, (twist,) * dim)
    expected = by_states(system, {2: 9, 3: 5}[dim] * system.fermi_energy)
    assert first_order(system) == pytest.approx(expected, rel=1e-5)


def test_spins_add_and_the_scale_is_the_inverse_of_r_s():
    both = System(3, 3, 2, 2.0, 0.4, (0.1, 0.2))
    one = System(3, 0, 2, 2.0, 0.4, (0.1, 0.2))
    # the same cell and temperature: k_F and L of 3 + 3 electrons at r_s are those of 3 at sqrt(2)
    # r_s
    same = System(3, 0, 2, 2.0 * np.sqrt(2), 0.4, (0.1, 0.2))
    exchange = first_order(same) - madelung(same) / 2
    assert first_order(both) - madelung(both) / 2 == pytest.approx(exchange, rel=1e-9)
    dilute = System(3, 0, 2, 7.0, 0.4, (0.1, 0.2), coupling=0.5)
    assert first_order(dilute) == pytest.approx(0.5 * 2 / 7 * first_order(one))


def test_the_published_value_of_29_electrons():
    """-49.055(3) Ry r_s in all, from the exact occupations: no simulation."""
    gas = System(29, 0, 2, 1.0, 0.15, (0.25, 0.25))
    rydberg = 2 * first_order(gas)
    assert 29 * rydberg == pytest.approx(-49.055, abs=3 * 0.003)


def test_a_hundred_thousand_orbitals_by_boltzmann_factors():
    """Two electrons of one spin: <n_k n_k'> is x_k x_k' over its sum, and x factors over the
    directions."""
    gas = System(2, 1, 3, 1.0, 60.0)
    unit = gas.wavevector_unit
    highest = 40
    n = np.arange(-highest, highest + 1)
    x = np.exp(-gas.beta * unit**2 * n**2 / 2)
    along = np.correlate(x, x, "full")
    m = np.arange(-2 * highest, 2 * highest + 1)
    square = m[:, None, None] ** 2 + m[:, None] ** 2 + m**2
    pairs = along[:, None, None] * along[:, None] * along
    q = unit * np.sqrt(square)
    q[square == 0] = np.inf
    v = fourier_transform(q, 3)
    same = np.sum(x**2) ** 3  # of k = k'
    different = np.sum(x) ** 6 - same
    mean = 2 * np.sum(pairs * v) / different
    expected = madelung(gas) / 2 - mean / (2 * gas.electrons * gas.box**3)
    assert first_order(gas) == pytest.approx(expected, rel=1e-8)


def test_a_twist_of_no_symmetry_is_that_of_its_mirror_image():
    one = System(2, 1, 3, 1.0, 1.0, (0.1, 0.2, 0.3))
    other = System(2, 1, 3, 1.0, 1.0, (0.2, -0.1, 0.3))
    assert first_order(one) == pytest.approx(first_order(other), rel=1e-12)
