r"""The density of the classical plasma, in the terms of a wavefunction.

.. math:: p(x) = \frac{1}{L^{dN}} \Big|\det\frac{\partial z}{\partial x}\Big| = |\Psi(x)|^2 ,
          \qquad \ln \Psi = \tfrac12 \ln p

z = f(x) is uniform in the cell, p is normalised and drawn exactly, and there is one state K.  Then

.. math:: \partial_\theta F = 2\,\mathrm{Re}\,\mathbb{E}[(F_{loc} - b)^* \partial_\theta \ln\Psi],
          \qquad F_{loc}(x) = T \ln(p(x) L^{dN}) + \lambda V(x) ,

which is the flow's gradient of the quantum gas with F_loc in place of the local energy
(heg.training.free_energy): T ln p stands where the kinetic energy stands.

It is a bound, F >= -T ln E_p[e^{-beta F_loc}], and the right side is exact for any p.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from heg.gas.coulomb import coulomb_energy
from heg.gas.system import System
from heg.model.flow import Flow
from heg.model.local_energy import LocalEnergy
from heg.model.wavefunction import score_through_flow


class ClassicalEnergy(LocalEnergy):
    """The two terms of F_loc, hartree per cell; `total` is F_loc.

    `kinetic` is T ln(p L^{dN}), in the place of a kinetic energy; its imaginary part is zero.
    """

    def totals(self, temperature: float, log_p: Float[Array, "*batch"]) -> dict[str, jax.Array]:
        """F, E, potential (hartree) and S (k_B) beyond the ideal gas of each sample, per cell.

        Args:
          temperature: T, hartree.
          log_p: ln p of the one state, zero.
        """
        free = jnp.real(self.kinetic)
        return {
            "F": free + self.potential,
            "E": self.potential,
            "kinetic": jnp.zeros_like(free),
            "potential": self.potential,
            "S": -free / temperature - log_p,
        }

    def weights(self, temperature: float) -> dict[str, jax.Array]:
        """-beta F_loc and the potential energy that it weights, hartree, per cell."""
        return {
            "log_weight": -jnp.real(self.total) / temperature,
            "weighted_potential": self.potential,
        }


@dataclasses.dataclass(frozen=True)
class OneState:
    """p(K) of a plasma: all electrons in the constant function, without parameters.

    Attributes:
      electrons: N.
    """

    electrons: int

    def init(self, key: jax.Array) -> dict:
        """No parameters."""
        return {}

    def log_prob(self, params: dict, state: Int[Array, " electrons"]) -> Float[Array, ""]:
        """ln 1."""
        return jnp.zeros(())

    def sample(self, params: dict, key: jax.Array) -> Int[Array, " electrons"]:
        """The state."""
        return jnp.zeros(self.electrons, jnp.int32)


def make_log_root(system: System, flow: Flow) -> Callable:
    """ln Psi = (ln p) / 2, complex, as a function of (flow params, x [N, d], state [N])."""

    def log_root(params, x, state):
        _, log_jacobian = _image(flow, params, x)
        # ln p = ln|det dz/dx| - d N ln L
        coordinates = system.dim * system.electrons
        log_volume = coordinates * jnp.log(system.box)
        return (log_jacobian - log_volume) / 2 + 0j

    return log_root


def make_root_score(flow: Flow) -> Callable:
    """Derivatives of ln Psi, a heg.model.wavefunction.Score of (flow params, x, state)."""

    def of_uniform_density(z, state):
        return jnp.zeros_like(z) + 0j

    return score_through_flow(flow, of_uniform_density)


def make_local_free_energy(system: System, flow: Flow) -> Callable:
    """F_loc as a function of (flow params, x [N, d], state [N]).

    Returns:
      A function whose value is the ClassicalEnergy, and z as the flow gives it.
    """

    def local_free_energy(params, x, state):
        z, log_jacobian = _image(flow, params, x)
        potential = system.coupling * coulomb_energy(x, system)
        # T ln(p L^{dN}), of the type of a kinetic energy
        free = system.temperature * log_jacobian + 0j
        return ClassicalEnergy(free, potential), z

    return local_free_energy


def _image(flow, params, x):
    """z and ln|det dz/dx|."""
    z, jacobians = flow.forward(params, x)
    _, log_jacobians = jnp.linalg.slogdet(jacobians)
    return z, jnp.sum(log_jacobians)
