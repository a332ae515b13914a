"""The loop of a run: troubled steps, files that cannot be used, directories in use."""

import dataclasses
import errno
import json
import os
import subprocess
import sys

import h5py
import jax
import numpy as np
import pytest
from fake_solver import FakeSolver
from small_runs import small_config

from heg.config import RunConfig, SystemConfig
from heg.errors import RunError, StorageError
from heg.runs import files, hdf5, text_files
from heg.runs import solve as loop
from heg.runs.run_directory import RunDirectory
from heg.training.step import build
from heg.training.verdict import REDRAWN_FEW

# what a loop does with its steps and files does not depend on what is computed
pytestmark = pytest.mark.usefixtures("fake_runs")


def config(run_dir, steps=8):
    small = small_config(SystemConfig(2, 2, 2.0, 0.5, "1"), flow_layers=0, transformer_layers=0)
    return dataclasses.replace(small, run=RunConfig(str(run_dir), steps, samples=16, save_every=4))


def solve(config):
    return loop.solve(config, lambda *_: None, lambda: False)


def troubled(steps, **seen):
    """A solver whose StepInfo says at the given steps what is `seen`."""

    class Troubled(FakeSolver):
        def step(self, state):
            after, info = super().step(state)
            return after, info._replace(**seen) if int(state.step) in steps else info

    return Troubled


def test_a_step_that_is_not_finite_is_undone_and_written_down(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "build", troubled({2, 3, 5}, finite=np.array(False)))
    summary = solve(config(tmp_path / "a"))
    assert summary["steps"] == 8
    rows = text_files.read_history(tmp_path / "a" / "history.csv")
    assert [int(row["step"]) for row in rows] == [1, 2, 5, 7, 8]
    trouble = [
        json.loads(line) for line in (tmp_path / "a" / "trouble.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in trouble] == [2, 3, 5]
    assert (
        "not finite" in trouble[0]["cause"]
        and np.shape(trouble[0]["x"]) == (2, 2)
        and trouble[0]["seed"] == 0
    )


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        ({"lost": 2}, "2 samples could not be drawn"),
        ({"redrawn": REDRAWN_FEW + 1}, "4 of 16 draws had no verified inverse"),
        ({"redrawn": REDRAWN_FEW}, None),
    ],
    ids=["lost", "too-many-redrawn", "few-redrawn"],
)
def test_a_step_whose_draws_fail_is_undone_and_a_few_repeated_ones_are_not_trouble(
    tmp_path, monkeypatch, seen, cause
):
    monkeypatch.setattr(loop, "build", troubled({5}, **seen))
    solve(config(tmp_path / "a"))
    rows = text_files.read_history(tmp_path / "a" / "history.csv")
    assert [int(row["step"]) for row in rows] == [
        step for step in range(1, 9) if step != 6 or not cause
    ]
    path = tmp_path / "a" / "trouble.jsonl"
    causes = (
        [json.loads(line)["cause"] for line in path.read_text().splitlines()]
        if path.exists()
        else []
    )
    assert causes == ([cause] if cause else [])


def test_steps_that_fail_in_a_row_end_the_run_with_a_remedy(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(loop, "build", troubled({5, 6, 7}, finite=np.array(False)))
    with pytest.raises(RunError, match=r"steps 5 to 7 failed .* --max-norm 0\.05"):
        solve(config(tmp_path / "a"))
    assert [path.name for path in RunDirectory(tmp_path / "a").checkpoints()] == ["checkpoint-4.h5"]
    monkeypatch.setattr(loop, "build", FakeSolver)
    smaller = config(tmp_path / "a")
    smaller = dataclasses.replace(
        smaller, optimizer=dataclasses.replace(smaller.optimizer, max_norm=0.05)
    )
    summary = solve(smaller)
    assert summary["steps"] == 8
    assert "Changed: [optimizer] max_norm is 0.05, the run has 0.1." in caplog.messages
    assert "Continuing from checkpoint-4.h5." in caplog.messages


def test_numbers_that_are_not_finite_are_seen_by_the_step_itself(key):
    solver = build(config("none"))
    state = solver.init(key)
    assert solver.step(state)[1].finite
    broken = state._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, state.params))
    assert not solver.step(broken)[1].finite


def test_the_batch_may_change_and_the_newest_checkpoints_are_kept(tmp_path, caplog):
    first = config(tmp_path / "a")
    first = dataclasses.replace(
        first, run=dataclasses.replace(first.run, save_every=1, keep=2, keep_every=3)
    )
    solve(first)
    names = [path.name for path in RunDirectory(tmp_path / "a").checkpoints()]
    assert names == [f"checkpoint-{step}.h5" for step in (8, 7, 6, 3)]
    sampler = dataclasses.replace(first.sampler, batch=24)
    summary = solve(
        dataclasses.replace(first, sampler=sampler, run=dataclasses.replace(first.run, steps=10))
    )
    assert (
        summary["steps"] == 10
        and "Changed: [sampler] batch is 24, the run has 16." in caplog.messages
    )
    assert len(text_files.read_history(tmp_path / "a" / "history.csv")) == 10


def test_fewer_final_samples_are_the_first_of_those_at_hand(tmp_path):
    asked = config(tmp_path / "a")
    solve(asked)
    path = tmp_path / "a" / "samples-8.h5"
    before, energies = path.read_bytes(), hdf5.load_arrays(path)[0]["E"]
    summary = solve(dataclasses.replace(asked, run=dataclasses.replace(asked.run, samples=7)))
    assert summary["samples"] == 7 and summary["E"]["mean"] == pytest.approx(
        energies[:7].mean(), rel=1e-12
    )
    assert path.read_bytes() == before


def test_checkpoints_that_cannot_be_used_are_set_aside_and_nothing_is_lost(tmp_path, caplog):
    solve(config(tmp_path / "a"))
    history, directory = (tmp_path / "a" / "history.csv").read_bytes(), tmp_path / "a"
    for path in RunDirectory(directory).checkpoints():
        path.write_text("not HDF5")
    summary = solve(config(directory))
    assert (
        summary["steps"] == 8 and "No checkpoint is left: the run begins anew." in caplog.messages
    )
    assert (
        (directory / "history.csv").read_bytes()
        == history
        == (directory / "history.csv.unused").read_bytes()
    )
    for step in (4, 8):
        assert (directory / f"checkpoint-{step}.h5.unused").read_text() == "not HDF5"


def test_a_directory_in_use_is_refused_and_a_dead_run_is_recognised(tmp_path, caplog):
    (tmp_path / "a").mkdir()
    with files.locked(tmp_path / "a"):
        with pytest.raises(StorageError, match=r"is in use by process \d+ on .* since"):
            solve(config(tmp_path / "a"))
    holder = "process 1 on elsewhere since 2020-01-01 00:00:00"
    (tmp_path / "a" / "lock").write_text(holder)
    solve(config(tmp_path / "a", steps=0))
    assert caplog.messages == [f"The run that was here did not end in order ({holder})."]


def test_a_full_disk_is_one_sentence_and_what_was_written_stays(tmp_path, monkeypatch):
    solve(config(tmp_path / "a", steps=4))
    before = (tmp_path / "a" / "checkpoint-4.h5").read_bytes()

    def full(file, name, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hdf5.h5py.File, "__setitem__", full)  # the file is there by then
    with pytest.raises(
        OSError, match=r"checkpoint-4\.h5 cannot be written \(No space left on device\)"
    ):
        hdf5.save_tree(tmp_path / "a" / "checkpoint-4.h5", {"x": np.zeros(2)})
    assert (tmp_path / "a" / "checkpoint-4.h5").read_bytes() == before
    assert not list((tmp_path / "a").glob(".*"))


def test_samples_of_other_parameters_are_not_taken_for_those_of_this_run(tmp_path, caplog):
    solve(config(tmp_path / "a"))
    for path in RunDirectory(tmp_path / "a").checkpoints():
        path.unlink()
    other = config(tmp_path / "a")
    other = dataclasses.replace(
        other, optimizer=dataclasses.replace(other.optimizer, learning_rate=0.1)
    )
    summary = solve(other)
    fresh = solve(
        dataclasses.replace(other, run=dataclasses.replace(other.run, run_dir=str(tmp_path / "b")))
    )
    assert summary["F"] == fresh["F"]
    assert (tmp_path / "a" / "samples-8.h5.unused").exists() and not (
        tmp_path / "a" / "samples-0.h5.unused"
    ).exists()
    assert "history.csv is kept as history.csv.unused." in caplog.messages


def test_a_file_stop_ends_the_run_in_order_and_is_taken_away(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "STOP").touch()
    summary = solve(config(tmp_path / "a"))
    assert (
        summary == {}
        and RunDirectory(tmp_path / "a").checkpoints()
        and not (tmp_path / "a" / "STOP").exists()
    )
    assert solve(config(tmp_path / "a"))["steps"] == 8


def test_the_random_numbers_are_named_and_those_of_another_generator_are_refused(tmp_path, caplog):
    solve(config(tmp_path / "a"))
    newest = RunDirectory(tmp_path / "a").checkpoints()[0]
    with h5py.File(newest, "a") as file:
        assert file.attrs["random_numbers"] == "threefry2x32, partitionable"
        file.attrs["random_numbers"] = "rbg"
    solve(config(tmp_path / "a"))
    assert any(
        "goes on with the random numbers of rbg, here they are threefry2x32" in sentence
        for sentence in caplog.messages
    )


def test_the_environment_does_not_change_the_random_numbers():
    code = (
        "import jax; from heg.training.state import key_of_run\n"
        "print(jax.random.bits(jax.random.split(key_of_run(5), 3)[1], (4,)).tolist())"
    )
    variables = {
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_RANDOM_SEED_OFFSET": "7",
    }
    run = lambda extra: subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | extra,
        capture_output=True,
        text=True,
        check=True,
    )
    # as JAX 0.9.2 draws them with its default settings
    assert (
        run({}).stdout
        == run(variables).stdout
        == "[3624634115635643015, 8546177586726152060, 7553286534172009186, 13867803493765139397]\n"
    )
