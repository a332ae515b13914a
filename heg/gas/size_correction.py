r"""From a cell to the infinite gas: what the size of the cell takes from F.

To first order in the interaction the energy is known exactly, in the cell (`heg.gas.first_order`)
and without it (`heg.gas.ideal_infinite`).  Beyond, the sum over wavevectors has no q = 0, and
shells of momentum are full or open where the infinite gas has a smooth Fermi surface.  Both are in
the random-phase approximation (`heg.gas.rpa`).  It is exact for q -> 0 and to leading order at high
density, in the cell as well as without it.  Next to its rings comes second-order exchange
(`heg.gas.screened_exchange`), of which the cell lacks q = 0 as well:

.. math:: f_\infty - f_N \approx v_{1,\infty} - v_{1,N} + f_{RPA,\infty} - f_{RPA,N} +
          f_{2x,\infty} - f_{2x,N} .

The error is the root of the sum of two squares.  One is half of the last difference.  The other is
the change by another form of the rings,

.. math:: \frac12 \int_0^1 d\lambda \Big[ \int \frac{d^dq}{(2\pi)^d} - \frac{1}{L^d} \sum_{q \ne 0}
          \Big] v(q) \big(S_\lambda(q) - S_0(q)\big),
          \qquad \frac{1}{S_\lambda} = \frac{1}{S_0} + \frac{1}{S_{plasmon}} .

It knows no shells: S_0 is that of the infinite gas.  S_lambda is exact for q -> 0, where one
plasmon takes all, and that of Debye and Hueckel in a classical gas.

Source: with S_plasmon alone the bracket is what Brown, Clark, DuBois and Ceperley, Phys. Rev. Lett.
110, 146405 (2013), doi:10.1103/PhysRevLett.110.146405, add at finite temperature and Chiesa et al.,
Phys. Rev. Lett. 97, 076404 (2006), doi:10.1103/PhysRevLett.97.076404, at zero; in two dimensions
Drummond et al., Phys. Rev. B 78, 125106 (2008), doi:10.1103/PhysRevB.78.125106.  At high density
that is too much: the wavelength of the plasmon's screening exceeds the cell, as Dornheim et al.,
Phys. Rev. Lett. 117, 156403 (2016), doi:10.1103/PhysRevLett.117.156403, point out.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from heg.gas import rpa, screened_exchange
from heg.gas.coulomb import fourier_transform, madelung
from heg.gas.first_order import first_order
from heg.gas.ideal_infinite import exchange, structure_factor
from heg.gas.missing_waves import missing_waves
from heg.gas.plasma import Plasma
from heg.gas.plasmon import plasmon_structure
from heg.gas.quadrature import gauss_legendre
from heg.gas.system import System

NODES = 24  # of the integral over the coupling
TINY = 1e-300  # keeps 0 / 0 away
STEP = 1e-3  # relative, of the derivative with respect to temperature
UNSURE = 0.5  # share of second-order exchange that counts as error


class SizeCorrection(NamedTuple):
    """Energies to add to those of a cell, hartree per electron.

    The difference of the ideal gases is not part of them.

    Attributes:
      free_energy: exchange and correlation.
      exchange: the first order, exact.
      potential, kinetic: their parts of the energy.
    """

    free_energy: float
    exchange: float
    potential: float
    kinetic: float


class Interpolation(NamedTuple):
    """Energies beyond first order that a cell lacks, hartree per electron."""

    free_energy: float
    potential: float


@functools.singledispatch
def size_correction(system: System) -> SizeCorrection:
    """f_inf - f_N and the parts of the energy that belong to it, at the same r_s, Theta and zeta.

    The twist is that of the cell.
    Accuracy: what the random-phase approximation leaves out, see `uncertainty`; numbers to 1e-4.
    """
    first = _exchange(system)
    rest = correlation_correction(system)
    return SizeCorrection(
        free_energy=first + rest.free_energy,
        exchange=first,
        potential=first + rest.potential,
        kinetic=_entropy_energy(_exchange, system) + rest.kinetic,
    )


def correlation_correction(system: System) -> SizeCorrection:
    """The part beyond first order."""
    lacked = missing(system)
    entropy_energy = _entropy_energy(lambda gas: missing(gas).free_energy, system)
    return SizeCorrection(
        free_energy=lacked.free_energy,
        exchange=0.0,
        potential=lacked.potential,
        kinetic=lacked.free_energy - lacked.potential + entropy_energy,
    )


def missing(system: System) -> rpa.Energies:
    """What the cell lacks beyond first order: rings, and second-order exchange."""
    rings = rpa.missing(system)
    second_order_exchange = screened_exchange.missing(system)
    return rings.plus(second_order_exchange)


def _exchange(system):
    """The energy that the cell lacks to first order."""
    return system.coupling * exchange(system) - first_order(system)


def _entropy_energy(free_energy, system):
    """T s = -T df/dT at fixed r_s."""
    # a central difference in ln Theta
    gas = system.inside_by(STEP)
    hotter = dataclasses.replace(gas, theta=gas.theta * (1 + STEP))
    colder = dataclasses.replace(gas, theta=gas.theta * (1 - STEP))
    rise = free_energy(hotter) - free_energy(colder)
    return -rise / (2 * STEP)


@functools.singledispatch
def uncertainty(system: System) -> float:
    """Error of the correction of F, hartree per electron; see the docstring of the module.

    It is cautious.  For 66 electrons at r_s = 20 the potential energies of the cell and of the
    infinite gas are known: there the correction is right within 0.03 mHa, and the interpolation off
    by 0.1 (tests/gas/test_size_correction.py).
    """
    return float(np.hypot(beyond_interpolation(system), unsure_exchange(system)))


def beyond_interpolation(system: System) -> float:
    """What the cell lacks of rings less that by the interpolation of S, hartree per electron."""
    return rpa.missing(system).free_energy - interpolated(system).free_energy


def unsure_exchange(system: System) -> float:
    """The part of the correction for second-order exchange that counts as error, hartree."""
    return UNSURE * screened_exchange.missing(system).free_energy


def long_wave_structure(
    system: System, q: Float[np.ndarray, " waves"], ideal: Float[np.ndarray, " waves"]
) -> Float[np.ndarray, " waves"]:
    """S of all electrons for small q > 0 (1/bohr), from S_0 (`ideal`) and the plasmon's."""
    if not system.coupling:
        return ideal
    return 1 / (1 / ideal + 1 / plasmon_structure(system, q))


def interpolated(system: System) -> Interpolation:
    """F and potential energy beyond first order that a cell lacks by the interpolation of S.

    They do not depend on the twist and the shells of the cell.
    """
    q, half_v = missing_waves(system)
    ideal = structure_factor(system, q)

    def potential(share):
        """The potential energy at a share of the coupling."""
        gas = dataclasses.replace(system, coupling=share * system.coupling)
        structure = long_wave_structure(gas, q, ideal)
        return half_v @ (structure - ideal)

    # by t, the square root of the share, in which S_plasmon is smooth: dlambda = 2 t dt
    nodes, weights = gauss_legendre(NODES)
    by_share = np.array([potential(node**2) for node in nodes])
    free_energy = 2 * (weights * nodes) @ by_share
    return Interpolation(float(free_energy), float(potential(1.0)))


@size_correction.register
def _(system: Plasma) -> SizeCorrection:
    r"""The energies that a classical cell lacks to leading order in 1/N.

    The random-phase approximation is that of Debye and Hueckel.  With y = beta n v(q),

    .. math:: f_\infty - f_N \approx \frac{T}{2n} \Big[ \int \frac{d^dq}{(2\pi)^d} - \frac{1}{L^d}
              \sum_{q \ne 0} \Big] \ln(1 + y) , \qquad
              u_\infty - u_N \approx \frac{T}{2n} [\dots] \frac{y}{1 + y} .

    The Madelung term of the cell is the bracket of -y, and cancels.  What is left comes from small
    q, where S(q) -> 1 / y holds at any Gamma: perfect screening.
    """
    q, half_v = missing_waves(system)
    v = fourier_transform(q, system.dim)
    y = system.beta * system.density * system.coupling * v
    # half_v is half of coupling v: T / 2n ln(1 + y) is half_v ln(1 + y) / y, and so on
    # log1p(y) / y is one without interaction, where half_v is zero
    by_free_energy = np.log1p(y) / np.maximum(y, TINY)
    by_potential = 1 / (1 + y)
    return SizeCorrection(
        free_energy=float(half_v @ by_free_energy),
        exchange=-system.coupling * madelung(system) / 2,
        potential=float(half_v @ by_potential),
        kinetic=0.0,
    )


@uncertainty.register
def _(system: Plasma) -> float:
    """Zero: the leading order has no second form to compare with (docs/theory.md, section 19)."""
    return 0.0
