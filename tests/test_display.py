"""Results in notebooks, and handed to pandas and xarray."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import heg
from heg.observables.evaluation import Measurement
from heg.observables.quantities import Quantity
from heg.report import run_figures

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
GAS = heg.System(n_up=4, n_down=3, dim=3, rs=2.0, theta=0.5)


@pytest.fixture(scope="module")
def run():
    shipped = heg.load_run(CHECKPOINTS / "3d-7u-rs1-theta1")
    verdict = {"verdict": {"good": True, "sentence": "Good: no fold & no tail."}}
    return shipped._replace(summary=shipped.summary | verdict)


def measurement():
    """Of made-up numbers on grids of three points."""

    def quantity(*shape, unit="none"):
        count = int(np.prod(shape))
        value = np.arange(1.0, 1 + count).reshape(shape)
        return Quantity(value, value / 10, None, unit)

    quantities = {
        "F": quantity(unit="hartree per electron"),
        "electrons_counted": quantity(2),
        "q": quantity(3),
        "S_q": quantity(3, 3),
        "r": quantity(3),
        "g_r": quantity(3, 3),
        "g_bare": quantity(3, 3),
        "displacement": quantity(3, 3),
        "k": quantity(3),
        "k_count": quantity(3),
        "n_k": quantity(2, 3),
    }
    facts = {"samples": 512, "infinite_gas": {"f_xc_gdsmfb_ha": -0.3}, "system": {"n_up": 4}}
    return Measurement(GAS, None, quantities, {}, None, None, facts)


def test_a_run_shows_its_results_its_verdict_and_a_figure(run):
    page = run._repr_html_()
    assert str(run.estimate("F")) in page and str(run.estimate("S")) in page
    assert "Good: no fold &amp; no tail." in page
    assert page.count("data:image/png;base64,") == 1 and len(page) < 100_000


def test_a_run_that_is_not_finished_shows_its_training(run):
    page = run._replace(summary={})._repr_html_()
    assert "not finished" in page and page.count("<img") == 1
    assert "<img" not in run._replace(summary={}, history={})._repr_html_()


def test_a_measurement_and_a_table_are_shown():
    page = measurement()._repr_html_()
    assert "1.00(10)" in page and "4u3d" in page and page.count("<img") == 1
    table = heg.load_table("3d-polarised")
    page = table._repr_html_()
    assert page.count("<tr>") == 1 + len(table.columns["dim"]) and page.count("<img") == 1


def test_without_matplotlib_the_numbers_are_left(run, monkeypatch):
    def draw(*_):
        raise ImportError("no matplotlib")

    monkeypatch.setattr(run_figures, "training_curve", draw)
    page = run._repr_html_()
    assert str(run.estimate("F")) in page and "<img" not in page


def test_pandas_has_the_same_numbers(run):
    history = run.to_pandas()
    assert history.index.name == "step"
    np.testing.assert_array_equal(history["F_ha"], run.history["F_ha"])
    table = heg.load_table("3d-polarised")
    frame = table.to_pandas()
    assert list(frame) == list(table.columns)
    np.testing.assert_array_equal(frame["f_xc_ha"], table.columns["f_xc_ha"])
    numbers = measurement().to_pandas()
    assert list(numbers.index) == ["F"] and numbers.loc["F", "error"] == 0.1
    assert numbers.loc["F", "unit"] == "hartree per electron"


def test_xarray_has_axes_with_names(run, monkeypatch):
    """Against a stand-in that keeps what it is given: xarray is optional."""
    given = SimpleNamespace(Dataset=lambda *arguments: arguments)
    monkeypatch.setitem(sys.modules, "xarray", given)
    variables, coordinates, notes = measurement().to_xarray()
    assert set(coordinates) == {"q", "r", "k"} and notes == {"n_up": 4}
    dims = {name: dims for name, (dims, _, _) in variables.items()}
    assert dims["F"] == () and dims["electrons_counted"] == ("spin",)
    assert dims["S_q"] == dims["S_q_error"] == ("pair", "q")
    assert dims["n_k"] == ("spin", "k") and dims["k_count"] == ("k",)
    for axes, value, _ in variables.values():
        assert len(axes) == np.ndim(value)
    (columns,) = run.to_xarray()
    assert columns["F_ha"][0] == "step"


def test_a_real_dataset_of_a_table():
    table = heg.load_table("3d-polarised")
    dataset = table.to_xarray()
    place = {"rs_bohr": 2.0, "theta": 0.5, "zeta": 1.0, "electrons": 7}
    row = (table.columns["rs_bohr"] == 2.0) & (table.columns["theta"] == 0.5)
    assert float(dataset["f_xc_ha"].sel(place)) == table.columns["f_xc_ha"][row].item()
    assert measurement().to_xarray()["S_q"].dims == ("pair", "q")


@pytest.mark.parametrize("package", ["pandas", "xarray"])
def test_a_missing_package_is_one_sentence(run, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    for result in (run, measurement(), heg.load_table("3d-polarised")):
        with pytest.raises(ImportError, match=rf"needs {package}: pip install {package}$"):
            getattr(result, f"to_{package}")()


def test_only_public_names_are_completed():
    assert set(dir(heg)) == {*heg.__all__, "__version__"}
