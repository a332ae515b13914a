r"""Stochastic reconfiguration as optax transformations, and how far a step may be trusted.

The gradient g of each block of parameters is replaced by (S + damping)^{-1} g, where S = A^T A is
the Fisher matrix
of the block: the classical one of p(K), the quantum one of the flow
(heg.training.free_energy.scores gives A).  With more parameters than rows of A the same vector
comes from the samples x samples matrix,

.. math:: (A^T A + \lambda)^{-1} g = [g - A^T (A A^T + \lambda)^{-1} A g] / \lambda .

One batch knows little of a matrix with as many rows, and its noise goes into every step.  The flow
has few parameters, whatever N, and its Fisher matrix is the mean over the latest batches.

Sources: Sorella, Phys. Rev. Lett. 80, 4558 (1998), doi:10.1103/PhysRevLett.80.4558; the two metrics
of a density matrix, Xie, Zhang and Wang, SciPost Phys. 14, 154 (2023),
doi:10.21468/SciPostPhys.14.6.154.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from heg.model.density_matrix import Model, Params
from heg.parallel.devices import map_walkers, shared_product
from heg.sampling.batch import Walkers

MEMORY = 0.95  # of the flow's Fisher matrix from batch to batch
TRUST = 0.5  # standard deviation of the change of ln |Psi|^2 in one step; one of length 0.1 in the metric gives 0.2
TRUSTEES = 32  # walkers that are asked
HALVINGS = 20  # of a step


class Fisher(NamedTuple):
    """The flow's Fisher matrix so far.

    Attributes:
      mean: over the latest batches.                        [P, P]
      batches: seen.                                        []
    """

    mean: jax.Array
    batches: jax.Array


def natural_gradient(damping: float) -> optax.GradientTransformationExtraArgs:
    """(S + damping)^{-1} g of Params, block by block.

    `update` takes grads, and keyword-only `scores`: Params of matrices A [rows, P].  The state is
    the flow's Fisher.
    """

    def init(params):
        size = sum(leaf.size for leaf in jax.tree.leaves(params.flow))
        return Fisher(jnp.zeros((size, size)), jnp.zeros((), int))

    def update(grads, state, params=None, *, scores, **_):
        del params
        fisher = _update_fisher(state, scores.flow)
        of_flow = lambda vector: jax.scipy.linalg.solve(
            _damped(fisher.mean, damping), vector, assume_a="pos"
        )
        of_p = lambda vector: _solve(vector, scores.occupations, damping)
        return Params(*(_of_vector(of, block) for of, block in zip((of_p, of_flow), grads))), fisher

    return optax.GradientTransformationExtraArgs(init, update)


def bound_step(max_norm: float) -> optax.GradientTransformationExtraArgs:
    """Shortens the step of each block so that its length sqrt(step^T S step) is at most max_norm.

    The length is dimensionless.  To leading order half its square is the change of p(K) as a
    Kullback-Leibler divergence, and its square the infidelity 1 - |<Psi|Psi'>|^2 of the
    wavefunctions. A step that is not finite becomes zero.
    """

    def update(updates, state, params=None, *, scores, **_):
        del params
        blocks = [_shorten(block, matrix, max_norm) for block, matrix in zip(updates, scores)]
        return type(updates)(*blocks), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def trusted(model: Model, params: Params, updates: Params, walkers: Walkers) -> Params:
    """The updates, those of the flow halved until ln |Psi|^2 of some walkers changes by less than
    TRUST.

    A step that is short in the Fisher metric is not short where the first order is small and the
      second is not: long
    waves of the flow, which the small structure factor of a Fermi gas hides from the metric.
    """
    if not params.flow:
        return updates
    few = jax.tree.map(lambda leaf: leaf[:TRUSTEES], walkers)
    log_prob = lambda flow: map_walkers(
        lambda of: 2 * jnp.real(model.log_psi(flow, of.x, of.state)), few, TRUSTEES
    )
    before = log_prob(params.flow)
    halved = lambda number: jax.tree.map(lambda leaf: leaf * 0.5**number, updates.flow)

    def too_far(number):
        change = jnp.std(log_prob(optax.apply_updates(params.flow, halved(number))) - before)
        return ~(change < TRUST) & (number < HALVINGS)

    return updates._replace(flow=halved(lax.while_loop(too_far, lambda number: number + 1, 0)))


def _update_fisher(fisher, matrix):
    weight = jnp.maximum(1 - MEMORY, 1 / (fisher.batches + 1))
    return Fisher(
        fisher.mean + weight * (shared_product(matrix.T, matrix) - fisher.mean), fisher.batches + 1
    )


def _of_vector(function, block):
    """Of the parameters of a block as one vector, if there are any."""
    vector, unravel = ravel_pytree(block)
    return unravel(function(vector)) if vector.size else block


def _damped(matrix, damping):
    return matrix + damping * jnp.eye(len(matrix))


def _solve(vector, matrix, damping):
    """(A^T A + damping)^{-1} of the vector, by the smaller of the two systems."""
    rows, parameters = matrix.shape
    if parameters <= rows:
        fisher = _damped(shared_product(matrix.T, matrix), damping)
        return jax.scipy.linalg.solve(fisher, vector, assume_a="pos")
    gram = _damped(shared_product(matrix, matrix.T), damping)
    return (
        vector - matrix.T @ jax.scipy.linalg.solve(gram, matrix @ vector, assume_a="pos")
    ) / damping


def _shorten(block, matrix, max_norm):
    vector, unravel = ravel_pytree(block)
    length = jnp.linalg.norm(matrix @ vector)
    factor = jnp.where(
        jnp.isfinite(length), jnp.minimum(1, max_norm / jnp.maximum(length, 1e-300)), 0.0
    )
    return unravel(jnp.where(factor > 0, vector * factor, 0.0))
