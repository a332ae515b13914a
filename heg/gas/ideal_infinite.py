r"""The ideal gas of infinitely many electrons: thermodynamics, static structure factor, exchange.

Each spin has a chemical potential eta = mu / T of its own, from its density.  With the normalised
Fermi-Dirac integrals F_j and h = d/2, per electron of one spin

.. math:: \frac{e}{T} = h \frac{F_h}{F_{h-1}}, \qquad \frac{f}{T} = \eta - \frac{F_h}{F_{h-1}}, \qquad
          c = h(h+1) \frac{F_h}{F_{h-1}} - h^2 \frac{F_{h-1}}{F_{h-2}} .

The static structure factor, the mean of n_k (1 - n_{k+q}), needs one integral, as
n(a) (1 - n(b)) = (n(a) - n(b)) / (1 - e^{a-b}): with g the integral of n over the directions across
q,

.. math:: S_0(q) = \frac{1}{n} \sum_\sigma \int \frac{dx}{(2\pi)^d} \frac{g(x - q/2) - g(x + q/2)}{1 - e^{-\beta q x}},
          \qquad v_1 = \frac12 \int \frac{d^dq}{(2\pi)^d} v(q) (S_0(q) - 1) .

v_1, the energy of exchange, is f_xc to first order in the interaction.  Everything is a function of
Theta and zeta in units of E_F and k_F, v_1 in units of 1 / r_s.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy.integrate import quad
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import gamma

from heg.gas.system import System

REACH = 40.0  # occupations below e^-REACH are left out
POINTS = 800  # of integrals over a wavevector
Q_POINTS = 400  # of those over q


class Thermodynamics(NamedTuple):
    """Per electron.

    Attributes:
      free_energy, energy: hartree.
      entropy, heat_capacity: k_B; at constant volume.
    """

    free_energy: float
    energy: float
    entropy: float
    heat_capacity: float


def fermi_dirac(order: float, eta: float) -> float:
    """F_j(eta) = int dx x^j / (e^{x - eta} + 1) / Gamma(j + 1), j = -1, -1/2, 0, 1/2, ...
    Accuracy: 1e-10 relative."""
    if order == -1:
        return float(np.exp(-np.logaddexp(0.0, -eta)))
    if order == 0:
        return float(np.logaddexp(0.0, eta))
    # with x = y^2 the integrand is smooth at zero
    integrand = lambda y: 2 * y ** (2 * order + 1) * np.exp(-np.logaddexp(0.0, y * y - eta))
    edge, last = np.sqrt(max(eta, 0.0)), np.sqrt(max(eta, 0.0) + REACH)
    width = np.sqrt(max(eta - REACH, 0.0))
    parts = sorted({0.0, width, edge, last})
    whole = sum(
        quad(integrand, a, b, epsabs=0, epsrel=1e-11, limit=200)[0]
        for a, b in zip(parts, parts[1:])
    )
    return whole / gamma(order + 1)


def thermodynamics(system: System) -> Thermodynamics:
    """F, E, S, heat capacity of infinitely many electrons at the r_s, Theta, zeta of a gas,
    whatever its N and twist.

    Accuracy: 1e-9 relative (tests/test_ideal_infinite.py).
    """
    half, parts = system.dim / 2, []
    for share, eta in chemical_potentials(system.dim, system.polarization, system.theta):
        below, middle, above = (fermi_dirac(half - step, eta) for step in (2, 1, 0))
        ratio = above / middle
        capacity = half * (half + 1) * ratio - half**2 * middle / below
        parts.append(
            share * np.array([eta - ratio, half * ratio, (half + 1) * ratio - eta, capacity])
        )
    free_energy, energy, entropy, capacity = map(float, np.sum(parts, axis=0))
    return Thermodynamics(
        system.temperature * free_energy, system.temperature * energy, entropy, capacity
    )


def equation_of_state(system: System) -> np.ndarray:
    """f, e (hartree), s (k_B), p (hartree / bohr^d), c (k_B), B = n dp/dn (hartree / bohr^d); per
    electron.  [6]"""
    found, dim, density = thermodynamics(system), system.dim, system.density
    pressure = 2 / dim * density * found.energy
    # e = E_F phi(Theta), E_F as n^(2/d): n de/dn at fixed T is 2/d (e - T c)
    bulk = pressure + (2 / dim) ** 2 * density * (
        found.energy - system.temperature * found.heat_capacity
    )
    return np.array(
        [found.free_energy, found.energy, found.entropy, pressure, found.heat_capacity, bulk]
    )


@functools.lru_cache(maxsize=512)
def chemical_potentials(dim: int, polarization: float, theta: float) -> list[tuple[float, float]]:
    """For each spin that is present its share of the electrons and mu / T."""
    half, found = dim / 2, []
    for share in ((1 + polarization) / 2, (1 - polarization) / 2):
        if share <= 0:
            continue
        # Fermi energy of this spin in units of T; F_{h-1}(eta) Gamma(h + 1) = (E_F / T)^h
        level = (2 * share / (1 + polarization)) ** (2 / dim) / theta
        wanted = level**half / gamma(half + 1)
        excess = lambda eta: np.log(fermi_dirac(half - 1, eta) / wanted)
        found.append((share, float(brentq(excess, np.log(wanted) - 1, level + 10, xtol=1e-13))))
    return found


def structure_factor(system: System, q: np.ndarray) -> np.ndarray:
    """S_0 of all electrons at wavevectors q > 0, 1/bohr.

    Accuracy: 1e-6; at Theta = 1e-5 2e-6 in three dimensions and 3e-5 in two
      (tests/test_ideal_infinite.py).
    """
    return _structure_factor(
        system.dim, system.polarization, system.theta, np.asarray(q) / system.fermi_wavevector
    )


def exchange(system: System) -> float:
    """v_1 of infinitely many electrons at coupling 1, hartree per electron.

    Accuracy: 1e-6 relative; at Theta = 1e-5 2e-6 in three dimensions and 3e-5 in two
      (tests/test_ideal_infinite.py).
    """
    return _exchange(system.dim, system.polarization, system.theta) / system.rs


@functools.lru_cache(maxsize=512)
def _exchange(dim, polarization, theta):
    """At r_s = 1.  In both dimensions v(q) cancels the q of the volume element: 4 pi / q^2 . q^2
    and 2 pi / q . q."""
    gas = System(1, 0, dim, 1.0, theta, (0.0,) * dim)
    wavevector = gas.fermi_wavevector * ((1 + polarization) / 2) ** (
        1 / dim
    )  # of the majority spin
    last = 2 * np.sqrt(1 + REACH * theta)
    nodes, weights = np.polynomial.legendre.leggauss(Q_POINTS)
    # 1 - S_0 falls linearly from q = 0, but for the thermal width
    t = (nodes + 1) / 2
    q, weight = last * t**2, weights / 2 * 2 * last * t
    kept_apart = 1 - _structure_factor(dim, polarization, theta, q)
    return float(-np.sum(weight * kept_apart) * wavevector * {2: 1 / 2, 3: 1 / np.pi}[dim])


def _structure_factor(dim, polarization, theta, q):
    """S_0; q in units of k_F of the majority spin.  [Q]"""
    total = np.zeros(len(q))
    for share, eta in chemical_potentials(dim, polarization, theta):
        # units: k in sqrt(2 T), so that energies over T are k^2
        last = np.sqrt(max(eta, 0.0) + REACH)
        y = q / np.sqrt(theta)
        across = _across(dim, eta)
        edge = last + y[:, None] / 2
        x = (
            edge * ((np.arange(POINTS) + 0.5) / POINTS)[None]
        )  # of half of the axis, the other half is its mirror
        difference = across(x - y[:, None] / 2) - across(x + y[:, None] / 2)
        argument = 2 * x * y[:, None]
        # of x and of -x, where the difference changes sign: 1 / (1 - e^-a) and 1 / (e^a - 1)
        both = difference * (2 / np.expm1(np.minimum(argument, 700.0)) + 1)
        whole = np.sum(both, axis=1) * edge[:, 0] / POINTS
        # int d^dk n = pi^h F_{h-1}
        total += share * whole / (np.pi ** (dim / 2) * fermi_dirac(dim / 2 - 1, eta))
    return total


@functools.lru_cache(maxsize=512)
def _across(dim, eta):
    """Integral of n over the directions across an axis as a function of the place on it, k in units
    of sqrt(2 T)."""
    if dim == 3:
        return lambda x: np.pi * np.logaddexp(0.0, eta - x * x)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    last = np.sqrt(max(eta, 0.0) + REACH)
    table = np.linspace(0, last, 4001)
    # y = y_max (1 + t) / 2 with an edge at the Fermi level: two panels
    edge = np.sqrt(np.maximum(eta - table**2, 0.0))
    end = np.sqrt(np.maximum(eta - table**2, 0.0) + REACH)
    values = np.zeros_like(table)
    for low, high in ((np.zeros_like(edge), edge), (edge, end)):
        y = low[:, None] + (high - low)[:, None] * (nodes + 1) / 2
        of_node = np.exp(-np.logaddexp(0.0, table[:, None] ** 2 + y**2 - eta))
        values += 2 * np.sum(weights * of_node, axis=1) * (high - low) / 2
    spline = CubicSpline(table, values)
    return lambda x: np.where(np.abs(x) < last, spline(np.minimum(np.abs(x), last)), 0.0)
