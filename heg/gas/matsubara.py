r"""Sums over the Matsubara frequencies w_n = 2 pi n T, n = ... -1, 0, 1 ..., by few of them.

What is summed is smooth on the scale of the frequency itself: a function like e / (e^2 + w^2) has
its poles at w = +-ie.  So the first frequencies are taken one by one, the others in blocks that end
at three times where they begin, each by Gauss's quadrature for a sum over integers.
"""

from typing import NamedTuple

import numpy as np

SINGLE = 16  # frequencies that are taken one by one
GROWTH = 3  # of n from the beginning of a block to its end
NODES = 8  # of a block


class Frequencies(NamedTuple):
    """Nodes of a sum over both signs of the frequency.

    Attributes:
      n: of w_n, n >= 0; not all are integers.               [F]
      weight: of both signs together.                        [F]
      end: the first n that is left to a tail.
    """

    n: np.ndarray
    weight: np.ndarray
    end: int


def frequencies(largest: float) -> Frequencies:
    """Nodes up to the given n, or beyond.

    Accuracy: 1e-9 relative (tests/test_rpa.py).
    """
    first = np.arange(SINGLE)
    nodes, weights = [first], [np.where(first == 0, 1.0, 2.0)]
    end = SINGLE
    while end < largest:
        node, weight = gauss_sum((GROWTH - 1) * end, NODES)
        nodes.append(end + node)
        weights.append(2 * weight)
        end *= GROWTH
    return Frequencies(np.concatenate(nodes), np.concatenate(weights), end)


def gauss_sum(count: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a sum over 0 ... count - 1, exact for polynomials below degree 2 nodes.

    The polynomials that are orthogonal under such a sum are those of Chebyshev and Gram; their
    recurrence has the coefficients j^2 (count^2 - j^2) / 4 (4 j^2 - 1).
    Source: Golub and Welsch, Math. Comp. 23, 221 (1969), doi:10.1090/S0025-5718-69-99647-1.
    """
    j = np.arange(1, nodes)
    beside = np.sqrt(j**2 * (count**2 - j**2) / (4 * (4 * j**2 - 1.0)))
    place, vectors = np.linalg.eigh(np.diag(beside, 1) + np.diag(beside, -1))
    return place + (count - 1) / 2, count * vectors[0] ** 2
