"""Response of the ideal gas: integrals, limits, and sums over all states of few electrons."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.integrate import quad

from heg.gas.ideal_infinite import chemical_potentials, fermi_dirac
from heg.gas.plane_waves import plane_waves
from heg.gas.response import cell_response, infinite_response
from heg.gas.system import System


def by_wavevectors(dim, theta, zeta, q, omega):
    """chi_0 as an integral over the wavevectors of the electrons, at k_F = 1."""
    total, temperature = 0.0, theta / 2

    def integrand(k, eta):
        occupied = 1 / (np.exp(k**2 / (2 * temperature) - eta) + 1)
        if dim == 3:
            up, down = ((q**2 / 2 + sign * k * q) ** 2 + omega**2 for sign in (1, -1))
            return -k * occupied * np.log(up / down) / (4 * np.pi**2 * q)
        # the mean of 2 / (e + iw) over the directions of k
        return -k * occupied / np.pi * np.real(1 / _root(q**2 / 2 + 1j * omega, k * q))

    for _, eta in chemical_potentials(dim, zeta, theta):
        last = np.sqrt(2 * temperature * (max(eta, 0.0) + 40))
        edges = [
            0.0,
            *sorted(min(last, edge) for edge in (q / 2, np.sqrt(theta * max(eta, 0.0)))),
            last,
        ]
        for low, high in zip(edges, edges[1:]):
            if high > low:
                total += quad(integrand, low, high, (eta,), epsabs=1e-12, epsrel=1e-10, limit=500)[
                    0
                ]
    return total


def _root(a, b):
    return np.sqrt(a - b) * np.sqrt(a + b)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("theta", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("zeta", [0.0, 0.5, 1.0])
def test_the_average_over_fermi_levels_is_the_integral_over_electrons(dim, theta, zeta):
    q, omega = np.array([0.1, 1.0, 2.0, 5.0]), np.pi * theta * np.array([1.0, 3.0, 20.0])
    expected = [[by_wavevectors(dim, theta, zeta, a, b) for b in omega] for a in q]
    np.testing.assert_allclose(infinite_response((dim, zeta, theta), q, omega), expected, rtol=1e-7)
    if dim == 3:  # whose integrand at no frequency is integrable by quad
        expected = [[by_wavevectors(dim, theta, zeta, a, 0.0)] for a in q]
        np.testing.assert_allclose(
            infinite_response((dim, zeta, theta), q, np.zeros(1)), expected, rtol=1e-7
        )


def test_cold_gases_have_the_responses_of_lindhard_and_stern():
    x = np.array([0.1, 0.5, 0.9, 1.5, 3.0])
    lindhard = -(1 / 2 + (1 - x**2) / (4 * x) * np.log(np.abs((1 + x) / (1 - x)))) / np.pi**2
    stern = -(1 - np.sqrt(np.maximum(1 - x**-2, 0))) / np.pi
    for dim, expected in ((3, lindhard), (2, stern)):
        found = infinite_response((dim, 0.0, 1e-3), 2 * x, np.zeros(1))[:, 0]
        np.testing.assert_allclose(found, expected, rtol=2e-4)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("theta", [0.1, 2.0])
def test_long_waves_have_the_compressibility_and_the_sum_rule(dim, theta):
    zeta, q = 0.5, np.array([1e-4])
    omega = np.array([0.0, 1.0])
    found = infinite_response((dim, zeta, theta), q, omega)[0]
    # dn/dmu of each spin, n = (m T / 2 pi)^h F_{h-1}
    levels = [eta for _, eta in chemical_potentials(dim, zeta, theta)]
    slope = sum(fermi_dirac(dim / 2 - 2, eta) for eta in levels) * (theta / 2 / (2 * np.pi)) ** (
        dim / 2
    )
    assert -found[0] == pytest.approx(slope / (theta / 2), rel=1e-6)
    density = {2: 1 / (2 * np.pi), 3: 1 / (3 * np.pi**2)}[dim] / (1 + zeta)
    assert -found[1] == pytest.approx(density * q[0] ** 2, rel=1e-6)


def by_states(system, m, omega):
    """chi_0 of one spin from all states, their probabilities and the states that a wave turns them
    into."""
    orbitals = plane_waves(system, 6 * system.fermi_energy)
    numbers = [tuple(n) for n in orbitals.n.tolist()]
    states = list(itertools.combinations(range(len(numbers)), system.n_up))
    weight = np.exp([-system.beta * orbitals.energy[list(state)].sum() for state in states])
    weight /= weight.sum()
    unit = (2 * np.pi / system.box) ** 2
    total = 0.0
    for probability, state in zip(weight, states):
        held = {numbers[one] for one in state}
        for one, sign in itertools.product(state, (1, -1)):
            target = orbitals.n[one] + sign * m
            if tuple(target.tolist()) in held:
                continue
            cost = unit / 2 * np.sum((target + system.twist) ** 2) - orbitals.energy[one]
            if abs(cost) > 1e-9 * unit or omega:
                total += probability * sign / (1j * omega - sign * cost)
            elif sign == 1:
                total -= system.beta * probability
    return total / system.box**system.dim


@pytest.mark.parametrize(("dim", "electrons"), [(2, 2), (2, 3), (3, 2)])
@pytest.mark.parametrize("twist", [0.0, 0.25, 0.13])
def test_that_of_a_cell_is_a_sum_over_all_states(dim, electrons, twist):
    system = System(electrons, 0, dim, 1.5, 0.2, (twist, -twist, twist)[:dim])
    m = np.array([[1, 0, 0], [1, 1, 0], [-2, 1, 0]])[:, :dim]
    omega = 2 * np.pi * system.temperature * np.array([0.0, 1.0, 4.0])
    found = cell_response(system, m, omega)
    expected = np.array([[by_states(system, one, w) for w in omega] for one in m])
    assert np.isrealobj(found) == (twist == 0)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_the_response_of_two_spins_is_the_sum_of_theirs():
    # the cell and temperature of 3 + 2 electrons, and of as many of one spin
    both = System(3, 2, 2, 1.0, 0.3, (0.1, 0.0))
    alone = [System(count, 0, 2, 1.0, 1.0, (0.1, 0.0)) for count in both.spins]
    alone = [dataclasses.replace(one, rs=both.box / one.box) for one in alone]
    alone = [dataclasses.replace(one, theta=both.temperature / one.fermi_energy) for one in alone]
    m, omega = np.array([[1, 0], [2, -1]]), np.array([0.0, 3.0])
    parts = sum(cell_response(one, m, omega) for one in alone)
    np.testing.assert_allclose(cell_response(both, m, omega), parts, rtol=1e-6)


@pytest.mark.parametrize("dim", [2, 3])
def test_many_hot_electrons_are_the_infinite_gas(dim):
    gas = System(60, 60, dim, 1.0, 3.0)
    m = np.array([[1, 0, 0], [2, 1, 1]])[:, :dim]
    q, omega = (
        2 * np.pi / gas.box * np.linalg.norm(m, axis=1),
        2 * np.pi * gas.temperature * np.arange(3.0),
    )
    k = gas.fermi_wavevector
    expected = k ** (dim - 2) * infinite_response((dim, 0.0, 3.0), q / k, omega / k**2)
    np.testing.assert_allclose(cell_response(gas, m, omega), expected, rtol=1e-2)
