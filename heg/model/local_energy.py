"""Local energy E_loc(K, x) = (H Psi_K)(x) / Psi_K(x), hartree per cell."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from heg.gas.coulomb import coulomb_energy
from heg.gas.system import System


class LocalEnergy(NamedTuple):
    """The two terms of E_loc, hartree per cell.

    Attributes:
      kinetic: complex; the imaginary part averages to zero.
      potential: coupling times the Coulomb energy, Madelung term included, real.
    """

    kinetic: Complex[Array, "*batch"]
    potential: Float[Array, "*batch"]

    @property
    def total(self) -> Complex[Array, "*batch"]:
        """E_loc."""
        return self.kinetic + self.potential

    def totals(self, temperature: float, log_p: Float[Array, "*batch"]) -> dict[str, jax.Array]:
        """F, E, kinetic, potential (hartree) and S (k_B) of each sample, per cell.

        Args:
          temperature: T, hartree.
          log_p: ln p(K).
        """
        kinetic = jnp.real(self.kinetic)
        return {
            "F": temperature * log_p + kinetic + self.potential,
            "E": kinetic + self.potential,
            "kinetic": kinetic,
            "potential": self.potential,
            "S": -log_p,
        }

    def weights(self, temperature: float) -> dict[str, jax.Array]:
        """What lifts the bound by reweighting, per cell; nothing, as a density matrix has none."""
        return {}


def make_local_energy(system: System, kinetic_energy: Callable) -> Callable:
    """Local energy of the wavefunction.

    Args:
      system: gives the coupling and the Coulomb energy.
      kinetic_energy: of heg.model.kinetic.make_kinetic_energy.
    Returns:
      A function of (flow params, x [N, d], state [N]): LocalEnergy, and z as the flow gives it.
    """

    def local_energy(params, x, state):
        kinetic, z = kinetic_energy(params, x, state)
        potential = system.coupling * coulomb_energy(x, system)
        return LocalEnergy(kinetic, potential), z

    return local_energy
