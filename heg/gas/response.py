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

import numpy as np
from scipy.special import comb

from heg.gas.ideal import choose_cutoff, occupation_numbers, padded, shell_pairs
from heg.gas.ideal_infinite import chemical_potentials
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


def cell_response(gas: System, m: np.ndarray, omega: np.ndarray) -> np.ndarray:
    """chi_0(q, iw) of a cell.

    Args:
      gas: the cell; its coupling does not matter.
      m: q = 2 pi m / L, integers, not zero.                 [Q, d]
      omega: w, hartree, the first of them zero.             [F]
    Returns:
      1 / (hartree bohr^d); real if the cell has inversion symmetry.    [Q, F]
    Accuracy: that of the orbitals left out, 1e-9 of the electrons.
    """
    unit, symmetric = (2 * np.pi / gas.box) ** 2, inversion(gas)
    orbitals = choose_cutoff(gas, MISSING).orbitals
    levels = padded(gas.beta * orbitals.energy)
    occupied = sum(np.asarray(occupation_numbers(levels, count)) for count in gas.spins)
    occupied = occupied[: len(orbitals.energy)]
    chi = np.zeros((len(m), len(omega)), complex)
    for row, one in enumerate(m):
        # the energy of an excitation depends on the integer n m alone: add the occupations
        along = orbitals.n @ one
        lowest = along.min()
        total = np.bincount(along - lowest, occupied)
        product = lowest + np.arange(len(total)) + one @ np.asarray(gas.twist)
        gain = _excitations(total, unit * (one @ one / 2 + product), omega, EQUAL * unit)
        # k - q to k: the same as k to k + q where k and -k are
        loss = gain
        if not symmetric:
            loss = _excitations(total, unit * (one @ one / 2 - product), omega, EQUAL * unit)
        chi[row] = -gain - np.conj(loss)
        equal = lowest + np.flatnonzero(np.abs(one @ one / 2 + product) < EQUAL)
        if len(equal):
            chi[row, 0] -= gas.beta * np.sum(_elastic(gas)[np.isin(along, equal)])
    chi /= gas.box**gas.dim
    return chi.real if symmetric else chi


def _excitations(occupied, energy, omega, least):
    """Sum of n / (e - iw) over excitations, without those of no energy at no frequency.

    Args:
      occupied, energy: n and e.                             [J]
      omega: w.                                              [F]
      least: an energy below is none.
    """
    square = energy[:, None] ** 2 + omega**2
    nothing = square < least**2
    lorentz = np.where(nothing, 0.0, 1 / np.where(nothing, 1.0, square))
    return (occupied * energy) @ lorentz + 1j * omega * (occupied @ lorentz)


@functools.lru_cache(maxsize=4)
def _elastic(gas):
    """<n_k (1 - n_k')> of another k' of the same energy, summed over spins.  [M]"""
    levels, total = gas.beta * choose_cutoff(gas, MISSING).orbitals.energy, 0.0
    for count in gas.spins:
        shell, occupation, pairs = shell_pairs(levels, count)
        total = total + (occupation - np.diagonal(pairs))[shell]
    return total


def infinite_response(
    gas: tuple[int, float, float],
    q: np.ndarray,
    omega: np.ndarray,
) -> np.ndarray:
    """chi_0(q, iw) of infinitely many electrons, at the density where k_F = 1 / bohr.

    Args:
      gas: its dimension, polarisation and Theta.
      q: wavevectors, 1/bohr, not zero.                      [Q]
      omega: w, hartree.                                     [F]
    Returns:
      1 / (hartree bohr^d).                                  [Q, F]
    Accuracy: 1e-8 relative (tests/test_response.py).
    """
    dim, polarization, theta = gas
    temperature = theta / 2
    ground = {2: _ground_state_2d, 3: _ground_state_3d}[dim]
    # spins of the same density have the same response
    spins = Counter(eta for _, eta in chemical_potentials(dim, polarization, theta))
    chi = np.zeros((len(q), len(omega)))
    for eta, alike in spins.items():
        for row, one in enumerate(q):
            level, weight = _fermi_levels(eta, one**2 / (8 * temperature))
            kappa = np.sqrt(2 * temperature * level)[:, None]
            z = (one**2 / 2 + 1j * omega) / (one * kappa)
            chi[row] += alike * weight @ ground(one, kappa, z)
    return chi


def _fermi_levels(eta, edge):
    """Levels e / T and their weights in the average over them.

    The parts end where the average has its peak and at `edge`, e = q^2 / 8, where the response is
    not smooth; nodes are dense near all ends.
    """
    low, high = max(0.0, eta - REACH), max(0.0, eta) + REACH
    ends = np.sort(np.clip([low, eta - PEAK, eta + PEAK, edge, high], low, high))
    node, share = np.polynomial.legendre.leggauss(NODES)
    node, share = (node + 1) / 2, share / 2
    length = np.diff(ends)[:, None]
    level = (ends[:-1, None] + length * node**2 * (3 - 2 * node)).ravel()
    weight = (length * share * 6 * node * (1 - node)).ravel()
    weight /= 4 * np.cosh((level - eta) / 2) ** 2
    counts = weight > NEGLIGIBLE * weight.max()
    return level[counts], weight[counts]


def _ground_state_3d(q, kappa, z):
    """chi_0 of one spin at T = 0, by Lindhard."""
    closed = lambda z: z + (1 - z**2) * np.log((z + 1) / (z - 1)) / 2
    return -(kappa**2) / (2 * np.pi**2 * q) * _shape(z, closed, SERIES[3]).real


def _ground_state_2d(q, kappa, z):
    """chi_0 of one spin at T = 0, by Stern."""
    closed = lambda z: z - np.sqrt(z - 1) * np.sqrt(z + 1)
    return -kappa / (np.pi * q) * _shape(z, closed, SERIES[2]).real


def _shape(z, closed, coefficients):
    """A function of z by its closed form; where that cancels, by the sum of c_j / z^(2j + 1)."""
    far = np.abs(z) > FAR
    inverse = 1 / z[far]
    square, series = inverse**2, 0.0
    for coefficient in coefficients[::-1]:
        series = series * square + coefficient
    shape = np.empty_like(z)
    shape[~far] = closed(z[~far])
    shape[far] = series * inverse
    return shape
