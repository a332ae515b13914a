r"""Response of the ideal gas to a density wave at imaginary frequency, in the cell and without it.

In the cell it is a sum over plane waves with their canonical occupation numbers,

.. math:: \chi_0(q, i\omega) = \frac{1}{L^d} \sum_{k\sigma}
          \frac{\langle n_k \rangle - \langle n_{k+q} \rangle}{i\omega + e_k - e_{k+q}} ,

where a pair of equal energies gives -beta <n_k (1 - n_{k+q})> at w = 0 and nothing at w != 0, the
limits of the fraction.  This holds for a fixed number of electrons, as
<n_k> - <n_{k+q}> = <n_k (1 - n_{k+q})> (1 - exp(beta e_k - beta e_{k+q})) does.  Where the twist
leaves no inversion symmetry, chi_0 is complex.

In the infinite gas chi_0 is that of zero temperature, averaged over Fermi levels with the weight
-df/de.  For each spin, with kappa = sqrt(2e) and z = (q^2/2 + iw) / (q kappa),

.. math:: \chi_0 = -\frac{\kappa^2}{2\pi^2 q} \mathrm{Re}[z + (1 - z^2)\, \mathrm{arcoth}\, z]
          \quad (d = 3), \qquad
          \chi_0 = -\frac{\kappa}{\pi q} \mathrm{Re}[z - \sqrt{z - 1} \sqrt{z + 1}] \quad (d = 2).

Sources: Giuliani and Vignale, Quantum Theory of the Electron Liquid (Cambridge, 2005), chapter 4;
the average over Fermi levels, Maldague, Surf. Sci. 73, 296 (1978),
doi:10.1016/0039-6028(78)90507-1; two dimensions, Stern, Phys. Rev. Lett. 18, 546 (1967),
doi:10.1103/PhysRevLett.18.546.
"""

import functools
from collections import Counter
from collections.abc import Callable

import numpy as np
from jaxtyping import Complex, Float, Int
from scipy.special import comb

from heg.gas.ideal import choose_cutoff, occupation_numbers, padded
from heg.gas.ideal_infinite import chemical_potentials
from heg.gas.ideal_pairs import shell_pairs
from heg.gas.quadrature import gauss_legendre
from heg.gas.system import System

MISSING = 1e-9  # probability of the orbitals left out
EQUAL = 1e-8  # energies closer than this, in units of (2 pi / L)^2, are equal
NODES = 40  # of each of four parts of the average over Fermi levels
REACH = 40.0  # Fermi levels up to so many T from mu
PEAK = 7.0  # half of the width of the peak of the average, T
NEGLIGIBLE = 1e-14  # weight of a Fermi level, relative to the largest
FAR = 8.0  # |z| from which the response at T = 0 is a series
_J = np.arange(7)
# of 1 / z^(2j + 1), by dimension; in two dimensions Catalan's numbers
SERIES = {2: comb(2 * _J, _J) / (_J + 1) / 2 ** (2 * _J + 1), 3: 2 / ((2 * _J + 1) * (2 * _J + 3))}


def inversion(gas: System) -> bool:
    """Whether the plane waves of the cell stay the same when any direction is reversed."""
    return all(2 * angle % 1 == 0 for angle in gas.twist)


def cell_response(
    gas: System, m: Int[np.ndarray, "waves dim"], omega: Float[np.ndarray, " frequencies"]
) -> Float[np.ndarray, "waves frequencies"] | Complex[np.ndarray, "waves frequencies"]:
    """chi_0(q, iw) of a cell.

    Args:
      gas: the cell; its coupling does not matter.
      m: q = 2 pi m / L, integers, not zero.
      omega: w, hartree, the first of them zero.
    Returns:
      1 / (hartree bohr^d); real if the cell has inversion symmetry.
    Accuracy: that of the orbitals left out, 1e-9 of the electrons.
    """
    unit = gas.wavevector_unit**2
    least = EQUAL * unit
    twist = np.asarray(gas.twist)
    symmetric = inversion(gas)
    n = choose_cutoff(gas, MISSING).orbitals.n
    occupied = _occupations(gas)
    chi = np.zeros((len(m), len(omega)), complex)
    for row, wave in enumerate(m):
        # the energy of an excitation depends on the integer n m alone: add the occupations
        product = n @ wave
        lowest = product.min()
        total = np.bincount(product - lowest, occupied)
        products = lowest + np.arange(len(total))
        # energies e_{k+-q} - e_k of the excitations, in units of (2 pi / L)^2:
        # q^2 / 2 +- q (k + twist)
        half_square = wave @ wave / 2
        along = products + wave @ twist
        forward = half_square + along
        gain = _excitations(total, unit * forward, omega, least)
        # k - q to k: the same as k to k + q where k and -k are
        loss = gain
        if not symmetric:
            backward = half_square - along
            loss = _excitations(total, unit * backward, omega, least)
        chi[row] = -gain - np.conj(loss)
        # the limit of the fraction for pairs of equal energies
        elastic = products[np.abs(forward) < EQUAL]
        if len(elastic):
            pairs = _elastic(gas)[np.isin(product, elastic)]
            chi[row, 0] -= gas.beta * np.sum(pairs)
    chi /= gas.volume
    return chi.real if symmetric else chi


def _occupations(gas):
    """<n_k>, summed over spins.  [M]"""
    orbitals = choose_cutoff(gas, MISSING).orbitals
    levels = padded(gas.beta * orbitals.energy)
    total = sum(np.asarray(occupation_numbers(levels, count)) for count in gas.spins)
    return total[: len(orbitals.energy)]


def _excitations(occupied, energy, omega, least):
    """The sum of n / (e - iw) over excitations, without those of no energy at no frequency.

    Args:
      occupied, energy: n and e.                             [J]
      omega: w.                                              [F]
      least: smaller energies count as none.
    """
    # e^2 + w^2 by excitation and frequency
    square = energy[:, None] ** 2 + omega**2
    nothing = square < least**2
    square = np.where(nothing, 1.0, square)
    lorentz = np.where(nothing, 0.0, 1 / square)
    # n / (e - iw) = n (e + iw) / (e^2 + w^2)
    even = (occupied * energy) @ lorentz
    odd = omega * (occupied @ lorentz)
    return even + 1j * odd


@functools.lru_cache(maxsize=4)
def _elastic(gas):
    """<n_k (1 - n_k')> of another k' of the same energy, summed over spins.  [M]"""
    levels = gas.beta * choose_cutoff(gas, MISSING).orbitals.energy
    total = 0.0
    for count in gas.spins:
        shells = shell_pairs(levels, count)
        by_shell = shells.occupation - np.diagonal(shells.pairs)
        total = total + by_shell[shells.shell]
    return total


def infinite_response(
    gas: tuple[int, float, float],
    q: Float[np.ndarray, " waves"],
    omega: Float[np.ndarray, " frequencies"],
) -> Float[np.ndarray, "waves frequencies"]:
    """chi_0(q, iw) of infinitely many electrons, at the density where k_F = 1 / bohr.

    Args:
      gas: its dimension, polarisation and Theta.
      q: wavevectors, 1/bohr, not zero.
      omega: w, hartree.
    Returns:
      1 / (hartree bohr^d).
    Accuracy: 1e-8 relative (tests/gas/test_response.py).
    """
    dim, polarization, theta = gas
    temperature = theta / 2
    ground_state = {2: _ground_state_2d, 3: _ground_state_3d}[dim]
    # spins of the same density have the same response
    spins = Counter(spin.eta for spin in chemical_potentials(dim, polarization, theta))
    chi = np.zeros((len(q), len(omega)))
    for eta, alike in spins.items():
        for row, wave in enumerate(q):
            edge = wave**2 / (8 * temperature)
            level, weight = _fermi_levels(eta, edge)
            # Fermi wavevector of each level, and z = (q^2/2 + iw) / (q kappa)
            kappa = np.sqrt(2 * temperature * level)[:, None]
            z = (wave**2 / 2 + 1j * omega) / (wave * kappa)
            # int de (-df/de) chi_0 at T = 0
            chi[row] += alike * weight @ ground_state(wave, kappa, z)
    return chi


def _fermi_levels(eta, edge):
    """Levels e / T and their weights in the average over them.

    The parts end where the average has its peak and at `edge`, e = q^2 / 8, where the response is
    not smooth; nodes are dense near all ends.
    """
    low = max(0.0, eta - REACH)
    high = max(0.0, eta) + REACH
    corners = np.array([low, eta - PEAK, eta + PEAK, edge, high])
    inside = corners.clip(low, high)
    ends = np.sort(inside)
    start = ends[:-1, None]
    length = np.diff(ends)[:, None]
    # within a part e = start + length t^2 (3 - 2 t), whose slope vanishes at both ends
    t, weights = gauss_legendre(NODES)
    level = start + length * t**2 * (3 - 2 * t)
    weight = length * weights * 6 * t * (1 - t)  # de
    # -df/de = 1 / 4 cosh^2
    half = (level - eta) / 2
    cosh = np.cosh(half)
    weight /= 4 * cosh**2
    least = NEGLIGIBLE * weight.max()
    kept = weight > least
    return level[kept], weight[kept]


def _ground_state_3d(q, kappa, z):
    """chi_0 of one spin at T = 0, by Lindhard."""
    # arcoth z = ln((z + 1) / (z - 1)) / 2
    closed = lambda z: z + (1 - z**2) * np.log((z + 1) / (z - 1)) / 2
    shape = _shape(z, closed, SERIES[3])
    return -(kappa**2) / (2 * np.pi**2 * q) * shape.real


def _ground_state_2d(q, kappa, z):
    """chi_0 of one spin at T = 0, by Stern."""
    closed = lambda z: z - np.sqrt(z - 1) * np.sqrt(z + 1)
    shape = _shape(z, closed, SERIES[2])
    return -kappa / (np.pi * q) * shape.real


def _shape(z, closed: Callable, coefficients):
    """A function of z by its closed form; where that cancels, by the sum of c_j / z^(2j + 1)."""
    far = np.abs(z) > FAR
    # Horner's scheme in 1 / z^2
    inverse = 1 / z[far]
    square = inverse**2
    series = 0.0
    for coefficient in coefficients[::-1]:
        series = series * square + coefficient
    shape = np.empty_like(z)
    shape[~far] = closed(z[~far])
    shape[far] = series * inverse
    return shape
