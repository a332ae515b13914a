r"""From a cell to the infinite gas: what the size of the cell takes from F.

A cell of N electrons misses two things.  To first order in the interaction its energy is known exactly, in the cell
(heg.first_order) and without it (heg.ideal_infinite).  Beyond, correlations change S(q) from S_0 of the ideal gas,
and the cell has a sum over its wavevectors without q = 0 in place of an integral:

.. math:: f_\infty - f_N \approx v_{1,\infty} - v_{1,N} + \frac12 \int_0^1 d\lambda \Big[ \int \frac{d^dq}{(2\pi)^d}
          - \frac{1}{L^d} \sum_{q \ne 0} \Big] v(q) \big(S_\lambda(q) - S_0(q)\big),
          \qquad \frac{1}{S_\lambda} = \frac{1}{S_0} + \frac{1}{S_{plasmon}} .

What remains of the difference comes from q = 0 alone, where the integrand is not smooth, so that a smooth factor that
is flat there, exp(-q^4), may take large q away.
S_lambda is exact for q -> 0, where one plasmon takes all, and that of Debye and Hueckel in a classical gas.  With
S_plasmon alone the bracket is what Brown, Clark, DuBois and Ceperley, Phys. Rev. Lett. 110, 146405 (2013),
doi:10.1103/PhysRevLett.110.146405, add at finite temperature and Chiesa et al., Phys. Rev. Lett. 97, 076404 (2006),
doi:10.1103/PhysRevLett.97.076404, at zero; in two dimensions Drummond et al., Phys. Rev. B 78, 125106 (2008),
doi:10.1103/PhysRevB.78.125106.  At high density that is too much: the wavelength of the plasmon's screening exceeds the
cell, as Dornheim et al., Phys. Rev. Lett. 117, 156403 (2016), doi:10.1103/PhysRevLett.117.156403, point out.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from heg.ewald import fourier_transform
from heg.first_order import first_order
from heg.ideal_infinite import exchange, structure_factor
from heg.structure import plasmon_structure
from heg.system import System

NODES = 24  # of the integral over the coupling; four times as many over q
WIDTH, CUTOFF = 4.0, 2.5  # of the smooth factor, in units of 2 pi / L, and where it ends, in units of its width
LEAST_SHARE = 0.02  # of the plasmon in 1/S at the shortest wavevector, for the uncertainty
STEP = 1e-3  # relative, of the derivative with respect to temperature


class SizeCorrection(NamedTuple):
    """What to add to the energies of a cell, hartree per electron; that of the ideal gas is not part of it.

    Attributes:
      free_energy: exchange and correlation.
      exchange: the first order, exact.
      potential, kinetic: their parts of the energy.
    """

    free_energy: float
    exchange: float
    potential: float
    kinetic: float


def size_correction(system: System) -> SizeCorrection:
    """f_inf - f_N and what belongs to it, at the same r_s, Theta and zeta; the twist is that of the cell.

    Accuracy: that of the leading order in 1 / N; the integrals to 1e-5.
    """
    of_exchange = lambda gas: system.coupling * exchange(gas) - first_order(gas)
    first, rest = of_exchange(system), correlation_correction(system)
    up, down = (of_exchange(gas) for gas in _hotter_and_colder(system))
    of_entropy = -(up - down) / (2 * STEP)
    return SizeCorrection(first + rest.free_energy, first, first + rest.potential, of_entropy + rest.kinetic)


def correlation_correction(system: System) -> SizeCorrection:
    """The part beyond first order."""
    free_energy, potential = beyond_first_order(system)
    up, down = (beyond_first_order(gas)[0] for gas in _hotter_and_colder(system))
    of_entropy = -(up - down) / (2 * STEP)
    return SizeCorrection(free_energy, 0.0, potential, free_energy - potential + of_entropy)


def _hotter_and_colder(system):
    gas = system.inside_by(STEP)
    return [dataclasses.replace(gas, theta=gas.theta * (1 + sign * STEP)) for sign in (1, -1)]


def long_wave_structure(system: System, q: np.ndarray, ideal: np.ndarray, softness: float = 0.0) -> np.ndarray:
    """S of all electrons for small q > 0 (1/bohr), from S_0 (`ideal`) and the plasmon's, which `softness` lets fall."""
    if not system.coupling:
        return ideal
    return 1 / (1 / ideal + 1 / ((1 + softness * q**2) * plasmon_structure(system, q)))


def uncertainty(system: System, q: float, measured: float) -> float:
    """Of the size correction of F: how much another form of S for long waves changes it, hartree per electron.

    In that form the plasmon's share of 1/S falls with q, so that S goes through what was measured.

    Args:
      q: the shortest wavevector of the cell, 1/bohr.
      measured: S of all electrons there.
    """
    if not system.coupling:
        return 0.0
    at = np.array([q])
    share = ((1 / measured - 1 / structure_factor(system, at)) * plasmon_structure(system, at))[0]
    softness = (1 / np.clip(share, LEAST_SHARE, 1.0) - 1) / q**2
    return abs(beyond_first_order(system)[0] - beyond_first_order(system, softness)[0])


def beyond_first_order(system: System, softness: float = 0.0) -> tuple[float, float]:
    """What F and the potential energy of the cell lack beyond first order, hartree per electron.

    Args:
      softness: b, bohr^2: the plasmon's share of 1/S falls as 1 / (1 + b q^2).
    """
    q, half_v = missing_waves(system)
    ideal = structure_factor(system, q)
    share_of = lambda share: dataclasses.replace(system, coupling=share * system.coupling)
    missed = lambda share: half_v @ (long_wave_structure(share_of(share), q, ideal, softness) - ideal)
    # the coupling enters as its square root
    nodes, weights = _gauss(NODES)
    of_share = np.array([missed(node**2) for node in nodes])
    return float(2 * (weights * nodes) @ of_share), float(missed(1.0))


def missing_waves(system: System) -> tuple[np.ndarray, np.ndarray]:
    """Wavevectors (1/bohr) and weights for half the integral less half the sum of v(q) times a function of |q|.

    Accuracy: 1e-5 for functions that are smooth but at q = 0; that of 1 gives -v_M / 2.
    """
    unit, dim = 2 * np.pi / system.box, system.dim
    highest = int(CUTOFF * WIDTH)
    n = np.stack(np.meshgrid(*[np.arange(-highest, highest + 1)] * dim), axis=-1).reshape(-1, dim)
    size, count = np.unique(np.sum(n**2, axis=1), return_counts=True)
    nodes, weights = _gauss(4 * NODES)
    surface = {2: 2 * np.pi, 3: 4 * np.pi}[dim] / (2 * np.pi) ** dim
    q = unit * np.append(highest * nodes, np.sqrt(size[1:]))
    volume = np.append(surface * q[: len(nodes)] ** (dim - 1) * weights * highest * unit, -count[1:] / system.box**dim)
    smooth = np.exp(-((q / (WIDTH * unit)) ** 4))
    return q, system.coupling / 2 * volume * smooth * fourier_transform(q, dim)


def _gauss(count):
    """Nodes and weights on 0 ... 1."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2
