r"""Local energy E_loc(K, x) = (H Psi_K)(x) / Psi_K(x), hartree per cell."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from heg.gas.coulomb import coulomb_energy
from heg.gas.system import System


class LocalEnergy(NamedTuple):
    """The two terms of E_loc, hartree per cell.

    Attributes:
      kinetic: complex; the imaginary part averages to zero.
      potential: coupling times the Coulomb energy, Madelung term included, real.
    """

    kinetic: jax.Array
    potential: jax.Array

    @property
    def total(self) -> jax.Array:
        """E_loc, complex."""
        return self.kinetic + self.potential


def make_local_energy(system: System, kinetic_energy: Callable) -> Callable:
    """LocalEnergy and z as functions of (flow params, x [N, d], state [N]), from
    `make_kinetic_energy`'s."""

    def local_energy(params, x, state):
        kinetic, z = kinetic_energy(params, x, state)
        return LocalEnergy(kinetic, system.coupling * coulomb_energy(x, system)), z

    return local_energy
