r"""The ideal gas of infinitely many electrons: thermodynamics, static structure factor, exchange.

Each spin has a chemical potential eta = mu / T of its own, from its density.  With the normalised
Fermi-Dirac integrals F_j and h = d/2, per electron of one spin

.. math:: \frac{e}{T} = h \frac{F_h}{F_{h-1}}, \qquad \frac{f}{T} = \eta - \frac{F_h}{F_{h-1}},
          \qquad c = h(h+1) \frac{F_h}{F_{h-1}} - h^2 \frac{F_{h-1}}{F_{h-2}} .

The static structure factor, the mean of n_k (1 - n_{k+q}), needs one integral, as
n(a) (1 - n(b)) = (n(a) - n(b)) / (1 - e^{a-b}).  With g the integral of n over the directions
across q,

.. math:: S_0(q) = \frac{1}{n} \sum_\sigma
                   \int \frac{dx}{(2\pi)^d} \frac{g(x - q/2) - g(x + q/2)}{1 - e^{-\beta q x}},
          \qquad v_1 = \frac12 \int \frac{d^dq}{(2\pi)^d} v(q) (S_0(q) - 1) .

v_1, the energy of exchange, is f_xc to first order in the interaction.  Everything is a function of
Theta and zeta in units of E_F and k_F, v_1 in units of 1 / r_s.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import gamma

from heg.gas.quadrature import gauss_legendre
from heg.gas.system import System

REACH = 40.0  # occupations below e^-REACH are left out
POINTS = 800  # of integrals over a wavevector
Q_POINTS = 400  # of those over q
TABLE_POINTS = 4001  # of a table to interpolate
TABLE_NODES = 200  # of each of two parts of the integral behind an entry of the table
LARGEST_EXPONENT = 700.0  # e^700 is near the largest double


class Thermodynamics(NamedTuple):
    """Thermodynamics of the infinite ideal gas, per electron.

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

    Accuracy: 1e-10 relative.
    """
    # closed forms: the Fermi function itself, and its integral
    if order == -1:
        return float(np.exp(-np.logaddexp(0.0, -eta)))
    if order == 0:
        return float(np.logaddexp(0.0, eta))

    # with x = y^2 it is smooth at zero: x^j dx = 2 y^(2j + 1) dy
    def integrand(y):
        occupation = np.exp(-np.logaddexp(0.0, y * y - eta))
        return 2 * y ** (2 * order + 1) * occupation

    # the occupation is 1 up to `low` and falls to 0 about `edge`
    low = np.sqrt(max(eta - REACH, 0.0))
    edge = np.sqrt(max(eta, 0.0))
    ends = sorted({0.0, low, edge, _last_wavevector(eta)})
    total = 0.0
    for start, end in zip(ends, ends[1:]):
        part, _ = quad(integrand, start, end, epsabs=0, epsrel=1e-11, limit=200)
        total += part
    return total / gamma(order + 1)


def _last_wavevector(eta):
    """Wavevector, in sqrt(2 T), from which on levels are empty."""
    return np.sqrt(max(eta, 0.0) + REACH)


def thermodynamics(system: System) -> Thermodynamics:
    """F, E, S, heat capacity of infinitely many electrons at the r_s, Theta, zeta of a gas.

    Its N and its twist do not matter.
    Accuracy: 1e-9 relative (tests/gas/test_ideal_infinite.py).
    """
    total = np.zeros(4)
    for share, eta in chemical_potentials(system.dim, system.polarization, system.theta):
        total += share * _of_one_spin(system.dim / 2, eta)
    free_energy, energy, entropy, capacity = map(float, total)
    return Thermodynamics(
        free_energy=system.temperature * free_energy,
        energy=system.temperature * energy,
        entropy=entropy,
        heat_capacity=capacity,
    )


def _of_one_spin(half, eta):
    """f / T, e / T, s, c per electron of one spin; `half` is d / 2.  [4]"""
    below = fermi_dirac(half - 2, eta)
    middle = fermi_dirac(half - 1, eta)
    above = fermi_dirac(half, eta)
    ratio = above / middle
    free_energy = eta - ratio
    energy = half * ratio
    entropy = (half + 1) * ratio - eta  # s = e - f in units of T
    capacity = half * (half + 1) * ratio - half**2 * middle / below
    return np.array([free_energy, energy, entropy, capacity])


def equation_of_state(system: System) -> Float[np.ndarray, "6"]:
    """Free energy, energy, entropy, pressure, heat capacity and bulk modulus of the infinite gas.

    Returns:
      f, e (hartree), s (k_B), p (hartree / bohr^d), c (k_B), B = n dp/dn (hartree / bohr^d); f, e,
      s, c per electron.
    """
    dim = system.dim
    density = system.density
    free_energy, energy, entropy, capacity = thermodynamics(system)
    pressure = 2 / dim * density * energy
    # e = E_F phi(Theta), E_F as n^(2/d): n de/dn at fixed T is 2/d (e - T c)
    slope = energy - system.temperature * capacity
    bulk = pressure + (2 / dim) ** 2 * density * slope
    return np.array([free_energy, energy, entropy, pressure, capacity, bulk])


class Spin(NamedTuple):
    """The electrons of one spin.

    Attributes:
      share: of all electrons.
      eta: chemical potential over temperature, mu / T.
    """

    share: float
    eta: float


@functools.lru_cache(maxsize=512)
def chemical_potentials(dim: int, polarization: float, theta: float) -> list[Spin]:
    """Share of the electrons and mu / T of each spin that is present."""
    half = dim / 2
    spins = []
    for share in ((1 + polarization) / 2, (1 - polarization) / 2):
        if share <= 0:
            continue
        # Fermi energy of this spin in units of T, as n^(2/d)
        of_majority = 2 * share / (1 + polarization)
        level = of_majority ** (2 / dim) / theta
        # its density: F_{h-1}(eta) Gamma(h + 1) = (E_F / T)^h
        target = level**half / gamma(half + 1)
        excess = lambda eta: np.log(fermi_dirac(half - 1, eta) / target)
        # between the classical value, which is too low, and far above the Fermi level
        low = np.log(target) - 1
        high = level + 10
        eta = brentq(excess, low, high, xtol=1e-13)
        spins.append(Spin(share, float(eta)))
    return spins


def structure_factor(system: System, q: Float[np.ndarray, " waves"]) -> Float[np.ndarray, " waves"]:
    """S_0 of all electrons at wavevectors q > 0, 1/bohr.

    Accuracy: 1e-6; at Theta = 1e-5 2e-6 in three dimensions and 3e-5 in two
      (tests/gas/test_ideal_infinite.py).
    """
    reduced = np.asarray(q) / system.fermi_wavevector
    return reduced_structure_factor(system.dim, system.polarization, system.theta, reduced)


def exchange(system: System) -> float:
    """v_1 of infinitely many electrons at coupling 1, hartree per electron.

    Accuracy: 1e-6 relative; at Theta = 1e-5 2e-6 in three dimensions and 3e-5 in two
      (tests/gas/test_ideal_infinite.py).
    """
    return _exchange(system.dim, system.polarization, system.theta) / system.rs


@functools.lru_cache(maxsize=512)
def _exchange(dim, polarization, theta):
    """v_1 at r_s = 1.

    In both dimensions v(q) cancels the q of the volume element: 4 pi / q^2 . q^2 and 2 pi / q . q.
    """
    polarised = System(n_up=1, n_down=0, dim=dim, rs=1.0, theta=theta)
    majority = (1 + polarization) / 2
    # k_F as n^(1/d) of the majority spin
    fermi_wavevector = polarised.fermi_wavevector * majority ** (1 / dim)
    last = 2 * np.sqrt(1 + REACH * theta)
    # q = last t^2: 1 - S_0 falls linearly from q = 0, except for the thermal width
    t, weights = gauss_legendre(Q_POINTS)
    q = last * t**2
    dq = weights * 2 * last * t
    hole = 1 - reduced_structure_factor(dim, polarization, theta, q)
    integral = np.sum(dq * hole)
    # of int d^dq / (2 pi)^d v(q) / 2 = factor int dq
    factor = {2: 1 / 2, 3: 1 / np.pi}[dim]
    return float(-integral * fermi_wavevector * factor)


def reduced_structure_factor(
    dim: int, polarization: float, theta: float, q: Float[np.ndarray, " waves"]
) -> Float[np.ndarray, " waves"]:
    """S_0 of all electrons at q > 0 in units of k_F of the majority spin.

    Accuracy: that of `structure_factor`.
    """
    half = dim / 2
    total = np.zeros(len(q))
    thermal_q = q / np.sqrt(theta)  # in units of sqrt(2 T)
    for share, eta in chemical_potentials(dim, polarization, theta):
        # int d^dk n = pi^h F_{h-1}
        density = np.pi**half * fermi_dirac(half - 1, eta)
        overlap = _overlap(dim, eta, thermal_q)
        total += share * overlap / density
    return total


def _overlap(dim, eta, q):
    """The integral of n_k (1 - n_{k+q}) over k of one spin, wavevectors in sqrt(2 T).  [Q]

    In these units an energy over T is k^2.
    """
    across = _across(dim, eta)
    q = q[:, None]
    half_q = q / 2
    edge = _last_wavevector(eta) + half_q
    # midpoints of one half of the axis; the other half is its mirror
    midpoints = (np.arange(POINTS) + 0.5) / POINTS
    x = edge * midpoints
    # g(x - q/2) - g(x + q/2)
    before = across(x - half_q)
    after = across(x + half_q)
    difference = before - after
    exponent = np.minimum(2 * x * q, LARGEST_EXPONENT)
    # of x and of -x, where the difference changes sign: 1 / (1 - e^-a) and 1 / (e^a - 1)
    both = difference * (2 / np.expm1(exponent) + 1)
    return np.sum(both, axis=1) * edge[:, 0] / POINTS


@functools.lru_cache(maxsize=512)
def _across(dim, eta) -> Callable[[np.ndarray], np.ndarray]:
    """The integral of n over the directions across an axis, by the position on the axis.

    Wavevectors are in units of sqrt(2 T).
    """
    if dim == 3:
        # int 2 pi y dy / (e^{x^2 + y^2 - eta} + 1)
        return lambda x: np.pi * np.logaddexp(0.0, eta - x * x)
    # in two dimensions by a table, as the integral has no closed form
    last = _last_wavevector(eta)
    position = np.linspace(0, last, TABLE_POINTS)
    values = _line_integrals(position, eta)
    spline = CubicSpline(position, values)

    def interpolated(x):
        distance = np.abs(x)
        inside = distance < last
        integral = spline(np.minimum(distance, last))
        return np.where(inside, integral, 0.0)

    return interpolated


def _line_integrals(position, eta):
    """The integral of n over y at each x of `position`, in two dimensions."""
    nodes, weights = np.polynomial.legendre.leggauss(TABLE_NODES)
    # two parts, as n has an edge at the Fermi level
    x = position[:, None]
    room = np.maximum(eta - position**2, 0.0)
    start = np.zeros_like(position)
    edge = np.sqrt(room)
    end = np.sqrt(room + REACH)
    values = np.zeros_like(position)
    for low, high in ((start, edge), (edge, end)):
        width = high - low
        # Gauss's nodes, of -1 ... 1, within low ... high
        y = low[:, None] + width[:, None] * (nodes + 1) / 2
        level = x**2 + y**2
        occupation = np.exp(-np.logaddexp(0.0, level - eta))
        integral = np.sum(weights * occupation, axis=1)
        # twice, for y and -y
        values += 2 * integral * width / 2
    return values
