r"""The classical one-component plasma: the gas in the limit of high temperature.

For Theta -> infinity at fixed Gamma the electrons become distinguishable point charges on a uniform
background.  Their kinetic energy separates: what is left is the density p of their positions,

.. math:: F[p] = \int p(x)\, [T \ln (p(x)\, L^{dN}) + \lambda V(x)]\, dx ,

the free energy beyond that of the classical ideal gas.  Only Gamma = lambda / (r_s T) matters.  The
units here are r_s = 1 bohr and T = 1 hartree, so that lambda = Gamma: F is beta f_exc, in a cell
without interaction exactly zero, and plasmas that differ by Gamma alone share what is compiled.

The functions of heg.gas.ideal that depend on the kind of gas are registered here for the plasma.

Source: Baus and Hansen, Phys. Rep. 59, 1 (1980), doi:10.1016/0370-1573(80)90022-8.
"""

import dataclasses
import math
from typing import Any

import jax

from heg.gas.ideal import Cutoff, choose_cutoff, ideal_reference, system_facts
from heg.gas.plane_waves import plane_waves
from heg.gas.system import System
from heg.statistics import Estimate


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class Plasma(System):
    """A classical plasma of one kind of electrons; `plasma` makes it.

    Attributes:
      n_up, n_down: N and 0.
      dim: 2 or 3; the interaction is 1/r in both.
      rs: 1 bohr, the unit of length.
      theta: 1 / E_F, which is a temperature of 1 hartree.
      twist: zero.
      coupling: Gamma.
    """

    @property
    def temperature(self) -> float:
        """T, the unit of energy."""
        return 1.0

    @property
    def energy_of_flow(self) -> float:
        """2 T: the curvature of F at its minimum is twice that times the metric of sqrt(p)."""
        return 2 * self.temperature

    @property
    def step_scale(self) -> float:
        """sqrt(N) / 2: the way from uniform electrons to a liquid is long.

        In the metric of the Fisher matrices its length goes as the square root of a relative
        entropy, and that as N.  The factor is measured: for N = 54 and Gamma = 5 the bound
        with size correction is -3.121 T after 40 such steps, -3.050 T after 100 of the quantum
        gas's.
        """
        return math.sqrt(self.electrons) / 2

    @property
    def has_second_order(self) -> bool:
        """False: one state K is all; what the bound misses is found by reweighting."""
        return False

    @property
    def point(self) -> dict[str, float]:
        """Gamma by its name."""
        return {"Gamma": self.coupling}


def plasma(electrons: int, dim: int, gamma: float) -> Plasma:
    """The classical plasma of N electrons at a coupling parameter.

    Args:
      electrons: N.
      dim: 2 or 3.
      gamma: Gamma = 1 / (r_s T) in hartree atomic units.
    Raises:
      ValueError: a value is impossible.
    """
    fermi_energy = System(electrons, 0, dim, rs=1.0, theta=1.0).fermi_energy
    return Plasma(electrons, 0, dim, rs=1.0, theta=1 / fermi_energy, coupling=gamma)


@choose_cutoff.register
def _(system: Plasma, tolerance: float, fewest: int = 1) -> Cutoff:
    """The constant function alone: the coordinates of the plasma before the flow are uniform."""
    return Cutoff(orbitals=plane_waves(system, system.fermi_energy).first(1), missing=0.0)


@ideal_reference.register
def _(system: Plasma) -> dict[str, Estimate]:
    """Zero: all quantities are those beyond the classical ideal gas."""
    return dict.fromkeys(("F", "E", "kinetic", "potential", "S"), Estimate(0.0, 0.0))


@system_facts.register
def _(system: Plasma, cutoff: Cutoff) -> dict[str, Any]:
    """The plasma in numbers, units in the names."""
    return {
        "statistics": "classical",
        "gamma": system.coupling,
        "n_up": system.n_up,
        "n_down": system.n_down,
        "dim": system.dim,
        "rs_bohr": system.rs,
        "temperature_ha": system.temperature,
        "twist": list(system.twist),
        "coupling": system.coupling,
        "box_bohr": system.box,
    }
