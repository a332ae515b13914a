r"""Momentum distribution of the true one-body density matrix: how many electrons have the
wavevector k.

The flow moves weight away from the plane waves that p(K) occupies.  With electron i of spin sigma
moved by s, uniform in the box, from a sample x of |Psi_K|^2 to x',

.. math:: n_\sigma(k) = N_\sigma\, \mathbb{E}_{K, x, s}\Big[ \mathrm{Re}\, e^{-ik\cdot s}
          \frac{\Psi_K(x')}{\Psi_K(x)} \Big]
          = N_\sigma\, \mathbb{E}_{K, x, s}\Big[ \mathrm{Re}\, e^{-ik\cdot s}
          \frac{2 \Psi_K(x') \Psi_K^*(x)}{|\Psi_K(x)|^2 + |\Psi_K(x')|^2} \Big] .

The first form is McMillan's (Phys. Rev. 138, A442 (1965), doi:10.1103/PhysRev.138.A442); near nodes
of Psi it takes any size.  x and x' may change places, with -s for s, and the mean of both ways is
the second form, used here: it is at most N_sigma.  One electron of each spin is moved, so that a
sample costs one more wavefunction for each spin.  The same of
bare determinants at z, moved by the same s, has the exact mean 1 if k is in K and 0 otherwise,
given K: a control variate, which without flow leaves no noise but that of K.  Its weight is fitted
afterwards (`control_weight`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heg.gas.ideal import occupation_numbers
from heg.gas.plane_waves import Orbitals, make_waves, plane_waves
from heg.gas.system import System
from heg.observables.structure import Shells, group_by_length

LEAST = 2.5  # wavevectors at least up to LEAST k_F, and as far as p(K) reaches


class Momentum(NamedTuple):
    """Of one configuration, by spin and shell of wavevectors, mean over the shell.

    Attributes:
      moved: of Psi, the estimator.                         [spins, S]
      bare: of the determinants at z.                       [spins, S]
      occupied: of K, the mean of `bare`.                   [spins, S]
    """

    moved: jax.Array
    bare: jax.Array
    occupied: jax.Array


def momentum_shells(system: System, orbitals: Orbitals) -> tuple[Shells, Orbitals]:
    """Shells of wavevectors, and these; the first are those of p(K).  r_s may be traced."""
    rs, system = system.rs, system.of_unit_density
    reach = 2 * np.pi / system.box * np.linalg.norm(orbitals.n[-1] + np.asarray(system.twist))
    waves = plane_waves(system, max(reach, LEAST * system.fermi_wavevector) ** 2 / 2)
    return group_by_length(np.linalg.norm(waves.k, axis=1), system).at_density(
        rs
    ), waves.at_density(rs)


def ideal_momentum(system: System, orbitals: Orbitals) -> np.ndarray:
    """Exact n(k) of the ideal gas on the shells of `momentum_shells`, by spin.  [spins, S]"""
    shells, waves = momentum_shells(system, orbitals)
    levels = jnp.asarray(system.beta * waves.energy)
    return np.stack(
        [shells.mean(np.asarray(occupation_numbers(levels, count))) for count in system.spins]
    )


def make_momentum(system: System, orbitals: Orbitals, log_psi: Callable) -> Callable:
    """Momentum as a function of (flow params, x [N, d], z [N, d], state [N], key)."""
    shells, waves = momentum_shells(system, orbitals)
    mean = (shells.place == np.arange(len(shells.count))[:, None]) / shells.count[:, None]
    twist = 2 * np.pi / system.box * np.asarray(system.twist)
    determinants, k = make_waves(system, orbitals), jnp.asarray(waves.k)

    def of_spin(params, x, z, state, log_psi_x, part, key):
        key_electron, key_move = jax.random.split(key)
        count = part.stop - part.start
        electron = jax.random.randint(key_electron, (), 0, count)
        s = system.box * jax.random.uniform(key_move, (system.dim,))
        moved = x.at[part.start + electron].add(s)
        of_psi = _both_ways(log_psi(params, moved, state) - log_psi_x)
        # a row of the matrix replaced: the ratio of determinants is the new row times a column of
        # the inverse
        matrix = determinants(z[part], state[part])
        row = determinants((z[part.start + electron] + s)[None], state[part])[0]
        unit = jnp.zeros(count).at[electron].set(1.0)
        ratio = row @ jnp.linalg.solve(matrix, unit.astype(matrix.dtype))
        of_bare = _both_ways(jnp.log(ratio) + 1j * s @ twist)
        wave = mean @ jnp.exp(-1j * (k @ s))
        occupied = mean @ jnp.zeros(len(k)).at[state[part]].set(1.0)
        return Momentum(count * jnp.real(wave * of_psi), count * jnp.real(wave * of_bare), occupied)

    def momentum(params, x, z, state, key):
        log_psi_x, keys = log_psi(params, x, state), jax.random.split(key, len(system.parts))
        of_each = [
            of_spin(params, x, z, state, log_psi_x, part, key)
            for part, key in zip(system.parts, keys)
        ]
        return jax.tree.map(lambda *spins: jnp.stack(spins), *of_each)

    return momentum


def _both_ways(log_ratio):
    """2 r / (1 + |r|^2) of r = e^log_ratio."""
    return jnp.exp(1j * jnp.imag(log_ratio)) / jnp.cosh(jnp.real(log_ratio))


def momentum_distribution(means: Momentum, weight: np.ndarray) -> np.ndarray:
    """n(k) from means over samples, the control variate taken `weight` times."""
    return means.moved - weight * (means.bare - means.occupied)


def control_weight(blocks: Momentum) -> np.ndarray:
    """The weight of the control variate that takes out most noise, for each spin, from means of
    blocks of samples.

    Args:
      blocks: Momentum of each block.                       [blocks, spins, S] each
    Returns:
      Weights.                                              [spins, 1]
    Accuracy: the n(k) that comes of it is biased by about 1 / blocks of its error.
    """
    control = blocks.bare - blocks.occupied
    deviation = blocks.moved - blocks.moved.mean(axis=0)
    square = np.sum((control - control.mean(axis=0)) ** 2, axis=(0, 2))
    return (np.sum(deviation * control, axis=(0, 2)) / np.maximum(square, 1e-300))[:, None]
