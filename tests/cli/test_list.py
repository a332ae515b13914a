"""heg-list: the shipped runs, one that has begun, and one that cannot be read."""

import json
import shutil
from pathlib import Path

import pytest

from heg.cli.list import list_runs, runs_below
from heg.runs.text_files import load_json

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


@pytest.fixture
def runs(tmp_path):
    """A finished run, one that has begun and one whose configuration is damaged."""
    source = next(path.parent for path in sorted(CHECKPOINTS.rglob("summary.json")))
    for name in ("finished", "begun", "damaged"):
        (tmp_path / name).mkdir()
        shutil.copy(source / "config.toml", tmp_path / name)
    shutil.copy(source / "summary.json", tmp_path / "finished")
    (tmp_path / "damaged" / "config.toml").write_text("[system]\nelectrons = -1\n")
    return tmp_path


def test_every_run_has_its_state(runs):
    begun, damaged, finished = runs_below(runs)
    summary = load_json(runs / "finished" / "summary.json")
    assert finished.state == "finished"
    assert finished.steps == summary["steps"]
    assert finished.free_energy.mean == summary["F"]["mean"]
    assert begun.state == "unfinished" and begun.gas == finished.gas
    assert begun.steps == 0 and begun.free_energy is None
    assert damaged.state.startswith("unreadable: ")


def test_the_command_prints_a_table_or_json(runs, capsys):
    with pytest.raises(SystemExit) as end:
        list_runs([str(runs)])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].split()[0] == "run"
    with pytest.raises(SystemExit):
        list_runs([str(runs), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [run["state"].split(":")[0] for run in found] == ["unfinished", "unreadable", "finished"]


@pytest.mark.parametrize("name", ["none", "x" * 5000])
def test_no_directory_is_said_in_one_sentence(name, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        list_runs([str(tmp_path / name)])
    assert end.value.code == 2
    assert "is no directory" in capsys.readouterr().err
