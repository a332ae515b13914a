r"""The random-phase approximation: correlation of the gas in its cell and without it.

In units of a volume, with the response chi_0 of the ideal gas at the frequencies
w_n = 2 pi n T of Matsubara,

.. math:: f_{RPA} = \frac{T}{2N} \sum_{q \ne 0} \sum_n
          [\ln(1 - v_q \chi_0(q, i\omega_n)) + v_q \chi_0(q, i\omega_n)]

per electron: all rings of order two and more.  It is exact for q -> 0, where one plasmon takes
all, and to leading order at high density.  The first order, exchange, is not part of it.

In the cell chi_0 is a sum over its plane waves with their canonical occupation numbers,

.. math:: \chi_0(q, i\omega) = \frac{1}{L^d} \sum_{k\sigma}
          \frac{\langle n_k \rangle - \langle n_{k+q} \rangle}{i\omega + e_k - e_{k+q}} ,

where a pair of equal energies is worth -beta <n_k (1 - n_{k+q})> at w = 0 and nothing at others:
the limit of the fraction, which is exact for a fixed number of electrons too.  Without inversion
symmetry, at a general twist, chi_0 is complex.

In the infinite gas chi_0 is that of zero temperature, averaged over Fermi levels e with the
weight -df/de, which is a narrow peak of the shape 1 / 4T cosh^2.  With kappa = sqrt(2e) and
z = (q^2/2 + iw) / (q kappa), for each spin

.. math:: \chi_0 = -\frac{\kappa^2}{2\pi^2 q} \mathrm{Re}[z + (1 - z^2)\, \mathrm{arcoth}\, z]
          \quad (d = 3), \qquad
          \chi_0 = -\frac{\kappa}{\pi q} \mathrm{Re}[z - \sqrt{z - 1} \sqrt{z + 1}] \quad (d = 2).

Sources: the ring diagrams at finite temperature, Gupta and Rajagopal, Phys. Rep. 87, 259 (1982),
doi:10.1016/0370-1573(82)90077-1; chi_0, Giuliani and Vignale, Quantum Theory of the Electron Liquid
(Cambridge, 2005), chapter 4; the average over Fermi levels, Maldague, Surf. Sci. 73, 296 (1978),
doi:10.1016/0039-6028(78)90507-1; two dimensions, Stern, Phys. Rev. Lett. 18, 546 (1967),
doi:10.1103/PhysRevLett.18.546.
"""

import dataclasses
import functools
from collections import Counter
from typing import NamedTuple

import numpy as np
from scipy.special import zeta

from heg import ideal, ideal_infinite
from heg.ewald import fourier_transform
from heg.ideal import choose_cutoff, occupation_numbers, padded, shell_pairs
from heg.ideal_infinite import chemical_potentials
from heg.system import System

MISSING = 1e-9  # probability of the orbitals left out
DEGENERATE = 1e-8  # energies closer than this, in units of (2 pi / L)^2, are equal
FIRST_FREQUENCIES = 16  # that are summed one by one
FREQUENCY_NODES = 8  # of each block of more; a block ends at three times where it begins
FREQUENCY_REACH = 10.0  # the largest frequency over the largest energy of an excitation
LEVEL_NODES = 40  # of each of four parts of the average over Fermi levels
LEVEL_REACH = 40.0  # Fermi levels up to so many T from mu
NEGLIGIBLE = 1e-14  # weight of a Fermi level, of the largest
LEVEL_PEAK = 7.0  # the peak of the average, T on both sides of mu
WAVEVECTOR_NODES = 160  # of the integral over q
WAVEVECTOR_REACH = 24.0  # largest q over the thermal wavevector
WINDOW_LATTICE = {2: 8.0, 3: 6.0}  # width of the window in q, at least so many 2 pi / L ...
WINDOW_FERMI = {2: 4.0, 3: 3.0}  # ... and so many k_F
WINDOW_POWER = 8
WINDOW_END = 1.57  # where the window is 1e-16, in units of its width
SERIES_FROM = 8.0  # |z| from which the response in three dimensions is a series
SERIES_TERMS = 9


class Energies(NamedTuple):
    """Beyond first order, hartree per electron.

    Attributes:
      free_energy: f_RPA.
      potential: its part of the interaction, lambda d f / d lambda.
    """

    free_energy: float
    potential: float


class Frequencies(NamedTuple):
    """Nodes of a sum over Matsubara frequencies.

    Attributes:
      n: of w_n = 2 pi n T; not all are integers.            [F]
      weight: of both signs together.                        [F]
      end: the first n that is left to the tail.
    """

    n: np.ndarray
    weight: np.ndarray
    end: int


class Waves(NamedTuple):
    """The response of a gas on wavevectors, at the density where k_F = 1 / bohr and coupling 1.

    Attributes:
      q: in units of k_F.                                    [Q]
      weight: of each in a sum over wavevectors, per electron.    [Q]
      x: -v chi_0; complex without inversion symmetry.       [Q, F]
    """

    q: np.ndarray
    weight: np.ndarray
    x: np.ndarray


def infinite_gas(system: System) -> Energies:
    """The random-phase approximation of infinitely many electrons, whatever N and the twist.

    Accuracy: 1e-6 relative (tests/test_rpa.py).
    """
    waves = infinite_waves(system.dim, system.polarization, _rounded(system.theta))
    sums = _energies(system, waves)
    # beyond the last q chi_0 is that of electrons at rest: T sum_n x^2 = (n v)^2 / (q^2 / 2)
    gas, last = _natural(system), waves.q[-1]
    rest = -gas.density * {2: np.pi / (2 * last**2), 3: 4 / (3 * last**3)}[system.dim]
    rest *= system.coupling**2
    return Energies(sums.free_energy + rest, sums.potential + 2 * rest)


def cell(system: System) -> Energies:
    """The random-phase approximation in the cell, at its twist.

    Accuracy: 1e-4 of what it lacks (tests/test_rpa.py).
    """
    pairs = zip(infinite_gas(system), missing(system))
    return Energies(*(whole - lacked for whole, lacked in pairs))


def missing(system: System) -> Energies:
    """What the cell lacks: f_RPA of the infinite gas less that of the cell.

    A window that is flat at q = 0 parts the wavevectors.  Of the short waves, beyond it, the sum is
    an integral and the response that of the infinite gas, but for the kinetic energy.
    Accuracy: 1e-4 relative (tests/test_rpa.py).
    """
    gas = _natural(system)
    width = window_width(gas)
    inside = lambda q: np.exp(-((q / width) ** WINDOW_POWER))
    whole = infinite_waves(system.dim, system.polarization, _rounded(system.theta))
    long = cell_waves(gas)
    long = long._replace(weight=long.weight * inside(long.q))
    short = whole._replace(
        weight=whole.weight * (1 - inside(whole.q)),
        x=whole.x + np.where(whole.q[:, None] > width / 2, _of_kinetic_energy(gas, whole.q), 0.0),
    )
    parts = (_energies(system, waves) for waves in (whole, long, short))
    return Energies(*(all_of_it - one - other for all_of_it, one, other in zip(*parts)))


def _of_kinetic_energy(gas, q):
    """x of the cell less that of the infinite gas for large q: by <k^2>, in which they differ.

    An electron of wavevector k adds 2 Re 1 / (e + iw), e = q^2 / 2 + q k, to -chi_0.
    """
    levels = choose_cutoff(gas, MISSING).orbitals.energy
    of_cell = ideal.thermodynamics(levels, gas.beta, gas.spins).energy / gas.electrons
    more = 2 * (of_cell - ideal_infinite.thermodynamics(gas).energy)
    q = q[:, None]
    omega = 2 * np.pi * gas.temperature * matsubara(gas.theta).n
    curvature = 2 * np.real(1 / (q**2 / 2 + 1j * omega) ** 3)
    return fourier_transform(q, gas.dim) * gas.density * more / gas.dim * q**2 * curvature


def _natural(system):
    """The same gas at coupling 1 and the density where k_F = 1 / bohr."""
    rs, theta = system.of_unit_density.fermi_wavevector, _rounded(system.theta)
    return dataclasses.replace(system, rs=rs, theta=theta, coupling=1.0)


def _rounded(theta):
    """So that a Theta that comes from another r_s and T finds what is known of it."""
    return float(f"{theta:.12g}")


def _energies(system, waves):
    """The sum over wavevectors and frequencies."""
    gas = _natural(system)
    frequencies = matsubara(gas.theta)
    # v chi_0 is proportional to r_s at fixed q / k_F and Theta
    scale = system.coupling * system.rs / gas.rs
    x = scale * waves.x
    rings = np.real(_log1p(x) - x) @ frequencies.weight
    potential = np.real(-x * x / (1 + x)) @ frequencies.weight
    # at large w x is w_p^2 / w^2, by the f-sum rule, and each ring -w_p^4 / 2 w^4
    plasma = scale * gas.density * fourier_transform(waves.q, gas.dim) * waves.q**2
    tail = -((plasma / (2 * np.pi * gas.temperature) ** 2) ** 2) * zeta(4, frequencies.end)
    half_temperature = system.temperature / 2
    return Energies(
        float(half_temperature * waves.weight @ (rings + tail)),
        float(half_temperature * waves.weight @ (potential + 2 * tail)),
    )


def _log1p(x):
    """ln(1 + x), of a complex x too as accurate as x itself."""
    if not np.iscomplexobj(x):
        return np.log1p(x)
    return np.log1p(2 * x.real + np.abs(x) ** 2) / 2 + 1j * np.arctan2(x.imag, 1 + x.real)


def window_width(gas: System) -> float:
    """Width of the window in q, 1/bohr."""
    lattice, fermi = 2 * np.pi / gas.box, gas.fermi_wavevector
    return max(WINDOW_LATTICE[gas.dim] * lattice, WINDOW_FERMI[gas.dim] * fermi)


def _thermal(theta):
    """The wavevector beyond which electrons are rare, in units of k_F."""
    return np.sqrt(1 + theta)


@functools.lru_cache(maxsize=512)
def matsubara(theta: float) -> Frequencies:
    """Frequencies for the response of a gas.

    The first are taken one by one, the others in blocks by Gauss's quadrature for a sum over
    integers, as the response is smooth on the scale of the frequency itself.
    Accuracy: 1e-9 relative.
    """
    last = WAVEVECTOR_REACH * _thermal(theta)
    excitation = last**2 / 2 + last * _thermal(theta)
    largest = FREQUENCY_REACH * excitation / (np.pi * theta)
    nodes = [np.arange(FIRST_FREQUENCIES)]
    weights = [np.where(nodes[0] == 0, 1.0, 2.0)]
    end = FIRST_FREQUENCIES
    while end < largest:
        node, weight = gauss_sum(2 * end, FREQUENCY_NODES)
        nodes.append(end + node)
        weights.append(2 * weight)
        end *= 3
    return Frequencies(np.concatenate(nodes), np.concatenate(weights), end)


def gauss_sum(count: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a sum over 0 ... count - 1, exact for polynomials below degree 2 nodes.

    The polynomials orthogonal under such a sum are those of Chebyshev (Gram), of recurrence
    coefficients j^2 (count^2 - j^2) / 4 (4 j^2 - 1).
    Source: Golub and Welsch, Math. Comp. 23, 221 (1969), doi:10.1090/S0025-5718-69-99647-1.
    """
    j = np.arange(1, nodes)
    beside = np.sqrt(j**2 * (count**2 - j**2) / (4 * (4 * j**2 - 1.0)))
    matrix = np.diag(beside, 1) + np.diag(beside, -1)
    place, vectors = np.linalg.eigh(matrix)
    return place + (count - 1) / 2, count * vectors[0] ** 2


def _legendre(count):
    """Nodes and weights on 0 ... 1."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


@functools.lru_cache(maxsize=64)
def infinite_waves(dim: int, polarization: float, theta: float) -> Waves:
    """The response of infinitely many electrons on the nodes of an integral over q."""
    node, share = _legendre(WAVEVECTOR_NODES)
    # densest at q = 0, where v is singular
    last = WAVEVECTOR_REACH * _thermal(theta)
    q, width = last * node**2, 2 * last * node * share
    surface = {2: 2 * np.pi, 3: 4 * np.pi}[dim] / (2 * np.pi) ** dim
    density = {2: 1 / (2 * np.pi), 3: 1 / (3 * np.pi**2)}[dim] / (1 + polarization)
    weight = surface * q ** (dim - 1) * width / density
    omega = np.pi * theta * matsubara(theta).n
    chi = infinite_response(dim, polarization, theta, q, omega)
    return Waves(q, weight, -fourier_transform(q, dim)[:, None] * chi)


def infinite_response(
    dim: int, polarization: float, theta: float, q: np.ndarray, omega: np.ndarray
) -> np.ndarray:
    """chi_0(q, i omega) of infinitely many electrons, in atomic units at k_F = 1 / bohr.

    Args:
      dim, polarization, theta: of the gas.
      q: wavevectors, 1/bohr, not zero.                      [Q]
      omega: frequencies, hartree.                           [F]
    Returns:
      1 / (hartree bohr^d).                                  [Q, F]
    Accuracy: 1e-9 relative (tests/test_rpa.py).
    """
    temperature = theta / 2
    ground = {2: _ground_response_2d, 3: _ground_response_3d}[dim]
    chi = np.zeros((len(q), len(omega)))
    spins = Counter(eta for _, eta in chemical_potentials(dim, polarization, theta))
    for eta, alike in spins.items():
        for row, one in enumerate(q):
            level, weight = _fermi_levels(eta, one**2 / (8 * temperature))
            kappa = np.sqrt(2 * temperature * level)[:, None]
            z = (one**2 / 2 + 1j * omega) / (one * kappa)
            chi[row] += alike * weight @ ground(one, kappa, z)
    return chi


def _fermi_levels(eta, edge):
    """Levels over T and weights of the average over them.

    The parts end where the average has its peak and where the response is not smooth, at 2 kappa
    = q; near their ends nodes are dense.
    """
    low, high = max(0.0, eta - LEVEL_REACH), max(eta, 0.0) + LEVEL_REACH
    ends = np.array([low, eta - LEVEL_PEAK, eta + LEVEL_PEAK, edge, high])
    ends = np.sort(np.clip(ends, low, high))
    node, share = _legendre(LEVEL_NODES)
    length = np.diff(ends)[:, None]
    level = (ends[:-1, None] + length * node**2 * (3 - 2 * node)).ravel()
    weight = (length * share * 6 * node * (1 - node)).ravel()
    weight /= 4 * np.cosh((level - eta) / 2) ** 2
    counts = weight > NEGLIGIBLE * weight.max()  # those of parts of no length do not
    return level[counts], weight[counts]


def _ground_response_3d(q, kappa, z):
    """chi_0 of one spin at T = 0."""
    far = np.abs(z) > SERIES_FROM
    near = np.where(far, 2.0, z)
    closed = near + (1 - near**2) * np.log((near + 1) / (near - 1)) / 2
    # where the closed form cancels: sum of 2 / (2j + 1)(2j + 3) z^(2j + 1)
    inverse = 1 / z
    square = np.where(far, inverse**2, 0.0)
    series = np.zeros_like(square)
    for j in reversed(range(SERIES_TERMS)):
        series = series * square + 2 / ((2 * j + 1) * (2 * j + 3))
    whole = np.where(far, series * inverse, closed)
    return -(kappa**2) / (2 * np.pi**2 * q) * whole.real


def _ground_response_2d(q, kappa, z):
    """chi_0 of one spin at T = 0."""
    # z - sqrt(z^2 - 1) without its cancellation
    return -kappa / (np.pi * q) * (1 / (z + np.sqrt(z - 1) * np.sqrt(z + 1))).real


@functools.lru_cache(maxsize=64)
def cell_waves(gas: System) -> Waves:
    """The response of a cell on its wavevectors up to the end of the window."""
    lattice = 2 * np.pi / gas.box
    m, count = _stars(gas, int(WINDOW_END * window_width(gas) / lattice))
    q = lattice * np.linalg.norm(m, axis=1)
    omega = 2 * np.pi * gas.temperature * matsubara(gas.theta).n
    chi = cell_response(gas, m, omega)
    return Waves(q, count / gas.electrons, -fourier_transform(q, gas.dim)[:, None] * chi)


def cell_response(gas: System, m: np.ndarray, omega: np.ndarray) -> np.ndarray:
    """chi_0(q, i omega) of a cell.

    Args:
      gas: the cell; its r_s counts, its coupling does not.
      m: q = 2 pi m / L, integers, not zero.                 [Q, d]
      omega: frequencies, hartree, the first of them zero.   [F]
    Returns:
      1 / (hartree bohr^d); complex where the twist leaves no inversion symmetry.    [Q, F]
    """
    orbitals = choose_cutoff(gas, MISSING).orbitals
    unit, twist = (2 * np.pi / gas.box) ** 2, np.asarray(gas.twist)
    least = DEGENERATE * unit
    levels = padded(gas.beta * orbitals.energy)
    occupied = sum(np.asarray(occupation_numbers(levels, count)) for count in gas.spins)
    occupied = occupied[: len(orbitals.energy)]
    chi, symmetric = np.zeros((len(m), len(omega)), complex), _inversion(gas)
    for row, one in enumerate(m):
        # energies depend on the integer n m alone: of equal ones the occupations add
        along = orbitals.n @ one
        lowest = along.min()
        total = np.bincount(along - lowest, occupied)
        product = np.arange(len(total)) + lowest + one @ twist
        gain, loss = unit * (one @ one / 2 + product), unit * (one @ one / 2 - product)
        chi[row] = -_excitations(total, gain, omega, least)
        # the reverse: the same if k and -k are
        chi[row] += chi[row] if symmetric else -np.conj(_excitations(total, loss, omega, least))
        if np.any(equal := np.abs(gain) < least):
            level = lowest + np.flatnonzero(equal)
            chi[row, 0] -= gas.beta * np.sum(_elastic(gas)[np.isin(along, level)])
    chi /= gas.box**gas.dim
    return chi.real if symmetric else chi


def _excitations(occupied, energy, omega, least):
    """Sum of n / (e - iw); where both vanish the limit of all of them together is nothing.

    Args:
      occupied, energy: n and e.                             [J]
      omega: w.                                              [F]
      least: energies below count as zero.
    """
    square = energy[:, None] ** 2 + omega**2
    equal = square < least**2
    lorentz = np.where(equal, 0.0, 1 / np.where(equal, 1.0, square))
    return (occupied * energy) @ lorentz + 1j * omega * (occupied @ lorentz)


@functools.lru_cache(maxsize=4)
def _elastic(gas):
    """<n_k (1 - n_k')> of another k' of the same energy, summed over spins.  [M]"""
    total = 0.0
    for count in gas.spins:
        orbitals = choose_cutoff(gas, MISSING).orbitals
        shell, occupation, pairs = shell_pairs(gas.beta * orbitals.energy, count)
        total = total + (occupation - np.diagonal(pairs))[shell]
    return total


def _inversion(gas):
    """Whether the plane waves are the same after k -> -k in any direction."""
    return all(2 * angle % 1 == 0 for angle in gas.twist)


def _stars(gas, highest):
    """Wavevectors up to a length, 2 pi / L, one of each set that symmetry makes equal.

    Returns:
      Integers, and how many they stand for.                 [Q, d], [Q]
    """
    axes = [np.arange(-highest, highest + 1)] * gas.dim
    m = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, gas.dim)
    square = np.sum(m**2, axis=1)
    m = m[(0 < square) & (square <= highest**2)]
    alike = len(set(gas.twist)) == 1
    ordered = lambda vectors: np.sort(vectors, axis=1) if alike else vectors
    if _inversion(gas):
        _, first, count = np.unique(ordered(np.abs(m)), axis=0, return_index=True, return_counts=True)
        return m[first], count
    # f has both signs of w, so that q and -q are the same
    place = (2 * highest + 1) ** np.arange(gas.dim)
    code = np.maximum((ordered(m) + highest) @ place, (ordered(-m) + highest) @ place)
    _, first, count = np.unique(code, return_index=True, return_counts=True)
    return m[first], count
