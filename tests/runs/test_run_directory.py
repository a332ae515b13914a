"""The files of a run directory."""

from heg.runs.run_directory import RunDirectory


def test_checkpoints_are_listed_newest_first(tmp_path):
    for name in (
        "checkpoint-20.h5",
        "checkpoint-100.h5",
        "checkpoint-x.h5",
        "checkpoint-300-mine.h5",
        "samples-100.h5",
    ):
        (tmp_path / name).touch()
    assert [path.name for path in RunDirectory(tmp_path).checkpoints()] == [
        "checkpoint-100.h5",
        "checkpoint-20.h5",
    ]
