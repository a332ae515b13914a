r"""The variational free energy and its two gradients, estimated from samples.

.. math:: F = \mathbb{E}_{K \sim p}\,\mathbb{E}_{x \sim |\Psi_K|^2} [T \ln p(K) + E_{loc}(K, x)]

With F_loc = T ln p + Re E_loc, b(K) any real function of K and O = grad ln p or grad ln Psi,

.. math:: \partial_\phi F = \mathbb{E}[(F_{loc} - F)\, O_\phi], \qquad
          \partial_\theta F = 2\,\mathrm{Re}\,\mathbb{E}[(E_{loc} - b(K))^*\, O_\theta] .

Psi_K is normalised for each K, so b leaves the second gradient unbiased; it is fitted on earlier
batches, as are the control variates that take noise out of E_loc (heg.training.control_variates).
Source: Xie, Zhang and Wang, SciPost Phys. 14, 154 (2023), doi:10.21468/SciPostPhys.14.6.154.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from heg.gas.system import System
from heg.model.density_matrix import Model, Params
from heg.model.local_energy import LocalEnergy
from heg.parallel.devices import map_walkers
from heg.sampling.batch import Walkers
from heg.statistics import Estimate
from heg.training.control_variates import Controls, Regression, controlled

CLIP = 5.0  # deviations beyond CLIP mean absolute deviations are shortened, in gradients only


class Samples(NamedTuple):
    """What is known of each sample of (K, x), per cell.

    Attributes:
      log_p: ln p(K).                                       [B]
      energy: E_loc, hartree.                               [B]
      controls: regressors of its noise.                    [B, ...]
    """

    log_p: jax.Array
    energy: LocalEnergy
    controls: Controls


def sample_of(model: Model, params: Params, walker: Walkers) -> tuple[Samples, jax.Array]:
    """ln p and E_loc of one walker, and its z [N, d]."""
    log_p = model.occupations.log_prob(params.occupations, walker.state)
    energy, z = model.local_energy(params.flow, walker.x, walker.state)
    return Samples(log_p, energy, model.controls(z, walker.state)), z


def evaluate(model: Model, params: Params, walkers: Walkers, chunk: int) -> Samples:
    """ln p and E_loc of every walker, `chunk` walkers at a time to bound memory."""
    return map_walkers(lambda walker: sample_of(model, params, walker)[0], walkers, chunk)


def per_electron(samples: Samples, regression: Regression, system: System) -> dict[str, jax.Array]:
    """F, E, kinetic, potential (hartree) and S (k_B) of each sample, per electron, control variates
    applied.  [B] each

    Args:
      samples: of the gas.
      regression: of other samples, lest the means be biased.
      system: the gas.
    """
    energy = controlled(regression, samples.controls, samples.energy)
    kinetic, potential = jnp.real(energy.kinetic), energy.potential
    totals = {
        "F": system.temperature * samples.log_p + kinetic + potential,
        "E": kinetic + potential,
        "kinetic": kinetic,
        "potential": potential,
        "S": -samples.log_p,
    }
    return {name: value / system.electrons for name, value in totals.items()}


def batch_estimate(values: jax.Array) -> Estimate:
    """Mean and standard error of independent samples, inside jit.  [B] -> two scalars"""
    return Estimate(jnp.mean(values), jnp.std(values, ddof=1) / jnp.sqrt(len(values)))


def clip_deviation(deviation: jax.Array) -> jax.Array:
    """Deviations from a mean [B], real or complex; those beyond CLIP mean absolute deviations
    shortened to that."""
    size = jnp.abs(deviation)
    return deviation * jnp.minimum(1, CLIP * jnp.mean(size) / jnp.maximum(size, 1e-300))


def gradient(
    model: Model, params: Params, walkers: Walkers, f_deviation: jax.Array, e_deviation: jax.Array
) -> Params:
    """The whole gradient of F, hartree per cell: that of one surrogate.

    Args:
      model, params, walkers: with the walkers drawn from the model at these parameters.
      f_deviation: F_loc - F, real.                         [B]
      e_deviation: E_loc - b(K), complex.                   [B]
    Accuracy: unbiased but for clipping and, where a mean comes from the same batch, a factor 1 -
      1/B; equals the derivative of F by quadrature (tests/test_free_energy.py).
    """

    def surrogate(params):
        log_p = jax.vmap(model.occupations.log_prob, (None, 0))(params.occupations, walkers.state)
        log_psi = jax.vmap(model.log_psi, (None, 0, 0))(params.flow, walkers.x, walkers.state)
        return jnp.mean(f_deviation * log_p + 2 * jnp.real(jnp.conj(e_deviation) * log_psi))

    return jax.grad(surrogate)(params)


def scores(model: Model, params: Params, walkers: Walkers, chunk: int) -> Params:
    """Centred scores A of each block, with Fisher matrix A^T A.

    Returns:
      occupations: (O_phi - mean) / sqrt(B).                [B, P]
      flow: the same of O_theta, a row for the real and one for the imaginary part of each walker.    [2 B, P]
    """

    def of_p(walker):
        grads = jax.grad(model.occupations.log_prob)(params.occupations, walker.state)
        return jax.tree.map(lambda leaf: leaf[None], grads)

    def centred(score, block, parts):
        if not block:
            return jnp.zeros((parts * len(walkers.x), 0))
        leaves = jax.tree.leaves(map_walkers(score, walkers, chunk))
        matrix = jnp.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=-1)
        matrix = (matrix - matrix.mean(axis=0)) / jnp.sqrt(len(matrix))
        return matrix.reshape(-1, matrix.shape[-1])

    of_psi = lambda walker: model.score(params.flow, walker.x, walker.state).params
    return Params(centred(of_p, params.occupations, 1), centred(of_psi, params.flow, 2))


def gradient_from_scores(
    centred: Params, params: Params, f_deviation: jax.Array, e_deviation: jax.Array
) -> Params:
    """The gradient of F as the covariance of the scores with the deviations, without another
    reverse pass.

    Equal to `gradient` but for the means of the scores, which vanish in expectation.

    Args:
      centred: from `scores`.
      params: of the shapes wanted.
      f_deviation, e_deviation: as in `gradient`.           [B]
    """
    root = jnp.sqrt(len(f_deviation))
    parts = (
        f_deviation / root,
        2 * jnp.stack([jnp.real(e_deviation), jnp.imag(e_deviation)], axis=1).ravel() / root,
    )
    return Params(
        *(ravel_pytree(block)[1](part @ a) for block, part, a in zip(params, parts, centred))
    )
