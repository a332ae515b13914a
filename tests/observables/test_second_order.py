"""The free energy to second order, beside sums over all states."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from known_systems import all_states
from scipy.special import logsumexp

from heg import Config, ModelConfig, RunConfig, SystemConfig, build
from heg.gas.ideal import log_partition
from heg.gas.system import System
from heg.observables.evaluation import Drawn
from heg.observables.second_order.contributions import contribution, known_part
from heg.observables.second_order.degenerate import pair_correction, shell_correction
from heg.observables.second_order.excitations import Excitations
from heg.observables.second_order.levels import Levels
from heg.observables.second_order.pair_operators import count_operators, pair_elements
from heg.observables.second_order.perturbation import (
    Correction,
    Known,
    Row,
    second_order,
    shifted_sum,
    spectrum_energies,
    spectrum_of,
    thermal_denominator,
    unbiased_square,
)
from heg.observables.second_order.relaxation import Relaxation
from heg.reference.determinants import block_of
from heg.runs.second_order_rows import FEWEST_ROWS, SKIPPED, collect

LARGEST = 4
SMALL = ModelConfig(transformer_layers=0, flow_layers=0, orbital_tolerance=1e-2)
GASES = {
    "2D 3u": SystemConfig(3, 2, 4.0, 0.5, "1", (0.1, 0.2)),
    "3D 2u1d, degenerate": SystemConfig(3, 3, 4.0, 0.5, "1/3"),
}


def test_the_denominator_is_finite_and_even():
    beta = 3.0
    gap = np.array([1e-12, 1e-3, 0.5, 40.0])
    h = thermal_denominator(gap, beta)
    np.testing.assert_allclose(h, thermal_denominator(-gap, beta))
    np.testing.assert_allclose(h[0], beta / 2)
    np.testing.assert_allclose(h[1:], np.tanh(beta * gap[1:] / 2) / gap[1:], rtol=1e-12)
    np.testing.assert_allclose(h[-1], 1 / 40.0)
    # the sum over pairs: (p + p') h = (p - p') / gap
    p, p_prime = 1.0, np.exp(-beta * 0.5)
    np.testing.assert_allclose((p + p_prime) * h[2], (p - p_prime) / 0.5)


def test_the_square_is_unbiased_however_few_samples_there_are():
    rng = np.random.default_rng(0)
    known, left = 0.3, -0.1
    terms = left + 0.5 * rng.normal(size=(200_000, 3))
    found = unbiased_square(known, terms.sum(axis=1), np.sum(terms**2, axis=1), 3)
    error = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - (known + left) ** 2) < 4 * error < 4e-3


def test_a_pair_of_states_is_exact():
    beta, gap, element = 2.0, np.array([0.0, 0.3, -0.3, 5.0]), np.array([0.2, 0.2, 0.2, 0.1])
    levels = np.stack([gap / 2 + np.hypot(gap / 2, element), gap / 2 - np.hypot(gap / 2, element)])
    exact = np.log(np.exp(-beta * levels).sum(axis=0)) - np.log(1 + np.exp(-beta * gap))
    second = element**2 * thermal_denominator(gap, beta)
    np.testing.assert_allclose(
        pair_correction(element, gap, beta), exact / beta - second, atol=1e-14
    )


def test_the_spectrum_keeps_the_sum_and_its_denominators():
    gas = System(3, 0, 3, 4.0, 0.5)
    rng = np.random.default_rng(1)
    squares, gap = rng.random(1000), rng.normal(size=1000)
    energies = spectrum_energies(gas)
    spectrum = spectrum_of(squares, gap, energies)
    np.testing.assert_allclose(spectrum.sum(), squares.sum())
    by_bins = spectrum @ thermal_denominator(energies, gas.beta)
    np.testing.assert_allclose(by_bins, squares @ thermal_denominator(gap, gas.beta), rtol=1e-3)
    # the shift is that of its own result
    lowered = shifted_sum(gas, spectrum)
    raised = energies + 4 * lowered / gas.electrons
    np.testing.assert_allclose(
        spectrum @ thermal_denominator(raised, gas.beta), lowered, rtol=1e-10
    )


def test_few_states_that_differ_little_do_not_lose_the_others():
    """Two states, one of them rare: the value is right on average and its error holds what it
    says."""
    gas, rng = System(2, 0, 3, 4.0, 0.5), np.random.default_rng(3)
    truth, found = [], []
    for share in np.repeat((0.01, 0.03, 0.1), 60):
        rare = rng.random(32) < share
        known = np.where(rare, 1.6, 0.8)
        lowered = np.where(rare, 2.0, 1.0) + 0.02 * rng.normal(size=32)
        rows = Row(
            variance=lowered,
            squared=lowered[:, None],
            lowered=lowered[:, None],
            known=known,
            products=np.stack([lowered, known], axis=1) * known[:, None],
            moved=np.stack([lowered, lowered], axis=1),
            alike=np.zeros((32, 3, 2, 1)),
            spectrum=np.zeros((32, 400)),
            response={},
        )
        many = rng.random(2048) < share
        of_many = np.where(many, 1.6, 0.8)
        result = second_order(
            gas,
            rows,
            Known(of_many.mean(), of_many.std() / np.sqrt(2048), of_many.var()),
            Correction(0.0, 0.0, 0.0),
            Relaxation(0.0, 0.0),
        )
        truth.append(-(1 + share) / 2)
        found.append((result.doubles, result.statistical))
    value, error = np.transpose(found)
    pulls = (value - truth) / error
    assert abs(pulls.mean()) < 0.6
    assert np.mean(np.abs(pulls) > 3) < 0.1
    assert error.mean() < 5e-3


def excitations_of(gas):
    """An untrained density matrix, whose wavefunctions are determinants: ideal p(K), W the bare
    interaction."""
    config = Config(gas, RunConfig("unused"), model=SMALL)
    solver = build(config)
    params = solver.init(jax.random.key(0)).average
    return Excitations(solver.system, config, params, 0, LARGEST), solver


def bare_levels(excitations, operators):
    weights = np.zeros(count_operators(excitations.system))
    weights[0] = operators
    return Levels(np.array([0.0, 1.0, 1.0]), np.zeros((2, 2)), weights)


def exact_sum(excitations, solver):
    """E_K sum W^2 h over every K of the plane waves of p(K), and its share that is in reach."""
    system, orbitals = solver.system, solver.cutoff.orbitals
    states = all_states(system.spins, len(orbitals.energy))
    levels = system.beta * orbitals.energy
    log_z = sum(float(log_partition(levels, count)) for count in system.spins)
    weight = np.exp(-np.sum(levels[states], axis=1) - log_z)
    likely = weight > 1e-6
    bare = bare_levels(excitations, 1.0)
    values = [
        known_part(excitations, bare, np.stack([state, state])).mean for state in states[likely]
    ]
    return weight[likely] @ values, weight[likely].sum()


@pytest.mark.parametrize("gas", GASES.values(), ids=GASES)
def test_without_a_flow_samples_give_the_sum_over_all_states(gas):
    excitations, solver = excitations_of(gas)
    system = solver.system
    expected, share = exact_sum(excitations, solver)
    assert share > 0.99
    keys = jax.random.split(jax.random.key(5), 100)
    sample = jax.jit(jax.vmap(solver.model.occupations.sample, (None, 0)))
    states = np.asarray(sample(excitations.params.occupations, keys))
    levels = bare_levels(excitations, 0.0)
    rows = [contribution(excitations, levels, state, key) for state, key in zip(states, keys)]
    rows = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    none = Correction(0.0, 0.0, 0.0)
    found = second_order(system, rows, Known(0.0, 0.0, 0.0), none, Relaxation(0.0, 0.0))
    assert (
        abs(found.doubles * system.electrons + expected)
        < 3.5 * found.statistical * system.electrons
    )
    assert found.statistical * system.electrons < 0.2 * expected
    # to first order the interaction changes by twice that: 2 F_2
    change = rows.response["potential"]
    error = change.std(ddof=1) / np.sqrt(len(change))
    assert abs(change.mean() * system.electrons + 2 * expected) < 3.5 * error * system.electrons
    # where all is known nothing is left to chance
    exact = contribution(excitations, bare_levels(excitations, 1.0), states[0], keys[0])
    np.testing.assert_allclose(exact.lowered.sum(), exact.known, rtol=1e-9)


def test_a_degenerate_shell_is_that_of_the_hamiltonian():
    """Two electrons of one spin and one of the other, four states of one kinetic energy and
    momentum."""
    excitations, solver = excitations_of(SystemConfig(3, 2, 4.0, 0.02, "1/3"))
    system, doubles_of = solver.system, excitations.doubles_of
    beta = system.beta
    elements = pair_elements(system, bare_levels(excitations, 1.0).operators, doubles_of.strength)
    known = lambda doubles: doubles.elements(elements)
    gap = lambda doubles: doubles.ideal
    n = np.array([[0, 0], [1, 0], [-1, 0]])
    value, by_pairs = shell_correction(doubles_of, n, known, gap, beta)
    assert by_pairs == 0.0
    unit = (2 * np.pi / system.box) ** 2 / 2
    block = block_of(system, n.sum(axis=0), 6 * unit)
    shell = np.flatnonzero(block.kinetic == system.electrons * np.sum(n**2))
    matrix = block.hamiltonian[np.ix_(shell, shell)]
    matrix = matrix - np.diag(np.diagonal(matrix))
    assert len(shell) > 2
    exact = (logsumexp(-beta * np.linalg.eigvalsh(matrix)) - np.log(len(shell))) / beta
    second = beta / 2 * np.sum(matrix**2) / len(shell)
    doubles = doubles_of.of_vectors(n)
    others = pair_correction(np.where(doubles.allowed, known(doubles), 0.0), gap(doubles), beta)[
        ~doubles.alike
    ].sum()
    assert value == pytest.approx(exact - second + others, rel=1e-9)
    assert abs(exact - second) > 0.1 * second


def test_a_stopped_search_goes_on_and_ends_where_states_end(tmp_path):
    # opposite spins in two dimensions, where samples are not explained in full
    excitations, solver = excitations_of(SystemConfig(2, 2, 4.0, 0.5, "0"))
    state = solver.init(jax.random.key(0))
    frozen = SimpleNamespace(
        system=solver.system, config=excitations.config, state=state, solver=solver
    )
    keys = jax.random.split(jax.random.key(6), SKIPPED + 36)
    sample = jax.jit(jax.vmap(solver.model.occupations.sample, (None, 0)))
    states = np.asarray(sample(state.average.occupations, keys))
    log_prob = jax.jit(jax.vmap(solver.model.occupations.log_prob, (None, 0)))
    drawn = Drawn(states, np.asarray(log_prob(state.average.occupations, states)))
    nothing = lambda have, wanted: None

    def go(name, accuracy, stop=lambda: False):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        return collect(frozen, directory, drawn, accuracy, nothing, stop)

    calls = iter(range(100))
    assert go("stopped", np.inf, lambda: next(calls) == 5) is None
    assert (tmp_path / "stopped" / "second-order-0.h5").exists()
    resumed, whole = go("stopped", np.inf), go("whole", np.inf)
    assert len(whole.rows.variance) == FEWEST_ROWS
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    # an accuracy out of reach takes all states that were drawn, and keeps those at hand
    more = go("whole", 1e-12)
    assert len(more.rows.variance) == 36
    np.testing.assert_array_equal(more.rows.lowered[:FEWEST_ROWS], whole.rows.lowered)
