"""Waves that a cell lacks: an integral over wavevectors less the sum over those of the cell.

Where the summand is smooth except at q = 0, what remains of the difference comes from q = 0 alone.
So a smooth factor that is flat there, exp(-q^4), may take large q away.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from heg.gas.coulomb import fourier_transform
from heg.gas.plane_waves import integer_vectors
from heg.gas.quadrature import gauss_legendre, radial_measure
from heg.gas.system import System

NODES = 96  # of the integral over q
WIDTH = 4.0  # of the smooth factor, in units of 2 pi / L
CUTOFF = 2.5  # where the smooth factor ends, in units of its width


class WeightedWaves(NamedTuple):
    """Wavevectors q (1/bohr) and the weight of each in a sum over them."""

    q: Float[np.ndarray, " waves"]
    weight: Float[np.ndarray, " waves"]


def missing_waves(system: System) -> WeightedWaves:
    """Waves for half the integral less half the sum of v(q) times a function of |q|.

    Accuracy: 1e-5 for functions that are smooth except at q = 0; that of 1 gives -v_M / 2.
    """
    # what the cell lacks is the integral less the sum
    integral = _integral_over_waves(system)
    lattice_sum = _sum_over_waves(system)
    q = np.append(integral.q, lattice_sum.q)
    weight = np.append(integral.weight, -lattice_sum.weight)
    reduced = q / (WIDTH * system.wavevector_unit)
    smooth = np.exp(-(reduced**4))
    v = fourier_transform(q, system.dim)
    return WeightedWaves(q, system.coupling / 2 * weight * smooth * v)


def _integral_over_waves(system):
    """The integral over d^dq / (2 pi)^d up to the end of the smooth factor."""
    dim = system.dim
    last = int(CUTOFF * WIDTH)  # in units of 2 pi / L
    nodes, weights = gauss_legendre(NODES)
    unit = system.wavevector_unit
    q = unit * (last * nodes)
    # d^dq / (2 pi)^d is this measure times q^(d-1) dq
    measure = radial_measure(dim)
    volume = measure * q ** (dim - 1) * weights * last * unit
    return WeightedWaves(q, volume)


def _sum_over_waves(system):
    """The sum over q != 0 of the cell per volume, waves of equal length as one."""
    highest = int(CUTOFF * WIDTH)
    n = integer_vectors(system.dim, highest)
    squares = np.sum(n**2, axis=1)
    inside = squares <= highest**2
    square, count = np.unique(squares[inside], return_counts=True)
    q = system.wavevector_unit * np.sqrt(square[1:])
    return WeightedWaves(q, count[1:] / system.volume)
