"""The table of quantities: units, columns of the history, and values with their errors."""

import numpy as np
import pytest

from heg.observables.quantities import NUMBERS, QUANTITIES, unit_of, with_units
from heg.runs.summary import QUANTITIES as RECORDED
from heg.statistics import Derived, Estimate


@pytest.mark.parametrize("dim", [2, 3])
def test_the_unit_of_the_pressure_knows_the_dimension(dim):
    assert unit_of("pressure", dim) == f"hartree per bohr^{dim}"
    assert unit_of("S", dim) == "k_B per electron"


def test_quantities_recorded_in_training_have_a_column_and_no_others():
    with_column = {name for name, entry in QUANTITIES.items() if entry.column}
    assert with_column == set(RECORDED)
    assert QUANTITIES["F"].error_column == "F_error_ha"
    assert QUANTITIES["S"].error_column == "S_error_kb"


def test_no_two_numbers_of_a_report_share_a_title():
    titles = [entry.title for entry in NUMBERS.values()]
    assert len(set(titles)) == len(titles)


def test_results_of_each_kind_become_quantities():
    covariance = np.array([[4.0, 1.0], [1.0, 9.0]])
    results = {
        "n_k": Derived(np.array([0.5, 0.1]), covariance),
        "F": Derived(np.array(-0.5), np.array([[0.04]])),
        "F_at_zero_variance": Estimate(-0.6, 0.1),
        "q": np.array([1.0, 2.0]),
    }
    quantities = with_units(results, 3)
    np.testing.assert_array_equal(quantities["n_k"].error, [2.0, 3.0])
    np.testing.assert_array_equal(quantities["n_k"].covariance, covariance)
    assert quantities["F"].error == pytest.approx(0.2) and quantities["F"].covariance is None
    assert quantities["F_at_zero_variance"].error == 0.1
    np.testing.assert_array_equal(quantities["q"].error, [0.0, 0.0])
    assert quantities["q"].unit == "1/bohr"
    assert repr(quantities["q"]) == "<Quantity array (2,), 1/bohr>"
    assert repr(quantities["F"]) == "<Quantity -0.50(20), hartree per electron>"
