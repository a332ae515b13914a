r"""Kinetic energy from ln Psi: E_kin = -1/2 (laplacian ln Psi + grad ln Psi . grad ln Psi).

Closed form for the backflow.  G = dz/dx and q = laplacian z are carried through the layers, and every layer and the
determinants add their part of the gradient and Laplacian.  With P = G G^T, M = J^{-1}, C_ij and W_ij the second
differences of P and M (X_ii + X_jj - X_ij - X_ji, d x d blocks), and D2, D3 the derivatives of the pair displacement:

.. math::
   \nabla \ln\det J &= \sum_{i<j} w_{ij}^T (G_i - G_j), \qquad w_c = \sum_{ab} W_{ba} D2_{abc} \\
   \nabla^2 \ln\det J &= \sum_{i<j} \Big[\sum W_{ba} D3_{abcd} C_{cd} + w\cdot(q_i - q_j)\Big] - t_2 \\
   t_2 &= \sum_{pc,qe} P_{pc,qe}\, \mathrm{tr}(M A_{pc} M A_{qe}), \qquad A_{pc} = \partial J / \partial z_p^c

`generic_kinetic_energy`, forward over forward, is the reference: exact for any real -> complex function.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from heg.flow import Flow
from heg.orbitals import Orbitals
from heg.system import System


class Derivatives(NamedTuple):
    """Gradient [dN] and Laplacian [] of a function of x."""

    gradient: jax.Array
    laplacian: jax.Array


def make_kinetic_energy(system: System, orbitals: Orbitals, flow: Flow) -> Callable:
    """Local kinetic energy, hartree, complex, as a function of (flow params, x [N, d], state [N])."""
    wavevectors = jnp.asarray(orbitals.k)

    def through_layer(carry, layer):
        z, g, q, gradient, laplacian = carry
        terms = flow.derivatives(layer, z)
        p = jnp.einsum("iax,jbx->iajb", g, g)
        part, second = log_jacobian_derivatives(terms, g, q, p)
        bend = jnp.einsum("ijabc,ijbc->ia", terms.d2, _second_differences(p))
        q = (terms.jacobian @ q.ravel()).reshape(q.shape) + bend
        g = (terms.jacobian @ g.reshape(z.size, -1)).reshape(g.shape)
        return (terms.z, g, q, gradient + part / 2, laplacian + second / 2), None

    def kinetic_energy(params, x, state):
        carry = x, jnp.eye(x.size).reshape(*x.shape, x.size), jnp.zeros(x.shape), jnp.zeros(x.size), jnp.zeros(())
        if params:
            carry, _ = lax.scan(through_layer, carry, flow.layers(params))
        z, g, q, gradient, laplacian = carry
        p = jnp.einsum("iax,jbx->iajb", g, g)
        for spin in (slice(0, system.n_up), slice(system.n_up, None))[: len(system.spins)]:
            k = wavevectors[state[spin]]
            part, second = log_determinant_derivatives(z[spin], k, g[spin], q[spin], p[spin, :, spin])
            gradient, laplacian = gradient + part, laplacian + second
        return -(laplacian + jnp.sum(gradient**2)) / 2

    return kinetic_energy


def log_determinant_derivatives(z: jax.Array, k: jax.Array, g: jax.Array, q: jax.Array, p: jax.Array) -> Derivatives:
    """Derivatives by x of ln det[exp(i k_a . z_b)].

    Args:
      z, k: coordinates and wavevectors of one spin.        [N, d]
      g: dz/dx.                                             [N, d, X]
      q: laplacian of z.                                    [N, d]
      p: g g^T.                                             [N, d, N, d]
    """
    matrix = jnp.exp(1j * z @ k.T)
    inverse = jnp.linalg.inv(matrix)
    first = jnp.einsum("im,ma,mj->aij", matrix, 1j * k, inverse)
    second = -jnp.einsum("im,ma,mb,mi->iab", matrix, k, k, inverse)
    diagonal = jnp.einsum("aii->ia", first)
    laplacian = jnp.einsum("iab,iaib->", second, p) - jnp.einsum("aij,bji,iajb->", first, first, p)
    return Derivatives(jnp.einsum("ia,iax->x", diagonal, g), laplacian + jnp.sum(diagonal * q))


def log_jacobian_derivatives(layer, g: jax.Array, q: jax.Array, p: jax.Array) -> Derivatives:
    """Derivatives by x of ln det J of one layer, from those of its input: g [N, d, X], q [N, d], p [N, d, N, d]."""
    m = jnp.linalg.inv(layer.jacobian).reshape(p.shape)
    w = _second_differences(m)
    slope = jnp.einsum("ijba,ijabc->ijc", w, layer.d2).sum(1)
    pairs = layer.first, layer.second
    curvature = jnp.einsum("nba,nabcd,ncd->", w[pairs], layer.d3, _second_differences(p)[pairs])
    laplacian = curvature + jnp.sum(slope * q) - _squared_response(layer.d2, m, p)
    return Derivatives(jnp.einsum("ic,icx->x", slope, g), laplacian)


def gradient_and_laplacian(f: Callable, x: jax.Array) -> Derivatives:
    """Gradient [like x] and sum of second derivatives [] of a real -> complex function, forward over forward."""
    basis = jnp.eye(x.size).reshape(-1, *x.shape)
    first = lambda y, v: jax.jvp(f, (y,), (v,))[1]
    both = lambda v: jax.jvp(lambda y: first(y, v), (x,), (v,))
    gradient, second = jax.vmap(both)(basis)
    return Derivatives(gradient.reshape(x.shape), second.sum())


def generic_kinetic_energy(log_psi: Callable, x: jax.Array) -> jax.Array:
    """Local kinetic energy, hartree, complex, of any ln Psi: x [N, d] -> complex scalar."""
    gradient, laplacian = gradient_and_laplacian(log_psi, x)
    return -(laplacian + jnp.sum(gradient**2)) / 2


def _second_differences(blocks):
    """X_ii + X_jj - X_ij - X_ji of the d x d blocks of X.  [N, d, N, d] -> [N, N, d, d]"""
    diagonal = jnp.einsum("iaib->iab", blocks)
    crossed = blocks.transpose(0, 2, 1, 3)
    return diagonal[:, None] + diagonal[None] - crossed - crossed.transpose(1, 0, 2, 3)


def _squared_response(h, m, p):
    """t_2 in O(d^5 N^3).  h = D2 [N, N, d, d, d], m and p [N, d, N, d].

    A_pc is block diagonal, diag_j(h_pcj), plus two terms of block rank one, e_p S_pc^T + T_pc e_p^T, with
    T_pc,j = -h_pcj and S_pc = T_pc^T + e_p sum_j h_pcj; all six different traces are products of matrices.
    """
    n, d = m.shape[:2]
    h = h.transpose(0, 4, 1, 2, 3)  # p c j a b
    t = -h
    s = -h.transpose(0, 1, 3, 2, 4)  # p c a j b
    s = s + jnp.einsum("pj,pcab->pcajb", jnp.eye(n), h.sum(2))
    x = (s.reshape(-1, n * d) @ m.reshape(n * d, -1)).reshape(s.shape)  # S M: p c a j b
    y = jnp.einsum("iajb,pcjbe->pciae", m, t)  # M T: p c i a e
    z = jnp.einsum("pcajb,qejbf->pcaqef", x, t)  # S M T
    ph = (p.reshape(n * d, -1) @ h.reshape(n * d, -1)).reshape(h.shape)
    kernel = jnp.einsum("kvju,jwkx->juwkxv", m, m).reshape(n * d * d, -1)
    diagonal = jnp.sum((ph.reshape(n * d, -1) @ kernel) * h.reshape(n * d, -1))
    mixed = jnp.einsum("qejab,qevja,jbqv->", ph, x, m) + jnp.einsum("qejab,qvja,qejbv->", ph, m, y)
    rank_one = jnp.einsum("pcqe,pcaqb,qebpa->", p, x, x) + jnp.einsum("pcqe,pcqba,qepab->", p, y, y)
    return diagonal + rank_one + 2 * (mixed + jnp.einsum("pcqe,qbpa,pcaqeb->", p, m, z))
