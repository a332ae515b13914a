r"""Sums over the Matsubara frequencies w_n = 2 pi n T, n = ... -1, 0, 1 ..., by few of them.

The terms are smooth on the scale of the frequency itself: a function like e / (e^2 + w^2) has its
poles at w = +-ie.  So the first frequencies are taken one by one, the others in blocks that end at
three times where they begin, each by Gauss's quadrature for a sum over integers.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from heg.gas.quadrature import gauss_sum

SINGLE = 16  # frequencies that are taken one by one
GROWTH = 3  # of n from the beginning of a block to its end
NODES = 8  # of a block


class Frequencies(NamedTuple):
    """Nodes of a sum over both signs of the frequency.

    Attributes:
      n: of w_n, n >= 0; not all are integers.              [F]
      weight: of both signs together.                       [F]
      end: the first n that is left to a tail.
    """

    n: Float[np.ndarray, " frequencies"]
    weight: Float[np.ndarray, " frequencies"]
    end: int


def frequencies(largest: float) -> Frequencies:
    """Nodes up to n = `largest`, or beyond.

    Accuracy: 1e-9 relative (tests/gas/test_rpa.py).
    """
    # one by one; n = 0 has no partner of the other sign
    first = np.arange(SINGLE)
    nodes = [first]
    weights = [np.where(first == 0, 1.0, 2.0)]
    end = SINGLE
    while end < largest:
        # a block of all n from end to GROWTH end - 1, by few nodes
        length = (GROWTH - 1) * end
        node, weight = gauss_sum(length, NODES)
        nodes.append(end + node)
        weights.append(2 * weight)
        end *= GROWTH
    return Frequencies(np.concatenate(nodes), np.concatenate(weights), end)
