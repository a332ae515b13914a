"""Gauss's quadrature of integrals, and of sums over integers."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Quadrature(NamedTuple):
    """Nodes and weights of an integral or a sum."""

    nodes: Float[np.ndarray, " nodes"]
    weights: Float[np.ndarray, " nodes"]


def gauss_legendre(count: int) -> Quadrature:
    """Nodes and weights of an integral over 0 ... 1."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return Quadrature((nodes + 1) / 2, weights / 2)


def radial_measure(dim: int) -> float:
    """Factor of q^(d-1) dq in an integral over d^dq / (2 pi)^d of a function of |q|."""
    surface = {2: 2 * np.pi, 3: 4 * np.pi}[dim]
    return surface / (2 * np.pi) ** dim


def gauss_sum(count: int, nodes: int) -> Quadrature:
    """Nodes and weights of a sum over 0 ... count - 1, exact for polynomials below degree 2 nodes.

    The polynomials that are orthogonal under such a sum are those of Chebyshev and Gram; their
    recurrence has the coefficients j^2 (count^2 - j^2) / 4 (4 j^2 - 1).
    Source: Golub and Welsch, Math. Comp. 23, 221 (1969), doi:10.1090/S0025-5718-69-99647-1.
    """
    # roots and weights from the eigenvectors of the matrix of the recurrence
    j = np.arange(1, nodes)
    coefficients = np.sqrt(j**2 * (count**2 - j**2) / (4 * (4 * j**2 - 1.0)))
    jacobi = np.diag(coefficients, 1) + np.diag(coefficients, -1)
    roots, vectors = np.linalg.eigh(jacobi)
    return Quadrature(roots + (count - 1) / 2, count * vectors[0] ** 2)
