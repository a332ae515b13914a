r"""The third order of the known elements: how far the second order is to be trusted.

In thermal perturbation theory about the trained rho the third order is

.. math:: F_3 = \mathbb{E}_{K \sim p} \sum_{a \ne b} W_{Ka} W_{ab} W_{bK}\,
          g(\Delta_a, \Delta_b), \qquad g(x, y) = \frac{D(x, y)}{1 + e^{-\beta x} + e^{-\beta y}} ,

D the second divided difference of exp(-beta e) at 0, x and y.  Every triangle of states is met from
its three corners.  a and b are doubles of K and of each other.

The known elements (heg.observables.second_order.pair_operators) are those of a pair operator: it
couples any two determinants, so that none of the three W needs samples of x.  Of the doubles a some
are drawn with a chance that goes as W^2 h, and all b that belong to them are summed.  Triangles of
one kinetic energy are left to the correction for degenerate states
(heg.observables.second_order.degenerate).

What is kept is the ratio r = -F_3 / F_2, both of the known elements and of the same K.

Source: thermal perturbation theory, Landau and Lifshitz, Statistical Physics, part 1, section 32,
one order further; the denominators are tested beside exact traces (tests/observables).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from heg.observables.second_order.contributions import known_elements
from heg.observables.second_order.doubles import DoublesOf, count_doubles
from heg.observables.second_order.excitations import Excitations
from heg.observables.second_order.levels import Levels
from heg.observables.second_order.pair_operators import PairElements
from heg.observables.second_order.perturbation import ThirdOrder, thermal_denominator
from heg.statistics import jackknife

STATES = 32  # K
PICKS = 24  # doubles a drawn for each K
MIN_PICKS = 2
MAX_DOUBLES = 2 * 10**7  # of all a together
NEAR = 1e-3  # beta times energies that lie closer have a divided difference of one energy


def third_order(
    excitations: Excitations,
    levels: Levels,
    states: Int[np.ndarray, "batch electrons"],
    generator: np.random.Generator,
) -> ThirdOrder:
    """r = -F_3 / F_2 of the known elements.

    Args:
      excitations: of the run.
      levels: of heg.observables.second_order.calibration.
      states: draws of K, of which the first STATES are used.
      generator: of random numbers.
    """
    elements = known_elements(excitations, levels)
    corners = _Corners(excitations, levels, elements, generator)
    sums = np.array([corners.sums(state) for state in states[:STATES]])
    if not sums[:, 0].any():
        return ThirdOrder(0.0, 0.0)  # no doubles, or nothing that couples them
    ratio = jackknife(sums, lambda mean: mean[1] / mean[0])
    return ThirdOrder(float(ratio.value), float(ratio.error))


class _Corners:
    """The sums of single K.

    Args:
      excitations, levels, generator: as of `third_order`.
      elements: of the known part of H.
    """

    def __init__(
        self,
        excitations: Excitations,
        levels: Levels,
        elements: PairElements,
        generator: np.random.Generator,
    ):
        self.doubles_of = excitations.doubles_of
        self.beta = excitations.system.beta
        self.levels = levels
        self.elements = elements
        self.generator = generator
        self.labels = Labels(self.doubles_of, generator)
        affordable = MAX_DOUBLES // count_doubles(excitations.system, excitations.largest)
        self.picks = min(max(affordable // STATES, MIN_PICKS), PICKS)

    def sums(self, state: Int[np.ndarray, " electrons"]) -> tuple[float, float]:
        """The sum of W^2 h, and that of W W W g from some of its doubles, hartree."""
        corner = self._corner(state)
        second = float(corner.lowered.sum())
        if second == 0:
            return 0.0, 0.0
        chance = corner.lowered / second
        picked = self.generator.choice(len(chance), self.picks, p=chance)
        # W_Ka over the chance of a, times the rest of its triangles
        values = [corner.element[a] / chance[a] * self._closed(corner, a) for a in picked]
        return second, float(np.mean(values))

    def _corner(self, state) -> "_Corner":
        n = self.doubles_of.n[state]
        doubles = self.doubles_of.of_vectors(n)
        kept = doubles.where(doubles.allowed)
        element = kept.elements(self.elements)
        gap = self.levels.gap(kept)
        label = self.labels.of_doubles(n)[doubles.allowed]
        return _Corner(
            n=n,
            listed=np.flatnonzero(doubles.allowed),
            is_alike=kept.alike,
            element=element,
            gap=gap,
            lowered=element**2 * thermal_denominator(gap, self.beta),
            label=label,
            order=np.argsort(label),
        )

    def _closed(self, corner: "_Corner", a: int) -> float:
        """The sum of W_ab W_bK g over the doubles b of K that are doubles of its double a."""
        via = self.doubles_of.excited(corner.n, corner.listed[a])
        doubles = self.doubles_of.of_vectors(via)
        index = np.flatnonzero(doubles.allowed)
        label = self.labels.of_doubles(via)[index]
        place = corner.places(label)
        is_shared = place >= 0
        if corner.is_alike[a]:
            is_shared &= ~corner.is_alike[place]
        b = place[is_shared]
        b_of_a = index[is_shared]
        # both lists have b, with its electrons in two orders
        sign = self.labels.order_sign(corner.n, corner.listed[b])
        sign_of_a = self.labels.order_sign(via, b_of_a)
        of_a = doubles.elements(self.elements)
        between = sign * sign_of_a * of_a[b_of_a]
        g = third_denominator(corner.gap[a], corner.gap[b], self.beta)
        return float(np.sum(between * corner.element[b] * g))


class _Corner(NamedTuple):
    """One K and the doubles that are allowed.

    Attributes:
      n: integer vectors of K.                              [N, d]
      listed: place of each double in the whole list.       [D]
      is_alike: whether it has the kinetic energy of K.     [D]
      element: W, hartree.                                  [D]
      gap: Delta, hartree.                                  [D]
      lowered: W^2 h, hartree.                              [D]
      label: of Labels.                                     [D] uint64
      order: that sorts the labels.                         [D]
    """

    n: np.ndarray
    listed: np.ndarray
    is_alike: np.ndarray
    element: np.ndarray
    gap: np.ndarray
    lowered: np.ndarray
    label: np.ndarray
    order: np.ndarray

    def places(self, labels: np.ndarray) -> np.ndarray:
        """Where among the doubles each label is, -1 where it is not."""
        place = np.searchsorted(self.label, labels, sorter=self.order)
        last = len(self.order) - 1
        found = self.order[np.minimum(place, last)]
        return np.where(self.label[found] == labels, found, -1)


class Labels:
    """Labels of determinants: the same for the same one, whatever the order of its electrons.

    Each plane wave of each spin has a random number of 64 bits, and a determinant the sum of those
    of its electrons (Zobrist, ICCA J. 13, 69 (1990)).

    Args:
      doubles_of: the doubles of a gas.
      generator: of random numbers.
    """

    def __init__(self, doubles_of: DoublesOf, generator: np.random.Generator):
        self.doubles_of = doubles_of
        self.parts: Sequence[slice] = doubles_of.system.parts
        # plane waves of p(K), and three transfers further
        longest = np.abs(doubles_of.transfers).max()
        self.reach = int(np.abs(doubles_of.n).max() + 3 * longest)
        self.radix = 2 * self.reach + 1
        size = self.radix**doubles_of.system.dim
        most = np.iinfo(np.uint64).max
        self.number = generator.integers(most, size=(len(self.parts), size), dtype=np.uint64)

    def of_doubles(
        self, n: Int[np.ndarray, "electrons dim"]
    ) -> np.ndarray:  # of uint64, in the order of the doubles
        """The labels of all doubles of a determinant."""
        transfers = self.doubles_of.transfers
        here = self._numbers(n[:, None])
        raised = self._numbers(n[:, None] + transfers) - here
        lowered = self._numbers(n[:, None] - transfers) - here
        first, second = self.doubles_of.pairs
        change = raised[first] + lowered[second]
        return (here.sum() + change).ravel()

    def order_sign(
        self, n: Int[np.ndarray, "electrons dim"], index: Int[np.ndarray, " doubles"]
    ) -> Int[np.ndarray, " doubles"]:
        """Signs of the permutations that put the electrons of some doubles in one order.

        `DoublesOf.ordered` has that of a single determinant.
        """
        code = self._codes(self.doubles_of.excited(n, index))
        inversions = np.zeros(len(index), int)
        for part in self.parts:
            of_spin = code[:, part]
            first, second = np.triu_indices(of_spin.shape[1], 1)
            inversions += np.sum(of_spin[:, first] > of_spin[:, second], axis=1)
        return 1 - 2 * (inversions % 2)

    def _numbers(self, n):
        """The random numbers of electrons with these vectors.  [N, Q, d] -> [N, Q]"""
        code = self._codes(n)
        parts = [numbers[code[part]] for numbers, part in zip(self.number, self.parts)]
        return np.concatenate(parts)

    def _codes(self, n):
        """Each vector as one integer."""
        digits = self.radix ** np.arange(n.shape[-1])
        return (n + self.reach) @ digits


def third_denominator(
    first: float, second: Float[np.ndarray, " doubles"], beta: float
) -> Float[np.ndarray, " doubles"]:
    """g(x, y), 1/hartree^2.

    Args:
      first, second: x and y, hartree.
      beta: 1/hartree.
    """
    zero = np.zeros_like(second)
    corners = beta * np.stack([zero, zero + first, second])
    lowest, middle, highest = np.sort(corners, axis=0)
    # relative to the lowest, so that no exponential is large
    middle = middle - lowest
    highest = highest - lowest
    divided = _divided_difference(middle, highest)
    return beta**2 * divided / (1 + np.exp(-middle) + np.exp(-highest))


def _divided_difference(middle, highest):
    """The second divided difference of e^-u at 0 <= middle <= highest."""
    from_zero = _falling(middle)
    from_middle = np.exp(-middle) * _falling(highest - middle)
    spread = np.maximum(highest, NEAR)
    # half the second derivative at the mean where the three are close
    close = np.exp(-(middle + highest) / 3) / 2
    return np.where(highest > NEAR, (from_zero - from_middle) / spread, close)


def _falling(u):
    """(1 - e^-u) / u."""
    least = 1e-300
    return np.where(u > 0, -np.expm1(-u) / np.maximum(u, least), 1.0)
