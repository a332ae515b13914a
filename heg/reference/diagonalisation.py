r"""Full diagonalisation of a few electrons: the reference that cannot be argued with.

The Hamiltonian conserves the total momentum Q = (2 pi / L)(P + N twist), P the sum of the integer
vectors n of the occupied plane waves, and Coulomb energies do not change when all n are shifted by
the same vector.  So the levels of P are

.. math:: E = Q^2 / 2N + E_{rel}(P \bmod N) ,

the same relative levels for every twist: N^d blocks (heg.reference.determinants), fewer by the
symmetry of the cell, give the whole partition function.  Three free energies come from each block:
the exact one; that of the best p(K) without flow, F_diag = -T ln sum_K e^{-beta <K|H|K>}; and that
of determinants mixed within each degenerate kinetic energy alone. In a finite basis each is an
upper bound of its limit (Peierls and Bogoliubov).
"""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from heg.gas.ideal import IdealGas, choose_cutoff, thermodynamics
from heg.gas.system import System
from heg.reference.determinants import block_of, second_order
from heg.statistics import Estimate

TAIL = 45.0  # centre-of-mass energies above the lowest by more than TAIL * T weigh e^-45
KINDS = ("exact", "corrected", "diagonal", "degenerate", "ideal")


class Spectrum(NamedTuple):
    """Relative levels of the classes of total momentum, each class by its member with N/2 >= P_1 >=
    P_2 ... >= 0.

    Attributes:
      totals: P of each class.                              [classes, d] int
      levels: for each kind of KINDS, levels of each class, hartree.
    """

    totals: np.ndarray
    levels: dict[str, list[np.ndarray]]


def spectrum(system: System, cutoff: float) -> Spectrum:
    """Relative levels of the gas; they depend neither on its temperature nor on its twist.

    Args:
      system: the gas, 2 to 4 electrons.
      cutoff: highest relative kinetic energy of a determinant, hartree.
    Raises:
      ValueError: the basis is empty or too large.
    """
    totals = _classes(system)
    levels = {kind: [] for kind in KINDS}
    for total in totals:
        block = block_of(system, total, cutoff)
        for kind, values in _levels(system, block).items():
            levels[kind].append(values)
    return Spectrum(totals, levels)


def canonical(system: System, found: Spectrum) -> dict[str, IdealGas]:
    """Free energy, energy and entropy of the cell at the temperature and twist of the gas, for each
    kind of KINDS."""
    motion = _centre_of_mass(system, found.totals)
    return {kind: _canonical(system, motion, levels) for kind, levels in found.levels.items()}


def infinite_basis(system: System, spectra: dict[float, Spectrum]) -> dict[str, IdealGas]:
    """The limit of an infinite basis: F, E, S of the cell as Estimates, exact, of degenerate
    shells, and diagonal.

    What the basis leaves out of the levels is added to second order (Epstein and Nesbet; as in
    Huron, Malrieu and Rancurel, J. Chem. Phys. 58, 5745 (1973), doi:10.1063/1.1679199); it is no
    upper bound.  What is still missing falls as cutoff^-p once the cutoff is above all other
    energies; p follows from the cusp: v(q)^2 / q^2 of the states left out, times 1 / q^2 for equal
    spins alone.

    Args:
      system: the gas.
      spectra: by cutoff, hartree; four at least.
    Returns:
      Means from the three highest cutoffs.  The error is how far these move with the highest two
      alone and with the three before, a bound rather than a standard deviation.
    """
    exponent = system.dim / 2 if system.n_down else system.dim / 2 + 1
    cutoffs = np.array(sorted(spectra))
    tables = [canonical(system, spectra[cutoff]) for cutoff in cutoffs]
    ideal = thermodynamics(choose_cutoff(system, 1e-12).orbitals.energy, system.beta, system.spins)

    def limit(kind, name):
        kind = "corrected" if kind == "exact" else kind
        beyond = np.array(
            [getattr(table[kind], name) - getattr(table["ideal"], name) for table in tables]
        )
        if kind != "corrected":  # no states but those in thermal reach
            return Estimate(getattr(ideal, name) + beyond[-1], abs(beyond[-1] - beyond[-2]))
        fit = lambda part: np.polynomial.polynomial.polyfit(
            cutoffs[part] ** -exponent, beyond[part], 1
        )[0]
        best, *others = map(fit, (slice(-3, None), slice(-2, None), slice(-4, -1)))
        return Estimate(getattr(ideal, name) + best, max(abs(best - other) for other in others))

    kinds = ("exact", "degenerate", "diagonal")
    return {kind: IdealGas(*(limit(kind, name) for name in IdealGas._fields)) for kind in kinds}


def occupations(system: System, cutoff: float, n: np.ndarray) -> np.ndarray:
    """Mean occupation of plane waves at the temperature and twist of the gas: the exact momentum
    distribution.

    Args:
      system, cutoff: as in `spectrum`.
      n: integer vectors of the plane waves.                [M, d] int
    Returns:
      Of each spin, up first.                               [spins, M]
    """
    totals = _classes(system)
    blocks = [block_of(system, total, cutoff) for total in totals]
    levels, vectors = zip(*(np.linalg.eigh(block.hamiltonian) for block in blocks))
    motion = _centre_of_mass(system, totals)
    log_z = _log_partition(system, motion, levels)
    found = np.zeros((len(system.spins), len(n)))
    for number, (block, level, vector) in enumerate(zip(blocks, levels, vectors)):
        weight = vector**2 @ np.exp(
            -system.beta * level - log_z
        )  # of each determinant, without its centre of mass
        reach = int(np.max(np.abs(block.n)))
        table = np.zeros((len(system.spins), *(2 * reach + 3,) * system.dim))
        for spin, part in enumerate(system.parts):
            np.add.at(
                table[spin],
                tuple((block.n[:, part] + reach + 1).transpose(2, 0, 1)),
                weight[:, None],
            )
        for place in np.flatnonzero(motion.number == number):
            image = motion.sign[place] * n[:, motion.axes[place]] - motion.shift[place]
            image = tuple(
                np.clip(image + reach + 1, 0, 2 * reach + 2).T
            )  # the rim of the table is empty
            found += np.exp(-system.beta * motion.energy[place]) * table[:, *image]
    return found


class _Motion(NamedTuple):
    """Total momenta, each of which a symmetry of the cell and a shift of all n turn into its class.

    Attributes:
      energy: Q^2 / 2N, hartree.                            [T]
      number: of the class.                                 [T] int
      axes, sign, shift: sign * P[axes] - N shift is the class.    [T, d] int
    """

    energy: np.ndarray
    number: np.ndarray
    axes: np.ndarray
    sign: np.ndarray
    shift: np.ndarray


def _classes(system):
    """Total momenta that differ by more than a symmetry of the cell and a shift of all n.
    [classes, d]"""
    grid = np.indices((system.electrons // 2 + 1,) * system.dim).reshape(system.dim, -1).T
    return grid[np.all(np.diff(grid, axis=1) <= 0, axis=1)]


def _centre_of_mass(system, totals):
    """All total momenta that the temperature reaches."""
    electrons, unit = system.electrons, (2 * np.pi / system.box) ** 2 / 2
    twist = np.asarray(system.twist)
    radius = (
        int(
            np.ceil(
                np.sqrt(
                    TAIL * system.temperature * electrons / unit + system.dim * electrons**2 / 4
                )
            )
        )
        + 1
    )
    total = (
        np.indices((2 * radius + 1,) * system.dim).reshape(system.dim, -1).T
        - radius
        - np.round(electrons * twist)
    )
    total = total.astype(int)
    energy = unit * np.sum((total + electrons * twist) ** 2, axis=1) / electrons
    total, energy = (
        array[energy < energy.min() + TAIL * system.temperature] for array in (total, energy)
    )
    rest = total % electrons
    sign = np.where(2 * rest > electrons, -1, 1)
    axes = np.argsort(-((sign * total) % electrons), axis=1, kind="stable")
    sign = np.take_along_axis(sign, axes, axis=1)
    image = sign * np.take_along_axis(total, axes, axis=1)
    number = np.argmax(np.all((image % electrons)[:, None] == totals, axis=2), axis=1)
    return _Motion(energy, number, axes, sign, image // electrons)


def _log_partition(system, motion, levels):
    weights = [
        -system.beta * motion.energy[motion.number == number] for number in range(len(levels))
    ]
    return logsumexp(
        [
            logsumexp(w) + logsumexp(-system.beta * level)
            for w, level in zip(weights, levels)
            if len(w)
        ]
    )


def _canonical(system, motion, levels):
    log_z, energy = _log_partition(system, motion, levels), 0.0
    for number, level in enumerate(levels):
        moving = motion.energy[motion.number == number]
        both = np.add.outer(moving, level)
        energy += np.sum(both * np.exp(-system.beta * both - log_z))
    free_energy = -log_z / system.beta
    return IdealGas(float(free_energy), float(energy), float(system.beta * (energy - free_energy)))


def _levels(system, block):
    """Relative levels of each kind.  The degenerate kind mixes determinants of one kinetic energy
    alone."""
    diagonal = np.diagonal(block.hamiltonian)
    exact, vectors = np.linalg.eigh(block.hamiltonian)
    shells = [np.flatnonzero(block.kinetic == energy) for energy in np.unique(block.kinetic)]
    return {
        "exact": exact,
        "corrected": exact + second_order(system, block, exact, vectors),
        "diagonal": diagonal,
        "degenerate": np.concatenate(
            [np.linalg.eigvalsh(block.hamiltonian[np.ix_(s, s)]) for s in shells]
        ),
        "ideal": (2 * np.pi / system.box) ** 2 / 2 * block.kinetic / system.electrons,
    }
