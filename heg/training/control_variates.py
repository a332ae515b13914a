r"""Control variates: the part of a sample's energy that is chance alone and averages to zero.

Given K, the quasi-particle coordinates z = f(x) are distributed as the bare determinant |det
e^{ikz}|^2, whatever the flow.  So every one- and two-body function of z has a mean known in closed
form.  Two kinds are used: the Coulomb energy U at z, whose mean is the Hartree-Fock energy of the
determinant, and the density waves of the shortest reciprocal vectors, shell by shell,

.. math:: \Big\langle \sum_{|n_q|^2 = h} |\rho_q(z)|^2 \Big\rangle_K
          = \sum_{|n_q|^2 = h} N - \#\{i \ne j,\ \sigma_i = \sigma_j,\ |n_i - n_j|^2 = h\} ,

the second term by exchange.  The deviations C from these means vanish on average in each K; a
regression on earlier batches says how much of the kinetic and of the potential energy goes along
with them,

.. math:: E_{loc} \approx b(K) + \gamma \cdot C(K, z), \qquad
          b(K) = \beta_0 + \beta_1 \epsilon_K + \beta_2 U_K ,

with eps_K the ideal and U_K the Hartree-Fock energy of K.  E_loc - gamma C has the mean of E_loc
and less noise.  b(K) is what K tells of the energy: the energy of p(K)'s gradient, and a baseline
of the flow's (heg.training.free_energy).  Without a flow the potential energy is U(z).  Then no
noise is left, and the regression starts there.

Source of the method: Rubinstein and Kroese, Simulation and the Monte Carlo Method, chapter on
variance reduction.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heg.gas.coulomb import coulomb_energy, fourier_transform, image_energy
from heg.gas.plane_waves import Orbitals, density_waves, half_lattice
from heg.gas.plasma import Plasma
from heg.gas.system import System
from heg.model.density_matrix import Energy

SHELLS = 6  # of reciprocal vectors
HIGHEST = 3  # largest component of these vectors, in units of 2 pi / L
STATE_REGRESSORS = 3  # the constant, eps_K and U_K
CONSTANT = 0
REGRESSORS = STATE_REGRESSORS + 1 + SHELLS  # then the Coulomb energy and the shells
FEWEST_BATCHES = 10  # that the moments remember
REMEMBERED = 0.25  # of all batches, where those are more: the latest quarter
RIDGE = 1e-10  # of the regression, in units of the mean square of each regressor
PRIOR = 1e-12  # moments before any batch was seen: outweighed by the first
TINY = 1e-300  # keeps the scale of a regressor that vanishes from being zero


class Controls(NamedTuple):
    """Regressors of the energy of a sample.

    Attributes:
      of_state: 1, ideal energy, Hartree-Fock interaction energy of K, hartree.    [3]
      deviations: C, of the Coulomb energy at z (hartree) and of each shell; zero on average.
        [1 + SHELLS]
    """

    of_state: jax.Array
    deviations: jax.Array


ControlsFunction = Callable[[jax.Array, jax.Array], Controls]  # of z [N, d] and state [N]


class Regression(NamedTuple):
    """Running moments of the regressors r and of the energies y (kinetic, potential).

    They are those of samples that scatter about one running mean as each batch does about its own.
    The first row of each is that of the constant regressor: the weight of the batches and the means
    times that weight.

    Attributes:
      squares: of r r^T.                                    [R, R]
      products: of r y^T.                                   [R, 2]
    """

    squares: jax.Array
    products: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class ControlVariates:
    """The controls of a gas as a function of (z [N, d], state [N]).

    Attributes:
      system: the gas.
      numbers: n of each plane wave, k = 2 pi n / L and twist.    [M, d]
      energies: k^2 / 2 of each plane wave, hartree.        [M]
      wavelength: L / 2 pi; n over it is a wavevector, z over it an angle.
    """

    system: System
    numbers: jax.Array
    energies: jax.Array
    wavelength: float

    def __call__(self, z: jax.Array, state: jax.Array) -> Controls:
        system = self.system
        # U at z less its mean, the Hartree-Fock energy of the determinant
        transfer = self._transfer(state)
        fock = self._hartree_fock(transfer)
        waves = self._density_deviations(z, transfer)
        deviation = coulomb_energy(z, system) - fock
        coulomb = system.coupling * deviation
        ideal = jnp.sum(self.energies[state])
        interaction = system.coupling * fock
        of_state = jnp.stack([1.0, ideal, interaction])
        return Controls(
            of_state=of_state,
            deviations=jnp.append(coulomb, waves),
        )

    def _transfer(self, state):
        """|n_i - n_j|^2 of two electrons of equal spin, infinite for all others.  [N, N]"""
        # the twist drops out of differences
        n = self.numbers[state]
        difference = n[:, None] - n
        squared = jnp.sum(difference**2, axis=-1)
        # infinite momentum is never exchanged: the Coulomb potential is zero there, and no shell
        # has this size
        return jnp.where(_exchanging_pairs(self.system), squared, np.inf)

    def _hartree_fock(self, transfer):
        """U_K for a coupling of one, hartree."""
        system = self.system
        wavevector = jnp.sqrt(transfer) / self.wavelength
        v = fourier_transform(wavevector, system.dim)
        # half, as the sum has each pair twice
        exchange = jnp.sum(v) / 2
        return image_energy(system) - exchange / system.volume

    def _density_deviations(self, z, transfer):
        """|rho_q(z)|^2 summed over each shell, less its mean.  [SHELLS]"""
        system = self.system
        shells = _shells(system.dim)
        angle = z / self.wavelength
        density = density_waves(angle, HIGHEST)
        squared = jnp.real(density) ** 2 + jnp.imag(density) ** 2
        # without exchange every wave has the mean N
        excess = squared - system.electrons
        by_shell = jnp.sum(shells.weight * excess, axis=(1, 2))
        # exchange takes away the pairs whose transfer is a vector of the shell
        exchanged = [jnp.sum(transfer == size) for size in shells.size]
        return by_shell + jnp.array(exchanged)


def make_controls(system: System, orbitals: Orbitals) -> ControlVariates:
    """Controls as a function of (z [N, d], state [N])."""
    return ControlVariates(
        system=system,
        numbers=jnp.asarray(orbitals.n),
        energies=jnp.asarray(orbitals.energy),
        wavelength=system.box / (2 * np.pi),
    )


def first_regression() -> Regression:
    """Moments of electrons without a flow.

    Their kinetic energy is eps_K, their potential energy U_K and its deviation.
    """
    kinetic = 0
    potential = 1
    ideal = 1
    hartree_fock_and_coulomb = jnp.array([2, 3])
    squares = jnp.eye(REGRESSORS) * PRIOR
    # as if each regressor had been seen alone, with a coefficient of one
    products = jnp.zeros((REGRESSORS, 2))
    products = products.at[ideal, kinetic].set(PRIOR)
    products = products.at[hartree_fock_and_coulomb, potential].set(PRIOR)
    return Regression(squares, products)


def update_regression(
    regression: Regression, controls: Controls, energy: Energy, step: jax.Array | int
) -> Regression:
    """The moments with a batch added.

    They remember about the latest FEWEST_BATCHES, or the share REMEMBERED of all where that is
    more: what changes as the flow learns is forgotten, and later the noise averages out.  Slopes
    come from the deviations within each batch.  Between batches the energy falls because the flow
    learns, and eps_K falls because p(K) does; the one does not follow from the other.

    Args:
      regression: moments of earlier batches.
      controls, energy: the batch, along their first axis.
      step: number of batches before this one.
    """
    regressors = jnp.concatenate(controls, axis=1)
    kinetic = jnp.real(energy.kinetic)
    energies = jnp.stack([kinetic, energy.potential], axis=1)
    count = len(energies)
    batch = Regression(
        squares=regressors.T @ regressors / count,  # "bi,bj->ij" over the batch
        products=regressors.T @ energies / count,
    )

    remembered = jnp.maximum(FEWEST_BATCHES, REMEMBERED * step)

    def forget(old, new):
        return old + (new - old) / remembered

    sums = jax.tree.map(lambda old, new: forget(old[CONSTANT], new[CONSTANT]), regression, batch)
    scatter = jax.tree.map(forget, _scatter(regression), _scatter(batch))
    return jax.tree.map(jnp.add, scatter, _of_means(sums))


def _scatter(regression):
    """The moments of the deviations from the means."""
    sums = jax.tree.map(lambda leaf: leaf[CONSTANT], regression)
    return jax.tree.map(jnp.subtract, regression, _of_means(sums))


def _of_means(sums):
    """What the moments would be if nothing varied, from their rows of the constant regressor."""
    weight = sums.squares[CONSTANT]
    return jax.tree.map(lambda leaf: jnp.outer(sums.squares, leaf) / weight, sums)


def coefficients(regression: Regression) -> jax.Array:
    """Least-squares coefficients of the regressors, slightly damped.  [R, 2]"""
    mean_squares = jnp.diagonal(regression.squares)
    scale = jnp.sqrt(jnp.maximum(mean_squares, TINY))
    rows = scale[:, None]
    scaled = regression.squares / rows / scale
    # the ridge is relative to each regressor, whose units and sizes differ
    ridge = RIDGE * jnp.eye(len(scale))
    damped = scaled + ridge
    products = regression.products / rows
    return jnp.linalg.solve(damped, products) / rows


def baseline(regression: Regression, controls: Controls) -> jax.Array:
    """b(K) of every sample, hartree per cell.  [B]"""
    of_state = coefficients(regression)[:STATE_REGRESSORS]
    # of the kinetic and of the potential energy together
    return controls.of_state @ of_state.sum(axis=1)


def controlled(regression: Regression, controls: Controls, energy: Energy) -> Energy:
    """The energies of a batch less gamma C: the same means, less noise.

    Accuracy: unbiased if the regression was fitted on other samples.
    """
    gamma = coefficients(regression)[STATE_REGRESSORS:]
    # gamma C of both energies
    kinetic, potential = (controls.deviations @ gamma).T
    # of the kind that it was: it knows what its terms mean
    return energy._replace(kinetic=energy.kinetic - kinetic, potential=energy.potential - potential)


@functools.singledispatch
def _exchanging_pairs(system):
    """True for two different electrons of equal spin.  [N, N]"""
    spin = np.repeat(np.arange(len(system.spins)), system.spins)
    equal_spin = spin[:, None] == spin
    same_electron = np.eye(system.electrons, dtype=bool)
    return equal_spin & ~same_electron


@_exchanging_pairs.register
def _(system: Plasma):
    """None: classical electrons can be told apart."""
    return np.zeros((system.electrons, system.electrons), dtype=bool)


class _Shells(NamedTuple):
    """The shortest shells of reciprocal vectors.

    Attributes:
      size: |n|^2 of each.                                  [SHELLS]
      weight: how often each vector counts in each shell.   [SHELLS, all but the last, the last]
    """

    size: np.ndarray
    weight: np.ndarray


def _shells(dim):
    half = half_lattice(dim, HIGHEST)
    size = np.sum(half.n**2, axis=-1)
    shortest = np.unique(size)[1 : SHELLS + 1]  # the first is the zero vector
    member = size == shortest[:, None, None]
    # |rho_q| = |rho_-q|: a vector stands for its opposite too, where that is not in the half
    return _Shells(size=shortest, weight=member * half.multiplicity)
