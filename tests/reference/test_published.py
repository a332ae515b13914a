"""Published energies against tables of their own codes."""

import dataclasses

import pytest
from known_systems import reference_rows

from heg.gas.system import System
from heg.reference.published import (
    amgb,
    corrected_ksdt,
    gdsmfb,
    out_of_range,
    published,
    published_f_xc,
)

ROWS = [row for row in reference_rows("fxc_infinite_gas.csv") if row["xi"] in ("0", "1")]


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: f"zeta{row['xi']}-rs{row['rs']}-theta{row['theta']}"
)
def test_the_fit_is_that_of_the_published_code(row):
    n_down = 7 if row["xi"] == "0" else 0
    system = System(7, n_down, 3, float(row["rs"]), float(row["theta"]))
    assert system.temperature == pytest.approx(float(row["T_Ha"]), abs=6e-9)
    assert gdsmfb(system) == pytest.approx(float(row["fxc_ref_Ha"]), rel=1e-6)


def test_it_is_for_three_dimensions_alone():
    with pytest.raises(ValueError, match="three dimensions"):
        gdsmfb(System(7, 0, 2, 1.0, 1.0))


@pytest.mark.parametrize(
    "row",
    reference_rows("groundstate_2d_amgb.csv"),
    ids=lambda row: f"zeta{row['zeta']}-rs{row['rs']}",
)
def test_the_ground_state_in_two_dimensions_is_that_of_the_published_code(row):
    n_down = 7 if row["zeta"] == "0" else 0
    system = System(7, n_down, 2, float(row["rs"]), 0.1)
    expected = float(row["e_x"]) + float(row["e_c_AMGB"])
    assert amgb(system) == pytest.approx(expected, abs=2e-7)  # its code cuts zeta off just below 1


def test_each_gas_gets_what_is_published_of_it():
    unpolarised = System(7, 7, 3, 1.0, 1.0)
    polarised = System(7, 0, 3, 1.0, 1.0)
    plane = System(7, 0, 2, 1.0, 1.0)
    assert published(unpolarised).keys() == {"gdsmfb", "ksdt", "corrksdt"}
    assert published(polarised).keys() == {"gdsmfb", "ksdt"}
    assert published(plane).keys() == {"amgb"}
    assert not published(dataclasses.replace(plane, coupling=0.5))


def test_the_two_late_fits_agree_to_about_a_per_cent():
    system = System(7, 7, 3, 2.0, 0.5)
    assert corrected_ksdt(system) == pytest.approx(gdsmfb(system), rel=0.01)


@pytest.mark.parametrize(
    ("dim", "rs", "theta", "outside"),
    [
        (3, 2.0, 1.0, set()),
        (3, 0.5, 1.0, {"ksdt"}),
        (3, 30.0, 1.0, {"gdsmfb", "corrksdt"}),
        (3, 2.0, 8.5, {"gdsmfb", "ksdt", "corrksdt"}),
        (2, 2.0, 60.0, set()),
        (2, 50.0, 0.1, {"amgb"}),
    ],
)
def test_a_fit_outside_of_its_data_is_named(dim, rs, theta, outside):
    sentences = out_of_range(dim, rs, theta)
    assert sentences.keys() == outside
    for name, sentence in sentences.items():
        assert sentence.startswith(f"f_xc_{name}_ha is outside of the data")


def test_any_polarisation_agrees_with_the_cell_that_has_it():
    # 9 up and 5 down: zeta 2/7
    cell = published(System(9, 5, 3, 2.0, 0.7))
    assert published_f_xc(3, 2.0, 0.7, 2 / 7) == pytest.approx(cell, rel=1e-12)
    assert published_f_xc(2, 2.0, 0.7, 2 / 7) == pytest.approx(published(System(9, 5, 2, 2.0, 0.7)))


def test_an_extrapolated_fit_is_announced():
    with pytest.warns(UserWarning, match=r"Karasiev et al\. 2014: .* r_s from 1 to 40"):
        published_f_xc(3, 0.5, 1.0)


@pytest.mark.parametrize(
    ("state", "field"),
    [
        ((4, 1.0, 1.0, 0.0), "dim"),
        ((3, -1.0, 1.0, 0.0), "rs"),
        ((3, 1.0, 0.0, 0.0), "theta"),
        ((3, 1.0, 1.0, 1.2), "zeta"),
    ],
)
def test_an_impossible_state_is_refused(state, field):
    with pytest.raises(ValueError, match=f"^{field} is "):
        published_f_xc(*state)
