import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import (
    GASES,
    generator,
    lowest_shells,
    make_model,
    random_params,
    random_positions,
)

from heg.gas.system import System
from heg.model.kinetic import generic_kinetic_energy, gradient_and_laplacian

each_gas = pytest.mark.parametrize("gas", GASES.values(), ids=GASES)


def make_case(gas, key, flow_layers):
    """A model at random parameters, an excited state of finite momentum, a configuration."""
    model = make_model(gas, 9, flow_layers)
    state = np.array([1, 4, 6][: gas.n_up] + [0, 6][: gas.n_down])
    params = random_params(model, key).flow
    return model, params, state, random_positions(gas, key)


def kinetic_energies(model, params, state, x):
    """In closed form, and the generic one of the same wavefunction."""
    local_energy, _ = model.local_energy(params, x, state)

    @jax.jit
    def generic(x):
        return generic_kinetic_energy(lambda x: model.log_psi(params, x, state), x)

    return local_energy.kinetic, generic(x)


def test_complex_polynomial_by_hand(key):
    x = generator(key).normal(size=(2, 2))
    a, b, c, d = x.ravel()
    f = lambda x: x[0, 0] ** 3 * (1 + 2j * x[1, 1]) + 1j * x[0, 1] * x[1, 0] ** 2
    gradient, laplacian = jax.jit(lambda x: gradient_and_laplacian(f, x))(x)
    expected = np.array([[3 * a**2 * (1 + 2j * d), 1j * c**2], [2j * b * c, 2j * a**3]])
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)
    np.testing.assert_allclose(laplacian, 6 * a * (1 + 2j * d) + 2j * b, rtol=1e-12)


def test_generic_laplacian_is_the_trace_of_the_hessian(key):
    model, params, state, x = make_case(GASES["2D-spins"], key, flow_layers=0)

    def log_psi(x):
        # any function that couples everything
        return model.log_psi(params, x + 0.2 * jnp.sin(x[::-1]), state)

    def parts(x):
        value = log_psi(x)
        return jnp.stack([value.real, value.imag])

    def reverse_mode(x):
        hessian = jax.jacfwd(jax.jacrev(parts))(x)
        return jnp.trace(hessian.reshape(2, x.size, x.size), axis1=1, axis2=2)

    laplacian = jax.jit(lambda x: gradient_and_laplacian(log_psi, x).laplacian)(x)
    expected = jax.jit(reverse_mode)(x)
    np.testing.assert_allclose([laplacian.real, laplacian.imag], expected, rtol=1e-10)


@pytest.mark.parametrize("name, layers", [("2D-spins", 3), ("3D-spins", 3), ("3D-polarized", 1)])
def test_closed_form_equals_the_generic_one(name, layers, key):
    closed, generic = kinetic_energies(*make_case(GASES[name], key, layers))
    np.testing.assert_allclose(closed, generic, rtol=1e-11)
    assert abs(closed.imag) > 1e-3  # of a state with a momentum: a conjugate would show


@each_gas
def test_plane_wave_determinant_is_an_eigenfunction(gas, key):
    case = make_case(gas, key, flow_layers=0)
    _, _, state, _ = case
    expected = lowest_shells(gas, 9).energy[state].sum()
    closed, generic = kinetic_energies(*case)
    np.testing.assert_allclose(closed, expected, rtol=1e-10)
    np.testing.assert_allclose(generic, expected, rtol=1e-10)


def test_one_electron_keeps_its_plane_wave_under_the_flow(key):
    gas = System(1, 0, 2, rs=2.0, theta=0.8, twist=(0.25, 0.0))
    model, params, state, x = make_case(gas, key, flow_layers=2)
    energy, _ = model.local_energy(params, x, state)
    np.testing.assert_allclose(energy.kinetic, lowest_shells(gas, 9).energy[1], rtol=1e-10)
