r"""The interaction to first order in the cell: its mean in the canonical ideal gas, exactly.

.. math:: v_1 = \frac{v_M}{2} - \frac{1}{2 N L^d} \sum_\sigma \sum_{k \ne k'} \langle n_k n_{k'} \rangle v(k - k')

It is the slope of F in the coupling at 0, so f_xc -> v_1 for r_s -> 0 at fixed Theta, N, zeta and
twist; and F of the ideal gas plus v_1 bounds F from above (Gibbs, Bogoliubov): the untrained
model's F.

<n_k n_k'> is a sum of a few products (heg.gas.ideal.projections).  The sum over all pairs with one
k - k' is then a convolution, for which fast Fourier transforms serve.
"""

import functools

import numpy as np
from scipy import fft

from heg.gas.coulomb import fourier_transform, madelung
from heg.gas.ideal import choose_cutoff, projections
from heg.gas.plane_waves import Orbitals
from heg.gas.system import System

MISSING = 1e-9  # probability of the orbitals left out


def first_order(system: System) -> float:
    """v_1, hartree per electron at the coupling of the gas.  Accuracy: 1e-8 relative
    (tests/test_first_order.py)."""
    return system.coupling * _at_unit_density(system.of_unit_density) / system.rs


@functools.lru_cache(maxsize=4096)
def _at_unit_density(gas):
    orbitals = choose_cutoff(gas, MISSING).orbitals
    pairs = sum(
        pairs_by_transfer(orbitals, gas.beta * orbitals.energy, count) for count in gas.spins
    )
    # integer vectors of the transfers, as the transform orders them
    n = np.stack(np.meshgrid(*[fft.fftfreq(side, 1 / side) for side in pairs.shape], indexing="ij"))
    length = 2 * np.pi / gas.box * np.linalg.norm(n, axis=0)
    length.flat[0] = np.inf  # an electron does not interact with itself
    total = np.sum(pairs * fourier_transform(length, gas.dim))
    return float(madelung(gas) / 2 - total / (2 * gas.electrons * gas.box**gas.dim))


def pairs_by_transfer(orbitals: Orbitals, levels: np.ndarray, electrons: int) -> np.ndarray:
    """c(q), the sum over k of <n_k n_{k+q}> of the ideal gas of one spin; that of q = 0 means
    nothing.

    Args:
      orbitals: plane waves.
      levels: beta * energy of each.                        [M]
      electrons: of the spin.
    Returns:
      By the integer vector of q, in the order of a discrete Fourier transform.    [sides]
    """
    n = orbitals.n - orbitals.n.min(axis=0)
    # twice as wide as the orbitals, so that no transfer is taken for another
    sides = [fft.next_fast_len(2 * int(width) + 1, real=True) for width in n.max(axis=0)]
    place = tuple(n.T)
    spectrum = 0.0
    for weight, occupation in projections(levels, electrons):
        parts = np.zeros((2, *sides))
        parts[:, *place] = occupation.real, occupation.imag
        real, imaginary = fft.rfftn(parts, axes=range(1, len(sides) + 1), workers=-1)
        # of n(k): the transform at g times that at -g
        square = (
            np.abs(real) ** 2 - np.abs(imaginary) ** 2 + 2j * np.real(real * np.conj(imaginary))
        )
        spectrum = spectrum + np.real(weight * square)
    return fft.irfftn(spectrum, sides)
