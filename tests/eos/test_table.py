"""Tables: rows from twists, errors with their spread, files, the infinite gas between the rows,
what is refused."""

import dataclasses

import numpy as np
import pytest

from heg.eos.surface import excess
from heg.eos.table import extrapolated, table_of
from heg.eos.table_files import load_table, save
from heg.eos.twist_average import Part, row_of
from heg.errors import StorageError
from heg.gas import ideal_infinite
from heg.gas.size_correction import size_correction, uncertainty
from heg.gas.system import System
from heg.gas.twists import Twist
from heg.reference.published import gdsmfb
from heg.report import table_report
from heg.runs.hdf5 import save_tree

ONE = [Twist((0.0, 0.0, 0.0), 1.0)]
ERROR = 1e-3
F_2, F_2_ERROR, F_2_SYSTEMATIC = -3e-3, 0.0, 0.0


def part(system, f_xc, weight=1.0, error=ERROR):
    """What a run of a gas with this f_xc would leave; e_xc, s_xc, p_xc as if f_xc were a constant
    over r_s."""
    ideal = {"F": 1.0, "E": 2.0, "S": 3.0, "pressure": 0.1}
    added = {"F": f_xc, "E": f_xc, "S": 0.0, "pressure": f_xc * system.density / 3}
    facts = {
        name: getattr(system, name)
        for name in ("n_up", "n_down", "dim", "theta", "twist", "coupling")
    }
    observables = {name: {"mean": ideal[name] + added[name], "error": error} for name in ideal}
    observables["F"]["mean"] -= F_2  # the bound
    observables |= {"version": "1", "ideal": ideal, "system": facts | {"rs_bohr": system.rs}}
    observables |= {"F_2": {"mean": F_2, "error": F_2_ERROR, "systematic": F_2_SYSTEMATIC}}
    facts = {"samples": 100, "steps": 50, "reached": True, "measured": observables}
    return Part(weight, f"run-{system.rs:g}", facts)


def published_cell(system):
    """f_xc of a cell from the published one, so that the infinite gas of the table is the published
    one."""
    return gdsmfb(system) - size_correction(system).free_energy


@pytest.fixture(scope="module")
def table():
    gases = [
        System(7, 0, 3, rs, theta, (0.0,) * 3)
        for theta in (0.25, 0.5, 1.0)
        for rs in (1.0, 2.0, 5.0)
    ]
    return table_of(
        [row_of([part(gas, published_cell(gas), error=1e-4 / gas.rs)]) for gas in gases],
        {(7, 0): ONE},
    )


def test_the_infinite_gas_is_cell_correction_and_ideal_gas(table):
    gas = System(7, 0, 3, 2.0, 0.5, (0.0,) * 3)
    row = np.flatnonzero((table.columns["rs_bohr"] == 2.0) & (table.columns["theta"] == 0.5))[0]
    of = lambda name: table.columns[name][row]
    ideal = ideal_infinite.thermodynamics(gas)
    assert of("f_xc_ha") == pytest.approx(gdsmfb(gas), rel=1e-9)
    assert of("f_ha") == pytest.approx(ideal.free_energy + gdsmfb(gas), rel=1e-9)
    assert of("f_xc_gdsmfb_ha") == pytest.approx(gdsmfb(gas)) and of("e_ideal_ha") == pytest.approx(
        ideal.energy
    )
    assert of("e_ha") - of("f_ha") == pytest.approx(
        gas.temperature * of("s_kb"), rel=1e-6
    )  # f_xc was a constant
    assert of("temperature_ha") == pytest.approx(gas.temperature) and of("run") == "run-2"


def test_between_its_rows_the_table_gives_the_published_gas(table):
    for rs, theta in ((1.0, 0.25), (1.5, 0.4), (3.0, 0.7)):
        gas = System(7, 0, 3, rs, theta, (0.0,) * 3)
        found = table.free_energy(rs, theta, 1.0)
        expected = ideal_infinite.thermodynamics(gas).free_energy + gdsmfb(gas)
        assert found.mean == pytest.approx(expected, abs=3e-3 * abs(gdsmfb(gas)))
        assert 0 < found.error < 0.03 * abs(gdsmfb(gas))
        assert table.excess_free_energy(rs, theta, 1.0).mean == pytest.approx(gdsmfb(gas), rel=0.01)
    state = table.equation_of_state(2.0, 0.5, 1.0)
    # f = e - T s, and the pressure by a difference of f in r_s at the same temperature
    t = System(7, 0, 3, 2.0, 0.5, (0.0,) * 3).temperature
    assert state["f"].mean == pytest.approx(state["e"].mean - t * state["s"].mean, rel=1e-6)
    step = 0.01
    wider, closer = (table.free_energy(2 * f, 0.5 * f**2, 1.0).mean for f in (1 + step, 1 - step))
    density = 3 / (4 * np.pi * 8)
    assert state["p"].mean == pytest.approx(
        -density * 2 / 3 * (wider - closer) / (4 * step), rel=2e-3
    )


def test_deviations_are_in_errors_of_both_sides(table):
    series = table.series[7, 0]
    row = series.rows[4]
    rs, theta = table.columns["rs_bohr"][row], table.columns["theta"][row]
    fitted, place = excess(series.surface, rs, theta), 1
    measured, error = table.columns["e_xc_cell_ha"][row], table.columns["e_xc_cell_error_ha"][row]
    expected = (measured - fitted.value[place]) / np.hypot(error, fitted.error[place])
    assert table.columns["e_deviation_sigma"][row] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((0.5, 0.5, 1.0), "rs is 0.5: the table reaches from 1 to 5"),
        ((2.0, 3.0, 1.0), "theta is 3.0: the table reaches from 0.25 to 1"),
        ((2.0, 0.5, 0.0), "zeta is 0.0: the table has 1"),
    ],
    ids=["rs", "theta", "zeta"],
)
def test_places_outside_are_refused(table, place, words):
    with pytest.raises(ValueError, match=words):
        table.free_energy(*place)


def test_what_is_written_is_read(table, tmp_path):
    save(table, tmp_path / "table")
    again = load_table(tmp_path / "table.h5")
    for name, values in table.columns.items():
        np.testing.assert_array_equal(again.columns[name], values)
    assert again.twists == table.twists
    assert again.free_energy(1.5, 0.4, 1.0) == pytest.approx(
        table.free_energy(1.5, 0.4, 1.0), rel=1e-9
    )
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert len(lines) == 10 and lines[0].split(",") == list(table.columns)
    save_tree(tmp_path / "other.h5", {"x": np.zeros(2)})
    with pytest.raises(StorageError, match="holds no table"):
        load_table(tmp_path / "other.h5")


def test_an_average_over_twists_has_the_error_of_its_parts_and_their_spread():
    gas = System(7, 0, 3, 2.0, 0.5, (0.0,) * 3)
    weights, values = np.array([0.25, 0.75]), np.array([-0.30, -0.28])
    twisted = [dataclasses.replace(gas, twist=(angle, 0.0, 0.0)) for angle in (0.1, 0.2)]
    parts = [part(*each) for each in zip(twisted, values, weights)]
    row = row_of(parts)
    mean = weights @ values
    assert row["f_xc_cell_ha"] == pytest.approx(mean) and row["twists"] == 2
    variance = weights**2 @ (ERROR**2 + 2 * (values - mean) ** 2)
    assert row["f_xc_cell_error_ha"] == pytest.approx(np.sqrt(variance))
    corrections = [size_correction(one).free_energy for one in twisted]
    assert row["f_xc_ha"] == pytest.approx(mean + weights @ corrections)


def test_equal_random_twists_have_the_standard_error_of_the_mean():
    gas, values = System(7, 0, 3, 2.0, 0.5, (0.0,) * 3), np.array([-0.30, -0.28, -0.31, -0.27])
    row = row_of([part(gas, value, 0.25, error=0.0) for value in values])
    assert row["f_xc_cell_error_ha"] == pytest.approx(np.std(values, ddof=1) / 2)


def test_sizes_are_extrapolated_linearly_in_the_inverse_number():
    rows = []
    for count in (7, 33):
        gas = System(count, 0, 3, 2.0, 0.5, (0.0,) * 3)
        rows.append(row_of([part(gas, -0.3 + 0.2 / count - size_correction(gas).free_energy)]))
    table = table_of(rows, {(7, 0): ONE, (33, 0): ONE})
    ((rs, theta, zeta, found),) = extrapolated(table)
    assert (rs, theta, zeta) == (2.0, 0.5, 1.0) and found.mean == pytest.approx(-0.3)
    # two lines through two points: the error of the intercept
    errors = [np.hypot(ERROR, uncertainty(System(count, 0, 3, 2.0, 0.5))) for count in (7, 33)]
    expected = np.hypot(7 * errors[0], 33 * errors[1]) / (33 - 7)
    assert found.error == pytest.approx(expected)
    with pytest.raises(ValueError, match="the table has 2 rows of it, and a surface takes 3"):
        table.free_energy(2.0, 0.5, 1.0)


def test_a_larger_cell_that_is_not_done_hides_no_row_of_a_smaller_one(tmp_path):
    states = [(7, theta, rs) for theta in (0.5, 1.0) for rs in (1.0, 2.0, 5.0)]
    states += [(19, 1.0, rs) for rs in (1.0, 2.0, 5.0)]
    gases = [System(count, 0, 3, rs, theta, (0.0,) * 3) for count, theta, rs in states]
    made = table_of(
        [row_of([part(gas, published_cell(gas))]) for gas in gases], {(7, 0): ONE, (19, 0): ONE}
    )
    assert len(made.columns["theta"]) == 9 and sum(made.largest(1.0).surface.data.gas.spins) == 19
    with pytest.raises(ValueError, match="theta is 0.5: the table reaches from 1 to 1"):
        made.free_energy(2.0, 0.5, 1.0)


@pytest.mark.parametrize("name, n_down", [("3d-polarised", 0), ("3d-unpolarised", 7)])
def test_a_shipped_table_answers_as_its_page_says(name, n_down):
    """Between its points too f_xc is that of the fit within its own errors and a few percent."""
    table = load_table(name)
    assert len(table.columns["rs_bohr"]) == 35 and np.all(table.columns["reached"] == 1)
    assert np.all(table.columns["f_2_ha"] < 0)
    fit = table.columns["f_xc_gdsmfb_ha"]
    distance = np.abs(table.columns["f_xc_ha"] - fit)
    assert np.all(distance < table.columns["f_xc_error_ha"])
    assert np.mean(distance < 0.015 * np.abs(fit)) > 0.8
    gas = System(7, n_down, 3, 1.0, 1.0, (0.0,) * 3)
    for rs, theta in ((0.7, 0.3), (1.5, 0.3), (3.0, 0.7), (6.0, 0.4), (15.0, 0.2)):
        published = gdsmfb(dataclasses.replace(gas, rs=rs, theta=theta))
        found = table.excess_free_energy(rs, theta, gas.polarization)
        assert abs(found.mean - published) < min(2 * found.error, 0.03 * abs(published))


@pytest.mark.parametrize("name, most_dilute", [("2d-polarised", 20.0), ("2d-unpolarised", 1.0)])
def test_a_shipped_table_in_two_dimensions_tends_to_the_ground_state(name, most_dilute):
    columns = load_table(name).columns
    assert len(columns["rs_bohr"]) == 25 and np.all(columns["f_2_ha"] < 0)
    cold = columns["theta"] == 0.1
    difference = columns["f_xc_ha"] - columns["f_xc_amgb_ha"]
    error = columns["f_xc_error_ha"]
    # f_xc rises as Theta^2 from its limit: from the two coldest points to Theta = 0
    colder, warmer = 0.1**2, 0.25**2
    rise = difference[columns["theta"] == 0.25] - difference[cold]
    limit = difference[cold] - rise * colder / (warmer - colder)
    assert np.all(np.abs(limit) < 2 * error[cold])
    # but for the densest gas, which is the warmest, the rise does not show
    dense = columns["rs_bohr"][cold] == 1.0
    assert np.all(np.abs(difference[cold][~dense]) < 2 * error[cold][~dense])
    assert np.all(error[cold] < 0.03 * np.abs(columns["f_xc_ha"][cold]))
    # the error is a part of what temperature does; with two spins in the dense gas alone
    warm = (columns["theta"] == 1.0) & (columns["rs_bohr"] <= most_dilute)
    assert np.all(difference[warm] > 3 * error[warm])
    for rs in np.unique(columns["rs_bohr"]):
        of_row = columns["rs_bohr"] == rs
        order = np.argsort(columns["theta"][of_row])
        assert np.all(np.diff(columns["s_kb"][of_row][order]) > 0)


def test_a_table_of_two_rows_says_what_is_missing():
    gases = [System(7, 0, 3, rs, 0.5, (0.0,) * 3) for rs in (1.0, 2.0)]
    few = table_of([row_of([part(gas, -0.1)]) for gas in gases], {(7, 0): ONE})
    with pytest.raises(
        ValueError,
        match="zeta is 1.0: the table has 2 rows of it, and a surface takes 3 of one cell",
    ):
        few.free_energy(1.0, 0.5, 1.0)
    with pytest.raises(ValueError, match="zeta is 0.0: the table has no surface"):
        few.free_energy(1.0, 0.5, 0.0)


def test_a_row_at_the_lowest_temperature_has_its_derivatives():
    rows = [row_of([part(System(2, 0, 2, rs, 1e-5, (0.0, 0.0)), -0.1)]) for rs in (1.0, 2.0, 3.0)]
    cold = table_of(rows, {(2, 0): [Twist((0.0, 0.0), 1.0)]})
    found = cold.equation_of_state(2.0, 1e-5, 1.0)
    assert all(np.isfinite([value for estimate in found.values() for value in estimate]))


def test_what_is_unsure_at_all_twists_alike_does_not_average_out():
    gas = System(7, 0, 3, 2.0, 0.5, (0.0,) * 3)
    parts = [part(gas, -0.3, 0.25, error=0.0) for _ in range(4)]
    for one in parts:
        one.observables["F_2"] |= {"error": 4e-4, "systematic": 5e-4}
    row = row_of(parts)
    assert row["f_2_ha"] == pytest.approx(F_2)
    assert row["f_2_error_ha"] == pytest.approx(np.hypot(2e-4, 5e-4))
    assert row["f_xc_cell_bound_ha"] == pytest.approx(row["f_xc_cell_ha"] - F_2)


@pytest.mark.parametrize(
    "name", ["2d-polarised", "2d-unpolarised", "3d-polarised", "3d-unpolarised"]
)
def test_a_shipped_table_is_read_by_its_name(name):
    table = load_table(name)
    dim, zeta = int(table.columns["dim"][0]), table.columns["zeta"][0]
    assert name == f"{dim}d-{'polarised' if zeta else 'unpolarised'}"


def test_a_wrong_name_lists_the_shipped_tables(tmp_path):
    sentence = "2d-polarised, 2d-unpolarised, 3d-polarised, 3d-unpolarised$"
    with pytest.raises(ValueError, match=sentence):
        load_table("3d-unpolarized")
    # a file that is meant stays a file
    with pytest.raises((OSError, StorageError), match="table.h5"):
        load_table(tmp_path / "table.h5")


def test_the_parts_of_the_error_of_f_xc_add_up():
    twists = [(0.1, 0.2, 0.3), (-0.2, 0.4, 0.1), (0.3, -0.1, 0.4)]
    gases = [System(7, 0, 3, 2.0, 0.5, twist) for twist in twists]
    parts = []
    for gas, f_xc in zip(gases, (-0.30, -0.31, -0.28)):
        one = part(gas, f_xc, weight=1 / 3)
        one.observables["F_2"] |= {"error": 2e-3, "systematic": 5e-4}
        parts.append(one)
    row = row_of(parts)
    error = {name: row[f"f_xc_error_{name}_ha"] for name in ("samples", "twists", "second_order")}
    assert error["samples"] == pytest.approx(ERROR / np.sqrt(3))
    assert error["second_order"] == pytest.approx(np.hypot(2e-3 / np.sqrt(3), 5e-4))
    assert error["twists"] == pytest.approx(np.std([-0.30, -0.31, -0.28], ddof=1) / np.sqrt(3))
    size = row["f_correction_error_ha"]
    assert np.hypot(np.linalg.norm(list(error.values())), size) == pytest.approx(
        row["f_xc_error_ha"]
    )
    assert row_of(parts[:1])["f_xc_error_twists_ha"] == 0


def test_doubts_about_points_are_in_the_row_and_in_the_page(tmp_path):
    gas = System(7, 0, 3, 2.0, 0.5, (0.0,) * 3)
    doubtful = part(gas, -0.3)
    doubtful.facts["doubts"] = ["F drifts."]
    table = table_of([row_of([doubtful]), row_of([part(gas, -0.3)])], {(7, 0): ONE})
    assert table.columns["doubts"].tolist() == ["F drifts.", ""]
    (tmp_path / "grid.toml").write_text("[grid]\n")
    page = table_report.write(tmp_path / "table.html", table, tmp_path / "grid.toml", {})
    assert page.read_text().count("F drifts.") == 1
    save(table, tmp_path / "table")
    assert load_table(tmp_path / "table.h5").columns["doubts"].tolist() == ["F drifts.", ""]
