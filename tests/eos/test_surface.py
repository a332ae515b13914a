"""The surface of f_xc: derivatives against closed forms, known limits, and errors that hold what
they promise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heg.eos import surface
from heg.gas import ideal_infinite
from heg.gas.first_order import first_order
from heg.gas.system import System
from heg.gas.twists import special_twists

RS, THETA = (
    np.ravel(grid) for grid in np.meshgrid([1.0, 2.0, 4.0, 10.0], [0.125, 0.25, 0.5, 1.0, 2.0])
)
GAS = System(4, 0, 2, 1.0, 1.0, (0.0, 0.0))
TWISTS = special_twists(2, 3)


def h(rs, theta):
    """A smooth stand-in for r_s f_xc beyond first order: it vanishes with r_s, grows with
    temperature."""
    return -0.1 * rs / (2 + rs) * (1 + 0.5 * jnp.tanh(jnp.log(theta)))


def quantities(f, gas):
    """f, e, s, p, c, B of f(r_s, T) by differentiation."""
    by_rs, by_t = jax.jacfwd(f, 0), jax.jacfwd(f, 1)
    functions = f, by_rs, by_t, jax.jacfwd(by_rs, 0), jax.jacfwd(by_t, 1)

    @jax.jit
    def at(rs, t):
        derivatives = (function(rs, t) for function in functions)
        return jnp.array(surface.from_derivatives(gas, rs, t, *derivatives))

    return lambda rs, t: np.array(at(rs, t))


def v_1(rs, theta):
    gases = [(System(4, 0, 2, rs, theta, twist.angle), twist.weight) for twist in TWISTS]
    return sum(weight * first_order(gas) for gas, weight in gases)


def noisy_surface(noise, seed=0):
    first = [v_1(rs, theta) for rs, theta in zip(RS, THETA)]
    exact = np.array(first) + np.asarray(jax.jit(h)(RS, THETA)) / RS
    error = noise / RS
    values = exact + error * np.random.default_rng(seed).normal(size=len(RS))
    return surface.fit(surface.Data(GAS, TWISTS, RS, THETA, values, error))


@pytest.fixture(scope="module")
def smooth():
    return noisy_surface(1e-4)


@pytest.mark.parametrize("dim", [2, 3])
def test_derivatives_give_the_ideal_gas_its_equation_of_state(dim):
    """Classical: f = T (ln(n T^(-d/2)) - c), p = n T, e = d T / 2, c = d / 2, B = n T."""
    gas = System(5, 0, dim, 1.7, 2.0, (0.0,) * dim)
    volume = gas.of_unit_density.box**dim / 5

    def free_energy(rs, temperature):
        return temperature * (-jnp.log(volume * rs**dim * temperature ** (dim / 2)) - 1)

    t, n = gas.temperature, gas.density
    f, e, s, p, c, bulk = quantities(free_energy, gas)(1.7, t)
    np.testing.assert_allclose([e, p, c, bulk], [dim / 2 * t, n * t, dim / 2, n * t], rtol=1e-10)
    assert f == pytest.approx(float(e - t * s), rel=1e-12)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("theta", [0.1, 1.0])
def test_the_ideal_gas_of_any_degeneracy_obeys_the_same_derivatives(dim, theta):
    gas = System(5, 3, dim, 1.7, theta, (0.0,) * dim)
    found = ideal_infinite.equation_of_state(gas)
    at = lambda rs, t: ideal_infinite.equation_of_state(
        dataclasses.replace(gas, rs=rs, theta=t * rs**2 / gas.of_unit_density.fermi_energy)
    )
    step, t = 1e-3, gas.temperature
    wider, closer = at(1.7 * (1 + step), t), at(1.7 * (1 - step), t)
    slope = (wider - closer) / (2 * step * 1.7)
    assert found[3] == pytest.approx(-gas.density * 1.7 / dim * slope[0], rel=1e-5)
    assert found[5] == pytest.approx(-1.7 / dim * slope[3], rel=1e-5)


def test_the_surface_follows_the_function_and_its_derivatives(smooth):
    unit = GAS.of_unit_density.fermi_energy
    exact = quantities(lambda rs, t: h(rs, t * rs**2 / unit) / rs, GAS)
    # the mean of the fit, which the covariance of its prior gives everywhere
    place = lambda rs, t: jnp.stack([jnp.log(rs), jnp.log(t * rs**2 / unit)])
    mean = lambda rs, t: (
        surface._prior_of_data(smooth.scales, place(rs, t), smooth.logs) @ smooth.weights / rs
    )
    for rs, theta in ((1.5, 0.3), (3.0, 0.7), (8.0, 1.5)):
        found = surface.beyond_first_order(smooth, rs, theta)
        np.testing.assert_allclose(
            found.value, quantities(mean, GAS)(rs, theta * unit / rs**2), rtol=1e-9
        )
        wanted = np.asarray(exact(rs, theta * unit / rs**2))
        assert np.all(np.abs(found.value - wanted) < 4 * found.error)
        assert np.all(found.error[:3] < 0.05 * np.abs(wanted[:3])) and found.value[
            0
        ] == pytest.approx(wanted[0], rel=0.01)


def test_first_order_is_all_there_is_at_high_density(smooth):
    for theta in (0.2, 1.3):
        found = surface.excess(smooth, 1e-4, theta)
        assert found.value[0] * 1e-4 == pytest.approx(v_1(1.0, theta), rel=1e-4)
        # e_xc, by derivatives of the first order: v_1 + T s, s from its slope in temperature
        unit, step = GAS.of_unit_density.fermi_energy, 1e-3
        slope = (v_1(1.0, theta * (1 + step)) - v_1(1.0, theta * (1 - step))) / (
            2 * step * theta * unit
        )
        assert found.value[1] * 1e-4 == pytest.approx(
            v_1(1.0, theta) - theta * unit * slope, rel=1e-3
        )


def test_errors_hold_what_they_promise():
    """Of many noisy data sets the truth lies within one error for two thirds, and within three
    nearly always."""
    deviations = []
    for seed in range(25):
        noisy = noisy_surface(2e-3, seed)
        for rs, theta in ((1.5, 0.3), (3.0, 0.7), (8.0, 1.5)):
            found = surface.beyond_first_order(noisy, rs, theta)
            deviations.append((found.value[0] - float(h(rs, theta)) / rs) / found.error[0])
            assert 0 < found.error[0] < 2e-3 / rs
    # the three of one set are correlated: 25 independent ones give the error of the share
    within = np.mean(np.abs(deviations) < 1)
    assert 0.68 - 3 * 0.093 < within <= 1 and np.mean(np.abs(deviations) < 3) > 0.93


def test_a_surface_needs_three_points():
    with pytest.raises(ValueError, match="2 points make no surface"):
        surface.fit(surface.Data(GAS, TWISTS, RS[:2], THETA[:2], RS[:2], RS[:2]))
