r"""Stochastic reconfiguration as optax transformations, and how far a step may be trusted.

The gradient g of each block of parameters is replaced by (S + damping)^{-1} g.  S = A^T A is the
Fisher matrix of the block: the classical one of p(K), the quantum one of the flow
(heg.training.free_energy.scores gives A).  With more parameters than rows of A the same vector
comes from the samples x samples matrix,

.. math:: (A^T A + \lambda)^{-1} g = [g - A^T (A A^T + \lambda)^{-1} A g] / \lambda .

One batch says little about a matrix with as many rows, and its noise goes into every step.  The
flow has few parameters, whatever N, so that its Fisher matrix can be kept as the mean over the
latest batches.

Sources: Sorella, Phys. Rev. Lett. 80, 4558 (1998), doi:10.1103/PhysRevLett.80.4558; the two metrics
of a density matrix, Xie, Zhang and Wang, SciPost Phys. 14, 154 (2023),
doi:10.21468/SciPostPhys.14.6.154.
"""

from collections.abc import Callable
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
# largest standard deviation of the change of ln |Psi|^2 in one step; a step of length 0.1 in the
# metric gives 0.2
TRUST = 0.5
TRUST_WALKERS = 32  # over which this deviation is taken
MAX_HALVINGS = 20  # of a step
TINY = 1e-300  # keeps a step of length zero from being divided by


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

    `update` takes grads, and keyword-only `scores`: heg.training.free_energy.Scores.  The state is
    the flow's Fisher.
    """

    def init(params):
        size = sum(leaf.size for leaf in jax.tree.leaves(params.flow))
        return Fisher(mean=jnp.zeros((size, size)), batches=jnp.zeros((), int))

    def update(grads, state, params=None, *, scores, **_):
        del params
        fisher = _update_fisher(state, scores.flow)

        def solve_occupations(vector):
            return _solve(vector, scores.occupations, damping)

        # few parameters, whatever N: their matrix is solved as it is
        def solve_flow(vector):
            return _solve_positive(_damped(fisher.mean, damping), vector)

        natural = Params(
            occupations=_apply_to_vector(solve_occupations, grads.occupations),
            flow=_apply_to_vector(solve_flow, grads.flow),
        )
        return natural, fisher

    return optax.GradientTransformationExtraArgs(init, update)


def bound_step(max_norm: float) -> optax.GradientTransformationExtraArgs:
    """Shortens the step of each block so that its length sqrt(step^T S step) is at most max_norm.

    The length is dimensionless.  To leading order half its square is the change of p(K) as a
    Kullback-Leibler divergence, and its square the infidelity 1 - |<Psi|Psi'>|^2 of the
    wavefunctions. A step that is not finite becomes zero.
    """

    def init(params):
        del params
        return optax.EmptyState()

    def update(updates, state, params=None, *, scores, **_):
        del params
        # each block by itself: their metrics have nothing in common
        bounded = Params(
            occupations=_shorten(updates.occupations, scores.occupations, max_norm),
            flow=_shorten(updates.flow, scores.flow, max_norm),
        )
        return bounded, state

    return optax.GradientTransformationExtraArgs(init, update)


def trusted(model: Model, params: Params, updates: Params, walkers: Walkers) -> Params:
    """The updates, with the flow's halved until ln |Psi|^2 changes by less than TRUST.

    A step that is short in the Fisher metric is not always short.  The metric sees the first order
    alone, and for long waves of the flow the second is larger: the small structure factor of a
    Fermi gas hides them from the metric.

    Args:
      model, params: the density matrix before the step.
      updates: to be added to the parameters.
      walkers: drawn at these parameters; the first TRUST_WALKERS are looked at.
    """
    if not params.flow:
        return updates
    few = Walkers(
        state=walkers.state[:TRUST_WALKERS],
        x=walkers.x[:TRUST_WALKERS],
    )

    def log_prob(flow):
        def log_prob_of_walker(walker):
            log_psi = model.log_psi(flow, walker.x, walker.state)
            return 2 * jnp.real(log_psi)

        return map_walkers(log_prob_of_walker, few, TRUST_WALKERS)

    def halved(number):
        return jax.tree.map(lambda leaf: leaf * 0.5**number, updates.flow)

    before = log_prob(params.flow)

    def too_far(number):
        moved = optax.apply_updates(params.flow, halved(number))
        after = log_prob(moved)
        # the standard deviation, as a change of the norm alone changes nothing
        change = jnp.std(after - before)
        # not `change >= TRUST`: a change that is not a number is too far as well
        return ~(change < TRUST) & (number < MAX_HALVINGS)

    halvings = lax.while_loop(too_far, lambda number: number + 1, 0)
    return updates._replace(flow=halved(halvings))


def _update_fisher(fisher, matrix):
    """Plain mean of the first batches, then one that forgets."""
    plain = 1 / (fisher.batches + 1)
    weight = jnp.maximum(1 - MEMORY, plain)
    of_batch = shared_product(matrix.T, matrix)
    mean = fisher.mean + weight * (of_batch - fisher.mean)
    return Fisher(mean, fisher.batches + 1)


def _apply_to_vector(function: Callable[[jax.Array], jax.Array], block):
    """The function of the parameters of a block as one vector, if there are any."""
    vector, unravel = ravel_pytree(block)
    return unravel(function(vector)) if vector.size else block


def _damped(matrix, damping):
    return matrix + damping * jnp.eye(len(matrix))


def _solve_positive(matrix, vector):
    return jax.scipy.linalg.solve(matrix, vector, assume_a="pos")


def _solve(vector, matrix, damping):
    """(A^T A + damping)^{-1} of the vector, by the smaller of the two systems."""
    rows, parameters = matrix.shape
    if parameters <= rows:
        fisher = _damped(shared_product(matrix.T, matrix), damping)
        return _solve_positive(fisher, vector)
    # [g - A^T (A A^T + damping)^{-1} A g] / damping
    gram = _damped(shared_product(matrix, matrix.T), damping)
    seen = _solve_positive(gram, matrix @ vector)
    return (vector - matrix.T @ seen) / damping


def _shorten(block, matrix, max_norm):
    vector, unravel = ravel_pytree(block)
    # sqrt(step^T S step) with S = A^T A
    length = jnp.linalg.norm(matrix @ vector)
    factor = jnp.minimum(1, max_norm / jnp.maximum(length, TINY))
    factor = jnp.where(jnp.isfinite(length), factor, 0.0)
    # zero times a number that is not finite would not be zero
    return unravel(jnp.where(factor > 0, vector * factor, 0.0))
