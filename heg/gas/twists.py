"""Twist angles to average over, as a small cell at one twist shows the accidents of its shells."""

from collections import Counter
from typing import NamedTuple

import numpy as np


class Twist(NamedTuple):
    """A twist and its share of the average.

    Attributes:
      angle: by direction, units of 2 pi, [-1/2, 1/2).
      weight: share of the average; those of all twists sum to 1.
    """

    angle: tuple[float, ...]
    weight: float


def special_twists(dim: int, divisions: int) -> list[Twist]:
    """The grid of Monkhorst and Pack, each set of twists that symmetry makes equal taken once.

    One division is no twist, two are (1/4, 1/4[, 1/4]) alone.  A smooth function of the twist is
    averaged with an error that falls exponentially with their number.
    Source: Monkhorst and Pack, Phys. Rev. B 13, 5188 (1976), doi:10.1103/PhysRevB.13.5188; for
      twists, Lin, Zong and Ceperley, Phys. Rev. E 64, 016702 (2001),
      doi:10.1103/PhysRevE.64.016702.
    """
    angles = (2 * np.arange(1, divisions + 1) - divisions - 1) / (2 * divisions)
    grids = np.meshgrid(*[angles] * dim)
    grid = np.stack(grids, axis=-1).reshape(-1, dim)
    # reflections and permutations of the directions leave a square or cubic cell unchanged
    representatives = np.sort(np.abs(grid), axis=1)
    counts = Counter(map(tuple, representatives.tolist()))
    return [Twist(angle, count / len(grid)) for angle, count in sorted(counts.items())]


def random_twists(dim: int, count: int, seed: int) -> list[Twist]:
    """Independent uniform twists of equal weight; a longer list begins with a shorter one."""
    random = np.random.default_rng(seed)
    # rounded, so that a twist can be typed
    angles = random.uniform(-0.5, 0.5, (count, dim)).round(6)
    return [Twist(tuple(angle), 1 / count) for angle in angles.tolist()]
