"""Averages over twists against integrals that are known."""

import itertools

import numpy as np
import pytest

from heg.gas.twists import random_twists, special_twists


def wave(m, angle):
    """cos(2 pi m_1 t_1) cos(2 pi m_2 t_2) ..., averaged over the symmetries of the cell."""
    orders = np.array(list(itertools.permutations(m)))
    return np.mean(np.prod(np.cos(2 * np.pi * orders * angle), axis=1))


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("divisions", [1, 2, 3, 4, 5])
def test_special_twists_average_every_shorter_wave_exactly(dim, divisions):
    twists = special_twists(dim, divisions)
    for m in itertools.product(range(divisions), repeat=dim):
        mean = sum(twist.weight * wave(m, twist.angle) for twist in twists)
        assert mean == pytest.approx(float(not any(m)), abs=1e-12)


def test_two_divisions_are_the_mean_value_point():
    assert special_twists(3, 2) == [((0.25, 0.25, 0.25), 1.0)]


def test_one_division_is_no_twist():
    assert special_twists(2, 1) == [((0.0, 0.0), 1.0)]


def test_random_twists_are_uniform_and_more_of_them_begin_with_the_same():
    many = random_twists(2, 4000, seed=1)
    angles = np.array([twist.angle for twist in many])
    assert np.all(np.abs(angles) <= 0.5)
    error = np.sqrt(1 / 12 / 4000)
    np.testing.assert_allclose(angles.mean(axis=0), 0.0, atol=4 * error)
    error = 1 / 12 * np.sqrt(2 / 4000)
    np.testing.assert_allclose(angles.var(axis=0), 1 / 12, atol=4 * error)
    few = random_twists(2, 3, seed=1)
    assert [twist.angle for twist in few] == [twist.angle for twist in many[:3]]
    assert sum(twist.weight for twist in many) == pytest.approx(1)
