"""heg from Python: the same runs as the command line's."""

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

import heg
from heg.cli import solve
from heg.runs import text_files

GAS = heg.System(n_up=2, n_down=0, dim=2, rs=2.0, theta=0.5)
SMALL = {"batch": 16, "samples": 64, "flow_layers": 1, "flow_width": 4, "transformer_layers": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, and the rows that its callback has seen."""
    rows = []
    return heg.solve(
        GAS, tmp_path_factory.mktemp("runs") / "a", rows.append, steps=4, **SMALL
    ), rows


def test_a_run_is_that_of_the_command_line(run, tmp_path):
    flags = [
        word
        for name, value in SMALL.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    words = "--electrons 2 --dim 2 --polarization 1 --rs 2 --theta 0.5 --steps 4 --run-dir"
    with pytest.raises(SystemExit) as ended:
        solve.solve([*words.split(), str(tmp_path / "b"), *flags])
    assert ended.value.code == 0
    assert text_files.load_json(tmp_path / "b" / "summary.json")["F"] == run[0].summary["F"]


def test_the_callback_sees_the_rows_of_the_history(run):
    found, rows = run
    assert [row["step"] for row in rows] == found.history["step"].tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose([row["F_ha"] for row in rows], found.history["F_ha"], rtol=1e-12)
    assert found.history["redrawn"].dtype == int and np.ptp(found.history["S_kb"]) > 0


def test_a_run_of_the_command_line_goes_on_in_python(run, tmp_path):
    """However its gas is written: polarisation 1 or 2/2, no twist or a twist of zero."""
    run_dir = shutil.copytree(run[0].directory, tmp_path / "b")
    config = run_dir / "config.toml"
    config.write_text(config.read_text().replace("2/2", "1.0"))
    found = heg.solve(dataclasses.replace(GAS, twist=(0.0, 0.0)), run_dir, steps=5, **SMALL)
    assert found.history["step"].tolist() == [1, 2, 3, 4, 5] and found.summary["steps"] == 5


def test_a_run_ended_by_its_callback_goes_on_with_the_next_call(run, tmp_path):
    ended = heg.solve(GAS, tmp_path, lambda row: row["step"] == 2, steps=4, **SMALL)
    assert len(ended.history["step"]) == 2 and not ended.summary
    with pytest.raises(ValueError, match="is not finished"):
        ended.estimate("F")
    assert len(heg.plot(ended).axes) == 2
    again = heg.solve(GAS, tmp_path, steps=4, **SMALL)
    assert again.estimate("F") == run[0].estimate("F")
    np.testing.assert_array_equal(again.history["E_ha"], run[0].history["E_ha"])


def test_a_finished_run_is_loaded_and_measured(run):
    found = heg.load_run(run[0].directory)
    assert found.summary == run[0].summary
    measured = heg.measure(found, 256, second_order=False)
    gas, value = measured.system, lambda name: measured.quantities[name].value
    assert gas == GAS
    # the virial theorem, by hand
    virial = (2 * value("kinetic") + value("potential")) * gas.density / gas.dim
    assert value("pressure") == pytest.approx(virial, rel=1e-9)
    pressure = measured.estimate("pressure")
    assert pressure.mean == value("pressure") and str(pressure) in repr(
        measured.quantities["pressure"]
    )
    for wrong, words in (("presure", "did you mean 'pressure'"), ("S_q", "take quantities")):
        with pytest.raises(ValueError, match=words):
            measured.estimate(wrong)
    assert measured.facts["verdict"] == found.summary["verdict"]
    for shown in (found, measured, measured.quantities["S_q"]):
        assert len(repr(shown)) < 300
    for figure, axes in (
        (heg.plot(found), 2),
        (heg.plot(measured), 2),
        (heg.plot_momentum(measured), 1),
    ):
        assert isinstance(figure, Figure) and len(figure.axes) == axes


def test_what_a_run_does_not_have_is_said(run):
    with pytest.raises(ValueError, match="a run has no 'pressure', but F, .* heg.measure"):
        run[0].estimate("pressure")
    with pytest.raises(
        ValueError, match="heg.plot_momentum takes a measurement of heg.measure, not a Run"
    ):
        heg.plot_momentum(run[0])
    with pytest.raises(
        ValueError, match="heg.plot takes a run of heg.solve or a measurement .*, not a dict"
    ):
        heg.plot({})
    with pytest.raises(ValueError, match="n_up is 7.5: it must be a whole number"):
        heg.System(n_up=7.5, n_down=0, dim=3, rs=1, theta=1)


def test_the_package_is_found_beside_its_clone(tmp_path):
    """Where a folder heg without __init__.py lies, as the clone does in its parent."""
    (tmp_path / "heg" / "heg").mkdir(parents=True)
    code = "import heg; print(heg.System.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "heg.gas.system\n", done.stderr


def test_bad_input_is_told(tmp_path):
    with pytest.raises(ValueError, match="no flag 'stepz': did you mean 'steps'"):
        heg.solve(GAS, tmp_path / "a", stepz=3)
    with pytest.raises(ValueError, match="batch is 1: it must lie between 2"):
        heg.solve(GAS, tmp_path / "a", batch=1)
    assert not (tmp_path / "a").exists()
    for flags, words in (
        ({"steps": "3"}, "steps is '3': it must be a whole number"),
        ({"sampler": "Exact"}, "sampler is Exact: it must be one of exact, metropolis, mala"),
        ({"start": str(tmp_path)}, "holds no run"),
        ({"start": tmp_path}, "holds no run"),
    ):
        with pytest.raises(ValueError, match=words):
            heg.solve(GAS, tmp_path / "a", **flags)
    assert not (tmp_path / "a").exists()
    with pytest.raises(ValueError, match="holds no run"):
        heg.load_run(tmp_path / "a")
    with pytest.raises(ValueError, match="samples is 1"):
        heg.measure(tmp_path / "a", 1)
    with pytest.raises(
        ValueError, match="second_order is -0.001: give True, False or a positive error"
    ):
        heg.measure(tmp_path / "a", second_order=-1e-3)
