"""heg-measure: a whole measurement of a small trained gas, added samples, stops, what it leaves,
bad input."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from small_runs import few_states, small_config

from heg.cli.measure import measure as heg_measure
from heg.config import RunConfig, SystemConfig
from heg.observables import evaluation
from heg.observables.structure import grid_of
from heg.report import run_report
from heg.runs import files, hdf5, text_files
from heg.runs.measure import measure
from heg.runs.solve import solve
from heg.statistics import independent, jackknife

NEVER, NOTHING = lambda: False, lambda *_: None
# compiled once, for the fixture `measured`: most tests are not about the second order
BOUND_ALONE = {"second_order": False}


def config(run_dir):
    small = small_config(
        SystemConfig(3, 2, 3.0, 0.6, "1/3", (0.1, 0.2)), flow_layers=1, transformer_layers=0
    )
    return dataclasses.replace(small, run=RunConfig(str(run_dir), steps=3, samples=16))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    run_dir = tmp_path_factory.mktemp("runs") / "a"
    solve(config(run_dir), NOTHING, NEVER)
    return run_dir


@pytest.fixture(scope="module")
def measured(run):
    """Its measurement by the command line, and what it printed."""
    with few_states():
        assert exit_code([str(run), "--samples", "250"]) == 0
    return json.loads((run / "observables.json").read_text())


def test_everything_promised_is_there(run, measured):
    assert measured["samples"] == 256  # whole batches of 16
    for name in (
        "F",
        "E",
        "kinetic",
        "potential",
        "S",
        "pressure",
        "heat_capacity",
        "f_xc",
        "entropy_ratio",
        "contact",
    ):
        assert measured[name]["error"] > 0 and measured["units"][name]
    assert measured["E"]["mean"] == pytest.approx(
        measured["kinetic"]["mean"] + measured["potential"]["mean"], rel=1e-9
    )
    expected = measured["ideal"]["F"] + measured["f_xc"]["mean"]
    assert measured["F"]["mean"] == pytest.approx(expected, rel=1e-9)
    report = (run / "report.html").read_text()
    sentence = measured["verdict"]["sentence"]
    assert "3 steps are too few" in sentence and report.index(sentence) < report.index("<table>")
    assert (
        report.count("data:image/png;base64,") == 6
        and "http" not in report
        and "hartree\N{NO-BREAK SPACE}per\N{NO-BREAK SPACE}electron" in report
    )
    assert all(
        (run / f"{name}.png").stat().st_size > 1000
        for name in ("structure", "momentum", "levels", "energies")
    )


def test_sum_rules_hold_sample_by_sample(run, measured):
    system = config(run).system.build()
    with h5py.File(run / "observables.h5") as file:
        assert file["F/value"].attrs["unit"] == "hartree per electron"
        g, r = file["g_r/value"][:], file["r/value"][:]
        covariance, error = file["S_q/covariance"][:], file["S_q/error"][:]
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariance)), error.ravel(), rtol=1e-10)
    share = grid_of(system).share
    assert len(r) == len(share)
    # n times the integral of g - 1: -1 of equal spins, 0 of opposite ones
    np.testing.assert_allclose(g @ share - 1, [-1 / system.n_up, 0, -1 / system.n_down], atol=1e-9)


def test_errors_can_be_rebuilt_from_the_blocks(run, measured):
    with h5py.File(run / "observed-3.h5") as file:
        blocks = {name: file[f"energies/{name}"][:] for name in ("F", "kinetic", "potential")}
    assert len(blocks["F"]) == 16
    found = independent(blocks["F"])
    assert measured["F"]["mean"] == pytest.approx(found.mean, rel=1e-12)
    assert measured["F"]["error"] == pytest.approx(found.error, rel=1e-9)
    pressure = jackknife(blocks, lambda mean: 2 * mean["kinetic"] + mean["potential"])
    share = pressure.error / abs(pressure.value)
    assert measured["pressure"]["error"] / abs(measured["pressure"]["mean"]) == pytest.approx(
        float(share), rel=1e-6
    )


def test_samples_are_added_and_a_stop_loses_none(run, measured, tmp_path):
    once, bits = tmp_path / "once", tmp_path / "bits"
    for copy in (once, bits):
        shutil.copytree(run, copy)
        (copy / "observed-3.h5").unlink()
    assert (
        measure(bits, 256, NOTHING, lambda: True, **BOUND_ALONE) is None
        and not (bits / "observed-3.h5").exists()
    )
    whole = measure(once, 320, NOTHING, NEVER, **BOUND_ALONE)
    assert measure(bits, 256, NOTHING, NEVER, **BOUND_ALONE).facts["samples"] == 256
    asked = iter([False, False, True])
    assert measure(bits, 320, NOTHING, lambda: next(asked), **BOUND_ALONE) is None
    assert hdf5.stored_length(bits / "observed-3.h5", "energies/F") == 18
    parts = measure(bits, 320, NOTHING, NEVER, **BOUND_ALONE)
    for name, quantity in whole.quantities.items():
        np.testing.assert_array_equal(quantity.value, parts.quantities[name].value, err_msg=name)
    # fewer samples than there are: all are used
    assert measure(bits, 16, NOTHING, NEVER, **BOUND_ALONE).facts["samples"] == 320


def test_a_stop_is_heard_after_the_last_sample_too(run, measured, tmp_path, monkeypatch):
    monkeypatch.setattr(
        evaluation, "AT_ONCE", evaluation.STATES * 2
    )  # a part of the draws of K at a time
    shutil.copytree(run, tmp_path / "a")
    (tmp_path / "a" / "observables.json").unlink()
    for looks in (1, 3):  # before the draws of K, and between them
        asked = iter([False] * (looks - 1) + [True])
        assert measure(tmp_path / "a", 256, NOTHING, lambda: next(asked), **BOUND_ALONE) is None
        assert next(asked, None) is None and not (tmp_path / "a" / "observables.json").exists()
    again = measure(tmp_path / "a", 256, NOTHING, NEVER, **BOUND_ALONE)
    assert again.quantities["E_variance_within_K"].value == measured["E_variance_within_K"]["mean"]
    assert again.landau.mass == pytest.approx(measured["landau"]["mass"], rel=1e-6)


def test_the_results_may_lie_elsewhere(run, measured, tmp_path):
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    words = [str(run), "--samples", "256", "--no-second-order", "--output", str(tmp_path / "out")]
    assert exit_code(words) == 0
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before
    assert {
        "observables.json",
        "observables.h5",
        "observed-3.h5",
        "report.html",
        "structure.png",
    } <= {path.name for path in (tmp_path / "out").iterdir()}
    elsewhere = json.loads((tmp_path / "out" / "observables.json").read_text())
    assert elsewhere["F"] == measured["F"]
    shutil.copytree(run, tmp_path / "another")
    assert exit_code([*words[:-1], str(tmp_path / "another")]) == 2


def test_a_directory_that_cannot_be_written_names_the_remedy(run, measured, monkeypatch, capsys):
    ordinary = files.Path.open

    def refuse(path, *arguments, **keywords):
        if path.name == "lock-measure":
            raise PermissionError(13, "Permission denied")
        return ordinary(path, *arguments, **keywords)

    monkeypatch.setattr(files.Path, "open", refuse)  # what a read-only directory does, also to root
    assert exit_code([str(run), "--samples", "256"]) == 1
    words = capsys.readouterr().err
    assert (
        "cannot be written (Permission denied)" in words
        and "--output" in words
        and words.count("\n") == 1
    )


def test_the_report_is_the_same_in_any_locale(run, measured, tmp_path):
    code = (
        "from pathlib import Path\n"
        "from heg.report import run_report\n"
        "from heg.runs import text_files\n"
        f"run, page = Path({str(run)!r}), Path({str(tmp_path / 'page.html')!r})\n"
        "numbers = text_files.load_json(run / 'observables.json')\n"
        "run_report.write(page, numbers, text_files.read_text(run / 'config.toml'), {})"
    )
    pages = []
    for variables in (
        {"PYTHONUTF8": "1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ):
        subprocess.run([sys.executable, "-c", code], env=os.environ | variables, check=True)
        pages.append((tmp_path / "page.html").read_bytes())
    assert pages[0] == pages[1] and "Θ = 0.6".encode() in pages[0]


def test_the_report_of_samples_of_one_state_says_that_there_are_no_levels(measured, tmp_path):
    numbers = measured | {"landau": measured["landau"] | {"explained": [None, None, None]}}
    page = run_report.write(tmp_path / "page.html", numbers, "", {})
    assert "there are no levels to fit" in page.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    text_files.write_text(tmp_path / "page.html", "good")
    monkeypatch.setattr(files.Path, "write_bytes", lambda path, content: path.touch() or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        text_files.write_text(tmp_path / "page.html", "other")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert text_files.read_text(tmp_path / "page.html") == "good"


def test_the_report_says_how_far_an_error_can_be_trusted(run, measured):
    report_text = (run / "report.html").read_text(encoding="utf-8")
    assert "is half of its second-order exchange, and the distance of its rings" in report_text
    assert "from an interpolation of S(q)" in report_text


def test_samples_of_other_parameters_are_set_aside(run, measured, tmp_path):
    shutil.copytree(run, tmp_path / "other")
    path = tmp_path / "other" / "observed-3.h5"
    size = hdf5.stored_length(path, "energies/F")
    with h5py.File(path, "a") as file:
        file.attrs["parameters"] = "of another run"
    assert measure(tmp_path / "other", 272, NOTHING, NEVER, **BOUND_ALONE).facts["samples"] == 272
    assert hdf5.stored_length(path.with_name("observed-3.h5.unused"), "energies/F") == size


def test_an_error_of_few_blocks_is_refused_before_anything_is_drawn(run, measured, tmp_path):
    shutil.copytree(run, tmp_path / "few")
    (tmp_path / "few" / "observed-3.h5").unlink()
    with pytest.raises(
        ValueError, match="samples is 240: these are 15 blocks, .* ask for at least 256"
    ):
        measure(tmp_path / "few", 240, NOTHING, NEVER)
    assert not (tmp_path / "few" / "observed-3.h5").exists()


def exit_code(arguments):
    with pytest.raises(SystemExit) as caught:
        heg_measure(arguments)
    return caught.value.code


def test_bad_input_is_one_sentence(run, tmp_path, capsys):
    cases = {
        (str(tmp_path),): "holds no run",
        (str(tmp_path / "none"),): "none",
        (str(run), "--samples", "1"): "samples is 1",
        (str(run), "--step", "7"): "no checkpoint of step 7",
        (str(run), "--sample", "7"): "--samples",
        (str(run), "--beside", str(run)): "give two",
        (str(run), "--beside", str(run), str(run)): "must differ",
    }
    for arguments, words in cases.items():
        assert exit_code(list(arguments)) == 2, arguments
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error
