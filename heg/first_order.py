r"""The interaction to first order in the cell: its mean in the canonical ideal gas, exactly.

.. math:: v_1 = \frac{v_M}{2} - \frac{1}{2 N L^d} \sum_\sigma \sum_{k \ne k'} \langle n_k n_{k'} \rangle v(k - k')

It is the slope of F in the coupling at 0, so f_xc -> v_1 for r_s -> 0 at fixed Theta, N, zeta and twist; and F of the
ideal gas plus v_1 bounds F from above (Gibbs, Bogoliubov): the untrained model's F.
"""

import functools

import numpy as np

from heg.ewald import fourier_transform, madelung
from heg.ideal import choose_cutoff, shell_pairs
from heg.system import System

MISSING = 1e-9  # probability of the orbitals left out
ROWS = 256  # of the matrix of pairs at once


def first_order(system: System) -> float:
    """v_1, hartree per electron at the coupling of the gas.  Accuracy: 1e-8 relative (tests/test_first_order.py)."""
    return system.coupling * _at_unit_density(system.of_unit_density) / system.rs


@functools.lru_cache(maxsize=4096)
def _at_unit_density(gas):
    orbitals = choose_cutoff(gas, MISSING).orbitals
    n, total = orbitals.n, 0.0
    size = np.sum(n**2, axis=1)
    # v(q) by |n - n'|^2; none of an electron with itself
    transfer = np.arange(1, 4 * int(size.max()) + 1)
    interaction = np.append(0.0, fourier_transform(2 * np.pi / gas.box * np.sqrt(transfer), gas.dim))
    for count in gas.spins:
        shell, _, pairs = shell_pairs(gas.beta * orbitals.energy, count)
        for rows in np.array_split(np.arange(len(n)), -(-len(n) // ROWS)):
            between = size[rows, None] + size - 2 * n[rows] @ n.T
            total += np.sum(pairs[np.ix_(shell[rows], shell)] * interaction[between])
    return float(madelung(gas) / 2 - total / (2 * gas.electrons * gas.box**gas.dim))
