"""Files: what was written comes back, what is damaged is refused in one sentence, nothing is half
written."""

import h5py
import numpy as np
import pytest

from heg.errors import StorageError
from heg.runs import files, text_files


@pytest.fixture
def tree():
    flow = {"layer_0/w": np.linspace(0, 1, 6).reshape(2, 3)}
    return {"step": np.asarray(3), "flow": flow, "key": np.array([3, 5], np.uint32)}


def test_a_tree_comes_back_with_its_attributes(tmp_path, tree):
    files.save_tree(tmp_path / "a.h5", tree, seconds=1.5)
    loaded, attributes = files.load_tree(tmp_path / "a.h5", tree)
    assert attributes["seconds"] == 1.5
    np.testing.assert_array_equal(loaded["flow"]["layer_0/w"], tree["flow"]["layer_0/w"])
    np.testing.assert_array_equal(loaded["key"], tree["key"])


def test_a_file_describes_itself(tmp_path, tree):
    files.save_tree(tmp_path / "a.h5", tree)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["format"] == files.FORMAT
        assert set(file) == {"step", "flow", "key"}


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


def replace_by_text(path):
    path.write_text("not HDF5")


def replace_by_foreign(path):
    with h5py.File(path, "w") as file:
        file["x"] = 1.0


def change_a_number(path):
    with h5py.File(path, "a") as file:
        file["flow/layer_0.w"][0, 0] += 1e-9


@pytest.mark.parametrize(
    "damage", [truncate, empty, replace_by_text, replace_by_foreign, change_a_number]
)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, tree, damage):
    path = tmp_path / "checkpoint-1.h5"
    files.save_tree(path, tree)
    damage(path)
    with pytest.raises(StorageError) as caught:
        files.load_tree(path, tree)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_another_model_is_refused(tmp_path, tree):
    files.save_tree(tmp_path / "a.h5", tree)
    with pytest.raises(StorageError, match="another model"):
        files.load_tree(tmp_path / "a.h5", tree | {"flow": {"layer_0/w": np.zeros((2, 4))}})


def test_a_failed_write_leaves_the_old_file(tmp_path, tree):
    files.save_tree(tmp_path / "a.h5", tree)
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(TypeError):
        files.save_tree(tmp_path / "a.h5", tree | {"step": np.asarray(object())})
    assert (tmp_path / "a.h5").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "a.h5"]


def test_checkpoints_are_listed_newest_first(tmp_path):
    for name in (
        "checkpoint-20.h5",
        "checkpoint-100.h5",
        "checkpoint-x.h5",
        "checkpoint-300-mine.h5",
        "samples-100.h5",
    ):
        (tmp_path / name).touch()
    assert [path.name for path in files.checkpoints(tmp_path)] == [
        "checkpoint-100.h5",
        "checkpoint-20.h5",
    ]


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
