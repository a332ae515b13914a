r"""The part of the correlation of opposite spins that a flow of pairs reaches at weak coupling.

    python scripts/flow_limit.py

A unitary e^S whose matrix element between two determinants that differ by a momentum q exchanged
between two electrons is t changes the free energy, to second order in the coupling, by

.. math:: -\sum_q \sum (p_a - p_b)\,[2 V_q t - \Delta E\, t^2],

dE > 0 the difference of their ideal energies.  The best is t = V_q / dE.  A flow of pairs, x -> x +
sum grad w, has t = w_q dE whatever w; a Jastrow factor t = u_q; with backflow u_q + w_q dE.  A flow
that knew the force grad ln|det| of the ground state could add w'_q dE^2.  The best of each kind is
a least-squares problem in each shell of q.  At T = 0 the shells are closed; above, occupations are
those of the grand-canonical ideal gas, and one w_q serves all K.
"""

import itertools

import cyclopts
import numpy as np
from scipy.optimize import brentq

KINDS = {
    "flow of pairs": (1,),
    "Jastrow": (0,),
    "Jastrow and backflow": (0, 1),
    "flow with the force of the ground state": (1, 2),
}


def lattice(dim: int, largest: int) -> np.ndarray:
    """Integer vectors with components up to `largest`.  [M, d]"""
    return np.array(list(itertools.product(range(-largest, largest + 1), repeat=dim)))


def occupations(n: np.ndarray, electrons: int, theta: float) -> np.ndarray:
    """Occupations of one spin, in the order of n.

    Theta = T / E_F with E_F = (highest |n|^2 of the infinite gas) / 2.  [M]
    """
    dim = n.shape[1]
    energy = np.sum(n**2, axis=1) / 2
    if theta == 0:
        highest = np.sort(energy)[electrons - 1]
        return (energy <= highest) * 1.0
    volume = {2: np.pi, 3: 4 * np.pi / 3}[dim]  # of a ball of radius 1
    fermi_energy = (electrons / volume) ** (2 / dim) / 2
    temperature = theta * fermi_energy
    fermi = lambda mu: 1 / (1 + np.exp(np.clip((energy - mu) / temperature, -500, 500)))
    excess = lambda mu: fermi(mu).sum() - electrons
    return fermi(brentq(excess, -100 * temperature - 10, energy.max()))


def transitions(n: np.ndarray, f: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies dE > 0 of two electrons of opposite spin exchanging q, and the weights p_a - p_b."""
    after = _occupation_at(n + q, n, f)
    # a histogram over the changes of one electron's energy, in units of 1/2, is convolved with
    # itself: the two electrons are independent
    twice = 2 * n @ q + q @ q
    span = np.abs(twice).max()
    bins = 2 * span + 1
    ahead = np.bincount(twice + span, f * (1 - after), bins)
    back = np.bincount(twice + span, after * (1 - f), bins)
    ahead_of_two = np.convolve(ahead, ahead)
    back_of_two = np.convolve(back, back)
    weight = ahead_of_two - back_of_two
    energy = (np.arange(len(weight)) - 2 * span) / 2
    kept = (energy > 0) & (weight > 1e-14)
    return energy[kept], weight[kept]


def _occupation_at(target, n, f):
    """Occupations f of the lattice n at other vectors; zero outside of it.  [M]"""
    largest = n.max()
    grid = np.zeros((2 * largest + 1,) * n.shape[1])
    grid[tuple((n + largest).T)] = f
    inside = np.all(np.abs(target) <= largest, axis=1)
    nearest = np.clip(target, -largest, largest)
    return np.where(inside, grid[tuple((nearest + largest).T)], 0.0)


def share(energy: np.ndarray, weight: np.ndarray, powers: tuple[int, ...]) -> float:
    """Largest gain with t a combination of powers of dE, in units of V_q^2."""
    basis = np.stack([energy**power for power in powers])
    slope = basis @ weight
    curvature = basis * (weight * energy) @ basis.T
    return np.linalg.multi_dot([slope, np.linalg.inv(curvature), slope])


def shares(dim: int, electrons: int, theta: float, largest: int, highest: int) -> dict[str, float]:
    """Part of the second-order correlation free energy of opposite spins that each kind reaches."""
    n = lattice(dim, largest)
    f = occupations(n, electrons, theta)
    total = 0.0
    gained = dict.fromkeys(KINDS, 0.0)
    # one q of each shell, and the number of its images
    for components in itertools.combinations_with_replacement(range(highest, -1, -1), dim):
        q = np.array(components)
        if not 0 < q @ q <= highest**2:
            continue
        energy, weight = transitions(n, f, q)
        permutations = len(set(itertools.permutations(components)))
        images = permutations * 2 ** np.count_nonzero(q)
        squared = images / float(q @ q) ** (dim - 1)  # V_q^2
        total += squared * np.sum(weight / energy)
        for kind, powers in KINDS.items():
            gained[kind] += squared * share(energy, weight, powers)
    return {kind: gain / total for kind, gain in gained.items()}


def main(*, highest: int = 8, largest: int = 16):
    """Shares by gas.

    Args:
      highest: largest |q| in units of 2 pi / L.
      largest: of the components of the wavevectors.
    """
    print("| gas | Θ | " + " | ".join(KINDS) + " |")
    print("|---|---|" + "---|" * len(KINDS))
    for dim, electrons in ((3, 7), (3, 19), (2, 5), (2, 13)):
        for theta in (0.0, 0.25, 1.0, 2.0):
            reached = shares(dim, electrons, theta, largest, highest)
            cells = [f"{dim}D {electrons}↑{electrons}↓", f"{theta:g}"]
            for kind in KINDS:
                shown = theta == 0 or kind == "flow of pairs"  # the others are of T = 0
                cells.append(f"{reached[kind]:.0%}" if shown else "")
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    cyclopts.run(main)
