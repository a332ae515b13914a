"""The random-phase approximation against direct sums and known limits."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.special import zeta

from heg.gas import rpa
from heg.gas.coulomb import fourier_transform
from heg.gas.matsubara import frequencies
from heg.gas.plane_waves import plane_waves
from heg.gas.plasmon import plasma_frequency
from heg.gas.quadrature import gauss_sum
from heg.gas.system import System


@pytest.mark.parametrize("nodes", [3, 8])
def test_gauss_sums_polynomials_over_integers(nodes):
    x, weight = gauss_sum(50, nodes)
    for power in range(2 * nodes):
        expected = np.sum((np.arange(50) / 50) ** power)
        assert weight @ (x / 50) ** power == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("energy", [0.1, 1.0, 30.0, 1e3])
def test_few_frequencies_sum_what_is_known_in_closed_form(energy):
    # T sum (2e / (e^2 + w^2))^2 = coth(e / 2T) / e + 1 / 2T sinh^2(e / 2T), here at T = 1
    nodes = frequencies(100 * energy)
    omega = 2 * np.pi * nodes.n
    lorentz = 2 * energy / (energy**2 + omega**2)
    total = nodes.weight @ lorentz**2
    total += 8 * energy**2 / (2 * np.pi) ** 4 * zeta(4, nodes.end)
    thermal = 1 / (2 * np.sinh(min(energy, 500.0) / 2) ** 2)
    exact = 1 / np.tanh(energy / 2) / energy + thermal
    assert total == pytest.approx(exact, rel=1e-8)
    assert len(nodes.n) < 120


def excitations(system, m):
    """<n_k (1 - n_{k+q})> and e_{k+q} - e_k, from the probabilities of all pairs of electrons of
    one spin."""
    orbitals = plane_waves(system, 12 * system.fermi_energy)
    indices = {tuple(n): index for index, n in enumerate(orbitals.n.tolist())}
    boltzmann = np.exp(-system.beta * orbitals.energy)
    pairs = boltzmann[:, None] * boltzmann
    np.fill_diagonal(pairs, 0.0)
    pairs /= pairs.sum() / 2  # each pair is here twice
    occupied = pairs.sum(axis=1)
    free = occupied.copy()
    for index, n in enumerate(orbitals.n.tolist()):
        other = indices.get(tuple(np.add(n, m).tolist()))
        if other is not None:
            free[index] -= pairs[index, other]
    unit = (2 * np.pi / system.box) ** 2
    gain = unit * ((orbitals.n + system.twist) @ m + m @ m / 2)
    return free, gain


def wavevectors(dim, highest):
    """Integer vectors with components up to `highest`, without zero."""
    vectors = itertools.product(range(-highest, highest + 1), repeat=dim)
    return [np.array(m) for m in vectors if any(m)]


def interaction(system, m):
    """v(q) at coupling 1."""
    return fourier_transform(2 * np.pi / system.box * np.linalg.norm(m), system.dim)


def naive(system, highest, count):
    """The sum over |m_a| <= highest and |n| < count, by sums over states without any saving."""
    volume = system.box**system.dim
    n = np.arange(-count + 1, count)[:, None]
    omega = 2 * np.pi * n * system.temperature
    total = 0.0
    for m in wavevectors(system.dim, highest):
        chi = 0.0
        for sign in (1, -1):
            free, gain = excitations(system, sign * m)
            still = np.abs(gain) < 1e-9
            safe = np.where(still, 1.0, gain)
            # of equal energies: -beta at no frequency, nothing at others
            limit = np.where((n == 0) & (sign == 1), -system.beta, 0.0)
            terms = np.where(still, limit, sign / (1j * omega - sign * safe))
            chi = chi + terms @ free
        x = -system.coupling * interaction(system, m) * chi / volume
        total += np.sum(np.log(1 + x) - x)
    total *= system.temperature / (2 * system.electrons)
    assert abs(total.imag) < 1e-9
    return total.real


def on_square(system, highest):
    """Energies of the cell's sum over |m_a| <= highest alone, which must not be all of it."""
    gas = rpa.natural(system)
    waves = rpa.cell_waves(gas)
    lattice = 2 * np.pi / gas.box
    m, _ = rpa.stars(gas, int(round(waves.q.max() / lattice)))
    assert len(m) == len(waves.q)
    inside = np.max(np.abs(m), axis=1) <= highest
    assert np.sum(inside) < len(m)
    chosen = rpa.Waves(
        q=waves.q[inside],
        weight=waves.weight[inside],
        x=waves.x[inside],
    )
    return rpa._energies(system, chosen)


@pytest.mark.parametrize("twist", [0.0, 0.2])
def test_the_cells_sum_is_that_over_states_and_frequencies(twist):
    system = System(2, 0, 2, 2.0, 0.5, (twist, -twist))
    energies = on_square(system, 3)
    assert energies.free_energy == pytest.approx(naive(system, 3, 300), rel=1e-6)


def test_short_waves_that_are_not_summed_are_in_the_integral():
    system = System(2, 0, 2, 4.0, 0.3)
    near = naive(system, 5, 1500)
    far = naive(system, 10, 1500)
    # what is left beyond the squares of 11 and 21 wavevectors a side falls as the inverse of their
    # area
    expected = (21**2 * far - 11**2 * near) / (21**2 - 11**2)
    assert rpa.cell(system).free_energy == pytest.approx(expected, rel=2e-4)
    assert expected < far


def test_at_weak_coupling_it_is_the_ring_of_second_order_in_imaginary_time():
    # -1/2 sum_q v^2 int_0^beta dt C_q(t)^2 / 2N, C = sum <n (1 - n)> e^{-t gain} / L^d = C(beta -
    # t)
    coupling = 1e-4
    system = System(2, 0, 2, 1.0, 0.4, coupling=coupling)
    node, weight = np.polynomial.legendre.leggauss(60)
    time = system.beta * (node + 1) / 4
    highest = 4
    total = 0.0
    for m in wavevectors(2, highest):
        free, gain = excitations(system, m)
        correlation = np.exp(-time[:, None] * gain) @ free / system.box**2
        integral = system.beta / 2 * weight @ correlation**2
        total -= (coupling * interaction(system, m)) ** 2 * integral / (4 * system.electrons)
    energies = on_square(system, highest)
    assert energies.free_energy == pytest.approx(total, rel=1e-3)
    assert energies.potential == pytest.approx(2 * total, rel=1e-3)


def test_the_ideal_gas_has_none():
    in_space = System(7, 7, 3, 1.0, 0.5, coupling=0.0)
    in_plane = System(5, 0, 2, 1.0, 0.5, (0.1, 0.2), coupling=0.0)
    for system in (in_space, in_plane):
        assert rpa.missing(system) == rpa.infinite_gas(system) == (0.0, 0.0)


@pytest.mark.parametrize("rs", [1e-3, 1e-2])
def test_the_dense_ground_state_has_the_rings_known_in_closed_form(rs):
    """Three dimensions: Gell-Mann and Brueckner, Phys. Rev. 106, 364 (1957),
    doi:10.1103/PhysRev.106.364.

    Two: Rajagopal and Kimball, Phys. Rev. B 15, 2819 (1977), doi:10.1103/PhysRevB.15.2819.  Both
    without their exchange of second order.
    """
    logarithm = rs * abs(np.log(rs))
    in_space = rpa.infinite_gas(System(7, 7, 3, rs, 1e-4))
    slope = (1 - np.log(2)) / np.pi**2
    series = slope * np.log(rs) - 0.0711
    assert in_space.free_energy == pytest.approx(series, abs=0.01 * logarithm + 1e-4)
    in_plane = rpa.infinite_gas(System(5, 5, 2, rs, 1e-4))
    slope = np.sqrt(2) * (10 / (3 * np.pi) - 1)
    series = np.log(2) - 1 + slope * logarithm
    assert in_plane.free_energy == pytest.approx(series, abs=0.1 * rs)


def test_the_hot_gas_is_that_of_debye_and_hueckel():
    system = System(7, 7, 3, 2.0, 2e3)
    screening = np.sqrt(4 * np.pi * system.density * system.beta)
    expected = -system.temperature * screening**3 / (12 * np.pi * system.density)
    assert rpa.infinite_gas(system).free_energy == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("dim", [2, 3])
def test_long_waves_are_the_plasmon(dim):
    gas = rpa.natural(System(7, 7, dim, 1.0, 0.5))
    waves = rpa.infinite_waves(dim, 0.0, 0.5)
    n = 2
    omega = 2 * np.pi * n * gas.temperature
    plasma = plasma_frequency(gas, waves.q[0])
    assert waves.x[0, n] == pytest.approx((plasma / omega) ** 2, rel=1e-4)


@pytest.mark.parametrize(
    "system",
    [
        System(7, 7, 3, 3.0, 0.2),
        System(13, 0, 2, 3.0, 0.4, (0.25, 0.25)),
        System(3, 2, 2, 1.0, 0.3, (0.1, 0.3)),
    ],
    ids=["3d", "2d", "partly polarised"],
)
def test_the_potential_energy_is_the_slope_in_the_coupling(system):
    step = 1e-3
    more = dataclasses.replace(system, coupling=1 + step)
    less = dataclasses.replace(system, coupling=1 - step)
    for energies in (rpa.infinite_gas, rpa.missing, rpa.cell):
        slope = (energies(more).free_energy - energies(less).free_energy) / (2 * step)
        assert energies(system).potential == pytest.approx(slope, rel=1e-5)
    # and so is that by r_s at the same Theta, as f is phi(Theta, coupling r_s) / r_s^2
    scaled = dataclasses.replace(system, rs=2 * system.rs, coupling=0.5)
    expected = rpa.missing(system).free_energy
    assert 4 * rpa.missing(scaled).free_energy == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("twist", [(0.0, 0.0), (-0.5, 0.0), (0.25, 0.25), (0.1, 0.3)])
def test_one_wavevector_stands_for_all_that_are_equal(twist):
    gas = rpa.natural(System(3, 0, 2, 1.0, 0.3, twist))
    every = np.array([m for m in wavevectors(2, 4) if m @ m <= 16])
    few = rpa.stars(gas, 4)
    assert np.sum(few.multiplicity) == len(every)
    assert len(few.m) < len(every)

    def sums(m, weight):
        chi = rpa.cell_response(gas, m, np.array([0.0, 2.0]))
        length = np.linalg.norm(m, axis=1)[:, None]
        return [weight @ (np.real(chi**power) / length) for power in (1, 2)]

    expected = sums(every, np.ones(len(every)))
    np.testing.assert_allclose(sums(few.m, few.multiplicity), expected, rtol=1e-7)


@pytest.mark.parametrize(
    "system",
    [
        System(7, 7, 3, 20.0, 0.25),
        System(1, 1, 3, 4.0, 0.1),
        System(5, 5, 2, 20.0, 2.0),
        System(13, 0, 2, 1.0, 0.5, (0.25, 0.25)),
        System(3, 1, 2, 0.5, 4.0, (0.1, 0.2)),
    ],
    ids=lambda system: f"{system.dim}d-{system.label}",
)
def test_a_wider_window_changes_little(system, monkeypatch):
    here = rpa.missing(system)
    monkeypatch.setattr(rpa, "WINDOW_LATTICE", {2: 12.0, 3: 9.0})
    monkeypatch.setattr(rpa, "WINDOW_FERMI", {2: 6.0, 3: 4.5})
    rpa.cell_waves.cache_clear()
    wider = rpa.missing(system)
    rpa.cell_waves.cache_clear()
    assert here.free_energy == pytest.approx(wider.free_energy, rel=1e-4)
    assert here.potential == pytest.approx(wider.potential, rel=1e-4)


@pytest.mark.parametrize("dim", [2, 3])
def test_sizes_lack_less_the_more_electrons_there_are(dim):
    few = rpa.missing(System(7, 7, dim, 2.0, 2.0)).free_energy
    many = rpa.missing(System(28, 28, dim, 2.0, 2.0)).free_energy
    assert few < many < 0
    # hot and weakly coupled: one degree of freedom of each long wave, T / 2N ln(1 + x) of few of
    # them
    assert 1.2 < few / many < 4
