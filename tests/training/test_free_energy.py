import functools
import math
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from known_systems import (
    POLARIZED_2D,
    SPINS_3D,
    assert_equal_within_errors,
    exact_draws,
    lowest_shells,
    make_model,
    random_like,
    random_params,
    random_positions,
)

from heg.gas.ideal import thermodynamics
from heg.model.density_matrix import Model, Params
from heg.model.kinetic import generic_kinetic_energy
from heg.model.local_energy import LocalEnergy
from heg.model.wavefunction import Score
from heg.sampling.batch import Walkers
from heg.statistics import independent
from heg.training.control_variates import SHELLS, Controls, first_regression
from heg.training.free_energy import (
    Samples,
    batch_estimate,
    clip_deviation,
    evaluate,
    gradient,
    gradient_from_scores,
    per_electron,
    scores,
)


class Toy(NamedTuple):
    """One electron on a ring of side 2 pi, four plane waves, an external cosine, a flow of two
    parameters."""

    temperature: float = 0.7
    k: tuple = (-1.0, 0.0, 1.0, 2.0)
    points: int = 64

    def model(self) -> Model:
        log_prob = lambda params, state: jax.nn.log_softmax(params["logits"])[state[0]]

        def log_psi(params, x, state):
            shape = params["shape"]
            f = lambda x: x + shape[0] * jnp.sin(x) + shape[1] * jnp.cos(2 * x)
            z, slope = jax.jvp(f, (x[0, 0],), (1.0,))
            return (
                1j * jnp.asarray(self.k)[state[0]] * z
                + jnp.log(slope) / 2
                - math.log(2 * math.pi) / 2
            )

        def local_energy(params, x, state):
            kinetic = generic_kinetic_energy(lambda x: log_psi(params, x, state), x)
            return LocalEnergy(kinetic, 0.8 * jnp.cos(x[0, 0] - 0.3)), x

        def score(params, x, state):
            parts = lambda params: jnp.stack(
                [log_psi(params, x, state).real, log_psi(params, x, state).imag]
            )
            return Score(None, jax.jacfwd(parts)(params))

        occupations = types.SimpleNamespace(
            log_prob=log_prob,
            ideal_energy=lambda state: jnp.asarray(self.k)[state[0]] ** 2 / 2,
        )
        return Model(occupations, None, log_psi, score, local_energy)

    @staticmethod
    def controls(z, state) -> Controls:
        """Regressors without effect."""
        return Controls(jnp.zeros(3), jnp.zeros(1 + SHELLS))

    def walkers(self) -> Walkers:
        """Every state at every point of a quadrature exact to rounding."""
        state, x = jnp.meshgrid(
            jnp.arange(4), 2 * jnp.pi * jnp.arange(self.points) / self.points, indexing="ij"
        )
        return Walkers(state.reshape(-1, 1), x.reshape(-1, 1, 1))

    @functools.partial(jax.jit, static_argnums=0)
    def weights(self, params) -> jax.Array:
        """p(K) |Psi_K(x)|^2 dx, the share of each walker."""
        model, walkers = self.model(), self.walkers()
        log_p = jax.vmap(model.occupations.log_prob, (None, 0))(params.occupations, walkers.state)
        log_psi = jax.vmap(model.log_psi, (None, 0, 0))(params.flow, walkers.x, walkers.state)
        return jnp.exp(log_p + 2 * log_psi.real) * 2 * jnp.pi / self.points

    @functools.partial(jax.jit, static_argnums=0)
    def samples(self, params) -> tuple[jax.Array, jax.Array]:
        """F_loc and E_loc."""
        samples = evaluate(self.model(), self.controls, params, self.walkers(), chunk=64)
        energy = samples.energy.total
        return self.temperature * samples.log_p + energy.real, energy

    def free_energy(self, params) -> jax.Array:
        """F by quadrature, differentiable."""
        return jnp.sum(self.weights(params) * self.samples(params)[0])


TOY = Toy()
TOY_PARAMS = Params(
    {"logits": jnp.array([0.3, 0.9, -0.2, 0.1])}, {"shape": jnp.array([0.25, -0.12])}
)


def test_quadrature_keeps_the_norm_of_every_toy_state():
    norms = jnp.sum(TOY.weights(TOY_PARAMS).reshape(4, -1), axis=1)
    np.testing.assert_allclose(norms, jax.nn.softmax(TOY_PARAMS.occupations["logits"]), rtol=1e-12)


@pytest.mark.parametrize("slope", [0.0, 0.6, -3.0])
def test_gradient_equals_the_derivative_of_the_free_energy_by_quadrature(slope):
    model, walkers = TOY.model(), TOY.walkers()
    weights = len(walkers.x) * TOY.weights(
        TOY_PARAMS
    )  # of samples the mean; here the share of each
    f_loc, e_loc = TOY.samples(TOY_PARAMS)
    baseline = 0.2 + slope * jax.vmap(model.occupations.ideal_energy)(
        walkers.state
    )  # any function of K
    f_deviation = weights * (f_loc - TOY.free_energy(TOY_PARAMS))
    estimate = jax.jit(lambda *deviations: gradient(model, TOY_PARAMS, walkers, *deviations))
    estimated = estimate(f_deviation, weights * (e_loc - baseline))
    exact = jax.jit(jax.grad(TOY.free_energy))(TOY_PARAMS)
    for value, expected in zip(jax.tree.leaves(estimated), jax.tree.leaves(exact), strict=True):
        assert np.all(np.abs(expected) > 1e-3)
        np.testing.assert_allclose(value, expected, rtol=1e-10)


def test_toy_free_energy_is_above_the_exact_one():
    waves = np.arange(-25, 26)  # plane waves enough for every digit
    hamiltonian = np.diag(waves**2 / 2).astype(complex)
    hamiltonian += 0.4 * np.exp(-0.3j) * np.eye(51, k=-1) + 0.4 * np.exp(0.3j) * np.eye(51, k=1)
    exact = -TOY.temperature * np.log(
        np.sum(np.exp(-np.linalg.eigvalsh(hamiltonian) / TOY.temperature))
    )
    values = [
        TOY.free_energy(random_like(TOY_PARAMS, jax.random.key(seed), 0.15)) for seed in range(5)
    ]
    assert np.all(np.array(values) > exact)
    assert min(values) - exact < 0.5  # a bound that is near, not one that cannot fail


@functools.partial(jax.jit, static_argnums=(0, 1))
def f_loc_energy_and_log_prob(gas, model, params, walkers):
    """F_loc, E_loc and ln p |Psi|^2 of every walker."""
    log_p = jax.vmap(model.occupations.log_prob, (None, 0))(params.occupations, walkers.state)
    log_psi, (energy, _) = (
        jax.vmap(f, (None, 0, 0))(params.flow, walkers.x, walkers.state)
        for f in (model.log_psi, model.local_energy)
    )
    return gas.temperature * log_p + energy.total.real, energy, log_p + 2 * log_psi.real


@pytest.mark.parametrize("block, accuracy", [("occupations", 0.03), ("flow", 0.08)])
def test_gradient_of_interacting_electrons_equals_finite_differences(block, accuracy):
    gas, (model, params, walkers, _) = SPINS_3D, exact_draws(SPINS_3D, 9, 2000)
    f_loc, energy, log_prob = f_loc_energy_and_log_prob(gas, model, params, walkers)
    estimate = jax.jit(
        lambda part: gradient(
            model, params, part[0], part[1] - f_loc.mean(), part[2] - f_loc.mean()
        )
    )
    parts = jax.tree.map(
        lambda leaf: leaf.reshape(20, -1, *leaf.shape[1:]), (walkers, f_loc, energy.total)
    )
    gradients = [estimate(jax.tree.map(lambda leaf: leaf[i], parts)) for i in range(20)]
    # along the gradient of the first parts, where F changes by more than its error; judged on the
    # others
    first, others = gradients[:5], gradients[5:]
    steepest = jax.tree.map(lambda *leaves: sum(leaves) / 5, *first)
    direction = jax.tree.map(jnp.zeros_like, params)._replace(**{block: getattr(steepest, block)})
    h, difference = 1e-3, 0.0  # its error, h^2, is far below the statistical one
    for t in (h, -h):  # F at the moved parameters, from the same draws with their weights
        moved_params = jax.tree.map(lambda p, v: p + t * v, params, direction)
        moved, _, moved_log_prob = f_loc_energy_and_log_prob(gas, model, moved_params, walkers)
        difference += jnp.exp(moved_log_prob - log_prob) * (moved - f_loc.mean()) / (2 * t)
    along = lambda tree: jnp.vdot(ravel_pytree(tree)[0], ravel_pytree(direction)[0])
    slopes = jnp.array([along(one) for one in others])
    excess = independent(slopes - difference.reshape(20, -1).mean(axis=1)[5:])
    assert_equal_within_errors(*excess, 0.0, bound=accuracy * abs(slopes.mean()))


def test_free_energy_of_any_density_matrix_is_above_the_ideal_one():
    # the kinetic energy alone: the ideal gas in the same determinants is the exact minimum
    gas, (model, params, walkers, _) = SPINS_3D, exact_draws(SPINS_3D, 9, 2000)
    f_loc, energy, _ = f_loc_energy_and_log_prob(gas, model, params, walkers)
    free = independent(f_loc - energy.potential)
    ideal = thermodynamics(lowest_shells(gas, 9).energy, gas.beta, gas.spins)
    assert free.error < 0.05 * ideal.energy
    assert free.mean - ideal.free_energy > 4 * free.error


def test_scores_are_the_centred_derivatives_of_both_logarithms():
    model, walkers = TOY.model(), jax.tree.map(lambda leaf: leaf[::25], TOY.walkers())
    rows = len(walkers.x)
    centred = jax.jit(lambda params: scores(model, params, walkers, chunk=4))(TOY_PARAMS)
    centre = lambda matrix: (matrix - matrix.mean(axis=0)) / math.sqrt(rows)
    log_psi = lambda shape, x, state: model.log_psi({"shape": shape}, x, state)
    shape = TOY_PARAMS.flow["shape"]
    derivative = lambda part: jax.vmap(jax.jacfwd(lambda *a: part(log_psi(*a))), (None, 0, 0))
    parts = [
        centre(jax.jit(derivative(part))(shape, walkers.x, walkers.state))
        for part in (jnp.real, jnp.imag)
    ]
    np.testing.assert_allclose(
        centred.flow, jnp.stack(parts, axis=1).reshape(2 * rows, -1), rtol=1e-10, atol=1e-14
    )
    # d ln softmax_K / d logit_m = [K = m] - p_m, of which the mean over the batch takes p
    np.testing.assert_allclose(
        centred.occupations, centre(jnp.eye(4)[walkers.state[:, 0]]), rtol=1e-10, atol=1e-14
    )


def test_gradient_from_scores_is_the_gradient_for_deviations_of_zero_mean(key):
    model, walkers = TOY.model(), jax.tree.map(lambda leaf: leaf[::25], TOY.walkers())
    f_deviation, real, imaginary = jax.random.normal(key, (3, len(walkers.x)))
    e_deviation = real + 1j * imaginary
    deviations = f_deviation - f_deviation.mean(), e_deviation - e_deviation.mean()

    @jax.jit
    def both_ways(params):
        centred = scores(model, params, walkers, chunk=4)
        from_scores = gradient_from_scores(centred, params, *deviations)
        return from_scores, gradient(model, params, walkers, *deviations)

    from_scores, direct = both_ways(TOY_PARAMS)
    assert jax.tree.structure(from_scores) == jax.tree.structure(direct)
    for value, expected in zip(jax.tree.leaves(from_scores), jax.tree.leaves(direct), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-14)


def test_scores_of_a_model_without_flow_have_no_columns(key):
    model = make_model(POLARIZED_2D, 9, flow_layers=0, transformer_layers=0)
    params = random_params(model, key)
    walkers = Walkers(jnp.tile(jnp.arange(3), (6, 1)), random_positions(POLARIZED_2D, key, 6))
    for chunk in (2, 4, 8):
        centred = jax.eval_shape(lambda params: scores(model, params, walkers, chunk), params)
        assert centred.flow.shape == (12, 0)


def test_per_electron_values_are_consistent(key):
    log_p, kinetic, potential = jax.random.normal(key, (3, 32))
    gas = POLARIZED_2D
    controls = Controls(jnp.ones((32, 3)), jnp.zeros((32, 1 + SHELLS)))
    values = per_electron(
        Samples(log_p, LocalEnergy(kinetic + 0.3j, potential), controls), first_regression(), gas
    )
    np.testing.assert_allclose(values["E"], (kinetic + potential) / 3, rtol=1e-12)
    np.testing.assert_allclose(values["F"], values["E"] - gas.temperature * values["S"], rtol=1e-12)
    np.testing.assert_allclose(batch_estimate(values["F"]), independent(values["F"]), rtol=1e-12)


def test_evaluation_does_not_depend_on_the_chunk():
    model, walkers = TOY.model(), TOY.walkers()
    evaluate_in_chunks = jax.jit(
        lambda params, chunk: evaluate(model, TOY.controls, params, walkers, chunk),
        static_argnums=1,
    )
    results = [evaluate_in_chunks(TOY_PARAMS, chunk) for chunk in (7, 256)]
    np.testing.assert_allclose(results[0].energy.total, results[1].energy.total, rtol=1e-12)


def test_clipping_shortens_the_longest_deviations_and_keeps_their_phase():
    deviation = jnp.array([1.0, -2.0, 3j, 0.0, 1 - 1j] * 4 + [300 * jnp.exp(0.4j)])
    clipped = clip_deviation(deviation)
    np.testing.assert_array_equal(clipped[:-1], deviation[:-1])
    np.testing.assert_allclose(
        clipped[-1], 5 * jnp.mean(jnp.abs(deviation)) * jnp.exp(0.4j), rtol=1e-12
    )
    np.testing.assert_array_equal(clip_deviation(jnp.zeros(3)), jnp.zeros(3))
