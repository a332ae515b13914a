r"""What the energy of a sample owes to chance alone, known exactly: control variates.

Given K, the quasi-particle coordinates z = f(x) are distributed as the bare determinant |det
e^{ikz}|^2, whatever the flow.  So every one- and two-body function of z has a mean known in closed
form.  Two kinds are used: the Coulomb energy U at z, whose mean is the Hartree-Fock energy of the
determinant, and the density waves of the shortest reciprocal vectors, shell by shell,

.. math:: \Big\langle \sum_{|n_q|^2 = h} |\rho_q(z)|^2 \Big\rangle_K
          = \sum_{|n_q|^2 = h} N - \#\{i \ne j,\ \sigma_i = \sigma_j,\ |n_i - n_j|^2 = h\} ,

the second term by exchange.  The deviations C from these means vanish on average in each K; a
regression on earlier batches says how much of the kinetic and of the potential energy goes along
with them,

.. math:: E_{loc} \approx b(K) + \gamma \cdot C(K, z), \qquad b(K) = \beta_0 + \beta_1 \epsilon_K + \beta_2 U_K ,

with eps_K the ideal and U_K the Hartree-Fock energy of K.  E_loc - gamma C has the mean of E_loc
and less noise, and b(K) is a baseline of the flow's gradient (heg.training.free_energy).  Without a
flow the potential energy is U(z): no noise is left, and the regression starts there.
Source of the method: Rubinstein and Kroese, Simulation and the Monte Carlo Method, chapter on
variance reduction.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from heg.gas.coulomb import coulomb_energy, fourier_transform, madelung
from heg.gas.plane_waves import Orbitals, density_waves
from heg.gas.system import System
from heg.model.local_energy import LocalEnergy

SHELLS, HIGHEST = 6, 3  # of reciprocal vectors, and their largest component
MEMORY = 0.9  # weight of the earlier batches
RIDGE = 1e-10  # of the regression, in units of the mean square of each regressor
PRIOR = 1e-12  # moments before any batch was seen: outweighed by the first


class Controls(NamedTuple):
    """Regressors of the energy of a sample.

    Attributes:
      of_state: 1, ideal energy, Hartree-Fock interaction energy of K, hartree.    [3]
      deviations: C, of the Coulomb energy at z (hartree) and of each shell; zero on average.    [1 + SHELLS]
    """

    of_state: jax.Array
    deviations: jax.Array


class Regression(NamedTuple):
    """Running moments of the regressors r and of the energies y (kinetic, potential) of earlier
    batches.

    Attributes:
      squares: mean of r r^T.                               [R, R]
      products: mean of r y^T.                              [R, 2]
    """

    squares: jax.Array
    products: jax.Array


def make_controls(system: System, orbitals: Orbitals) -> Callable:
    """Controls as a function of (z [N, d], state [N])."""
    numbers, energy, shells = (
        jnp.asarray(orbitals.n),
        jnp.asarray(orbitals.energy),
        _shells(system.dim),
    )
    electrons, spin = system.electrons, np.repeat(np.arange(len(system.spins)), system.spins)
    same = (spin[:, None] == spin) & ~np.eye(electrons, dtype=bool)
    wavelength = system.box / (2 * np.pi)

    def controls(z, state):
        n = numbers[state]
        transfer = jnp.where(
            same, jnp.sum((n[:, None] - n) ** 2, axis=-1), np.inf
        )  # |n_i - n_j|^2 of equal spins
        exchanged = jnp.sum(fourier_transform(jnp.sqrt(transfer) / wavelength, system.dim)) / 2
        fock = electrons * madelung(system) / 2 - exchanged / system.box**system.dim
        density = density_waves(z / wavelength, HIGHEST)
        squared = jnp.real(density) ** 2 + jnp.imag(density) ** 2 - electrons
        of_shell = jnp.sum(shells.weight * squared, axis=(1, 2))
        exchange = jnp.array([jnp.sum(transfer == size) for size in shells.size])
        of_state = jnp.stack([1.0, jnp.sum(energy[state]), system.coupling * fock])
        return Controls(
            of_state,
            jnp.append(system.coupling * (coulomb_energy(z, system) - fock), of_shell + exchange),
        )

    return controls


def first_regression() -> Regression:
    """That of electrons without a flow: the kinetic energy is eps_K, the potential energy U_K and
    its deviation."""
    squares = jnp.eye(4 + SHELLS) * PRIOR
    return Regression(
        squares, jnp.zeros((4 + SHELLS, 2)).at[1, 0].set(PRIOR).at[jnp.array([2, 3]), 1].set(PRIOR)
    )


def update_regression(
    regression: Regression, controls: Controls, energy: LocalEnergy
) -> Regression:
    """Adds a batch to the moments; `controls` and `energy` have the batch as their first axis."""
    regressors = jnp.concatenate(controls, axis=1)
    energies = jnp.stack([jnp.real(energy.kinetic), energy.potential], axis=1)
    batch = Regression(
        regressors.T @ regressors / len(energies), regressors.T @ energies / len(energies)
    )
    return jax.tree.map(lambda old, new: MEMORY * old + (1 - MEMORY) * new, regression, batch)


def coefficients(regression: Regression) -> jax.Array:
    """Least-squares coefficients of the regressors, slightly damped.  [R, 2]"""
    scale = jnp.sqrt(jnp.maximum(jnp.diagonal(regression.squares), 1e-300))
    squares = regression.squares / scale[:, None] / scale + RIDGE * jnp.eye(len(scale))
    return jnp.linalg.solve(squares, regression.products / scale[:, None]) / scale[:, None]


def baseline(regression: Regression, controls: Controls) -> jax.Array:
    """b(K) of every sample, hartree per cell.  [B]"""
    return controls.of_state @ coefficients(regression)[:3].sum(axis=1)


def controlled(regression: Regression, controls: Controls, energy: LocalEnergy) -> LocalEnergy:
    """The energies of a batch without what goes along with C: the same means, less noise.

    Accuracy: unbiased if the regression was fitted on other samples.
    """
    kinetic, potential = (controls.deviations @ coefficients(regression)[3:]).T
    return LocalEnergy(energy.kinetic - kinetic, energy.potential - potential)


class _Shells(NamedTuple):
    """|n|^2 of each shell [SHELLS], and the weights of its vectors; those whose last component is
    negative are left
    to their opposites.  [SHELLS, all but the last, the last]"""

    size: np.ndarray
    weight: np.ndarray


def _shells(dim):
    n = np.indices((2 * HIGHEST + 1,) * dim).reshape(dim, -1, 2 * HIGHEST + 1) - HIGHEST
    size = np.sum(n**2, axis=0)[:, HIGHEST:]
    shells = np.unique(size)[1 : SHELLS + 1]
    return _Shells(shells, (size == shells[:, None, None]) * np.where(n[-1, 0, HIGHEST:] > 0, 2, 1))
