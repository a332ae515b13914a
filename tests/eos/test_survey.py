"""heg-eos: a small table from nothing to its page, goes on, points that fail, points held by
others, bad input."""

import contextlib
import csv
import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import few_states

from heg.cli import common, eos
from heg.eos import survey
from heg.eos.grid import points, run_config
from heg.eos.table_directory import is_done, status
from heg.eos.table_files import load_table
from heg.errors import RunError
from heg.runs import files, text_files
from heg.runs.run_directory import RunDirectory
from heg.statistics import Estimate
from heg.training.cost import START

GRID = """
[grid]
dim = 2
electrons = [2]
polarization = ["1"]
rs = [1.0, 2.0]
theta = [0.5, 1.0]
accuracy = 10.0
steps = 40
samples = 2048
[model]
flow_layers = 0
transformer_layers = 0
[sampler]
batch = 16
"""


def heg_eos(capsys, *arguments):
    """Exit code, output and errors of the command."""
    with pytest.raises(SystemExit) as caught:
        eos.table(list(map(str, arguments)))
    return SimpleNamespace(code=caught.value.code, **capsys.readouterr()._asdict())


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    path = tmp_path_factory.mktemp("grids") / "grid.toml"
    path.write_text(GRID)
    return path


@pytest.fixture(scope="module")
def made(grid, tmp_path_factory):
    """The directory of a finished table."""
    run_dir = tmp_path_factory.mktemp("tables") / "a"
    with pytest.raises(SystemExit) as caught:
        eos.table([str(grid), "--run-dir", str(run_dir)])
    assert caught.value.code == 0
    return run_dir


@pytest.fixture(scope="module", autouse=True)
def second_order_of_few_states():
    with few_states():
        yield


def rows(run_dir):
    return list(csv.DictReader((run_dir / "table.csv").read_text().splitlines()))


def test_a_table_is_made_from_nothing(made):
    found = rows(made)
    assert [(row["rs_bohr"], row["theta"]) for row in found] == [
        ("1.0", "0.5"),
        ("2.0", "0.5"),
        ("1.0", "1.0"),
        ("2.0", "1.0"),
    ]
    for row in found:
        assert float(row["f_error_ha"]) > 0 and row["reached"] == "1" and row["samples"] == "2048"
        assert abs(float(row["p_deviation_sigma"])) < 5
    page = (made / "table.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "http" not in page
    table = load_table(made / "table.h5")
    state = table.equation_of_state(1.5, 0.7, 1.0)
    assert all(np.isfinite(estimate.error) for estimate in state.values())


def test_each_point_is_an_ordinary_run_that_starts_from_its_neighbour(made):
    config = text_files.load_config(made / "2d-2u-rs2-theta1" / "config.toml")
    assert (
        config["run"]["start"] == str(made / "2d-2u-rs1-theta1")
        and config["run"]["accuracy"] == 5.0
    )
    assert "start" not in text_files.load_config(made / "2d-2u-rs1-theta1" / "config.toml")["run"]
    assert json.loads((made / "2d-2u-rs1-theta0.5" / "point.json").read_text())["steps"] == 30


def test_nothing_is_computed_twice_and_points_may_be_added(made, grid, capsys, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in made.glob("*/point.json")}
    computed = []
    compute = survey.PointWork.compute

    def compute_and_note(work, attempt):
        computed.append(work.point.name)
        return compute(work, attempt)

    monkeypatch.setattr(survey.PointWork, "compute", compute_and_note)
    assert heg_eos(capsys, grid, "--run-dir", made).code == 0 and not computed
    done = heg_eos(capsys, grid, "--rs", 1.0, 2.0, 3.0, "--run-dir", made)
    assert (
        done.code == 0
        and computed == ["2d-2u-rs3-theta1", "2d-2u-rs3-theta0.5"]
        and len(rows(made)) == 6
    )
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    # nothing is lost by asking for less
    for change, words in (
        (("--flow-layers", 1, "--rs", 1.0, 2.0, 3.0), "[model] flow_layers is 1, it has 0"),
        (("--rs", 1.0, 2.0), "has a table with rs 3.0"),
    ):
        refused = heg_eos(capsys, grid, *change, "--run-dir", made)
        assert refused.code == 2 and words in refused.err and len(rows(made)) == 6


def test_a_job_of_fewer_points_leaves_the_table_of_more_alone(made, grid, capsys):
    asked = eos.parse([str(grid), "--run-dir", str(made)])
    before = (made / "table.csv").read_text()
    fewer = asked._replace(
        table=dataclasses.replace(
            asked.table, grid=dataclasses.replace(asked.table.grid, theta=(1.0,))
        )
    )
    eos._write(fewer, points(fewer.table.grid), surfaces=True)
    assert (made / "table.csv").read_text() == before
    kept = (made / "grid.toml").read_text()
    (made / "grid.toml").write_text(kept.replace("electrons = [", "electrons = 2 # ", 1))
    refused = heg_eos(capsys, grid, "--run-dir", made)
    (made / "grid.toml").write_text(kept)
    assert refused.code == 2 and refused.err.count("\n") == 1


def test_better_accuracy_higher_limits_and_damaged_files_are_reasons_to_compute(
    made, grid, tmp_path
):
    run_dir = tmp_path / "a"
    shutil.copytree(made, run_dir)
    table = eos.parse([str(grid), "--run-dir", str(run_dir)]).table
    point, path = points(table.grid)[0], run_dir / "2d-2u-rs1-theta1" / "point.json"
    asking = lambda **change: dataclasses.replace(
        table, grid=dataclasses.replace(table.grid, **change)
    )
    is_enough = lambda table: is_done(table, run_dir, points(table.grid)[0])
    assert is_enough(table) and is_enough(asking(accuracy=11.0))
    assert not is_enough(asking(accuracy=9.0))
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"reached": False}))  # the limits came first
    assert is_enough(table)
    assert not is_enough(asking(steps=50)) and not is_enough(asking(samples=4096))
    path.write_text(path.read_text()[:50])
    assert not is_enough(table) and status(table, run_dir, point).state == "begun"


def test_a_point_that_fails_is_tried_again_told_and_stops_no_other(
    made, grid, tmp_path, capsys, monkeypatch
):
    # a table whose points of r_s = 2 are missing
    left_out = shutil.ignore_patterns("2d-2u-rs[23]-*", "grid.toml", "table.*")
    shutil.copytree(made, tmp_path / "a", ignore=left_out)
    solve, seen = survey.solve, []

    def sometimes(config, *rest):
        seen.append((config.system.rs, config.system.theta, config.optimizer.max_norm))
        if config.system.theta == 1.0:
            raise RunError("steps failed one after the other")
        return solve(config, *rest)

    monkeypatch.setattr(survey, "solve", sometimes)
    ended = heg_eos(capsys, grid, "--run-dir", tmp_path / "a", "--retries", 1)
    assert (
        ended.code == 1
        and "2d-2u-rs2-theta1 failed: steps failed one after the other." in ended.out
    )
    assert [one[2] for one in seen if one[:2] == (2.0, 1.0)] == [0.1, 0.05]
    lines = text_files.read_lines(tmp_path / "a" / "failures.jsonl")
    assert {line["point"] for line in lines} == {"2d-2u-rs2-theta1"} and len(lines) == 2
    assert len(rows(tmp_path / "a")) == 3
    shown = heg_eos(capsys, grid, "--run-dir", tmp_path / "a", "--status")
    assert shown.code == 0 and "3 of 4 points done, 1 left" in shown.out and "failed" in shown.out
    monkeypatch.setattr(survey, "solve", solve)
    assert (
        heg_eos(capsys, grid, "--run-dir", tmp_path / "a").code == 0
        and len(rows(tmp_path / "a")) == 4
    )


def test_a_point_that_was_begun_keeps_its_plane_waves(made, grid, monkeypatch):
    # with a hotter row the point would get more of them
    hotter = ["--theta", "0.5", "1", "2", "--run-dir", str(made)]
    table = eos.parse([str(grid), *hotter]).table
    (point,) = [one for one in points(table.grid) if one.name == "2d-2u-rs1-theta0.5"]
    begun = RunDirectory(made / point.name).configuration()
    anew = run_config(table, point, "unused", None)
    assert anew.model.min_orbitals > begun.model.min_orbitals
    seen = []
    monkeypatch.setattr(survey, "solve", lambda config, *rest: seen.append(config) or {})
    hooks = survey.Hooks(show=print, done=print, stop=lambda: False)
    # stopped in its training
    assert not survey.PointWork(table, made, point, hooks).compute(0)
    assert [config.model for config in seen] == [begun.model]
    assert seen[0].run.start == begun.run.start


def test_a_stop_in_order_loses_nothing_and_a_point_that_another_holds_is_passed_over(
    grid, tmp_path, capsys
):
    run_dir = tmp_path / "a"
    assert heg_eos(capsys, grid, "--run-dir", run_dir, "--max-seconds", 1e-3).code == 75
    (run_dir / "STOP").touch()
    assert (
        heg_eos(capsys, grid, "--run-dir", run_dir).code == 75 and not (run_dir / "STOP").exists()
    )
    names = [f"2d-2u-rs{rs}-theta{theta}" for rs in (1, 2) for theta in (0.5, 1)]
    with contextlib.ExitStack() as held:
        for name in names:
            (run_dir / name).mkdir()
            held.enter_context(files.locked(run_dir / name))
        ended = heg_eos(capsys, grid, "--run-dir", run_dir)
        assert ended.code == 75 and all(f"{name} is passed over" in ended.out for name in names)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("rs = [1.0, 2.0]", "rs"),
        ("electrons = [3]", "polarization is 1/2: with 3 electrons it must be one of 1/3, 1"),
        ("acuracy = 1.0", "[grid] has no key 'acuracy': did you mean 'accuracy'?"),
    ],
)
def test_bad_grids_get_one_sentence(tmp_path, capsys, change, words):
    name = change.split()[0]
    lines = [line for line in GRID.splitlines() if not line.startswith(name)]
    place = lines.index("[grid]") + 1
    if name != "rs":
        lines.insert(place, change)
    text = "\n".join(lines).replace('["1"]', '["1/2"]') if "1/2" in words else "\n".join(lines)
    (tmp_path / "grid.toml").write_text(text)
    ended = heg_eos(capsys, tmp_path / "grid.toml", "--run-dir", tmp_path / "a")
    assert ended.code == 2 and words in ended.err and len(ended.err.splitlines()) == 1
    assert not (tmp_path / "a").exists()


def test_a_dry_run_shows_the_cost_and_computes_nothing(grid, tmp_path, capsys):
    run_dir = tmp_path / "a"
    shown = heg_eos(capsys, grid, "--run-dir", run_dir, "--dry-run", "--json")
    assert shown.code == 0 and not run_dir.exists()
    result = json.loads(shown.out)
    assert result["cost"]["points"] == 4 and len(result["rows"]) == 2
    # the colder gas has the orbitals of the hotter one, so that both share what is compiled
    hot, cold = result["rows"]
    assert hot["theta"] > cold["theta"] and hot["orbitals"] == cold["orbitals"] == 37
    # 2 electrons in 40 steps: all but the time to compile, once for both rows, is short
    assert START < result["cost"]["seconds_least"] < result["cost"]["seconds_most"]
    assert result["cost"]["seconds_most"] < START + 10
    # the output is a file for heg-eos
    again = tmp_path / "again.toml"
    again.write_text(heg_eos(capsys, grid, "--run-dir", run_dir, "--dry-run").out)
    table = eos.parse([str(again), "--run-dir", str(run_dir)]).table
    assert table == eos.parse([str(grid), "--run-dir", str(run_dir)]).table


def test_lines_of_progress_have_f_and_the_time_left(grid, caplog, monkeypatch):
    caplog.set_level("INFO")
    every = points(eos.parse([str(grid), "--run-dir", "unused"]).table.grid)
    now = SimpleNamespace(monotonic=lambda: now.time, time=0.0)
    monkeypatch.setattr(eos, "time", now)
    monkeypatch.setattr(common, "time", now)
    # the first point was done by an earlier call
    progress = eos._Progress(every, [point.name for point in every[1:]])
    progress(every[1], "step", 3, 40, Estimate(-1.25, 0.01))
    now.time = 600.0
    progress(every[2], "samples", 64, 2048)
    first, second = caplog.messages
    assert first.endswith("step 3/40  F/N -1.250(10) Ha")
    # one point took 600 seconds and two are left
    assert second.startswith("point 3/4") and second.endswith("2048  about 20 minutes left")


def test_points_that_are_done_say_what_speaks_against_them(made, grid, capsys):
    shown = heg_eos(capsys, grid, "--run-dir", made, "--rs", 1, 2, 3, "--status", "--json")
    state = json.loads(shown.out)["2d-2u-rs1-theta1"]
    facts = json.loads((made / "2d-2u-rs1-theta1" / "point.json").read_text())
    assert state["reached"] is True and state["doubts"] == facts["doubts"]
