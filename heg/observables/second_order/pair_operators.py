r"""Operators of pairs of quasi-particles: their local values at z, and their matrix elements.

Given K, the coordinates z = f(x) are distributed as the bare determinant Phi_K, whatever the flow.
So the local value C = (O Phi_K)(z) / Phi_K(z) of an operator O has an exact mean, <K|O|K>, and
exact matrix elements to other determinants. What goes along with C in the local energy need not be
sampled (heg.observables.second_order.perturbation). The operators are

.. math::
   U &= \lambda V(z), \\
   A_h &= \sum_{|n_q|^2 = h} \sum_{i \ne j} e^{iq(z_i - z_j)}, \\
   B_h &= [T, A_h], \qquad
   \frac{B_h \Phi}{\Phi} = \sum_q q^2 A_q - \sum_i \nabla_i A_h \cdot \nabla_i \ln \Phi ,

A and B once for pairs of equal and once for pairs of opposite spin. B is what a Jastrow factor
e^{-A} would add to the local energy; a flow of pairs has no such factor, so that B explains most of
what the flow leaves.

Between K and a determinant K' in which two electrons have exchanged the momentum q, a pair operator
with the Fourier coefficients u(q) has the element u(q) - u(q'), the second term for equal spins
alone, q' being the transfer of the exchanged pair; [T, A] has that of A times the difference of the
kinetic energies (Slater and Condon's rules).
Source of the rules: Condon, Phys. Rev. 36, 1121 (1930), doi:10.1103/PhysRev.36.1121.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from heg.gas.coulomb import fourier_transform
from heg.gas.plane_waves import Orbitals, make_waves
from heg.gas.system import System
from heg.model.kinetic import log_determinant_derivatives
from heg.training.control_variates import make_controls

LONGEST = 2.5  # reciprocal vectors of the operators A and B, in units of k_F
FEWEST = 3  # shells of these at least


class Waves(NamedTuple):
    """Reciprocal vectors of the operators A and B; of n and -n one.

    Attributes:
      n: integer vectors.                                   [Q, d]
      size: |n|^2 of each shell.                            [H]
      member: 1 where a vector belongs to a shell.          [H, Q]
    """

    n: np.ndarray
    size: np.ndarray
    member: np.ndarray


def waves_of(system: System) -> Waves:
    """The shortest shells, up to LONGEST k_F."""
    gas = system.of_unit_density
    reach = LONGEST * gas.fermi_wavevector * gas.box / (2 * np.pi)
    span = int(max(reach, FEWEST)) + 1
    n = np.indices((2 * span + 1,) * system.dim).reshape(system.dim, -1).T - span
    n = n[len(n) // 2 + 1 :]  # in order, so that the opposites are in front
    squared = np.sum(n**2, axis=1)
    shells = np.unique(squared)
    shells = shells[: max(FEWEST, np.searchsorted(shells, reach**2, side="right"))]
    n, squared = n[squared <= shells[-1]], squared[squared <= shells[-1]]
    return Waves(n, shells, (squared == shells[:, None]) * 1.0)


def count_operators(system: System) -> int:
    """U, then A and B of equal and, where there are both spins, of opposite spins."""
    return 1 + 2 * len(system.spins) * len(waves_of(system).size)


def usable_operators(system: System) -> np.ndarray:
    """Which operators can take noise out of the local energy.  [O] bool

    Where opposite spins meet in two dimensions, U goes as 1 / r and its variance diverges. Without
    two electrons of equal spin, A and B of equal spins are zero.
    """
    usable = np.ones(count_operators(system), bool)
    usable[0] = system.dim == 3 or not system.n_down
    if system.n_up == 1:
        usable[1 : 1 + 2 * len(waves_of(system).size)] = False
    return usable


def make_pair_operators(system: System, orbitals: Orbitals) -> Callable:
    """Local values less their means, as a function of (z [N, d], state [N]).  [O] complex

    First U, then A and B by shell for equal spins, then for opposite ones; zero on average in every
    K. U is in hartree, A is a number, B in hartree.
    """
    shells = waves_of(system)
    unit = 2 * np.pi / system.box
    squared = unit**2 * np.sum(shells.n**2, axis=1)
    plane_wave_matrix = make_waves(system, orbitals)
    numbers, wavevectors = jnp.asarray(orbitals.n), jnp.asarray(orbitals.k)
    controls = make_controls(system, orbitals)
    spin = np.repeat(np.arange(len(system.spins)), system.spins)
    same = (spin[:, None] == spin) & ~np.eye(system.electrons, dtype=bool)

    def velocity(z, state):
        """grad ln Phi.  [N, d]"""
        matrix = plane_wave_matrix(z, state)
        return log_determinant_derivatives(matrix, wavevectors[state]).first

    def exchange(state):
        """-<K|A_h|K>: pairs of equal spin whose momenta differ by a vector of the shell.  [H]"""
        n = numbers[state]
        transfer = jnp.where(same, jnp.sum((n[:, None] - n) ** 2, axis=-1), 0)
        return jnp.stack([jnp.sum(transfer == size) for size in shells.size])

    def by_shell(pairs, waves, met, along):
        """A and B, from A_q, e^{iqz} of all electrons, sum of that over those they meet, and q .
        grad ln Phi."""
        drift = jnp.sum(-4 * jnp.imag(waves * jnp.conj(met)) * along, axis=1)
        return [shells.member @ pairs + 0j, shells.member @ (squared * pairs - drift)]

    def operators(z, state):
        waves = jnp.exp(1j * unit * (shells.n @ z.T))
        gradient = jnp.concatenate([velocity(z[part], state[part]) for part in system.parts])
        along = unit * (shells.n @ gradient.T)
        density = [jnp.sum(waves[:, part], axis=1) for part in system.parts]
        own = jnp.stack(density, axis=1)[:, spin]
        equal = 2 * (sum(jnp.abs(rho) ** 2 for rho in density) - system.electrons)
        values = by_shell(equal, waves, own, along)
        values[0] += exchange(state)
        if len(density) == 2:
            other = jnp.stack(density[::-1], axis=1)[:, spin]
            opposite = 4 * jnp.real(density[0] * jnp.conj(density[1]))
            values += by_shell(opposite, waves, other, along)
        potential = controls(z, state).deviations[:1] + 0j
        return jnp.concatenate([potential, *values])

    return operators


class PairElements(NamedTuple):
    """Matrix elements of a sum of the operators, by |n|^2 of the momentum transfer; zero beyond the
    last.

    Attributes:
      coulomb: weight of U, times v(q) / L^d, hartree.
      plain: of A for equal and for opposite spins, hartree.         [2, largest |n|^2 + 1]
      kinetic: of B, to be multiplied by the difference of kinetic energies.    [2, largest |n|^2 + 1]
    """

    coulomb: np.ndarray
    plain: np.ndarray
    kinetic: np.ndarray

    def between(self, kind: int, transfer: np.ndarray, ideal: np.ndarray) -> np.ndarray:
        """u(q) of a pair of electrons.

        Args:
          kind: 0 for equal, 1 for opposite spins.
          transfer: |n|^2 of q, integers.                   [...]
          ideal: difference of the kinetic energies, hartree.    [...]
        """
        place = np.minimum(transfer, self.plain.shape[1] - 1)
        return self.coulomb[transfer] + self.plain[kind, place] + ideal * self.kinetic[kind, place]


def pair_elements(system: System, weights: np.ndarray, strength: np.ndarray) -> PairElements:
    """Of the sum of all operators with the given weights.

    Args:
      weights: in the order of `make_pair_operators`.       [O]
      strength: coupling times v(q) / L^d by |n|^2, hartree.
    """
    size = waves_of(system).size
    tables = np.zeros((2, 2, size[-1] + 2))  # the last place stays zero
    by_kind = weights[1:].reshape(len(system.spins), 2, len(size))
    # a sum over ordered pairs has each pair twice
    tables[: len(by_kind), :, size] = 2 * by_kind
    return PairElements(weights[0] * strength, tables[:, 0], tables[:, 1])


def interaction_strength(system: System, largest: int) -> np.ndarray:
    """Coupling times v(q) / L^d by |n|^2 from 0 to `largest`, hartree; zero at 0."""
    length = 2 * np.pi / system.box * np.sqrt(np.arange(1, largest + 1))
    strength = system.coupling * fourier_transform(length, system.dim) / system.box**system.dim
    return np.append(0.0, strength)
