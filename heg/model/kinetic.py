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
    """The derivatives of what the layers so far have made of x.

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
        # einsum("iax,jbx->iajb")
        return (self.g @ self.g.T).reshape(*self.z.shape, *self.z.shape)

    def rows_of_g(self, electrons: slice) -> jax.Array:
        """G of some of the electrons.  [electrons d, dN]"""
        # G with a row for each electron and direction
        by_electron = self.g.reshape(*self.z.shape, -1)
        return by_electron[electrons].reshape(-1, self.z.size)


def _first_carried(x):
    """No layer yet: z = x."""
    return _Carried(
        z=x,
        g=jnp.eye(x.size),
        q=jnp.zeros(x.shape),
        gradient=jnp.zeros(x.size),
        laplacian=jnp.zeros(()),
    )


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
        # the layers first, from x to z; then the determinants of z
        carried = _first_carried(x)
        if params:
            carried, _ = lax.scan(through_layer, carried, flow.layers(params))

        p = carried.p
        gradient = carried.gradient
        laplacian = carried.laplacian
        for spin in system.parts:
            orbital = state[spin]
            matrix = waves(carried.z[spin], orbital)
            terms = log_determinant_derivatives(matrix, wavevectors[orbital])
            # derivations, section 7: "iajb,iajb->" with P, "ia,ia->" with q and "ia,iax->x" with G
            by_p = jnp.sum(terms.second * p[spin, :, spin])
            by_q = jnp.sum(terms.first * carried.q[spin])
            laplacian += by_p + by_q
            gradient += terms.first.ravel() @ carried.rows_of_g(spin)
        # no modulus: the gradient is complex, and its square is
        squared = jnp.sum(gradient**2)
        energy = -(laplacian + squared) / 2
        return energy, carried.z

    return kinetic_energy


def _through_layer(flow: Flow, carried: _Carried, layer) -> _Carried:
    """One layer more: its image and its part of the gradient and of the Laplacian."""
    z = carried.z
    pairs = flow.pairs
    image, jacobian = flow.apply(layer, z)
    # P and M, and the second differences of both, C and W
    p = carried.p
    m = inverse_blocks(jacobian, z.shape[1])
    w = pairs.second_differences(m)
    c = pairs.second_differences(p)
    d2, third = flow.curvature(layer, z, w, c)

    # derivations, section 5: the gradient of ln det J by z, which G takes to x
    by_z = pairs.to_electrons(slope(w, d2))
    gradient = by_z.ravel() @ carried.g
    # W_ba D3_abcd C_cd + w . q - t_2, summed over the pairs
    response = squared_response(pairs.to_grid(d2), m, p)
    by_c = jnp.sum(third)
    by_q = jnp.sum(by_z * carried.q)
    laplacian = by_c + by_q - response
    # laplacian of the image: J q + sum over pairs of D2_abc C_bc, "abcp,bcp->ap"
    bend_of_pairs = jnp.sum(d2 * c, axis=(1, 2))
    bend = pairs.to_electrons(bend_of_pairs)
    q = (jacobian @ carried.q.ravel()).reshape(z.shape)
    return _Carried(
        z=image,
        g=jacobian @ carried.g,
        q=q + bend,
        gradient=carried.gradient + gradient / 2,
        laplacian=carried.laplacian + laplacian / 2,
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
    # derivations, section 7: R = Q / i, "im,ma,mj->iaj", Q the derivatives of Phi times its inverse
    weighted = matrix[:, None] * k.T
    response = weighted.reshape(n * d, n) @ inverse
    response = response.reshape(n, d, n)
    first = 1j * jnp.einsum("iai->ia", response)

    # two electrons: R^a_ij R^b_ji, "iaj,jbi->iajb"
    exchanged = response.transpose(2, 0, 1)
    crossed = response[..., None] * exchanged[:, None]
    # one electron twice: "im,mi,ma,mb->iab"
    squares = k[:, :, None] * k[:, None]
    own = (matrix * inverse.T) @ squares.reshape(n, d * d)
    own = own.reshape(n, d, 1, d)
    # delta_ij
    same = np.eye(n)[:, None, :, None]
    second = crossed - own * same
    return DeterminantDerivatives(first, second)


def gradient_and_laplacian(f: Callable, x: jax.Array) -> Derivatives:
    """Gradient [like x] and Laplacian [] of a real -> complex function, forward over forward."""
    # the Laplacian is a sum over all unit directions
    basis = jnp.eye(x.size)
    directions = basis.reshape(-1, *x.shape)

    def first_and_second(direction):
        def first(y):
            _, tangent = jax.jvp(f, (y,), (direction,))
            return tangent

        return jax.jvp(first, (x,), (direction,))

    # one direction each: its component of the gradient, and its term of the Laplacian
    gradient, second = jax.vmap(first_and_second)(directions)
    return Derivatives(gradient.reshape(x.shape), second.sum())


def generic_kinetic_energy(log_psi: Callable, x: Float[Array, "electrons dim"]) -> jax.Array:
    """Local kinetic energy, hartree, complex, of any ln Psi: x [N, d] -> complex scalar."""
    gradient, laplacian = gradient_and_laplacian(log_psi, x)
    squared = jnp.sum(gradient**2)
    return -(laplacian + squared) / 2


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
    # h_pcj with its indices a b: p c j a b
    h = d2.transpose(3, 2, 4, 0, 1)
    # P h, "pcqe,qejab->pcjab"
    ph = _as_matrix(p) @ _as_matrix(h)
    ph = ph.reshape(h.shape)
    rank_one = _rank_one_products(h, m)

    # P stands between the indices p c a of the first and q e b of the second term
    p = p[:, :, None, :, :, None]
    total = _both_diagonal(h, ph, m)
    total += 2 * jnp.sum(ph * _one_diagonal(rank_one, m))
    total += jnp.sum(p * _none_diagonal(rank_one, m))
    return total


def _as_matrix(tensor):
    """The tensor with its first two axes, an electron and a direction, as rows."""
    n, d = tensor.shape[:2]
    return tensor.reshape(n * d, -1)


def _rank_one_products(h, m):
    """S^T M, M T and S^T M T by products of matrices."""
    n, d = m.shape[:2]
    m = _as_matrix(m)
    # T_pc,j = -h_pcj: j a, p c b
    t = -_as_matrix(h.transpose(2, 3, 0, 1, 4))
    # S_pc,j = -h_pcj + delta_jp sum_l h_pcl, transposed: p c a, j b
    total = h.sum(2)[:, :, :, None]
    own = jnp.eye(n)[:, None, None, :, None] * total
    s = own - h.transpose(0, 1, 3, 2, 4)
    s = s.reshape(-1, n * d)

    sm = s @ m  # "pcaib,ibjf->pcajf"
    mt = m @ t  # "jaif,ifpcb->japcb"
    smt = sm @ t  # "pcaif,ifqeb->pcaqeb"
    return _RankOne(
        sm=sm.reshape(n, d, d, n, d),
        mt=mt.reshape(n, d, n, d, d),
        smt=smt.reshape(n, d, d, n, d, d),
    )


def _both_diagonal(h, ph, m):
    """Sum over p c, j and k of tr((P h)_pcj M_jk h_pck M_kj)."""
    # derivations, section 5, term 1: "pcjab,jbke,pckef,kfja->"
    n, d = m.shape[:2]
    transposed = m.transpose(2, 3, 0, 1)
    there = transposed[:, :, None, :, None, :]  # M_kf,ja
    back = m[:, None, :, :, :, None]  # M_jb,ke
    kernel = (there * back).reshape(n * d * d, -1)  # j a b, k e f
    # "pcjab,jabkef->pckef" as a product of matrices
    ph_kernel = _as_matrix(ph) @ kernel
    return jnp.sum(ph_kernel * _as_matrix(h))


def _one_diagonal(rank_one, m):
    """Factor of (P h)_pcj in the traces of one diagonal and one term of rank one.  p c j a b"""
    # derivations, section 5, terms 2 and 3
    with_s = 0
    with_t = 0
    # v is the direction in which the term of rank one meets M
    for v in range(m.shape[1]):
        # "pcja,jbp->pcjab" at each v of "pcvja,jbpv->pcjab"
        sm = rank_one.sm[:, :, v]
        sm = sm[:, :, :, :, None]
        column = m[..., v].transpose(2, 0, 1)
        with_s += sm * column[:, None, :, None]
        # "pja,jbpc->pcjab" at each v of "pvja,jbpcv->pcjab"
        mt = rank_one.mt[..., v].transpose(2, 3, 0, 1)
        row = m[:, v, None, :, :, None]
        with_t += row * mt[:, :, :, None]
    return with_s + with_t


def _none_diagonal(rank_one, m):
    """Factor of P_pc,qe in the traces of two terms of rank one.  p c a q e b"""
    sm, mt, smt = rank_one
    # derivations, section 5, term 4: "pcaqb,qebpa->pcaqeb"
    first_sm = sm[..., None, :]
    second_sm = sm.transpose(3, 4, 0, 1, 2)
    both_s = first_sm * second_sm[:, None]
    # term 5: "qbpca,paqeb->pcaqeb"
    first_mt = mt.transpose(2, 3, 4, 0, 1)
    both_t = first_mt[..., None, :] * mt[:, None]
    # term 6, once with S first and once with T first: "qbpa,pcaqeb->pcaqeb"
    transposed = m.transpose(2, 3, 0, 1)
    mixed = transposed[:, None, :, :, None] * smt
    return both_s + both_t + 2 * mixed
