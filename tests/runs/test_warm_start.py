"""Runs that start from other runs, and trainings that end once F has settled."""

import dataclasses

import jax
import numpy as np
import pytest
from fake_solver import FakeSolver
from small_runs import small_config

from heg.config import RunConfig, SystemConfig
from heg.model.density_matrix import Params
from heg.runs import hdf5
from heg.runs.run_directory import RunDirectory
from heg.runs.solve import solve
from heg.runs.warm_start import start_from, transfer
from heg.statistics import Estimate
from heg.training.convergence import SHORTEST, drift, settled

NEVER, NOTHING = lambda: False, lambda *_: None

# tests/eos/test_survey.py starts runs of electrons from each other
pytestmark = pytest.mark.usefixtures("fake_runs")


def config(run_dir, system=SystemConfig(2, 2, 2.0, 0.5, "1"), **run):
    return dataclasses.replace(
        small_config(system, flow_layers=1),
        run=RunConfig(str(run_dir), **{"steps": 3, "samples": 16, **run}),
    )


@pytest.fixture(scope="module")
def run(fake_runs, tmp_path_factory):
    """A finished run."""
    run_dir = tmp_path_factory.mktemp("runs") / "a"
    solve(config(run_dir), NOTHING, NEVER)
    return run_dir


def test_no_step_from_a_run_gives_the_free_energy_of_its_parameters(run, tmp_path):
    summary = solve(config(tmp_path / "b", start=str(run), steps=0), NOTHING, NEVER)
    assert summary["F"] == summary["initial"]["F"]
    before = FakeSolver(config(run))
    state = hdf5.load_tree(RunDirectory(run).checkpoints()[0], before.template)[0]
    begun = hdf5.load_tree(tmp_path / "b" / "checkpoint-0.h5", before.template)[0]
    for here, there in zip(
        jax.tree.leaves(begun.params), jax.tree.leaves(state.average), strict=True
    ):
        np.testing.assert_array_equal(here, there)


def test_a_run_goes_on_when_the_one_it_started_from_is_gone(run, tmp_path):
    moved, there = tmp_path / "b", tmp_path / "a"
    run.rename(there)
    solve(config(moved, start=str(there), steps=1), NOTHING, NEVER)
    there.rename(run)
    summary = solve(config(moved, start=str(there), steps=2), NOTHING, NEVER)
    assert summary["steps"] == 2


def test_levels_follow_their_plane_waves_to_other_temperatures_and_twists(run):
    """The shift of a level belongs to a plane wave, whatever its place in the order of energy."""
    solver = FakeSolver(config(run))
    orbitals = solver.cutoff.orbitals
    levels = np.arange(1.0, len(orbitals.n) + 1)[None]
    params = Params({"~": {"levels": levels, "w": np.ones(2)}}, {"same": np.ones(3)})
    for system in (
        SystemConfig(2, 2, 5.0, 1.5, "1"),
        SystemConfig(2, 2, 5.0, 0.2, "1", (0.3, -0.2)),
    ):
        other = FakeSolver(config(run, system)).cutoff.orbitals
        moved = transfer(params, orbitals, other)
        assert np.all(moved.flow["same"] == 1) and np.all(moved.occupations["~"]["w"] == 1)
        found = moved.occupations["~"]["levels"][0]
        for n, level in zip(other.n, found, strict=True):
            same = np.flatnonzero(np.all(orbitals.n == n, axis=1))
            assert level == (levels[0, same[0]] if len(same) else 0.0)
    hotter = FakeSolver(config(run, SystemConfig(2, 2, 5.0, 1.5, "1")))
    assert np.any(found > 0) and start_from(run, hotter, seed=0)


def test_a_larger_cell_takes_the_flow_alone(run):
    directory = RunDirectory(run)
    trained = directory.trained_state(FakeSolver(config(run)).template).average
    larger = FakeSolver(config(run, SystemConfig(5, 2, 2.0, 0.5, "1")))
    moved = start_from(run, larger, seed=0)
    assert np.all(moved.occupations["~"]["levels"] == 0)
    for here, there in zip(jax.tree.leaves(moved.flow), jax.tree.leaves(trained.flow), strict=True):
        assert np.any(here != 0)
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize(
    ("system", "flow_layers", "words"),
    [
        (SystemConfig(4, 2, 2.0, 0.5, "0"), 1, "it is 2u, this run 2u2d; give one whose electrons"),
        (SystemConfig(2, 3, 2.0, 0.5, "1"), 1, "it has dim 2, this run 3"),
        (SystemConfig(2, 2, 2.0, 0.5, "1"), 2, r"another \[model\]"),
    ],
    ids=["spins", "dim", "model"],
)
def test_a_run_of_another_kind_is_refused(run, system, flow_layers, words):
    solver = FakeSolver(small_config(system, flow_layers=flow_layers))
    with pytest.raises(ValueError, match=words):
        start_from(run, solver, seed=0)


T = 0.5  # hartree


def history(values, error, entropy=1.0):
    """Of these F, and of S that is `entropy` in the last third and 1 before."""
    rows = []
    for step, value in enumerate(values):
        s = entropy if step >= len(values) - len(values) // 3 else 1.0
        row = {"F_ha": value, "F_error_ha": error, "S_kb": s, "S_error_kb": error}
        rows.append({name: str(number) for name, number in row.items()})
    return rows


def test_a_training_has_settled_when_drift_and_error_are_below_the_accuracy():
    falling = [-1 + 0.5 ** (step / 5) for step in range(60)]
    expected = np.mean(falling[40:]) - np.mean(falling[20:40])
    assert drift(history(falling, 1e-3)) == pytest.approx(
        Estimate(expected, 1e-3 * np.sqrt(2 / 20))
    )
    assert settled(history(falling, 1e-3), 1.01 * abs(expected), T)
    assert not settled(history(falling, 1e-3), 0.015, T)
    # flat, but too noisy to tell
    assert settled(history([0.0] * 60, 0.01), 0.0033, T)
    assert not settled(history([0.0] * 60, 0.01), 0.0031, T)
    assert not settled(history([0.0] * (SHORTEST - 1), 1e-9), 1.0, T)


def test_a_training_whose_entropy_drifts_has_not_settled():
    moving = history([0.0] * 60, 1e-3, entropy=1.1)
    # T times the drift of S is 0.05 hartree
    assert settled(moving, 0.051, T) and not settled(moving, 0.049, T)
    # a drift within two errors, each of sqrt(2 / 20) of that of a step, may be chance
    assert settled(history([0.0] * 60, 0.01, entropy=1.006), 0.0032, 10.0)
    assert not settled(history([0.0] * 60, 0.01, entropy=1.007), 0.0032, 10.0)


def test_a_settled_training_ends_early_and_its_continuation_adds_no_step(tmp_path):
    wanted = config(tmp_path / "a", steps=SHORTEST + 20, accuracy=10.0)
    summary = solve(wanted, NOTHING, NEVER)
    assert summary["steps"] == SHORTEST
    again = solve(wanted, NOTHING, NEVER)
    assert again["steps"] == SHORTEST and again["F"] == summary["F"]
    sharper = config(tmp_path / "a", steps=SHORTEST + 2, accuracy=1e-9)
    assert solve(sharper, NOTHING, NEVER)["steps"] == SHORTEST + 2
