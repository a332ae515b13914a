"""Text files: what was written comes back, what is damaged is refused in one sentence."""

import pytest

from heg.errors import StorageError
from heg.runs import text_files


def history_row(step):
    return {"step": step} | dict.fromkeys(sorted(text_files.NEEDED - {"step"}), -0.1 / step)


def test_history_is_rewound_to_a_step_and_loses_a_partial_line(tmp_path):
    path = tmp_path / "history.csv"
    for step in range(1, 5):
        text_files.append_history(path, history_row(step))
    whole = path.read_text()
    path.write_text(whole + "5,-0.0")
    assert [row["step"] for row in text_files.read_history(path)] == ["1", "2", "3", "4"]
    text_files.rewind_history(path, 2)
    assert path.read_text() == "".join(whole.splitlines(keepends=True)[:3])
    for step in (3, 4):
        text_files.append_history(path, history_row(step))
    assert path.read_text() == whole


@pytest.mark.parametrize(
    "before, after",
    [(b"F_ha", b"G_ha"), (b"-0.1", b"-0.x"), (b"-0.1,", b""), (b"\n2,", b"\nx,"), (b"0.1", b"\r")],
)
def test_a_damaged_history_is_named(tmp_path, before, after):
    path = tmp_path / "history.csv"
    for step in (1, 2):
        text_files.append_history(path, history_row(step))
    path.write_bytes(path.read_bytes().replace(before, after, 1))
    with pytest.raises(StorageError, match=r"history\.csv is damaged in line .*move it away"):
        text_files.read_history(path)


def test_history_rewound_to_nothing_starts_afresh(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("step,F_ha\n1,-0")
    text_files.rewind_history(path, 0)
    text_files.append_history(path, {"step": 1, "F_ha": -1.0})
    assert path.read_text() == "step,F_ha\n1,-1.0\n"


def test_config_round_trip(tmp_path):
    tables = {"system": {"rs": 2.0, "twist": [0.25, 0.0]}, "run": {"max_seconds": None}}
    text_files.save_config(tmp_path / "config.toml", tables)
    assert text_files.load_config(tmp_path / "config.toml") == {
        "system": tables["system"],
        "run": {},
    }
    (tmp_path / "bad.toml").write_text("[system")
    with pytest.raises(StorageError, match="not TOML"):
        text_files.load_config(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text("run = 3")
    with pytest.raises(StorageError, match="run is 3, no table"):
        text_files.load_tables(tmp_path / "bad.toml")


def test_json_is_an_object_without_nan(tmp_path):
    path = tmp_path / "a.json"
    text_files.save_json(path, {"mass": float("nan"), "pairs": [(1.5, float("inf"))]})
    assert "NaN" not in path.read_text() and text_files.load_json(path) == {
        "mass": None,
        "pairs": [[1.5, None]],
    }
    path.write_text("[1]")
    with pytest.raises(StorageError, match="no object"):
        text_files.load_json(path)
