import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from known_systems import (
    POLARIZED_2D,
    all_states,
    generator,
    make_model,
    random_params,
    random_positions,
)

from heg.model.density_matrix import Params
from heg.sampling.batch import Walkers
from heg.training.free_energy import Scores, scores
from heg.training.natural_gradient import bound_step, natural_gradient

FEW, MANY = 5, 40  # rows of the scores; the blocks below have nine and six parameters


def random_blocks(key, rows):
    """Gradients of two blocks and their scores."""
    rng = generator(key)
    grads = Params({"a": rng.normal(size=(4, 2)), "b": np.ones(1)}, {"c": np.arange(6.0)})
    return grads, Scores(*(rng.normal(size=(rows, size)) for size in (9, 6)))


def update(transformation, grads, matrices):
    """The first step, compiled."""

    @jax.jit
    def first_step(grads, matrices):
        return transformation.update(grads, transformation.init(grads), None, scores=matrices)[0]

    return jax.device_get(first_step(grads, matrices))


def vector(block):
    """All numbers of a block."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(block)])


@pytest.mark.parametrize("rows", [FEW, MANY])
def test_equals_the_dense_solve(rows, key):
    grads, matrices = random_blocks(key, rows)
    solved = update(natural_gradient(0.1), grads, matrices)
    for block, grad, matrix in zip(solved, grads, matrices, strict=True):
        fisher = matrix.T @ matrix + 0.1 * np.eye(matrix.shape[1])
        np.testing.assert_allclose(vector(block), np.linalg.solve(fisher, vector(grad)), rtol=1e-10)
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
    expected = np.linalg.solve(mean + 0.1 * np.eye(6), vector(grads.flow))
    np.testing.assert_allclose(vector(solved.flow), expected, rtol=1e-9)
    # p(K) knows its last batch alone
    alone, _ = step(grads, transformation.init(grads), batches[-1])
    np.testing.assert_array_equal(vector(solved.occupations), vector(alone.occupations))


def test_one_step_solves_a_quadratic(key):
    # f = (t - t0)^T S (t - t0) / 2 with S the Fisher matrix
    _, matrices = random_blocks(key, MANY)
    minimum = Params(np.linspace(-1, 1, 9), np.linspace(0, 2, 6))
    start = jax.tree.map(np.ones_like, minimum)
    grads = Params(*(a.T @ a @ (t - t0) for a, t, t0 in zip(matrices, start, minimum, strict=True)))
    step = update(natural_gradient(1e-14), grads, matrices)
    for t, s, t0 in zip(start, step, minimum, strict=True):
        np.testing.assert_allclose(t - s, t0, rtol=1e-10, atol=1e-10)


def test_long_steps_are_shortened_to_the_bound_and_short_ones_kept(key):
    steps, matrices = random_blocks(key, MANY)
    length = lambda block, matrix: np.linalg.norm(matrix @ vector(block))
    short = jax.tree.map(lambda leaf: 1e-4 * leaf, steps)
    assert all(length(*pair) > 0.5 for pair in zip(steps, matrices, strict=True))
    bounded = update(bound_step(0.5), steps, matrices)
    for block, step, matrix in zip(bounded, steps, matrices, strict=True):
        np.testing.assert_allclose(length(block, matrix), 0.5, rtol=1e-12)
        is_zero = vector(step) == 0
        ratio = vector(block) / np.where(is_zero, 1, vector(step))
        np.testing.assert_allclose(ratio, np.where(is_zero, 0, ratio[-1]), rtol=1e-12)
    kept = update(bound_step(0.5), short, matrices)
    np.testing.assert_array_equal(vector(kept), vector(short))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_step_that_is_not_finite_becomes_zero(value, key):
    steps, matrices = random_blocks(key, MANY)
    steps.flow["c"][2] = value
    bounded = update(bound_step(0.5), steps, matrices)
    np.testing.assert_array_equal(bounded.flow["c"], np.zeros(6))
    assert np.linalg.norm(bounded.occupations["a"]) > 0  # the other block moves on


def test_block_without_parameters_passes():
    grads = Params({"a": np.ones(2)}, {})
    matrices = Scores(np.eye(2), np.zeros((2, 0)))
    step = update(natural_gradient(1.0), grads, matrices)
    assert update(bound_step(1.0), step, matrices).flow == {}
    np.testing.assert_allclose(step.occupations["a"], [0.5, 0.5], rtol=1e-12)


def test_fisher_matrix_is_the_second_derivative_of_the_relative_entropy(key):
    # by enumeration of every state: S = d^2 KL(p_0 || p) at p = p_0
    model = make_model(POLARIZED_2D, 5, flow_layers=0, transformer_layers=0)
    states = all_states(POLARIZED_2D.spins, 5)
    params = random_params(model, key)
    log_p = jax.jit(jax.vmap(model.occupations.log_prob, (None, 0)))
    probability = np.exp(log_p(params.occupations, states))
    walkers = Walkers(states, random_positions(POLARIZED_2D, key, len(states)))
    found = jax.jit(lambda params, walkers: scores(model, params, walkers, chunk=4))(
        params, walkers
    )
    centred = np.asarray(found.occupations) * np.sqrt(len(states))
    centred = centred - probability @ centred  # the mean over p in place of that over the batch
    fisher = (centred * probability[:, None]).T @ centred
    place, unravel = ravel_pytree(params.occupations)
    divergence = lambda place: -probability @ log_p(unravel(place), states)
    expected = jax.jit(jax.hessian(divergence))(place)
    np.testing.assert_allclose(fisher, expected, rtol=1e-10, atol=1e-12)
    assert np.linalg.matrix_rank(fisher, rtol=1e-8) == 4  # five levels, but for a common shift
