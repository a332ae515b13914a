import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from known_systems import POLARIZED_2D, all_states, make_model, random_params, random_positions

from heg.model.density_matrix import Params
from heg.sampling.batch import Walkers
from heg.training.free_energy import Scores, scores
from heg.training.natural_gradient import bound_step, natural_gradient

FEW, MANY = 5, 40  # rows of the scores; the blocks below have nine and six parameters


def random_blocks(key, rows):
    """Gradients of two blocks and their scores."""
    grads = Params({"a": jax.random.normal(key, (4, 2)), "b": jnp.ones(1)}, {"c": jnp.arange(6.0)})
    matrices = Scores(
        *(jax.random.normal(jax.random.fold_in(key, size), (rows, size)) for size in (9, 6))
    )
    return grads, matrices


def update(transformation, grads, matrices):
    return transformation.update(grads, transformation.init(grads), None, scores=matrices)[0]


@pytest.mark.parametrize("rows", [FEW, MANY])
def test_equals_the_dense_solve(rows, key):
    grads, matrices = random_blocks(key, rows)
    solved = update(natural_gradient(0.1), grads, matrices)
    for block, grad, matrix in zip(solved, grads, matrices, strict=True):
        fisher = matrix.T @ matrix + 0.1 * np.eye(matrix.shape[1])
        np.testing.assert_allclose(
            ravel_pytree(block)[0], np.linalg.solve(fisher, ravel_pytree(grad)[0]), rtol=1e-10
        )
    assert jax.tree.structure(solved) == jax.tree.structure(grads)


@pytest.mark.parametrize("rows", [FEW, MANY])
def test_flow_has_the_mean_fisher_matrix_of_the_latest_batches(rows, key):
    grads, _ = random_blocks(key, rows)
    rng = np.random.default_rng(rows)
    batches = [Scores(*(rng.normal(size=(rows, size)) for size in (9, 6))) for _ in range(60)]
    transformation = natural_gradient(0.1)
    step = jax.jit(
        lambda grads, state, matrices: transformation.update(grads, state, None, scores=matrices)
    )
    state, mean = transformation.init(grads), 0.0
    for number, matrices in enumerate(batches):
        solved, state = step(grads, state, matrices)
        weight = max(1 / (number + 1), 0.05)  # all alike at first, then exponentially falling
        mean = (1 - weight) * mean + weight * matrices.flow.T @ matrices.flow
    expected = np.linalg.solve(mean + 0.1 * np.eye(6), ravel_pytree(grads.flow)[0])
    np.testing.assert_allclose(ravel_pytree(solved.flow)[0], expected, rtol=1e-9)
    # p(K) knows its last batch alone
    alone, _ = step(grads, transformation.init(grads), batches[-1])
    np.testing.assert_array_equal(
        ravel_pytree(solved.occupations)[0], ravel_pytree(alone.occupations)[0]
    )


def test_one_step_solves_a_quadratic(key):
    # f = (t - t0)^T S (t - t0) / 2 with S the Fisher matrix
    _, matrices = random_blocks(key, MANY)
    minimum = Params(jnp.linspace(-1, 1, 9), jnp.linspace(0, 2, 6))
    start = jax.tree.map(jnp.ones_like, minimum)
    grads = Params(*(a.T @ a @ (t - t0) for a, t, t0 in zip(matrices, start, minimum, strict=True)))
    step = update(natural_gradient(1e-14), grads, matrices)
    for t, s, t0 in zip(start, step, minimum, strict=True):
        np.testing.assert_allclose(t - s, t0, rtol=1e-10, atol=1e-10)


def test_long_steps_are_shortened_to_the_bound_and_short_ones_kept(key):
    steps, matrices = random_blocks(key, MANY)
    length = lambda block, matrix: jnp.linalg.norm(matrix @ ravel_pytree(block)[0])
    short = jax.tree.map(lambda leaf: 1e-4 * leaf, steps)
    assert all(length(*pair) > 0.5 for pair in zip(steps, matrices, strict=True))
    bounded = update(bound_step(0.5), steps, matrices)
    for block, step, matrix in zip(bounded, steps, matrices, strict=True):
        np.testing.assert_allclose(length(block, matrix), 0.5, rtol=1e-12)
        ratio = ravel_pytree(block)[0] / jnp.where(
            ravel_pytree(step)[0] == 0, 1, ravel_pytree(step)[0]
        )
        np.testing.assert_allclose(
            ratio, jnp.where(ravel_pytree(step)[0] == 0, 0, ratio[-1]), rtol=1e-12
        )
    kept = update(bound_step(0.5), short, matrices)
    np.testing.assert_array_equal(ravel_pytree(kept)[0], ravel_pytree(short)[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_step_that_is_not_finite_becomes_zero(value, key):
    steps, matrices = random_blocks(key, MANY)
    broken = steps._replace(flow={"c": steps.flow["c"].at[2].set(value)})
    bounded = update(bound_step(0.5), broken, matrices)
    np.testing.assert_array_equal(bounded.flow["c"], np.zeros(6))
    assert jnp.linalg.norm(bounded.occupations["a"]) > 0  # the other block moves on


def test_block_without_parameters_passes():
    grads = Params({"a": jnp.ones(2)}, {})
    matrices = Scores(jnp.eye(2), jnp.zeros((2, 0)))
    step = update(natural_gradient(1.0), grads, matrices)
    assert update(bound_step(1.0), step, matrices).flow == {}
    np.testing.assert_allclose(step.occupations["a"], [0.5, 0.5], rtol=1e-12)


def test_fisher_matrix_is_the_second_derivative_of_the_relative_entropy(key):
    # by enumeration of every state: S = d^2 KL(p_0 || p) at p = p_0
    model = make_model(POLARIZED_2D, 5, flow_layers=0, transformer_layers=0)
    states = all_states(POLARIZED_2D.spins, 5)
    params = random_params(model, key)
    log_p = jax.vmap(model.occupations.log_prob, (None, 0))
    probability = jnp.exp(log_p(params.occupations, states))
    walkers = Walkers(jnp.asarray(states), random_positions(POLARIZED_2D, key, len(states)))
    centred = scores(model, params, walkers, chunk=4).occupations * jnp.sqrt(len(states))
    centred = centred - probability @ centred  # the mean over p in place of that over the batch
    fisher = (centred * probability[:, None]).T @ centred
    vector, unravel = ravel_pytree(params.occupations)
    divergence = lambda vector: -probability @ log_p(unravel(vector), states)
    np.testing.assert_allclose(fisher, jax.hessian(divergence)(vector), rtol=1e-10, atol=1e-12)
    assert jnp.linalg.matrix_rank(fisher, rtol=1e-8) == 4  # five levels, but for a common shift
