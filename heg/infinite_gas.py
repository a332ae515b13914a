r"""The infinite gas in three dimensions: published exchange-correlation free energies, and the leading size effect.

The free energy f_xc(r_s, Theta, zeta) is the fit of Groth et al., Phys. Rev. Lett. 119, 135001 (2017),
doi:10.1103/PhysRevLett.119.135001, as the package eminus has it.  A cell of N electrons lacks the interaction at
wavevectors that do not fit in.  To leading order that is the plasmon's share of the potential energy,

.. math:: v_\infty - v_N \approx \frac{1}{2 L^3} \lim_{q \to 0} v(q) S(q)
                        = \frac{\omega_p}{4 N} \coth\frac{\beta\omega_p}{2}

(Brown, Clark, DuBois and Ceperley, Phys. Rev. Lett. 110, 146405 (2013), doi:10.1103/PhysRevLett.110.146405), and since
v = 2 f + r_s df/dr_s at fixed T, that of the free energy is r_s^{-2} times the integral of r_s (v_inf - v_N).  What
the kinetic energy of the ideal gas lacks in a cell is not part of f_xc; the twist takes most of the rest.
"""

import dataclasses

import numpy as np
from scipy.integrate import quad

from heg.structure import plasma_frequency
from heg.system import System


def reference_fxc(system: System) -> float:
    """f_xc of the infinite gas, hartree per electron.

    Raises:
      ImportError: eminus is not installed (extra `reference`).
      ValueError: two dimensions, or a coupling that is not 1: the fit is for neither.
    Accuracy: that of the fit, about 0.3 % of f_xc; agrees with the published code to 2e-8 (tests/test_infinite_gas.py).
    """
    # imported here, so that a measurement without it needs no eminus
    from eminus.xc.lda_xc_gdsmfb import lda_xc_gdsmfb_spin

    if system.dim != 3 or system.coupling != 1:
        raise ValueError("the published f_xc is that of three dimensions at coupling 1")
    density = system.electrons / system.box**3
    return float(lda_xc_gdsmfb_spin(np.array([density]), np.array([system.polarization]), T=system.temperature)[0][0])


def potential_correction(system: System) -> float:
    """v_inf - v_N to leading order, hartree per electron; three dimensions."""
    if not system.coupling:
        return 0.0
    frequency = plasma_frequency(system, 1.0)
    return frequency / (4 * system.electrons) / np.tanh(system.beta * frequency / 2)


def free_energy_correction(system: System) -> float:
    """f_inf - f_N to leading order, hartree per electron; three dimensions, same N, zeta and temperature in hartree."""

    def at(rs):
        gas = dataclasses.replace(system, rs=rs, theta=system.theta * (rs / system.rs) ** 2)
        return rs * potential_correction(gas)

    return quad(at, 0, system.rs)[0] / system.rs**2
