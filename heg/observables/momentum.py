r"""Momentum distribution of the one-body density matrix: mean number of electrons of wavevector k.

The flow moves weight away from the plane waves that p(K) occupies.  Take a sample x of |Psi_K|^2,
move one electron of spin sigma by s, uniform in the box, and call the result x'.  Then

.. math:: n_\sigma(k) = N_\sigma\, \mathbb{E}_{K, x, s}\Big[ \mathrm{Re}\, e^{-ik\cdot s}
          \frac{\Psi_K(x')}{\Psi_K(x)} \Big]
          = N_\sigma\, \mathbb{E}_{K, x, s}\Big[ \mathrm{Re}\, e^{-ik\cdot s}
          \frac{2 \Psi_K(x') \Psi_K^*(x)}{|\Psi_K(x)|^2 + |\Psi_K(x')|^2} \Big] .

The first form is McMillan's (Phys. Rev. 138, A442 (1965), doi:10.1103/PhysRev.138.A442).  Near
nodes of Psi it is unbounded.  x and x' may change places, with -s for s; the mean of both ways is
the second form, used here, which is at most N_sigma.  One electron of each spin is moved, so that a
sample costs one more wavefunction for each spin.

Bare determinants at z, moved by the same s, serve as a control variate: given K, their mean is
exactly 1 if k is in K and 0 otherwise.  Without flow only the noise of K is left.  The weight of
the control variate is fitted afterwards (`control_weight`).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from heg.gas.ideal import occupation_numbers
from heg.gas.plane_waves import Orbitals, make_waves, plane_waves
from heg.gas.system import System
from heg.observables.shells import Shells, group_by_length

REACH = 2.5  # wavevectors up to REACH k_F, and farther where p(K) reaches farther


class Momentum(NamedTuple):
    """Momentum distribution of one configuration, or its mean, by spin and shell of wavevectors.

    Attributes:
      moved: estimator from Psi.                            [spins, S]
      bare: the same from the determinants at z.            [spins, S]
      occupied: occupation in K, the mean of `bare`.        [spins, S]
    """

    moved: jax.Array | np.ndarray
    bare: jax.Array | np.ndarray
    occupied: jax.Array | np.ndarray


def momentum_shells(system: System, orbitals: Orbitals) -> tuple[Shells, Orbitals]:
    """Shells of wavevectors, and the wavevectors; the first are those of p(K).

    r_s may be traced: the shells are those of r_s = 1, scaled.
    """
    unit_gas = system.of_unit_density
    unit = unit_gas.wavevector_unit
    # the orbitals are sorted by energy: none is longer than the last
    last = orbitals.n[-1] + np.asarray(system.twist)
    reach_of_orbitals = unit * float(np.linalg.norm(last))
    reach_of_gas = REACH * unit_gas.fermi_wavevector
    longest = max(reach_of_orbitals, reach_of_gas)
    waves = plane_waves(unit_gas, longest**2 / 2)
    lengths = np.linalg.norm(waves.k, axis=1)
    shells = group_by_length(lengths, unit_gas)
    return shells.at_density(system.rs), waves.at_density(system.rs)


def ideal_momentum(system: System, orbitals: Orbitals) -> Float[np.ndarray, "spins shells"]:
    """Exact n(k) of the ideal gas on the shells of `momentum_shells`, by spin."""
    shells, waves = momentum_shells(system, orbitals)
    levels = jnp.asarray(system.beta * waves.energy)
    of_spins = []
    for count in system.spins:
        occupation = np.asarray(occupation_numbers(levels, count))
        of_spins.append(shells.mean(occupation))
    return np.stack(of_spins)


@dataclasses.dataclass(frozen=True, eq=False)
class MomentumEstimator:
    """Momentum of one configuration, as a function of it.

    Attributes:
      system: the gas.
      log_psi: flow params, x, state -> ln Psi.
      determinants: z of one spin, its state -> matrix of plane waves.
      k: wavevectors, 1/bohr.                               [vectors, d]
      shell_mean: weight of each vector in its shell.       [S, vectors]
    """

    system: System
    log_psi: Callable
    determinants: Callable
    k: jax.Array
    shell_mean: np.ndarray

    def __call__(
        self,
        params: dict,
        x: Float[Array, "electrons dim"],
        z: Float[Array, "electrons dim"],
        state: Int[Array, " electrons"],
        key: jax.Array,
    ) -> Momentum:
        """Momentum with one displaced electron of each spin.

        Args:
          params: of the flow.
          x: positions, bohr.
          z: f(x), bohr.
          state: occupied orbitals.
          key: of the displacements.
        """
        log_psi_x = self.log_psi(params, x, state)
        parts = self.system.parts
        keys = jax.random.split(key, len(parts))
        of_spins = []
        for part, key_of_spin in zip(parts, keys):
            electron, s = self._draw_move(part, key_of_spin)
            # x' of the estimator; one electron alone is somewhere else
            moved = x.at[part.start + electron].add(s)
            log_psi_moved = self.log_psi(params, moved, state)
            log_ratio = log_psi_moved - log_psi_x
            # the determinants at z, moved by the same s
            log_ratio_bare = self._log_ratio_bare(z[part], state[part], electron, s)
            momentum = self._momentum(log_ratio, log_ratio_bare, state[part], s)
            of_spins.append(momentum)
        return jax.tree.map(lambda *spins: jnp.stack(spins), *of_spins)

    def _draw_move(self, part, key):
        """An electron of one spin, by its number within the spin, and its displacement."""
        key_electron, key_move = jax.random.split(key)
        # any electron will do, as they are alike
        electron = jax.random.randint(key_electron, (), 0, part.stop - part.start)
        s = self.system.box * jax.random.uniform(key_move, (self.system.dim,))
        return electron, s

    def _log_ratio_bare(self, z, state, electron, s):
        """Log of the ratio of determinants of one spin when an electron moves by s."""
        # a row of the matrix is replaced: the ratio is the new row times a column of the inverse
        matrix = self.determinants(z, state)
        moved = z[electron] + s
        (row,) = self.determinants(moved[None], state)
        unit = jnp.zeros(len(state)).at[electron].set(1.0)
        column = jnp.linalg.solve(matrix, unit.astype(matrix.dtype))
        ratio = row @ column
        # the matrices leave out the phase e^{i twist . z}, the same for all orbitals
        twist = self.system.wavevector_unit * np.asarray(self.system.twist)
        return jnp.log(ratio) + 1j * s @ twist

    def _momentum(self, log_ratio, log_ratio_bare, state, s):
        """Momentum of one spin from the ratios of the wavefunctions after and before the move."""
        electrons = len(state)
        # e^{-ik s}, its mean over each shell
        phases = jnp.exp(-1j * (self.k @ s))
        wave = self.shell_mean @ phases
        # the first wavevectors are the orbitals of p(K), in the same order
        in_k = jnp.zeros(len(self.k)).at[state].set(1.0)
        moved = wave * _both_ways(log_ratio)
        bare = wave * _both_ways(log_ratio_bare)
        return Momentum(
            moved=electrons * jnp.real(moved),
            bare=electrons * jnp.real(bare),
            occupied=self.shell_mean @ in_k,
        )


def make_momentum(system: System, orbitals: Orbitals, log_psi: Callable) -> MomentumEstimator:
    """Estimator of n(k) on the shells of `momentum_shells`.

    Args:
      system: the gas.
      orbitals: plane waves of p(K).
      log_psi: flow params, x [N, d], state [N] -> ln Psi.
    """
    shells, waves = momentum_shells(system, orbitals)
    return MomentumEstimator(
        system=system,
        log_psi=log_psi,
        determinants=make_waves(system, orbitals),
        k=jnp.asarray(waves.k),
        shell_mean=shells.members / shells.count[:, None],
    )


def _both_ways(log_ratio):
    """2 r / (1 + |r|^2) of r = e^log_ratio."""
    # written so that a large or small ratio neither overflows nor loses its phase
    phase = jnp.exp(1j * jnp.imag(log_ratio))
    return phase / jnp.cosh(jnp.real(log_ratio))


def momentum_distribution(
    means: Momentum, weight: Float[np.ndarray, "spins 1"]
) -> Float[Array | np.ndarray, "*samples spins shells"]:
    """n(k) from means over samples, or of each one, the control variate taken `weight` times."""
    return means.moved - weight * (means.bare - means.occupied)


def control_weight(blocks: Momentum) -> Float[np.ndarray, "spins 1"]:
    """Weight of the control variate that takes out most noise, for each spin.

    Args:
      blocks: means over blocks of samples.                 [blocks, spins, S] each
    Accuracy: the n(k) that comes of it is biased by about 1 / blocks of its error.
    """
    # of mean zero; the weight is its regression coefficient
    control = blocks.bare - blocks.occupied
    deviation = blocks.moved - blocks.moved.mean(axis=0)
    covariance = np.sum(deviation * control, axis=(0, 2))
    spread = control - control.mean(axis=0)
    variance = np.sum(spread**2, axis=(0, 2))
    # without noise of the control there is nothing to take out
    weight = covariance / np.maximum(variance, 1e-300)
    return weight[:, None]
