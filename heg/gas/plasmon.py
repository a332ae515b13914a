"""The plasmon of the electron gas, which exhausts the f-sum rule at long wavelengths."""

import functools
from typing import TypeVar

import numpy as np

from heg.gas.coulomb import fourier_transform
from heg.gas.plasma import Plasma
from heg.gas.system import System

Wavevectors = TypeVar("Wavevectors", float, np.ndarray)


def plasma_frequency(system: System, q: Wavevectors) -> Wavevectors:
    """w(q) for q -> 0: w^2 = n coupling v(q) q^2, 4 pi n in three dimensions, 2 pi n q in two.

    Args:
      system: the gas.
      q: 1/bohr.
    Returns:
      Hartree, in the shape of q.
    Source: Giuliani and Vignale, Quantum Theory of the Electron Liquid (Cambridge, 2005),
      chapter 5.
    """
    v = fourier_transform(q, system.dim)
    return np.sqrt(system.coupling * system.density * v) * q


@functools.singledispatch
def plasmon_structure(system: System, q: Wavevectors) -> Wavevectors:
    r"""The exact S(q) for q -> 0: (q^2 / 2 w) coth(beta w / 2), w the plasma frequency of q.

    One plasmon exhausts the f-sum rule there.

    Args:
      system: the gas.
      q: 1/bohr, not zero.
    Source: Brown et al., Phys. Rev. Lett. 110, 146405 (2013), doi:10.1103/PhysRevLett.110.146405.
    """
    frequency = plasma_frequency(system, q)
    quanta = np.tanh(system.beta * frequency / 2)  # one over coth
    return q**2 / (2 * frequency) / quanta


@plasmon_structure.register
def _(system: Plasma, q: Wavevectors) -> Wavevectors:
    """The classical limit q^2 / (beta w^2), perfect screening."""
    frequency = plasma_frequency(system, q)
    return q**2 / (system.beta * frequency**2)
