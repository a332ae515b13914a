"""Observables to first order in the perturbation, and what their errors hold."""

import numpy as np

from heg.observables.quantities import Quantity
from heg.observables.second_order.corrected import HIGHER_ORDERS_OF_CHANGE, _to_first_order
from heg.statistics import Derived


def test_the_error_of_a_change_holds_higher_orders():
    change = np.array([[-0.3, 0.1], [0.0, 0.2]])
    samples = np.diag([0.01, 0.02, 0.03, 0.04]) ** 2
    bound = Quantity(np.ones((2, 2)), np.full((2, 2), 0.05), 0.05**2 * np.eye(4), "none")
    total = _to_first_order(bound, Derived(change, samples))
    np.testing.assert_allclose(total.value, 1 + change, rtol=1e-15)
    higher_orders = HIGHER_ORDERS_OF_CHANGE * change.ravel()
    variance = 0.05**2 + np.diagonal(samples) + higher_orders**2
    np.testing.assert_allclose(total.error.ravel(), np.sqrt(variance), rtol=1e-14)
    # one factor for all: a covariance of rank one, beside the noise of the samples
    noise = samples + bound.covariance
    np.testing.assert_allclose(
        total.covariance - noise, np.outer(higher_orders, higher_orders), atol=1e-18
    )
    np.testing.assert_allclose(np.sqrt(np.diagonal(total.covariance)), total.error.ravel())


def test_a_number_has_no_covariance():
    bound = Quantity(np.asarray(-0.06), np.asarray(1e-4), None, "hartree")
    total = _to_first_order(bound, Derived(np.asarray(-0.01), np.array([[1e-6]])))
    assert total.covariance is None
    expected = np.sqrt(1e-8 + 1e-6 + (0.01 * HIGHER_ORDERS_OF_CHANGE) ** 2)
    np.testing.assert_allclose(total.error, expected, rtol=1e-14)
