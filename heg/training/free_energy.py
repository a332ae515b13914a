r"""The variational free energy and its two gradients, estimated from samples.

.. math:: F = \mathbb{E}_{K \sim p}\,\mathbb{E}_{x \sim |\Psi_K|^2} [T \ln p(K) + E_{loc}(K, x)]

With F_loc = T ln p + Re E_loc, b(K) any real function of K and O = grad ln p or grad ln Psi,

.. math:: \partial_\phi F = \mathbb{E}[(F_{loc} - F)\, O_\phi], \qquad
          \partial_\theta F = 2\,\mathrm{Re}\,\mathbb{E}[(E_{loc} - b(K))^*\, O_\theta] .

Psi_K is normalised for each K, so b leaves the second gradient unbiased.  Fitted to E_loc on
earlier batches (heg.training.control_variates), b(K) is nearly the mean of E_loc over x.  In
training it stands for E_loc in the first gradient: p(K) then minimises F with the fitted energies,
and the noise of x, many times T in a cold gas, does not reach it.

Source: Xie, Zhang and Wang, SciPost Phys. 14, 154 (2023), doi:10.21468/SciPostPhys.14.6.154.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from heg.gas.system import System
from heg.model.density_matrix import Energy, Model, Params
from heg.parallel.devices import map_walkers
from heg.sampling.batch import Walkers
from heg.statistics import Estimate
from heg.training.control_variates import (
    Controls,
    ControlsFunction,
    Regression,
    controlled,
)

CLIP = 5.0  # deviations beyond CLIP mean absolute deviations are shortened, in gradients only
TINY = 1e-300  # keeps a deviation of zero from being divided by


class Samples(NamedTuple):
    """Energies and probabilities of samples of (K, x), per cell.

    Attributes:
      log_p: ln p(K).                                       [B]
      energy: E_loc, hartree.                               [B]
      controls: regressors of its noise.                    [B, ...]
    """

    log_p: jax.Array
    energy: Energy
    controls: Controls


class Scores(NamedTuple):
    """Centred scores A of each block of parameters, with Fisher matrix A^T A.

    Attributes:
      occupations: (O_phi - mean) / sqrt(B).                [B, P]
      flow: the same of O_theta, a row for the real and one for the imaginary part of each walker.
        [2 B, P]
    """

    occupations: jax.Array
    flow: jax.Array


def evaluate(
    model: Model, controls: ControlsFunction, params: Params, walkers: Walkers, chunk: int
) -> Samples:
    """ln p, E_loc and the controls of every walker, `chunk` walkers at a time to bound memory.

    Args:
      model, params: the density matrix.
      controls: from heg.training.control_variates.make_controls.
      walkers: states and positions.
      chunk: walkers at once.
    """

    def samples_of_walker(walker):
        log_p = model.occupations.log_prob(params.occupations, walker.state)
        energy, z = model.local_energy(params.flow, walker.x, walker.state)
        return Samples(log_p, energy, controls(z, walker.state))

    return map_walkers(samples_of_walker, walkers, chunk)


def per_electron(samples: Samples, regression: Regression, system: System) -> dict[str, jax.Array]:
    """F, E, kinetic, potential (hartree) and S (k_B) of each sample, per electron.  [B] each

    The control variates are applied.

    Args:
      samples: of the gas.
      regression: of other samples; fitted on the same ones it would bias the means.
      system: the gas.
    """
    # E_loc - gamma C: the same mean, less noise
    energy = controlled(regression, samples.controls, samples.energy)
    totals = energy.totals(system.temperature, samples.log_p)
    return {name: value / system.electrons for name, value in totals.items()}


def weights(samples: Samples, system: System) -> dict[str, jax.Array]:
    """What lifts the bound of a classical plasma, per electron, without control variates.

    It is ln w and the potential energy that w weights (heg.model.classical); empty for a density
    matrix.  [B] each
    """
    of_cell = samples.energy.weights(system.temperature)
    return {name: value / system.electrons for name, value in of_cell.items()}


def batch_estimate(values: jax.Array) -> Estimate:
    """Mean and standard error of independent samples, inside jit.  [B] -> two scalars"""
    mean = jnp.mean(values)
    deviation = jnp.std(values, ddof=1)
    error = deviation / jnp.sqrt(len(values))
    # inside jit the numbers of an Estimate are traced arrays; outside they print as floats do
    return Estimate(mean, error)  # type: ignore[arg-type]


def clip_deviation(deviation: jax.Array) -> jax.Array:
    """Deviations from a mean, those beyond CLIP mean absolute deviations shortened to that.

    Args:
      deviation: real or complex; the phase is kept.        [B]
    """
    size = jnp.abs(deviation)
    longest = CLIP * jnp.mean(size)
    factor = longest / jnp.maximum(size, TINY)
    return deviation * jnp.minimum(1, factor)


def gradient(
    model: Model, params: Params, walkers: Walkers, f_deviation: jax.Array, e_deviation: jax.Array
) -> Params:
    """The whole gradient of F, hartree per cell: that of one surrogate.

    Args:
      model, params, walkers: the walkers drawn from the model at these parameters.
      f_deviation: F_loc - F, or T ln p + b(K) less its mean, real.  [B]
      e_deviation: E_loc - b(K), complex.                   [B]
    Accuracy: with F_loc unbiased, but for clipping and, where a mean comes from the same batch, a
      factor 1 - 1/B; equals the derivative of F by quadrature (tests/training/test_free_energy.py).
    """
    log_p_of_batch = jax.vmap(model.occupations.log_prob, in_axes=(None, 0))
    log_psi_of_batch = jax.vmap(model.log_psi, in_axes=(None, 0, 0))

    # no free energy itself: its derivative at these parameters, the deviations held fixed, is that
    # of F
    def surrogate(params):
        log_p = log_p_of_batch(params.occupations, walkers.state)
        log_psi = log_psi_of_batch(params.flow, walkers.x, walkers.state)
        of_p = f_deviation * log_p
        product = jnp.conj(e_deviation) * log_psi
        of_psi = 2 * jnp.real(product)
        return jnp.mean(of_p + of_psi)

    return jax.grad(surrogate)(params)


def scores(model: Model, params: Params, walkers: Walkers, chunk: int) -> Scores:
    """Centred scores of both blocks, `chunk` walkers at a time; a block without parameters has no
    columns."""

    def score_of_p(walker):
        grads = jax.grad(model.occupations.log_prob)(params.occupations, walker.state)
        return jax.tree.map(lambda leaf: leaf[None], grads)  # one part, as ln p is real

    def score_of_psi(walker):
        return model.score(params.flow, walker.x, walker.state).params

    batch = len(walkers.x)
    occupations = jnp.zeros((batch, 0))
    if params.occupations:
        of_p = map_walkers(score_of_p, walkers, chunk)
        occupations = _centred(of_p)
    # real and imaginary part of each walker
    flow = jnp.zeros((2 * batch, 0))
    if params.flow:
        of_psi = map_walkers(score_of_psi, walkers, chunk)
        flow = _centred(of_psi)
    return Scores(occupations, flow)


def gradient_from_scores(
    centred: Scores, params: Params, f_deviation: jax.Array, e_deviation: jax.Array
) -> Params:
    """The gradient of F as the covariance of the scores with the deviations.

    It needs no second reverse pass.  It differs from `gradient` by the means of the scores, which
    vanish in expectation.

    Args:
      centred: from `scores`.
      params: of the shapes wanted.
      f_deviation, e_deviation: as in `gradient`.           [B]
    """
    root = jnp.sqrt(len(f_deviation))
    # the centred scores hold one factor 1 / sqrt(B) of the mean, the deviations the other
    of_p = f_deviation / root
    parts = jnp.stack([jnp.real(e_deviation), jnp.imag(e_deviation)], axis=1)
    of_psi = 2 * parts.ravel() / root
    return Params(
        occupations=_shaped_as(params.occupations, of_p @ centred.occupations),
        flow=_shaped_as(params.flow, of_psi @ centred.flow),
    )


def _centred(score):
    """Scores with leaves [B, parts, ...] as one matrix, centred and over sqrt(B).  [B parts, P]"""
    # all parameters along one axis, in the order of the tree
    flat = [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(score)]
    matrix = jnp.concatenate(flat, axis=-1)
    # real and imaginary parts have means of their own
    deviation = matrix - matrix.mean(axis=0)
    matrix = deviation / jnp.sqrt(len(matrix))
    return matrix.reshape(-1, matrix.shape[-1])


def _shaped_as(block, vector):
    """The vector in the shapes of a block of parameters."""
    _, unravel = ravel_pytree(block)
    return unravel(vector)
