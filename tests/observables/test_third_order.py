"""The third order of the known elements, beside exact traces and matrices of determinants."""

import numpy as np
import pytest
from scipy.special import logsumexp
from untrained_excitations import bare_levels, untrained

from heg import SystemConfig
from heg.observables.second_order.contributions import known_elements
from heg.observables.second_order.perturbation import thermal_denominator
from heg.observables.second_order.third_order import (
    Labels,
    _Corners,
    third_denominator,
    third_order,
)
from heg.reference.determinants import block_of

GASES = {
    "2D 2u1d": (SystemConfig(3, 2, 4.0, 0.5, "1/3"), [[0, 0], [1, 0], [0, 1]]),
    "2D 2u2d": (SystemConfig(4, 2, 2.0, 0.5, "0"), [[0, 0], [0, 1], [0, 0], [1, 0]]),
    "3D 3u": (SystemConfig(3, 3, 2.0, 0.5, "1"), [[0, 0, 0], [0, 0, 1], [0, 1, 0]]),
}


@pytest.mark.parametrize("beta", [0.3, 2.0, 30.0])
def test_all_corners_together_are_the_third_order_of_the_trace(beta):
    """-T ln tr exp(-beta (H_0 + l W)) beside its terms, with levels that coincide and nearly do."""
    rng = np.random.default_rng(0)
    energy = np.array([0.0, 0.0, 1e-7, 0.3, 0.3 + 1e-4, 1.2])
    states = len(energy)
    w = rng.normal(size=(states, states))
    w = w + w.T
    np.fill_diagonal(w, 0.0)
    log_z = logsumexp(-beta * energy)
    third = 0.0
    for k in range(states):
        chance = np.exp(-beta * energy[k] - log_z)
        gap = energy - energy[k]
        for a in range(states):
            g = third_denominator(gap[a], gap, beta)
            third += chance * w[k, a] * np.sum(w[a] * w[:, k] * g)

    def odd(size):
        """The part of F that is odd in the perturbation, over its cube."""
        levels = [np.linalg.eigvalsh(np.diag(energy) + sign * size * w) for sign in (1, -1)]
        raised, lowered = (-logsumexp(-beta * level) / beta for level in levels)
        return (raised - lowered) / (2 * size**3)

    size = 2e-2 / max(1.0, beta)
    # the fifth order falls with the square of the size
    expected = (4 * odd(size / 2) - odd(size)) / 3
    assert third == pytest.approx(expected, rel=2e-4)


def brute_force(excitations, levels, state):
    """The sums of W^2 h and of W W W g over the doubles of one K, from the Hamiltonian."""
    doubles_of = excitations.doubles_of
    system = excitations.system
    n = doubles_of.n[state]
    doubles = doubles_of(state)
    allowed = np.flatnonzero(doubles.allowed)
    gap = levels.gap(doubles)[allowed]
    alike = doubles.alike[allowed]
    reached = [doubles_of.ordered(doubles_of.excited(n, index))[0] for index in allowed]
    total = n.sum(axis=0)
    highest = max(np.sum(vectors**2) for vectors in reached)
    relative = highest - total @ total / system.electrons
    unit = system.wavevector_unit**2 / 2
    block = block_of(system, total, (relative + 0.1) * unit)
    row = {vectors.tobytes(): index for index, vectors in enumerate(block.n.astype(int))}
    rows = [row[vectors.astype(int).tobytes()] for vectors in reached]
    here = row[doubles_of.ordered(n)[0].astype(int).tobytes()]
    to_doubles = block.hamiltonian[here, rows]
    between = block.hamiltonian[np.ix_(rows, rows)]
    np.fill_diagonal(between, 0.0)
    second = to_doubles**2 @ thermal_denominator(gap, system.beta)
    g = np.array([third_denominator(x, gap, system.beta) for x in gap])
    # only doubles of a within the largest transfer are on its list
    third = 0.0
    for a, index in enumerate(allowed):
        via = doubles_of.excited(n, index)
        of_a = doubles_of.of_vectors(via)
        listed = {
            doubles_of.ordered(doubles_of.excited(via, b))[0].astype(int).tobytes()
            for b in np.flatnonzero(of_a.allowed)
        }
        is_listed = np.array([vectors.astype(int).tobytes() in listed for vectors in reached])
        # those of one kinetic energy belong to the correction for degenerate states
        counts = is_listed & ~(alike & alike[a])
        third += to_doubles[a] * np.sum((between[a] * to_doubles * g[a])[counts])
    return second, third


@pytest.mark.parametrize("gas", GASES.values(), ids=GASES)
def test_sampled_triangles_give_the_sum_over_all(gas):
    config, vectors = gas
    excitations, _ = untrained(config)
    levels = bare_levels(excitations, 1.0)
    n = excitations.doubles_of.n.tolist()
    state = np.array([n.index(vector) for vector in vectors])
    second, third = brute_force(excitations, levels, state)
    elements = known_elements(excitations, levels)
    corners = _Corners(excitations, levels, elements, np.random.default_rng(0))
    values = []
    for _ in range(40):
        of_second, of_third = corners.sums(state)
        assert of_second == pytest.approx(second, rel=1e-9)
        values.append(of_third)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values) - third) < 3.5 * error
    assert error < 0.1 * abs(third)


def test_labels_name_determinants_whatever_the_order_of_their_electrons():
    excitations, _ = untrained(SystemConfig(4, 2, 4.0, 0.5, "0"))
    doubles_of = excitations.doubles_of
    labels = Labels(doubles_of, np.random.default_rng(0))
    n = np.array([[0, 0], [1, 0], [0, 0], [0, 1]])
    of_doubles = labels.of_doubles(n)
    names = [
        doubles_of.ordered(doubles_of.excited(n, index))[0].tobytes()
        for index in range(len(of_doubles))
    ]
    assert len(set(names)) > 50
    assert len(set(zip(names, of_doubles.tolist()))) == len(set(names)) == len(set(of_doubles))


def test_without_an_interaction_there_is_no_third_order():
    excitations, _ = untrained(SystemConfig(3, 2, 4.0, 0.5, "1"))
    states = np.array([[0, 1, 2], [0, 1, 3]])
    nothing = bare_levels(excitations, 0.0)
    found = third_order(excitations, nothing, states, np.random.default_rng(0))
    assert found == (0.0, 0.0)
