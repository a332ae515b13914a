r"""Kinetic energy from ln Psi: E_kin = -1/2 (laplacian ln Psi + grad ln Psi . grad ln Psi).

Closed form for the backflow.  G = dz/dx and q = laplacian z are carried through the layers, and
every layer and the determinants add their part of the gradient and Laplacian.  With P = G G^T, M =
J^{-1}, C_ij and W_ij the second differences of P and M (X_ii + X_jj - X_ij - X_ji, d x d blocks),
and D2, D3 the derivatives of the pair displacement:

.. math::
   \nabla \ln\det J &= \sum_{i<j} w_{ij}^T (G_i - G_j), \qquad w_c = \sum_{ab} W_{ba} D2_{abc} \\
   \nabla^2 \ln\det J &= \sum_{i<j} \Big[\sum W_{ba} D3_{abcd} C_{cd} + w\cdot(q_i - q_j)\Big] - t_2
   \\ t_2 &= \sum_{pc,qe} P_{pc,qe}\, \mathrm{tr}(M A_{pc} M A_{qe}), \qquad A_{pc} = \partial J /
   \partial z_p^c

`generic_kinetic_energy`, forward over forward, is the reference: exact for any real -> complex
function.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from heg.gas.plane_waves import Orbitals, make_waves
from heg.gas.system import System
from heg.model.flow import Flow, inverse_blocks, slope


class Derivatives(NamedTuple):
    """Gradient [dN] and Laplacian [] of a function of x."""

    gradient: jax.Array
    laplacian: jax.Array


def make_kinetic_energy(system: System, orbitals: Orbitals, flow: Flow) -> Callable:
    """Local kinetic energy, hartree, complex, and z [N, d] as functions of (flow params, x [N, d],
    state [N])."""
    waves, wavevectors, pairs = make_waves(system, orbitals), jnp.asarray(orbitals.k), flow.pairs

    def through_layer(carry, layer):
        z, g, q, gradient, laplacian = carry
        image, jacobian = flow.apply(layer, z)
        p = (g @ g.T).reshape(*z.shape, *z.shape)
        m = inverse_blocks(jacobian, z.shape[1])
        w, c = pairs.second_differences(m), pairs.second_differences(p)
        d2, curvature = flow.curvature(layer, z, w, c)
        by_z = pairs.to_electrons(slope(w, d2))  # gradient of ln det J
        response = squared_response(pairs.to_grid(d2), m, p)
        gradient += by_z.ravel() @ g / 2
        laplacian += (jnp.sum(curvature) + jnp.sum(by_z * q) - response) / 2
        bend = pairs.to_electrons(jnp.sum(d2 * c, axis=(1, 2)))
        return (
            image,
            jacobian @ g,
            (jacobian @ q.ravel()).reshape(z.shape) + bend,
            gradient,
            laplacian,
        ), None

    def kinetic_energy(params, x, state):
        carry = x, jnp.eye(x.size), jnp.zeros(x.shape), jnp.zeros(x.size), jnp.zeros(())
        if params:
            carry, _ = lax.scan(through_layer, carry, flow.layers(params))
        z, g, q, gradient, laplacian = carry
        p = (g @ g.T).reshape(*z.shape, *z.shape)
        for spin in system.parts:
            terms = log_determinant_derivatives(
                waves(z[spin], state[spin]), wavevectors[state[spin]]
            )
            laplacian += jnp.sum(terms.second * p[spin, :, spin]) + jnp.sum(terms.first * q[spin])
            gradient += terms.first.ravel() @ g.reshape(*z.shape, -1)[spin].reshape(-1, x.size)
        return -(laplacian + jnp.sum(gradient**2)) / 2, z

    return kinetic_energy


class DeterminantDerivatives(NamedTuple):
    """Derivatives of ln det[exp(i k_a . z_b)] by z.

    Attributes:
      first: gradient.                                      [N, d]
      second: second derivatives; those of the Laplacian are to be summed with P.    [N, d, N, d]
    """

    first: jax.Array
    second: jax.Array


def log_determinant_derivatives(matrix: jax.Array, k: jax.Array) -> DeterminantDerivatives:
    """Of one spin, from its matrix e^{i k_b . z_a} [N, N] and the wavevectors k [N, d]."""
    n, d = k.shape
    inverse = jnp.linalg.inv(matrix)
    response = ((matrix[:, None] * k.T).reshape(n * d, n) @ inverse).reshape(
        n, d, n
    )  # Q / i: i a j
    crossed = response[..., None] * response.transpose(2, 0, 1)[:, None]
    squares = (k[:, :, None] * k[:, None]).reshape(n, d * d)
    own = ((matrix * inverse.T) @ squares).reshape(n, d, 1, d)
    return DeterminantDerivatives(
        1j * jnp.einsum("iai->ia", response), crossed - own * np.eye(n)[:, None, :, None]
    )


def gradient_and_laplacian(f: Callable, x: jax.Array) -> Derivatives:
    """Gradient [like x] and sum of second derivatives [] of a real -> complex function, forward
    over forward."""
    basis = jnp.eye(x.size).reshape(-1, *x.shape)
    first = lambda y, v: jax.jvp(f, (y,), (v,))[1]
    both = lambda v: jax.jvp(lambda y: first(y, v), (x,), (v,))
    gradient, second = jax.vmap(both)(basis)
    return Derivatives(gradient.reshape(x.shape), second.sum())


def generic_kinetic_energy(log_psi: Callable, x: jax.Array) -> jax.Array:
    """Local kinetic energy, hartree, complex, of any ln Psi: x [N, d] -> complex scalar."""
    gradient, laplacian = gradient_and_laplacian(log_psi, x)
    return -(laplacian + jnp.sum(gradient**2)) / 2


def squared_response(d2: jax.Array, m: jax.Array, p: jax.Array) -> jax.Array:
    """t_2 of the module's formulas in O(d^5 N^3).

    A_pc is block diagonal, diag_j(h_pcj), plus two terms of block rank one, e_p S_pc^T + T_pc
    e_p^T, with T_pc,j = -h_pcj and S_pc,j = -h_pcj + delta_jp sum_l h_pcl; all six different traces
    are made of five products of matrices and of sums over two electrons.

    Args:
      d2: D2_abc of every two electrons p and j, zero for one.    [d, d, d, N, N]
      m, p: M and P.                                        [N, d, N, d]
    """
    n, d = m.shape[:2]
    h = d2.transpose(3, 2, 4, 0, 1)  # p c j a b
    square = lambda tensor: tensor.reshape(n * d, -1)
    t = -square(h.transpose(2, 3, 0, 1, 4))  # T: j a, p c b
    s = jnp.eye(n)[:, None, None, :, None] * h.sum(2)[:, :, :, None] - h.transpose(
        0, 1, 3, 2, 4
    )  # S^T: p c a, j b
    sm = (s.reshape(-1, n * d) @ square(m)).reshape(n, d, d, n, d)  # p c a j b
    mt = (square(m) @ t).reshape(n, d, n, d, d)  # j a p c b
    smt = (sm.reshape(-1, n * d) @ t).reshape(n, d, d, n, d, d)  # p c a q e b
    ph = (square(p) @ square(h)).reshape(h.shape)  # p c j a b
    # both diagonal: tr(ph_j M_jk h_k M_kj)
    kernel = (
        m.transpose(2, 3, 0, 1)[:, :, None, :, None, :] * m[:, None, :, :, :, None]
    )  # j a b k e f
    total = jnp.sum(ph.reshape(n * d, -1) @ kernel.reshape(n * d * d, -1) * square(h))
    # one diagonal, for p c j a b
    with_s = sum(
        sm[:, :, v, :, :, None] * m[..., v].transpose(2, 0, 1)[:, None, :, None] for v in range(d)
    )
    with_t = sum(
        m[:, v, None, :, :, None] * mt[..., v].transpose(2, 3, 0, 1)[:, :, :, None]
        for v in range(d)
    )
    total += 2 * jnp.sum(ph * (with_s + with_t))
    # none diagonal, for p c a q e b
    both_s = sm[..., None, :] * sm.transpose(3, 4, 0, 1, 2)[:, None]
    both_t = mt.transpose(2, 3, 4, 0, 1)[..., None, :] * mt[:, None]
    mixed = m.transpose(2, 3, 0, 1)[:, None, :, :, None] * smt
    return total + jnp.sum(p[:, :, None, :, :, None] * (both_s + both_t + 2 * mixed))
