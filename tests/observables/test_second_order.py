"""The free energy to second order, beside sums over all states."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from known_systems import all_states
from scipy.special import logsumexp
from small_runs import FEW_STATES, few_states
from untrained_excitations import bare_levels, untrained

from heg import SystemConfig
from heg.gas.ideal import log_partition
from heg.gas.system import System
from heg.observables.evaluation import Drawn
from heg.observables.second_order.contributions import contribution, known_part
from heg.observables.second_order.degenerate import pair_correction, shell_correction
from heg.observables.second_order.pair_operators import pair_elements
from heg.observables.second_order.perturbation import (
    Correction,
    Known,
    Row,
    ThirdOrder,
    second_order,
    thermal_denominator,
    unbiased_square,
)
from heg.observables.second_order.relaxation import Relaxation
from heg.reference.determinants import block_of
from heg.runs import second_order_rows

NO_CORRECTION = Correction(0.0, 0.0, 0.0)
NO_RELAXATION = Relaxation(0.0, 0.0, 0.0, 0.0)
NO_THIRD = ThirdOrder(0.0, 0.0)
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
    known = 0.3
    left = -0.1
    terms = left + 0.5 * rng.normal(size=(200_000, 3))
    everywhere = np.full(len(terms), known)
    squares = unbiased_square(everywhere, terms.sum(axis=1), np.sum(terms**2, axis=1), 3)
    error = squares.std() / np.sqrt(len(squares))
    assert abs(squares.mean() - (known + left) ** 2) < 4 * error < 4e-3


def test_a_pair_of_states_is_exact():
    beta = 2.0
    gap = np.array([0.0, 0.3, -0.3, 5.0])
    element = np.array([0.2, 0.2, 0.2, 0.1])
    split = np.hypot(gap / 2, element)
    levels = np.stack([gap / 2 + split, gap / 2 - split])
    exact = np.log(np.exp(-beta * levels).sum(axis=0)) - np.log(1 + np.exp(-beta * gap))
    second = element**2 * thermal_denominator(gap, beta)
    correction = pair_correction(element, gap, beta)
    np.testing.assert_allclose(correction, exact / beta - second, atol=1e-14)


def test_few_states_that_differ_little_do_not_lose_the_others():
    """Two states, one of them rare: the value is right on average, and its error is honest."""
    gas = System(2, 0, 3, 4.0, 0.5)
    rng = np.random.default_rng(3)
    truth = []
    values = []
    errors = []
    for share in np.repeat((0.01, 0.03, 0.1), 60):
        rare = rng.random(32) < share
        lowered = np.where(rare, 2.0, 1.0) + 0.02 * rng.normal(size=32)
        rows = rows_of(lowered, known=np.where(rare, 1.6, 0.8))
        rare_of_many = rng.random(2048) < share
        known = np.where(rare_of_many, 1.6, 0.8)
        of_many = Known(known.mean(), known.std() / np.sqrt(2048), known.var())
        result = second_order(gas, rows, of_many, NO_CORRECTION, NO_RELAXATION, NO_THIRD)
        truth.append(-(1 + share) / 2)
        values.append(result.doubles)
        errors.append(result.statistical)
    pulls = np.subtract(values, truth) / errors
    assert abs(pulls.mean()) < 0.6
    assert np.mean(np.abs(pulls) > 3) < 0.1
    assert np.mean(errors) < 5e-3


def rows_of(lowered, known):
    """Rows that hold these sums of W^2 h and nothing else of interest."""
    count = len(lowered)
    return Row(
        variance=lowered,
        squared=lowered[:, None],
        lowered=lowered[:, None],
        known=known,
        products=np.stack([lowered, known], axis=1) * known[:, None],
        moved=np.stack([lowered, lowered], axis=1),
        alike=np.zeros((count, 3, 2, 1)),
        response={},
    )


def drawn_states(solver, params, key, count):
    sample = jax.jit(jax.vmap(solver.model.occupations.sample, (None, 0)))
    return np.asarray(sample(params.occupations, jax.random.split(key, count)))


def exact_sum(excitations, solver):
    """E_K sum W^2 h over every K of the plane waves of p(K), and its share that is in reach."""
    system = solver.system
    orbitals = solver.cutoff.orbitals
    states = all_states(system.spins, len(orbitals.energy))
    levels = system.beta * orbitals.energy
    log_z = sum(float(log_partition(levels, count)) for count in system.spins)
    weight = np.exp(-np.sum(levels[states], axis=1) - log_z)
    likely = weight > 1e-6
    bare = bare_levels(excitations, 1.0)
    values = []
    for state in states[likely]:
        # twice, as one state gives no error
        known = known_part(excitations, bare, np.stack([state, state]))
        values.append(known.mean)
    return weight[likely] @ values, weight[likely].sum()


@pytest.mark.parametrize("gas", GASES.values(), ids=GASES)
def test_without_a_flow_samples_give_the_sum_over_all_states(gas):
    excitations, solver = untrained(gas)
    system = solver.system
    expected, share = exact_sum(excitations, solver)
    assert share > 0.99
    keys = jax.random.split(jax.random.key(5), 100)
    states = drawn_states(solver, excitations.params, jax.random.key(5), 100)
    levels = bare_levels(excitations, 0.0)
    rows = [contribution(excitations, levels, state, key) for state, key in zip(states, keys)]
    rows = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    known = Known(0.0, 0.0, 0.0)
    result = second_order(system, rows, known, NO_CORRECTION, NO_RELAXATION, NO_THIRD)
    doubles = result.doubles * system.electrons
    error = result.statistical * system.electrons
    assert abs(doubles + expected) < 3.5 * error
    assert error < 0.2 * expected

    # to first order the interaction changes by twice that: 2 F_2
    change = rows.response["potential"] * system.electrons
    error = change.std(ddof=1) / np.sqrt(len(change))
    assert abs(change.mean() + 2 * expected) < 3.5 * error

    # where all is known nothing is left to chance
    exact = contribution(excitations, bare_levels(excitations, 1.0), states[0], keys[0])
    np.testing.assert_allclose(exact.lowered.sum(), exact.known, rtol=1e-9)


def test_a_degenerate_shell_is_that_of_the_hamiltonian():
    """Two electrons of one spin and one of the other: four states of one kinetic energy."""
    excitations, solver = untrained(SystemConfig(3, 2, 4.0, 0.02, "1/3"))
    system = solver.system
    doubles_of = excitations.doubles_of
    beta = system.beta
    elements = pair_elements(system, bare_levels(excitations, 1.0).operators, doubles_of.strength)
    known = lambda doubles: doubles.elements(elements)
    gap = lambda doubles: doubles.ideal
    n = np.array([[0, 0], [1, 0], [-1, 0]])
    correction = shell_correction(doubles_of, n, known, gap, beta)
    assert correction.unsure == 0.0

    unit = (2 * np.pi / system.box) ** 2 / 2
    block = block_of(system, n.sum(axis=0), 6 * unit)
    shell = np.flatnonzero(block.kinetic == system.electrons * np.sum(n**2))
    matrix = block.hamiltonian[np.ix_(shell, shell)]
    matrix = matrix - np.diag(np.diagonal(matrix))
    assert len(shell) > 2
    exact = (logsumexp(-beta * np.linalg.eigvalsh(matrix)) - np.log(len(shell))) / beta
    second = beta / 2 * np.sum(matrix**2) / len(shell)

    doubles = doubles_of.of_vectors(n)
    others = doubles.where(doubles.allowed & ~doubles.alike)
    of_pairs = pair_correction(known(others), gap(others), beta).sum()
    assert correction.value == pytest.approx(exact - second + of_pairs, rel=1e-9)
    assert abs(exact - second) > 0.1 * second


def test_higher_orders_take_the_mean_of_the_second_order_and_its_pade_form():
    gas = System(2, 0, 3, 4.0, 0.5)
    lowered = np.array([1.0, 1.2, 0.9, 1.1])
    rows = rows_of(lowered, known=np.zeros(4))
    known = Known(0.0, 0.0, 0.0)
    of = lambda third: second_order(gas, rows, known, NO_CORRECTION, NO_RELAXATION, third)
    plain = of(NO_THIRD)
    half = of(ThirdOrder(1.0, 0.0))
    # F_2 / (1 + 1) is half of F_2, and the mean of both three quarters
    assert half.value == pytest.approx(0.75 * plain.value)
    assert half.resummed == pytest.approx(-0.25 * plain.value)
    assert half.higher_orders == pytest.approx(0.25 * abs(plain.value))
    # a fifth of F_2 at least, and the error of the third order itself
    assert plain.higher_orders == pytest.approx(0.2 * abs(plain.value))
    unsure = of(ThirdOrder(1.0, 2.0)).higher_orders
    assert unsure == pytest.approx(np.hypot(0.25, 0.25) * abs(plain.value))


@pytest.fixture
def small_search():
    with few_states():
        yield


def test_a_stopped_search_goes_on_and_ends_where_states_end(tmp_path, small_search):
    # opposite spins in two dimensions, where samples are not explained in full
    excitations, solver = untrained(SystemConfig(2, 2, 4.0, 0.5, "0"))
    state = solver.init(jax.random.key(0))
    frozen = SimpleNamespace(
        system=solver.system,
        config=excitations.config,
        state=state,
        solver=solver,
    )
    states = drawn_states(
        solver, state.average, jax.random.key(6), FEW_STATES["SKIPPED_DRAWS"] + 12
    )
    log_prob = jax.jit(jax.vmap(solver.model.occupations.log_prob, (None, 0)))
    drawn = Drawn(states, np.asarray(log_prob(state.average.occupations, states)))
    nothing = lambda have, wanted: None

    def go(name, accuracy, stop=lambda: False):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        return second_order_rows.collect(frozen, directory, drawn, accuracy, nothing, stop)

    calls = iter(range(100))
    assert go("stopped", np.inf, lambda: next(calls) == 5) is None
    assert (tmp_path / "stopped" / "second-order-0.h5").exists()
    resumed = go("stopped", np.inf)
    whole = go("whole", np.inf)
    assert len(whole.rows.variance) == FEW_STATES["MIN_ROWS"]
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    # an accuracy out of reach takes all states that were drawn, and keeps those at hand
    more = go("whole", 1e-12)
    assert len(more.rows.variance) == 12
    np.testing.assert_array_equal(more.rows.lowered[: FEW_STATES["MIN_ROWS"]], whole.rows.lowered)
