"""The einsums of docs/derivations.md beside the code, on random tensors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_systems import GASES

from heg.model.flow import slope
from heg.model.kinetic import log_determinant_derivatives, squared_response
from heg.model.pairs import curvature, displacement, make_pairs, separations

each_gas = pytest.mark.parametrize("gas", GASES.values(), ids=GASES)


def make_case(gas):
    """Pairs, their separations and a generator of random tensors."""
    rng = np.random.default_rng(5)
    pairs = make_pairs(gas)
    x = gas.box * rng.random((gas.electrons, gas.dim))
    between = jax.jit(lambda x: separations(pairs, gas, x))(x)
    return pairs, between, rng


def symmetric(tensor):
    return tensor + np.swapaxes(tensor, 0, 1)


@each_gas
def test_jacobian_of_a_layer(gas):
    pairs, _, rng = make_case(gas)
    d = rng.normal(size=(gas.dim, gas.dim, len(pairs.first)))
    expected = np.eye(gas.electrons * gas.dim)
    for i, j, block in zip(pairs.first, pairs.second, np.moveaxis(d, -1, 0)):
        unit = np.zeros(gas.electrons)
        unit[i] = 1
        unit[j] = -1
        expected += np.kron(np.outer(unit, unit), block)
    np.testing.assert_allclose(jax.jit(pairs.to_jacobian)(d), expected, atol=1e-13)


def polynomial(size):
    """A function eta of the features with known derivatives, quadratic in them."""
    a = 0.3 + 0.1 * np.arange(size)
    b = symmetric(0.05 * np.arange(size**2).reshape(size, size))

    def network(features, order):
        by_b = jnp.einsum("fg,gp->fp", b, features)
        value = a @ features + jnp.sum(features * by_b, axis=0) / 2
        gradient = a[:, None] + by_b
        hessian = jnp.broadcast_to(b[..., None], (*b.shape, features.shape[-1]))
        return [value, gradient, hessian][: order + 1]

    return network


@each_gas
def test_derivatives_of_the_displacement(gas):
    # sections 2 and 3, and of section 4 D3 itself: all by central differences
    _, between, rng = make_case(gas)
    network = polynomial(gas.dim + 1)
    k = 2 * np.pi / gas.box
    r = np.arctan2(between.sine, between.cosine) / k

    @jax.jit
    def at(r):
        theta = k * r
        distance = gas.box / np.pi * jnp.sqrt(jnp.sum(jnp.sin(theta / 2) ** 2, axis=0))
        moved = between._replace(sine=jnp.sin(theta), cosine=jnp.cos(theta), distance=distance)
        return displacement(network, gas, moved, 2)

    step = 1e-5
    _, d, d2 = map(np.asarray, at(r))
    d3 = np.empty((*d2.shape[:3], *d2.shape[2:]))
    for c in range(gas.dim):
        shift = step * np.eye(gas.dim)[c][:, None]
        high = at(r + shift)
        low = at(r - shift)
        by_c = [np.subtract(above, below) / (2 * step) for above, below in zip(high, low)]
        np.testing.assert_allclose(d[:, c], by_c[0], rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(d2[:, :, c], by_c[1], rtol=1e-6, atol=1e-6)
        d3[:, :, :, c] = by_c[2]

    w = rng.normal(size=d.shape)
    contraction = symmetric(rng.normal(size=d.shape))
    both = jax.jit(lambda between, w, c: curvature(network, gas, between, w, c))
    same_d2, total = both(between, w, contraction)
    np.testing.assert_allclose(same_d2, d2, rtol=1e-12, atol=1e-12)
    expected = np.einsum("bap,abcdp,cdp->p", w, d3, contraction)
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)


@each_gas
def test_slope_of_the_logarithm(gas):
    pairs, _, rng = make_case(gas)
    w = rng.normal(size=(gas.dim, gas.dim, len(pairs.first)))
    d2 = rng.normal(size=(gas.dim, *w.shape))
    expected = np.einsum("bap,abcp->cp", w, d2)
    np.testing.assert_allclose(jax.jit(slope)(w, d2), expected, rtol=1e-12)


@each_gas
def test_squared_response_is_the_trace_that_defines_it(gas):
    n, d = gas.electrons, gas.dim
    pairs, _, rng = make_case(gas)
    m = rng.normal(size=(n, d, n, d))
    p = rng.normal(size=(n * d, n * d))
    p = (p @ p.T).reshape(n, d, n, d)
    d2 = np.asarray(jax.jit(pairs.to_grid)(rng.normal(size=(d, d, d, len(pairs.first)))))
    total = jax.jit(squared_response)(d2, m, p)

    # A_pc = dJ / dz_p^c as a matrix, from the pairs of p
    h = np.einsum("abcpj->pcjab", d2)
    a = np.zeros((n, d, n, d, n, d))
    for one in range(n):
        for other in range(n):
            unit = np.zeros(n)
            unit[one] += 1
            unit[other] -= 1
            a[one] += np.einsum("cab,i,j->ciajb", h[one, :, other], unit, unit)
    ma = np.einsum("iajb,pcjbke->pciake", m, a)
    traces = np.einsum("pciajb,qejbia->pcqe", ma, ma)
    np.testing.assert_allclose(total, np.sum(p * traces), rtol=1e-11)

    # its six terms in the einsums of section 5
    t = np.einsum("pcjab->japcb", -h)
    s = np.einsum("pj,pclab->pcajb", np.eye(n), h) - np.einsum("pcjab->pcajb", h)
    ph = np.einsum("pcqe,qejab->pcjab", p, h)
    sm = np.einsum("pcaib,ibjf->pcajf", s, m)
    mt = np.einsum("jaif,ifpcb->japcb", m, t)
    smt = np.einsum("pcaif,ifqeb->pcaqeb", sm, t)
    terms = (
        np.einsum("pcjab,jbke,pckef,kfja->", ph, m, h, m, optimize=True),
        2 * np.einsum("pcjab,pcvja,jbpv->", ph, sm, m),
        2 * np.einsum("pcjab,pvja,jbpcv->", ph, m, mt),
        np.einsum("pcqe,pcaqb,qebpa->", p, sm, sm),
        np.einsum("pcqe,qbpca,paqeb->", p, mt, mt),
        2 * np.einsum("pcqe,qbpa,pcaqeb->", p, m, smt),
    )
    np.testing.assert_allclose(total, sum(terms), rtol=1e-11)


@pytest.mark.parametrize("dim", [2, 3])
def test_derivatives_of_a_determinant(dim):
    rng = np.random.default_rng(7)
    k = rng.normal(size=(4, dim))
    matrix = np.exp(1j * rng.normal(size=(4, dim)) @ k.T)
    inverse = np.linalg.inv(matrix)
    response = np.einsum("im,ma,mj->iaj", matrix, k, inverse)
    own = np.einsum("im,mi,ma,mb->iab", matrix, inverse, k, k)
    second = np.einsum("iaj,jbi->iajb", response, response)
    second -= np.einsum("iab,ij->iajb", own, np.eye(4))

    derivatives = jax.jit(log_determinant_derivatives)(matrix, k)
    first = 1j * np.einsum("im,mi,ma->ia", matrix, inverse, k)
    np.testing.assert_allclose(derivatives.first, first, rtol=1e-10)
    np.testing.assert_allclose(derivatives.second, second, rtol=1e-10, atol=1e-12)
