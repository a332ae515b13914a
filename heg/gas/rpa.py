r"""The random-phase approximation: correlation of the gas in its cell and without it.

.. math:: f_{RPA} = \frac{T}{2N} \sum_{q \ne 0} \sum_n
          \big[\ln(1 - v_q \chi_0(q, i\omega_n)) + v_q \chi_0(q, i\omega_n)\big],
          \qquad \omega_n = 2 \pi n T ,

per electron: the rings of all orders from the second on.  Exchange, the first order, is no part of
it.  It is exact for q -> 0, where one plasmon takes all, and to leading order at high density.
chi_0, the response of the ideal gas, is that of `heg.gas.response`: in the cell with its own plane
waves and occupation numbers, without it by an integral.

At fixed Theta v_q chi_0 is proportional to r_s as a function of q / k_F and n.  So it is computed
once for all r_s, at the density where k_F = 1 / bohr, and the potential energy, the derivative of f
with respect to the coupling, is a sum of the same terms.  At large frequencies
-v_q chi_0 = w_p^2 / w^2, by the f-sum rule, and the sum has the tail -w_p^4 / 2 w^4.

Sources: Gupta and Rajagopal, Phys. Rep. 87, 259 (1982), doi:10.1016/0370-1573(82)90077-1; Giuliani
and Vignale, Quantum Theory of the Electron Liquid (Cambridge, 2005), chapter 5.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float, Int
from scipy.special import zeta

from heg.gas import ideal, ideal_infinite
from heg.gas.coulomb import fourier_transform
from heg.gas.matsubara import Frequencies, frequencies
from heg.gas.plane_waves import integer_vectors
from heg.gas.quadrature import gauss_legendre, radial_measure
from heg.gas.response import MISSING, cell_response, infinite_response, inversion
from heg.gas.system import System

FREQUENCY_REACH = 10.0  # the largest frequency over the largest energy of an excitation
NODES = 160  # of the integral over q
REACH = 24.0  # the largest q over that of thermal electrons
# the width of the window in q, by dimension: at least so many 2 pi / L and so many k_F
WINDOW_LATTICE = {2: 8.0, 3: 6.0}
WINDOW_FERMI = {2: 4.0, 3: 3.0}
WINDOW_POWER = 8
WINDOW_END = 1.57  # where the window is 1e-16, in units of its width


class Energies(NamedTuple):
    """Energies of the random-phase approximation, beyond first order, hartree per electron.

    Attributes:
      free_energy: f_RPA.
      potential: its part in the potential energy, coupling times the derivative by the coupling.
    """

    free_energy: float
    potential: float

    def plus(self, other: "Energies") -> "Energies":
        """The sum of both energies."""
        return Energies(
            free_energy=self.free_energy + other.free_energy,
            potential=self.potential + other.potential,
        )

    def less(self, other: "Energies") -> "Energies":
        """The difference of both energies."""
        return Energies(
            free_energy=self.free_energy - other.free_energy,
            potential=self.potential - other.potential,
        )


class Waves(NamedTuple):
    """The response on wavevectors, at the density where k_F = 1 / bohr and at coupling 1.

    Attributes:
      q: 1/bohr.                                            [Q]
      weight: of each in a sum over wavevectors, per electron.    [Q]
      x: -v chi_0; complex where the cell has no inversion symmetry.    [Q, F]
    """

    q: Float[np.ndarray, " waves"]
    weight: Float[np.ndarray, " waves"]
    x: Float[np.ndarray, "waves frequencies"] | Complex[np.ndarray, "waves frequencies"]


def infinite_gas(system: System) -> Energies:
    """The random-phase approximation of infinitely many electrons; N and twist do not matter.

    Accuracy: 1e-6 relative (tests/gas/test_rpa.py).
    """
    gas = natural(system)
    waves = infinite_waves(gas.dim, gas.polarization, gas.theta)
    sums = _energies(system, waves)
    # beyond the last q electrons are at rest, and T sum_n x^2 is (n v)^2 / (q^2 / 2)
    last = waves.q[-1]
    if gas.dim == 2:
        integral = np.pi / (2 * last**2)
    else:
        integral = 4 / (3 * last**3)
    strength = -gas.density * system.coupling**2
    # it is quadratic in the coupling: its part of the potential energy is twice as large
    rest = float(integral * strength)
    return Energies(
        free_energy=sums.free_energy + rest,
        potential=sums.potential + 2 * rest,
    )


def cell(system: System) -> Energies:
    """The random-phase approximation in the cell, at its twist.

    Accuracy: 1e-4 of `missing` (tests/gas/test_rpa.py).
    """
    return infinite_gas(system).less(missing(system))


def missing(system: System) -> Energies:
    """Energies that the cell lacks: those of the infinite gas less those of the cell.

    A window that is flat at q = 0 takes the long waves from the cell.  Of the others the sum is an
    integral and the response that of the infinite gas, except for the kinetic energy.
    Accuracy: 1e-4 relative (tests/gas/test_rpa.py).
    """
    gas = natural(system)
    width = window_width(gas)
    window = lambda q: np.exp(-((q / width) ** WINDOW_POWER))
    every = infinite_waves(gas.dim, gas.polarization, gas.theta)
    q = every.q
    # the kinetic energy changes the response at large q alone
    is_short = q[:, None] > width / 2
    change = np.where(is_short, _kinetic_change(gas, q), 0.0)
    short = Waves(
        q=q,
        weight=every.weight * (1 - window(q)),
        x=every.x + change,
    )
    long = cell_waves(gas)
    long = long._replace(weight=long.weight * window(long.q))
    infinite = _energies(system, every)
    long_in_cell = _energies(system, long)
    short_in_cell = _energies(system, short)
    return infinite.less(long_in_cell).less(short_in_cell)


def natural(system: System) -> System:
    """The same gas at coupling 1 and the density where k_F = 1 / bohr.

    Theta is rounded, so that one that was computed from r_s and T is the same as one given.
    """
    rs = system.of_unit_density.fermi_wavevector
    theta = float(f"{system.theta:.12g}")
    return dataclasses.replace(system, rs=rs, theta=theta, coupling=1.0)


def _energies(system, waves):
    """The sum over wavevectors and frequencies, with its tail at large frequencies."""
    gas = natural(system)
    nodes = _frequencies(gas.theta)
    q = waves.q
    # at fixed Theta v chi_0 is proportional to coupling and r_s
    scale = system.coupling * system.rs / gas.rs
    x = scale * waves.x
    # ln(1 + x) - x of each frequency, and coupling times its derivative, -x^2 / (1 + x)
    ring = np.real(_log1p(x) - x)
    rings = ring @ nodes.weight
    slope = np.real(-(x**2) / (1 + x))
    slopes = slope @ nodes.weight
    # -w_p^4 / 2 w^4 of each sign of w: the sum over n^-4 is a zeta function
    v = fourier_transform(q, gas.dim)
    plasma_squared = scale * gas.density * v * q**2
    first_squared = (2 * np.pi * gas.temperature) ** 2
    tail = -((plasma_squared / first_squared) ** 2) * zeta(4, nodes.end)
    # it is quadratic in the coupling: the derivative is twice as large
    weight = system.temperature / 2 * waves.weight
    return Energies(
        free_energy=float(weight @ (rings + tail)),
        potential=float(weight @ (slopes + 2 * tail)),
    )


def _log1p(x):
    """ln(1 + x), also of complex x, as accurate as x."""
    if not np.iscomplexobj(x):
        return np.log1p(x)
    # |1 + x|^2 - 1 and the angle of 1 + x
    excess = 2 * x.real + np.abs(x) ** 2
    modulus = np.log1p(excess) / 2
    angle = np.arctan2(x.imag, 1 + x.real)
    return modulus + 1j * angle


@functools.lru_cache(maxsize=512)
def _frequencies(theta) -> Frequencies:
    """Nodes up to where the tail begins for the largest q."""
    # k of thermal electrons in units of k_F
    thermal = np.sqrt(1 + theta)
    last = REACH * thermal
    excitation = last**2 / 2 + last * thermal
    return frequencies(FREQUENCY_REACH * excitation / (np.pi * theta))


def _omega(theta):
    """The frequencies w at k_F = 1 / bohr, where T = theta / 2, hartree.  [F]"""
    return np.pi * theta * _frequencies(theta).n


@functools.lru_cache(maxsize=64)
def infinite_waves(dim: int, polarization: float, theta: float) -> Waves:
    """The response of infinitely many electrons on the nodes of an integral over q."""
    # q = last t^2: dense at q = 0, where v is singular
    t, weights = gauss_legendre(NODES)
    last = REACH * np.sqrt(1 + theta)
    q = last * t**2
    dq = 2 * last * t * weights
    # n at k_F = 1: that of the unpolarised gas, of which the other spin may be absent
    unpolarised = {2: 1 / (2 * np.pi), 3: 1 / (3 * np.pi**2)}[dim]
    density = unpolarised / (1 + polarization)
    gas = (dim, polarization, theta)
    chi = infinite_response(gas, q, _omega(theta))
    v = fourier_transform(q, dim)
    # the sum over waves per electron is an integral over d^dq / (2 pi)^d n
    measure = radial_measure(dim)
    return Waves(
        q=q,
        weight=measure * q ** (dim - 1) * dq / density,
        x=-v[:, None] * chi,
    )


def window_width(gas: System) -> float:
    """Width of the window in q, 1/bohr."""
    of_lattice = WINDOW_LATTICE[gas.dim] * gas.wavevector_unit
    of_fermi_surface = WINDOW_FERMI[gas.dim] * gas.fermi_wavevector
    return max(of_lattice, of_fermi_surface)


@functools.lru_cache(maxsize=64)
def cell_waves(gas: System) -> Waves:
    """The response of a cell on its wavevectors up to the end of the window.

    Args:
      gas: at coupling 1 and the density where k_F = 1 / bohr.
    """
    unit = gas.wavevector_unit
    last = WINDOW_END * window_width(gas)
    highest = int(last / unit)
    m, multiplicity = stars(gas, highest)
    q = unit * np.linalg.norm(m, axis=1)
    omega = _omega(gas.theta)
    chi = cell_response(gas, m, omega)
    v = fourier_transform(q, gas.dim)
    # a sum over the waves of all stars, per electron
    weight = multiplicity / gas.electrons
    return Waves(
        q=q,
        weight=weight,
        x=-v[:, None] * chi,
    )


class Stars(NamedTuple):
    """Wavevectors 2 pi m / L of a cell, one of each set that its symmetry makes equal.

    Attributes:
      m: integer vectors.                                   [Q, d]
      multiplicity: number of wavevectors that each stands for.    [Q]
    """

    m: Int[np.ndarray, "waves dim"]
    multiplicity: Int[np.ndarray, " waves"]


def stars(gas: System, highest: int) -> Stars:
    """Wavevectors of a cell that its symmetry leaves different, without zero.

    Args:
      gas: the cell; its twist decides the symmetry.
      highest: the largest |m|.
    """
    m = integer_vectors(gas.dim, highest)
    square = np.sum(m**2, axis=1)
    inside = (square > 0) & (square <= highest**2)
    m = m[inside]
    # as both signs of w are summed, q and -q are always equal
    images = [m, -m]
    if inversion(gas):
        images = [np.abs(m)]
    if len(set(gas.twist)) == 1:  # the directions may be permuted
        images = [np.sort(image, axis=1) for image in images]
    # each image as one integer; the largest is the name of the star
    digits = (2 * highest + 1) ** np.arange(gas.dim)
    integers = [(image + highest) @ digits for image in images]
    name = np.max(integers, axis=0)
    _, first, multiplicity = np.unique(
        name,
        return_index=True,
        return_counts=True,
    )
    return Stars(m[first], multiplicity)


def _kinetic_change(gas, q):
    """x of the cell less that of the infinite gas at large q, due to their <k^2>.

    An electron of wavevector k adds 2 Re 1 / (e + iw) to -chi_0, with e = q^2 / 2 + q k.  [Q, F]
    """
    orbitals = ideal.choose_cutoff(gas, MISSING).orbitals
    in_cell = ideal.thermodynamics(orbitals.energy, gas.beta, gas.spins)
    infinite = ideal_infinite.thermodynamics(gas)
    energy = in_cell.energy / gas.electrons
    more = 2 * (energy - infinite.energy)  # of <k^2>
    q = q[:, None]
    # half the second derivative of 2 Re 1 / (e + iw) by e
    omega = _omega(gas.theta)
    denominator = q**2 / 2 + 1j * omega
    curvature = 2 * np.real(1 / denominator**3)
    # times the mean of (q k)^2, which is q^2 <k^2> / d
    dim = gas.dim
    v = fourier_transform(q, dim)
    return v * gas.density * more * q**2 / dim * curvature
