"""Grids: which runs, in which order, from where, and what is refused."""

import dataclasses

import pytest

from heg.eos.grid import SIZE_CLASS, GridConfig, TableConfig, points, run_config
from heg.gas.ideal import choose_cutoff

GRID = GridConfig(
    dim=2,
    electrons=(5, 13),
    rs=(10.0, 1.0, 3.0),
    theta=(0.1, 1.0),
    polarization=("1",),
    twists=4,
    accuracy=0.003,
)


def test_every_gas_and_twist_is_a_point_once():
    every = points(GRID)
    assert len(every) == 2 * 3 * 2 * 3  # four divisions are three special twists in two dimensions
    assert len({point.name for point in every}) == len(every)
    gases = {(point.system.electrons, point.system.rs, point.system.theta) for point in every}
    assert len(gases) == 12
    for gas in gases:
        own = [p for p in every if (p.system.electrons, p.system.rs, p.system.theta) == gas]
        assert sum(point.weight for point in own) == pytest.approx(1)
        assert {point.accuracy for point in own} == {0.003 / gas[1]}


def test_a_point_starts_from_points_before_it_that_differ_in_one_thing():
    seen = {}
    for point in points(GRID):
        for name in point.neighbours:
            other = seen[name]
            same = [
                getattr(point.system, field) == getattr(other, field)
                for field in ("rs", "theta", "twist")
            ]
            if point.system.electrons == other.electrons:
                assert sum(same) >= 1
            else:  # the last resort: the same gas in a smaller cell
                assert point.system.electrons > other.electrons and all(same)
                assert name == point.neighbours[-1]
        seen[point.name] = point.system
    cold = [point.name for point in points(GRID) if not point.neighbours]
    assert cold == ["2d-5u-rs1-theta1-twist0.125_0.125"]


def test_two_electrons_of_opposite_spins_hand_nothing_on_to_more():
    grid = GridConfig(2, (4, 2), (1.0,), (1.0,))
    pair, four = points(grid)
    assert pair.system.electrons == 2 and four.neighbours == ()


def test_rows_of_one_temperature_follow_each_other_hot_ones_first():
    thetas = [
        point.system.theta for point in points(dataclasses.replace(GRID, twists=1, electrons=(5,)))
    ]
    assert thetas == [1.0] * 3 + [0.1] * 3


def test_points_have_random_numbers_of_their_own_and_smaller_steps_when_tried_again():
    table, (first, second, *_) = TableConfig(GRID), points(GRID)
    one, other = (run_config(table, point, "a", None) for point in (first, second))
    assert one.run.seed != other.run.seed and one.run.accuracy == 0.003
    again = run_config(table, first, "a", None, attempt=2)
    assert again.optimizer.max_norm == one.optimizer.max_norm / 4 and again.run.seed == one.run.seed


def test_colder_points_have_the_plane_waves_of_a_hotter_one_within_a_factor():
    grid = dataclasses.replace(GRID, theta=(0.05, 0.1, 0.25, 0.5, 1.0, 2.0), electrons=(13,))
    table = TableConfig(grid)
    tolerance = table.model.orbital_tolerance
    kept, needed = {}, {}
    for point in points(grid):
        gas = point.system.build()
        kept[gas.theta, gas.twist] = run_config(table, point, "a", None).model.min_orbitals
        needed[gas.theta, gas.twist] = len(choose_cutoff(gas, tolerance).orbitals.energy)
    for place, count in kept.items():
        assert needed[place] <= count <= SIZE_CLASS * needed[place]
    # two sets of programs where there would be six
    for twist in {twist for _, twist in kept}:
        numbers = [kept[theta, twist] for theta in grid.theta]
        assert numbers == sorted(numbers) and len(set(numbers)) == 2
        assert numbers[-1] == needed[2.0, twist]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rs": (1.0, 1.0)}, "rs is .*: it must be a list of different values"),
        ({"theta": ()}, "theta is .*: it must be a list"),
        ({"accuracy": 0.0}, "accuracy is 0.0: it must lie between"),
        ({"steps": 10}, "steps is 10: it must lie between 30"),
        ({"twists": 0}, "twists is 0: it must lie between 1"),
    ],
)
def test_grids_that_make_no_sense_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(GRID, **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"polarization": ("0",)}, "polarization is 0: with 5 electrons it must be one of"),
        ({"rs": (1.0, 1.0000001)}, "the grid has a gas twice"),
        ({"polarization": ("1", "1.0")}, "the grid has a gas twice"),
        ({"rs": (-1.0,)}, "rs is -1.0: it must lie between"),
    ],
)
def test_gases_that_do_not_exist_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        points(dataclasses.replace(GRID, **change))
