r"""The interaction to first order in the cell: its mean in the canonical ideal gas, exactly.

.. math:: v_1 = \frac{v_M}{2}
          - \frac{1}{2 N L^d} \sum_\sigma \sum_{k \ne k'} \langle n_k n_{k'} \rangle v(k - k')

It is the slope of F in the coupling at 0, so that f_xc -> v_1 for r_s -> 0 at fixed Theta, N, zeta
and twist.  F of the ideal gas plus v_1 bounds F from above (Gibbs, Bogoliubov): it is the F of the
untrained model.

<n_k n_k'> is a sum of a few products (`heg.gas.ideal_pairs.projections`).  The sum over all pairs
with one k - k' is then a convolution, for which fast Fourier transforms serve.
"""

import functools

import numpy as np
from jaxtyping import Float
from scipy import fft

from heg.gas.coulomb import fourier_transform, madelung
from heg.gas.ideal import choose_cutoff
from heg.gas.ideal_pairs import projections
from heg.gas.plane_waves import Orbitals
from heg.gas.system import System

MISSING = 1e-9  # probability of the orbitals left out


def first_order(system: System) -> float:
    """v_1, hartree per electron at the coupling of the gas.

    Accuracy: 1e-8 relative (tests/gas/test_first_order.py).
    """
    return system.coupling * _at_unit_density(system.of_unit_density) / system.rs


@functools.lru_cache(maxsize=4096)
def _at_unit_density(gas):
    """v_1 of a gas of r_s = 1 and coupling 1."""
    orbitals = choose_cutoff(gas, MISSING).orbitals
    levels = gas.beta * orbitals.energy
    of_spins = [pairs_by_transfer(orbitals, levels, count) for count in gas.spins]
    pairs = sum(of_spins)
    # integer vectors of the transfers, as the transform orders them
    axes = [fft.fftfreq(side, 1 / side) for side in pairs.shape]
    grids = np.meshgrid(*axes, indexing="ij")
    length = np.linalg.norm(np.stack(grids), axis=0)
    q = gas.wavevector_unit * length
    q.flat[0] = np.inf  # an electron does not interact with itself
    v = fourier_transform(q, gas.dim)
    # sum_q c(q) v(q) / (2 N L^d)
    interaction = np.sum(pairs * v)
    exchange = interaction / (2 * gas.electrons * gas.volume)
    return float(madelung(gas) / 2 - exchange)


def pairs_by_transfer(
    orbitals: Orbitals, levels: Float[np.ndarray, " orbitals"], electrons: int
) -> Float[np.ndarray, "..."]:
    """c(q), the sum over k of <n_k n_{k+q}> of the ideal gas of one spin.

    Args:
      orbitals: plane waves.
      levels: beta * energy of each.
      electrons: of the spin.
    Returns:
      By the integer vector of q, one axis per direction, in the order of a discrete Fourier
      transform; the entry of q = 0 means nothing.
    """
    # from zero on: differences of wavevectors do not know the origin
    lowest = orbitals.n.min(axis=0)
    n = orbitals.n - lowest
    # twice as wide as the orbitals, so that no transfer is taken for another
    widths = [2 * int(highest) + 1 for highest in n.max(axis=0)]
    sides = [fft.next_fast_len(width, real=True) for width in widths]
    axes = range(1, len(sides) + 1)
    index = tuple(n.T)
    # the transform of c(q): a convolution becomes a product
    spectrum = 0.0
    for weight, occupation in projections(levels, electrons):
        grid = np.zeros((2, *sides))
        # two real transforms are half the work of a complex one
        grid[0, *index] = occupation.real
        grid[1, *index] = occupation.imag
        real, imaginary = fft.rfftn(grid, axes=axes, workers=-1)
        # of n(k), which is complex: the transform at g times that at -g
        difference = np.abs(real) ** 2 - np.abs(imaginary) ** 2
        product = real * np.conj(imaginary)
        cross = np.real(product)
        square = difference + 2j * cross
        # <n n'> is the real part of the sum of w n n'
        spectrum = spectrum + np.real(weight * square)
    return fft.irfftn(spectrum, sides)
