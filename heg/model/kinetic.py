r"""Kinetic energy from ln Psi: E_kin = -1/2 (laplacian ln Psi + grad ln Psi . grad ln Psi).

The closed form for the backflow carries G = dz/dx and q = laplacian z through the layers.  Every
layer and the determinants add their part of the gradient and of the Laplacian.  P = G G^T and
M = J^{-1}; C_ij and W_ij are their second differences (X_ii + X_jj - X_ij - X_ji, d x d blocks).
D2 and D3 are the derivatives of the pair displacement:

.. math::
   \nabla \ln\det J &= \sum_{i<j} w_{ij}^T (G_i - G_j), \qquad w_c = \sum_{ab} W_{ba} D2_{abc} \\
   \nabla^2 \ln\det J &= \sum_{i<j} \Big[\sum W_{ba} D3_{abcd} C_{cd} + w\cdot(q_i - q_j)\Big] - t_2
   \\ t_2 &= \sum_{pc,qe} P_{pc,qe}\, \mathrm{tr}(M A_{pc} M A_{qe}), \qquad A_{pc} = \partial J /
   \partial z_p^c

docs/derivations.md, sections 5 and 7, has every term.  `generic_kinetic_energy`, forward over
forward, is the reference: it is exact for any real -> complex function.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from heg.gas.plane_waves import Orbitals, make_waves
from heg.gas.system import System
from heg.model.flow import Flow, inverse_blocks, slope


class Derivatives(NamedTuple):
    """Gradient [dN] and Laplacian [] of a function of x."""

    gradient: jax.Array
    laplacian: jax.Array


class _Carried(NamedTuple):
    """What the layers so far have done.

    Attributes:
      z: image of x.                                        [N, d]
      g: G = dz/dx.                                         [dN, dN]
      q: laplacian of z.                                    [N, d]
      gradient: of ln|det dz/dx| / 2 by x.                  [dN]
      laplacian: of the same.                               []
    """

    z: jax.Array
    g: jax.Array
    q: jax.Array
    gradient: jax.Array
    laplacian: jax.Array

    @property
    def p(self) -> jax.Array:
        """P = G G^T in blocks.  [N, d, N, d]"""
        return (self.g @ self.g.T).reshape(*self.z.shape, *self.z.shape)


def make_kinetic_energy(system: System, orbitals: Orbitals, flow: Flow) -> Callable:
    """Local kinetic energy of the density matrix's wavefunctions, in closed form.

    Returns:
      A function of (flow params, x [N, d], state [N]): the energy, hartree, complex, and z [N, d].
    """
    waves = make_waves(system, orbitals)
    wavevectors = jnp.asarray(orbitals.k)

    def through_layer(carried, layer):
        return _through_layer(flow, carried, layer), None

    def kinetic_energy(params, x, state):
        carried = _Carried(
            z=x,
            g=jnp.eye(x.size),
            q=jnp.zeros(x.shape),
            gradient=jnp.zeros(x.size),
            laplacian=jnp.zeros(()),
        )
        if params:
            carried, _ = lax.scan(through_layer, carried, flow.layers(params))

        p = carried.p
        gradient = carried.gradient
        laplacian = carried.laplacian
        for spin in system.parts:
            matrix = waves(carried.z[spin], state[spin])
            terms = log_determinant_derivatives(matrix, wavevectors[state[spin]])
            # derivations, section 7: "iajb,iajb->" with P, "ia,ia->" with q and "ia,iax->x" with G
            by_curvature = jnp.sum(terms.second * p[spin, :, spin])
            laplacian += by_curvature + jnp.sum(terms.first * carried.q[spin])
            g = carried.g.reshape(*x.shape, -1)[spin].reshape(-1, x.size)
            gradient += terms.first.ravel() @ g
        return -(laplacian + jnp.sum(gradient**2)) / 2, carried.z

    return kinetic_energy


def _through_layer(flow: Flow, carried: _Carried, layer) -> _Carried:
    """One layer more: its image and its part of the gradient and of the Laplacian."""
    z, g, q, gradient, laplacian = carried
    image, jacobian = flow.apply(layer, z)
    p = carried.p
    m = inverse_blocks(jacobian, z.shape[1])
    w = flow.pairs.second_differences(m)
    c = flow.pairs.second_differences(p)
    d2, third = flow.curvature(layer, z, w, c)

    # derivations, section 5: the gradient of ln det J by z, taken to x by G
    by_z = flow.pairs.to_electrons(slope(w, d2))
    gradient += by_z.ravel() @ g / 2
    # W_ba D3_abcd C_cd + w . q - t_2, summed over the pairs
    response = squared_response(flow.pairs.to_grid(d2), m, p)
    laplacian += (jnp.sum(third) + jnp.sum(by_z * q) - response) / 2
    # laplacian of the image: J q + sum over pairs of D2_abc C_bc, "abcp,bcp->ap"
    bend = flow.pairs.to_electrons(jnp.sum(d2 * c, axis=(1, 2)))
    return _Carried(
        z=image,
        g=jacobian @ g,
        q=(jacobian @ q.ravel()).reshape(z.shape) + bend,
        gradient=gradient,
        laplacian=laplacian,
    )


class DeterminantDerivatives(NamedTuple):
    """Derivatives of ln det[exp(i k_a . z_b)] by z.

    Attributes:
      first: gradient.
      second: second derivatives, of which the Laplacian is the sum with P.
    """

    first: Complex[Array, "electrons dim"]
    second: Complex[Array, "electrons dim electrons dim"]


def log_determinant_derivatives(
    matrix: Complex[Array, "electrons orbitals"], k: Float[Array, "orbitals dim"]
) -> DeterminantDerivatives:
    """Derivatives of the logarithm of the determinant of one spin.

    Args:
      matrix: Phi_im = e^{i k_m . z_i}.
      k: wavevectors, 1/bohr.
    """
    n, d = k.shape
    inverse = jnp.linalg.inv(matrix)
    # derivations, section 7: R = Q / i, "im,ma,mj->iaj"
    weighted = (matrix[:, None] * k.T).reshape(n * d, n)
    response = (weighted @ inverse).reshape(n, d, n)
    # R^a_ij R^b_ji, "iaj,jbi->iajb"
    crossed = response[..., None] * response.transpose(2, 0, 1)[:, None]
    # of one electron twice: "im,mi,ma,mb->iab"
    squares = (k[:, :, None] * k[:, None]).reshape(n, d * d)
    own = ((matrix * inverse.T) @ squares).reshape(n, d, 1, d)
    return DeterminantDerivatives(
        first=1j * jnp.einsum("iai->ia", response),
        second=crossed - own * np.eye(n)[:, None, :, None],
    )


def gradient_and_laplacian(f: Callable, x: jax.Array) -> Derivatives:
    """Gradient [like x] and Laplacian [] of a real -> complex function, forward over forward."""
    basis = jnp.eye(x.size).reshape(-1, *x.shape)

    def along(y, v):
        return jax.jvp(f, (y,), (v,))[1]

    def first_and_second(v):
        return jax.jvp(lambda y: along(y, v), (x,), (v,))

    gradient, second = jax.vmap(first_and_second)(basis)
    return Derivatives(gradient.reshape(x.shape), second.sum())


def generic_kinetic_energy(log_psi: Callable, x: Float[Array, "electrons dim"]) -> jax.Array:
    """Local kinetic energy, hartree, complex, of any ln Psi: x [N, d] -> complex scalar."""
    gradient, laplacian = gradient_and_laplacian(log_psi, x)
    return -(laplacian + jnp.sum(gradient**2)) / 2


class _RankOne(NamedTuple):
    """Products of M with the terms of rank one of A_pc = diag_j(h_pcj) + e_p S_pc^T + T_pc e_p^T.

    Attributes:
      sm: S^T M.                                            p c a j b
      mt: M T.                                              j a p c b
      smt: S^T M T.                                         p c a q e b
    """

    sm: jax.Array
    mt: jax.Array
    smt: jax.Array


def squared_response(
    d2: Float[Array, "dim dim dim electrons electrons"],
    m: Float[Array, "electrons dim electrons dim"],
    p: Float[Array, "electrons dim electrons dim"],
) -> jax.Array:
    """t_2 of the module's formulas in O(d^5 N^3).

    A_pc is block diagonal, diag_j(h_pcj), plus two terms of block rank one, e_p S_pc^T + T_pc
    e_p^T, with T_pc,j = -h_pcj and S_pc,j = -h_pcj + delta_jp sum_l h_pcl.  All six different
    traces are made of five products of matrices and of sums over two electrons.

    Args:
      d2: D2_abc of every two electrons p and j, zero for one.
      m: M.
      p: P.
    """
    n, d = m.shape[:2]
    h = d2.transpose(3, 2, 4, 0, 1)  # h_pcj with its indices a b: p c j a b
    # P h, "pcqe,qejab->pcjab"
    ph = (_as_matrix(p) @ _as_matrix(h)).reshape(h.shape)
    rank_one = _rank_one_products(h, m)
    total = _both_diagonal(h, ph, m)
    total += 2 * jnp.sum(ph * _one_diagonal(rank_one, m))
    return total + jnp.sum(p[:, :, None, :, :, None] * _none_diagonal(rank_one, m))


def _as_matrix(tensor):
    """The tensor with its first two axes, an electron and a direction, as rows."""
    n, d = tensor.shape[:2]
    return tensor.reshape(n * d, -1)


def _rank_one_products(h, m):
    n, d = m.shape[:2]
    # T: j a, p c b
    t = -_as_matrix(h.transpose(2, 3, 0, 1, 4))
    # S^T: p c a, j b
    own = jnp.eye(n)[:, None, None, :, None] * h.sum(2)[:, :, :, None]
    s = own - h.transpose(0, 1, 3, 2, 4)
    # "pcaib,ibjf->pcajf"
    sm = (s.reshape(-1, n * d) @ _as_matrix(m)).reshape(n, d, d, n, d)
    # "jaif,ifpcb->japcb"
    mt = (_as_matrix(m) @ t).reshape(n, d, n, d, d)
    # "pcaif,ifqeb->pcaqeb"
    smt = (sm.reshape(-1, n * d) @ t).reshape(n, d, d, n, d, d)
    return _RankOne(sm, mt, smt)


def _both_diagonal(h, ph, m):
    """Sum over p c, j and k of tr((P h)_pcj M_jk h_pck M_kj)."""
    # derivations, section 5, term 1: "pcjab,jbke,pckef,kfja->"
    n, d = m.shape[:2]
    there = m.transpose(2, 3, 0, 1)[:, :, None, :, None, :]  # M_kf,ja
    back = m[:, None, :, :, :, None]  # M_jb,ke
    kernel = (there * back).reshape(n * d * d, -1)  # j a b, k e f
    return jnp.sum(_as_matrix(ph) @ kernel * _as_matrix(h))


def _one_diagonal(rank_one, m):
    """Factor of (P h)_pcj in the traces of one diagonal and one term of rank one.  p c j a b"""
    d = m.shape[1]
    # derivations, section 5, terms 2 and 3: "pcvja,jbpv->pcjab" and "pvja,jbpcv->pcjab"
    with_s = 0
    for v in range(d):
        sm = rank_one.sm[:, :, v, :, :, None]
        with_s += sm * m[..., v].transpose(2, 0, 1)[:, None, :, None]
    with_t = 0
    for v in range(d):
        mt = rank_one.mt[..., v].transpose(2, 3, 0, 1)[:, :, :, None]
        with_t += m[:, v, None, :, :, None] * mt
    return with_s + with_t


def _none_diagonal(rank_one, m):
    """Factor of P_pc,qe in the traces of two terms of rank one.  p c a q e b"""
    sm, mt, smt = rank_one
    # derivations, section 5, term 4: "pcaqb,qebpa->pcaqeb"
    both_s = sm[..., None, :] * sm.transpose(3, 4, 0, 1, 2)[:, None]
    # term 5: "qbpca,paqeb->pcaqeb"
    both_t = mt.transpose(2, 3, 4, 0, 1)[..., None, :] * mt[:, None]
    # term 6, once with S first and once with T first: "qbpa,pcaqeb->pcaqeb"
    mixed = m.transpose(2, 3, 0, 1)[:, None, :, :, None] * smt
    return both_s + both_t + 2 * mixed
