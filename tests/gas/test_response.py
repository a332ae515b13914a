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
    temperature = theta / 2
    half = q**2 / 2

    def integrand(k, eta):
        occupied = 1 / (np.exp(k**2 / (2 * temperature) - eta) + 1)
        if dim == 3:
            forward = (half + k * q) ** 2 + omega**2
            backward = (half - k * q) ** 2 + omega**2
            return -k * occupied * np.log(forward / backward) / (4 * np.pi**2 * q)
        # the mean of 2 / (e + iw) over the directions of k
        inverse = 1 / _root(half + 1j * omega, k * q)
        return -k * occupied / np.pi * np.real(inverse)

    accurate = {"epsabs": 1e-12, "epsrel": 1e-10, "limit": 500}
    total = 0.0
    for _, eta in chemical_potentials(dim, zeta, theta):
        last = np.sqrt(2 * temperature * (max(eta, 0.0) + 40))
        fermi = np.sqrt(theta * max(eta, 0.0))
        edges = sorted({0.0, min(last, q / 2), min(last, fermi), last})
        for low, high in zip(edges, edges[1:]):
            total += quad(integrand, low, high, (eta,), **accurate)[0]
    return total


def _root(a, b):
    return np.sqrt(a - b) * np.sqrt(a + b)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("theta", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("zeta", [0.0, 0.5, 1.0])
def test_the_average_over_fermi_levels_is_the_integral_over_electrons(dim, theta, zeta):
    q = np.array([0.1, 1.0, 2.0, 5.0])
    omega = np.pi * theta * np.array([0.0, 1.0, 3.0, 20.0])
    if dim == 2:  # whose integrand at no frequency is not integrable by quad
        omega = omega[1:]
    chi = infinite_response((dim, zeta, theta), q, omega)
    expected = [[by_wavevectors(dim, theta, zeta, a, b) for b in omega] for a in q]
    np.testing.assert_allclose(chi, expected, rtol=1e-7)


def test_cold_gases_have_the_responses_of_lindhard_and_stern():
    x = np.array([0.1, 0.5, 0.9, 1.5, 3.0])
    lindhard = -(1 / 2 + (1 - x**2) / (4 * x) * np.log(np.abs((1 + x) / (1 - x)))) / np.pi**2
    stern = -(1 - np.sqrt(np.maximum(1 - x**-2, 0))) / np.pi
    for dim, expected in ((3, lindhard), (2, stern)):
        chi = infinite_response((dim, 0.0, 1e-3), 2 * x, np.zeros(1))[:, 0]
        np.testing.assert_allclose(chi, expected, rtol=2e-4)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("theta", [0.1, 2.0])
def test_long_waves_have_the_compressibility_and_the_sum_rule(dim, theta):
    zeta = 0.5
    q = 1e-4
    temperature = theta / 2
    static, fast = infinite_response((dim, zeta, theta), np.array([q]), np.array([0.0, 1.0]))[0]
    # dn/dmu of each spin, n = (m T / 2 pi)^h F_{h-1}
    spins = chemical_potentials(dim, zeta, theta)
    slopes = [fermi_dirac(dim / 2 - 2, spin.eta) for spin in spins]
    slope = sum(slopes) * (temperature / (2 * np.pi)) ** (dim / 2)
    assert -static == pytest.approx(slope / temperature, rel=1e-6)
    density = {2: 1 / (2 * np.pi), 3: 1 / (3 * np.pi**2)}[dim] / (1 + zeta)
    assert -fast == pytest.approx(density * q**2, rel=1e-6)


def by_states(system, m, omega):
    """chi_0 of one spin from all states, their probabilities and the states that a wave turns them
    into."""
    orbitals = plane_waves(system, 6 * system.fermi_energy)
    numbers = [tuple(n) for n in orbitals.n.tolist()]
    states = list(itertools.combinations(range(len(numbers)), system.n_up))
    energy = np.sum(orbitals.energy[np.array(states)], axis=1)
    weight = np.exp(-system.beta * energy)
    weight /= weight.sum()
    unit = (2 * np.pi / system.box) ** 2
    total = 0.0
    for probability, state in zip(weight, states):
        held = {numbers[one] for one in state}
        for one, sign in itertools.product(state, (1, -1)):
            target = orbitals.n[one] + sign * m
            if tuple(target.tolist()) in held:
                continue
            level = unit / 2 * np.sum((target + system.twist) ** 2)
            cost = level - orbitals.energy[one]
            if abs(cost) > 1e-9 * unit or omega:
                total += probability * sign / (1j * omega - sign * cost)
            elif sign == 1:
                total -= system.beta * probability
    return total / system.box**system.dim


@pytest.mark.parametrize(("dim", "electrons"), [(2, 2), (2, 3), (3, 2)])
@pytest.mark.parametrize("twist", [0.0, 0.25, 0.13])
def test_that_of_a_cell_is_a_sum_over_all_states(dim, electrons, twist):
    twists = (twist, -twist, twist)
    system = System(electrons, 0, dim, 1.5, 0.2, twists[:dim])
    waves = np.array([[1, 0, 0], [1, 1, 0], [-2, 1, 0]])
    m = waves[:, :dim]
    omega = 2 * np.pi * system.temperature * np.array([0.0, 1.0, 4.0])
    chi = cell_response(system, m, omega)
    assert np.isrealobj(chi) == (twist == 0)
    expected = np.empty((3, 3), complex)
    for row, column in np.ndindex(3, 3):
        expected[row, column] = by_states(system, m[row], omega[column])
    accuracy = 2e-5 * np.abs(expected).max()
    np.testing.assert_allclose(chi, expected, atol=accuracy)


def test_the_response_of_two_spins_is_the_sum_of_theirs():
    # the cell and temperature of 3 + 2 electrons, and of as many of one spin
    both = System(3, 2, 2, 1.0, 0.3, (0.1, 0.0))
    m = np.array([[1, 0], [2, -1]])
    omega = np.array([0.0, 3.0])
    total = 0.0
    for count in both.spins:
        alone = System(count, 0, 2, 1.0, 1.0, (0.1, 0.0))
        alone = dataclasses.replace(alone, rs=both.box / alone.box)
        alone = dataclasses.replace(alone, theta=both.temperature / alone.fermi_energy)
        total = total + cell_response(alone, m, omega)
    np.testing.assert_allclose(cell_response(both, m, omega), total, rtol=1e-6)


@pytest.mark.parametrize("dim", [2, 3])
def test_many_hot_electrons_are_the_infinite_gas(dim):
    gas = System(60, 60, dim, 1.0, 3.0)
    waves = np.array([[1, 0, 0], [2, 1, 1]])
    m = waves[:, :dim]
    q = gas.wavevector_unit * np.linalg.norm(m, axis=1)
    omega = 2 * np.pi * gas.temperature * np.arange(3.0)
    chi = cell_response(gas, m, omega)
    # in units where k_F = 1
    k = gas.fermi_wavevector
    infinite = infinite_response((dim, 0.0, 3.0), q / k, omega / k**2)
    np.testing.assert_allclose(chi, k ** (dim - 2) * infinite, rtol=1e-2)
