"""Pytrees in HDF5: what was written comes back, what is damaged is refused in one sentence, nothing
is half written."""

import h5py
import numpy as np
import pytest

from heg.errors import StorageError
from heg.runs import hdf5


@pytest.fixture
def tree():
    flow = {"layer_0/w": np.linspace(0, 1, 6).reshape(2, 3)}
    return {"step": np.asarray(3), "flow": flow, "key": np.array([3, 5], np.uint32)}


def test_a_tree_comes_back_with_its_attributes(tmp_path, tree):
    hdf5.save_tree(tmp_path / "a.h5", tree, seconds=1.5)
    loaded, attributes = hdf5.load_tree(tmp_path / "a.h5", tree)
    assert attributes["seconds"] == 1.5
    np.testing.assert_array_equal(loaded["flow"]["layer_0/w"], tree["flow"]["layer_0/w"])
    np.testing.assert_array_equal(loaded["key"], tree["key"])


def test_a_file_describes_itself(tmp_path, tree):
    hdf5.save_tree(tmp_path / "a.h5", tree)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["format"] == hdf5.FORMAT
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
    hdf5.save_tree(path, tree)
    damage(path)
    with pytest.raises(StorageError) as caught:
        hdf5.load_tree(path, tree)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_another_model_is_refused(tmp_path, tree):
    hdf5.save_tree(tmp_path / "a.h5", tree)
    with pytest.raises(StorageError, match="another model"):
        hdf5.load_tree(tmp_path / "a.h5", tree | {"flow": {"layer_0/w": np.zeros((2, 4))}})


def test_a_failed_write_leaves_the_old_file(tmp_path, tree):
    hdf5.save_tree(tmp_path / "a.h5", tree)
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(TypeError):
        hdf5.save_tree(tmp_path / "a.h5", tree | {"step": np.asarray(object())})
    assert (tmp_path / "a.h5").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "a.h5"]
