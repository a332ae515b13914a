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
from jaxtyping import Bool, Float, Int

from heg.gas.coulomb import fourier_transform
from heg.gas.plane_waves import Orbitals, integer_vectors, make_waves
from heg.gas.system import System
from heg.model.kinetic import log_determinant_derivatives
from heg.training.control_variates import make_controls

LONGEST_WAVE = 2.5  # reciprocal vectors of the operators A and B, in units of k_F
MIN_SHELLS = 3  # of these vectors, however small the gas


class Waves(NamedTuple):
    """Reciprocal vectors of the operators A and B; one of each pair n and -n.

    Attributes:
      n: integer vectors.                                   [Q, d]
      size: |n|^2 of each shell.                            [H]
      member: 1 where a vector belongs to a shell.          [H, Q]
    """

    n: Int[np.ndarray, "waves dim"]
    size: Int[np.ndarray, " shells"]
    member: Float[np.ndarray, "shells waves"]


def waves_of(system: System) -> Waves:
    """The shortest shells of reciprocal vectors, up to LONGEST_WAVE k_F."""
    # the same for all densities
    gas = system.of_unit_density
    reach = LONGEST_WAVE * gas.fermi_wavevector * gas.box / (2 * np.pi)
    span = 1 + int(max(reach, MIN_SHELLS))
    n = integer_vectors(system.dim, span)
    # zero is in the middle of the ordered list, and the opposite of each vector in the other half
    middle = len(n) // 2
    n = n[middle + 1 :]
    squared = np.sum(n**2, axis=1)

    sizes = np.unique(squared)
    within_reach = np.searchsorted(sizes, reach**2, side="right")
    shells = max(MIN_SHELLS, within_reach)
    sizes = sizes[:shells]
    used = squared <= sizes[-1]
    in_reach = squared[used]
    is_member = in_reach == sizes[:, None]
    return Waves(
        n=n[used],
        size=sizes,
        member=is_member.astype(float),
    )


def count_operators(system: System) -> int:
    """Number of operators: U, then A and B for each kind of pair and each shell."""
    kinds = len(system.spins)  # equal spins and, where there are both, opposite ones
    return 1 + 2 * kinds * len(waves_of(system).size)


def usable_operators(system: System) -> Bool[np.ndarray, " operators"]:
    """Which operators can take noise out of the local energy.

    Where opposite spins meet in two dimensions, U goes as 1 / r and its variance diverges. Without
    two electrons of equal spin, A and B of equal spins are zero.
    """
    usable = np.ones(count_operators(system), bool)
    usable[0] = system.dim == 3 or not system.n_down
    if system.n_up == 1:
        shells = len(waves_of(system).size)
        usable[1 : 1 + 2 * shells] = False
    return usable


def make_pair_operators(system: System, orbitals: Orbitals) -> Callable:
    """Local values less their means, as a function of (z [N, d], state [N]).  [O] complex

    First U, then A and B by shell for equal spins, then for opposite ones; zero on average in every
    K. U is in hartree, A is a number, B in hartree.
    """
    shells = waves_of(system)
    unit = system.wavevector_unit
    squared = unit**2 * np.sum(shells.n**2, axis=1)
    plane_wave_matrix = make_waves(system, orbitals)
    integers = jnp.asarray(orbitals.n)
    wavevectors = jnp.asarray(orbitals.k)
    controls = make_controls(system, orbitals)
    spin = np.repeat(np.arange(len(system.spins)), system.spins)
    is_same_spin = spin[:, None] == spin
    is_equal_pair = is_same_spin & ~np.eye(system.electrons, dtype=bool)

    def log_gradient(z, state):
        """The gradient of ln Phi at the electrons of one spin.  [N_spin, d]"""
        matrix = plane_wave_matrix(z, state)
        return log_determinant_derivatives(matrix, wavevectors[state]).first

    def kinetic_commutator(pairs, waves, partners, along):
        """B by shell, sum_q q^2 A_q - sum_i grad_i A_h . grad_i ln Phi.  [H]

        Args:
          pairs: A_q.                                       [Q]
          waves: e^{iqz} of each electron.                  [Q, N]
          partners: sum of e^{iqz} over those that it is paired with.    [Q, N]
          along: q . grad_i ln Phi.                         [Q, N]
        """
        # 4, as each pair is in A twice and of q and -q only one is in the list
        gradient = -4 * jnp.imag(waves * jnp.conj(partners))
        drift = jnp.sum(gradient * along, axis=1)
        return shells.member @ (squared * pairs - drift)

    def operators(z, state):
        """All local values at z.  [O]"""
        # e^{iqz} and, from it, rho_q of each spin
        waves = jnp.exp(1j * unit * (shells.n @ z.T))
        densities = [jnp.sum(waves[:, part], axis=1) for part in system.parts]
        gradients = [log_gradient(z[part], state[part]) for part in system.parts]
        gradient = jnp.concatenate(gradients)
        along = unit * (shells.n @ gradient.T)

        # sum_{i != j} e^{iq(z_i - z_j)} of q and -q together, within a spin
        of_own_spin = jnp.stack(densities, axis=1)[:, spin]
        squares = sum(jnp.abs(density) ** 2 for density in densities)
        equal = 2 * (squares - system.electrons)  # without each electron's pair with itself
        exchange = _exchange(integers[state], is_equal_pair, shells.size)
        # A less its mean, and B, whose mean is zero
        plain = shells.member @ equal + 0j
        values = [
            plain + exchange,
            kinetic_commutator(equal, waves, of_own_spin, along),
        ]
        if len(densities) == 2:
            # the same for an up and a down electron, each pair from both ends
            up, down = densities
            of_other_spin = jnp.stack([down, up], axis=1)[:, spin]
            product = up * jnp.conj(down)
            opposite = 4 * jnp.real(product)
            plain = shells.member @ opposite + 0j
            values += [
                plain,
                kinetic_commutator(opposite, waves, of_other_spin, along),
            ]
        potential = controls(z, state).deviations[:1] + 0j
        return jnp.concatenate([potential, *values])

    return operators


def _exchange(n, is_equal_pair, sizes):
    """-<K|A_h|K>: pairs of equal spin whose momenta differ by a vector of the shell.  [H]"""
    apart = n[:, None] - n
    squared = jnp.sum(apart**2, axis=-1)
    # no shell has the size zero: other pairs are not counted
    transfer = jnp.where(is_equal_pair, squared, 0)
    counts = [jnp.sum(transfer == size) for size in sizes]
    return jnp.stack(counts)


class PairElements(NamedTuple):
    """Matrix elements of a sum of the operators by |n|^2 of the momentum transfer.

    A and B have none beyond the last |n|^2 of their tables.

    Attributes:
      coulomb: weight of U, times v(q) / L^d, hartree.
      plain: of A for equal and for opposite spins, hartree.         [2, largest |n|^2 + 1]
      kinetic: of B, in units of the difference of the kinetic energies.    [2, largest |n|^2 + 1]
    """

    coulomb: Float[np.ndarray, " transfers"]
    plain: Float[np.ndarray, "kinds sizes"]
    kinetic: Float[np.ndarray, "kinds sizes"]

    def between(
        self,
        kind: int,
        transfer: Int[np.ndarray, "*doubles"],
        ideal: Float[np.ndarray, "*doubles"],
    ) -> Float[np.ndarray, "*doubles"]:
        """u(q) of a pair of electrons.

        Args:
          kind: 0 for equal, 1 for opposite spins.
          transfer: |n|^2 of q.
          ideal: difference of the kinetic energies, hartree.
        """
        last = self.plain.shape[1] - 1
        size = np.minimum(transfer, last)
        of_a = self.plain[kind, size]
        of_b = ideal * self.kinetic[kind, size]
        return self.coulomb[transfer] + of_a + of_b


def pair_elements(
    system: System,
    weights: Float[np.ndarray, " operators"],
    strength: Float[np.ndarray, " transfers"],
) -> PairElements:
    """Matrix elements of the sum of all operators with the given weights.

    Args:
      system: the gas.
      weights: in the order of `make_pair_operators`.
      strength: of `interaction_strength`.
    """
    size = waves_of(system).size
    kinds = len(system.spins)
    # after U: A and B of each kind of pair, shell by shell
    by_kind = weights[1:].reshape(kinds, 2, len(size))
    tables = np.zeros((2, 2, size[-1] + 2))  # the last entry stays zero
    # a sum over ordered pairs has each pair twice
    tables[:kinds, :, size] = 2 * by_kind
    return PairElements(
        coulomb=weights[0] * strength,
        plain=tables[:, 0],
        kinetic=tables[:, 1],
    )


def interaction_strength(system: System, largest: int) -> Float[np.ndarray, " transfers"]:
    """Coupling times v(q) / L^d by |n|^2 from 0 to `largest`, hartree; zero at 0."""
    squared = np.arange(1, largest + 1)
    wavevector = system.wavevector_unit * np.sqrt(squared)
    v = fourier_transform(wavevector, system.dim)
    strength = system.coupling * v / system.volume
    return np.append(0.0, strength)
