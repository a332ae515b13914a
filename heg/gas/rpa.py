r"""The random-phase approximation: correlation of the gas in its cell and without it.

.. math:: f_{RPA} = \frac{T}{2N} \sum_{q \ne 0} \sum_n
          \big[\ln(1 - v_q \chi_0(q, i\omega_n)) + v_q \chi_0(q, i\omega_n)\big],
          \qquad \omega_n = 2 \pi n T ,

per electron: the rings of all orders from the second on; exchange, the first order, is no part of
it.  It is exact for q -> 0, where one plasmon takes all, and to leading order at high density.
chi_0, the response of the ideal gas, is that of heg.gas.response, in the cell with its own plane
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
from scipy.special import zeta

from heg.gas import ideal, ideal_infinite
from heg.gas.coulomb import fourier_transform
from heg.gas.matsubara import Frequencies, frequencies
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
    """Of the random-phase approximation, beyond first order, hartree per electron.

    Attributes:
      free_energy: f_RPA.
      potential: its part in the potential energy, coupling times the derivative by the coupling.
    """

    free_energy: float
    potential: float


class Waves(NamedTuple):
    """The response on wavevectors, at the density where k_F = 1 / bohr and at coupling 1.

    Attributes:
      q: 1/bohr.                                             [Q]
      weight: of each in a sum over wavevectors, per electron.    [Q]
      x: -v chi_0; complex where the cell has no inversion symmetry.    [Q, F]
    """

    q: np.ndarray
    weight: np.ndarray
    x: np.ndarray


def infinite_gas(system: System) -> Energies:
    """The random-phase approximation of infinitely many electrons, whatever N and the twist.

    Accuracy: 1e-6 relative (tests/test_rpa.py).
    """
    gas = _natural(system)
    waves = infinite_waves(gas.dim, gas.polarization, gas.theta)
    sums = _energies(system, waves)
    # beyond the last q electrons are at rest, and T sum_n x^2 is (n v)^2 / (q^2 / 2)
    last = waves.q[-1]
    rest = {2: np.pi / (2 * last**2), 3: 4 / (3 * last**3)}[gas.dim]
    rest *= -gas.density * system.coupling**2
    return Energies(sums.free_energy + rest, sums.potential + 2 * rest)


def cell(system: System) -> Energies:
    """The random-phase approximation in the cell, at its twist.

    Accuracy: 1e-4 of `missing` (tests/test_rpa.py).
    """
    whole, lacking = infinite_gas(system), missing(system)
    return Energies(*np.subtract(whole, lacking).tolist())


def missing(system: System) -> Energies:
    """What the cell lacks: the infinite gas less the cell.

    A window that is flat at q = 0 takes the long waves from the cell.  Of the others the sum is an
    integral and the response that of the infinite gas, except for the kinetic energy.
    Accuracy: 1e-4 relative (tests/test_rpa.py).
    """
    gas = _natural(system)
    width = window_width(gas)
    window = lambda q: np.exp(-((q / width) ** WINDOW_POWER))
    whole = infinite_waves(gas.dim, gas.polarization, gas.theta)
    long = cell_waves(gas)
    long = long._replace(weight=long.weight * window(long.q))
    changed = np.where(whole.q[:, None] > width / 2, _kinetic_change(gas, whole.q), 0.0)
    short = whole._replace(weight=whole.weight * (1 - window(whole.q)), x=whole.x + changed)
    of_gas, of_long, of_short = (np.array(_energies(system, one)) for one in (whole, long, short))
    return Energies(*(of_gas - of_long - of_short).tolist())


def _natural(system):
    """The same gas at coupling 1 and the density where k_F = 1 / bohr.

    Theta is rounded, so that one that was computed from r_s and T is the same as one given.
    """
    rs, theta = system.of_unit_density.fermi_wavevector, float(f"{system.theta:.12g}")
    return dataclasses.replace(system, rs=rs, theta=theta, coupling=1.0)


def _energies(system, waves):
    """The sum over wavevectors and frequencies."""
    gas = _natural(system)
    nodes = _frequencies(gas.theta)
    scale = system.coupling * system.rs / gas.rs
    x = scale * waves.x
    rings = np.real(_log1p(x) - x) @ nodes.weight
    slopes = np.real(-(x**2) / (1 + x)) @ nodes.weight
    plasma_squared = scale * gas.density * fourier_transform(waves.q, gas.dim) * waves.q**2
    tail = -((plasma_squared / (2 * np.pi * gas.temperature) ** 2) ** 2) * zeta(4, nodes.end)
    weight = system.temperature / 2 * waves.weight
    return Energies(float(weight @ (rings + tail)), float(weight @ (slopes + 2 * tail)))


def _log1p(x):
    """ln(1 + x), also of complex x, as accurate as x."""
    if not np.iscomplexobj(x):
        return np.log1p(x)
    return np.log1p(2 * x.real + np.abs(x) ** 2) / 2 + 1j * np.arctan2(x.imag, 1 + x.real)


@functools.lru_cache(maxsize=512)
def _frequencies(theta) -> Frequencies:
    """Up to where the tail begins for the largest q."""
    thermal = np.sqrt(1 + theta)
    last = REACH * thermal
    excitation = last**2 / 2 + last * thermal
    return frequencies(FREQUENCY_REACH * excitation / (np.pi * theta))


@functools.lru_cache(maxsize=64)
def infinite_waves(dim: int, polarization: float, theta: float) -> Waves:
    """The response of infinitely many electrons on the nodes of an integral over q."""
    node, share = np.polynomial.legendre.leggauss(NODES)
    node, share = (node + 1) / 2, share / 2
    # dense at q = 0, where v is singular
    last = REACH * np.sqrt(1 + theta)
    q, width = last * node**2, 2 * last * node * share
    surface = {2: 2 * np.pi, 3: 4 * np.pi}[dim] / (2 * np.pi) ** dim
    density = {2: 1 / (2 * np.pi), 3: 1 / (3 * np.pi**2)}[dim] / (1 + polarization)
    omega = np.pi * theta * _frequencies(theta).n
    chi = infinite_response((dim, polarization, theta), q, omega)
    weight = surface * q ** (dim - 1) * width / density
    return Waves(q, weight, -fourier_transform(q, dim)[:, None] * chi)


def window_width(gas: System) -> float:
    """Width of the window in q, 1/bohr."""
    lattice, fermi = 2 * np.pi / gas.box, gas.fermi_wavevector
    return max(WINDOW_LATTICE[gas.dim] * lattice, WINDOW_FERMI[gas.dim] * fermi)


@functools.lru_cache(maxsize=64)
def cell_waves(gas: System) -> Waves:
    """The response of a cell on its wavevectors up to the end of the window.

    Args:
      gas: at coupling 1 and the density where k_F = 1 / bohr.
    """
    lattice = 2 * np.pi / gas.box
    m, count = stars(gas, int(WINDOW_END * window_width(gas) / lattice))
    q = lattice * np.linalg.norm(m, axis=1)
    chi = cell_response(gas, m, np.pi * gas.theta * _frequencies(gas.theta).n)
    return Waves(q, count / gas.electrons, -fourier_transform(q, gas.dim)[:, None] * chi)


def stars(gas: System, highest: int) -> tuple[np.ndarray, np.ndarray]:
    """Wavevectors 2 pi m / L of a cell, one of each set that its symmetry makes equal.

    Args:
      gas: the cell; its twist has what symmetry there is.
      highest: the largest |m|.
    Returns:
      m, and how many wavevectors each stands for.           [Q, d], [Q]
    """
    axes = [np.arange(-highest, highest + 1)] * gas.dim
    m = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, gas.dim)
    square = np.sum(m**2, axis=1)
    m = m[(square > 0) & (square <= highest**2)]
    # as both signs of w are summed, q and -q are always equal
    images = [np.abs(m)] if inversion(gas) else [m, -m]
    if len(set(gas.twist)) == 1:
        images = [np.sort(image, axis=1) for image in images]
    place = (2 * highest + 1) ** np.arange(gas.dim)
    name = np.max([(image + highest) @ place for image in images], axis=0)
    _, first, count = np.unique(name, return_index=True, return_counts=True)
    return m[first], count


def _kinetic_change(gas, q):
    """x of the cell less that of the infinite gas at large q, due to their <k^2>.

    An electron of wavevector k adds 2 Re 1 / (e + iw) to -chi_0, with e = q^2 / 2 + q k.  [Q, F]
    """
    levels = ideal.choose_cutoff(gas, MISSING).orbitals.energy
    energy = ideal.thermodynamics(levels, gas.beta, gas.spins).energy / gas.electrons
    more = 2 * (energy - ideal_infinite.thermodynamics(gas).energy)  # of <k^2>
    omega = np.pi * gas.theta * _frequencies(gas.theta).n
    q = q[:, None]
    curvature = 2 * np.real(1 / (q**2 / 2 + 1j * omega) ** 3)
    return fourier_transform(q, gas.dim) * gas.density * more * q**2 / gas.dim * curvature
