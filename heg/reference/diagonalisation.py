r"""Full diagonalisation of a few electrons: exact energies for comparison.

The Hamiltonian conserves the total momentum Q = (2 pi / L)(P + N twist), P the sum of the integer
vectors n of the occupied plane waves, and Coulomb energies do not change when all n are shifted by
the same vector.  So the levels of P are

.. math:: E = Q^2 / 2N + E_{rel}(P \bmod N) ,

the same relative levels for every twist.  N^d blocks (`heg.reference.determinants`), fewer by the
symmetry of the cell, give the whole partition function.  Three free energies come from each block:
the exact one; that of the best p(K) without flow, F_diag = -T ln sum_K e^{-beta <K|H|K>}; and that
of determinants mixed within each degenerate kinetic energy alone.  In a finite basis each is an
upper bound of its limit (Peierls and Bogoliubov).
"""

from typing import NamedTuple

import numpy as np
from numpy.polynomial import polynomial
from scipy.special import logsumexp

from heg.gas.ideal import IdealGas, choose_cutoff, thermodynamics
from heg.gas.plane_waves import integer_vectors
from heg.gas.system import System
from heg.reference.determinants import Block, block_of, level_corrections
from heg.statistics import Estimate

TAIL = 45.0  # centre-of-mass energies above the lowest by more than TAIL * T weigh e^-45
KINDS = ("exact", "corrected", "diagonal", "degenerate", "ideal")


class Spectrum(NamedTuple):
    """Relative levels of the classes of total momentum.

    Each class is given by its member with N/2 >= P_1 >= P_2 ... >= 0.

    Attributes:
      totals: P of each class.                              [classes, d] int
      levels: for each kind of KINDS, levels of each class, hartree.
    """

    totals: np.ndarray
    levels: dict[str, list[np.ndarray]]


class Limits(NamedTuple):
    """Thermodynamics in the limit of an infinite basis, per cell.

    Attributes:
      free_energy, energy: hartree.
      entropy: k_B.
    """

    free_energy: Estimate
    energy: Estimate
    entropy: Estimate


def spectrum(system: System, cutoff: float) -> Spectrum:
    """Relative levels of the gas; they depend neither on its temperature nor on its twist.

    Args:
      system: the gas, 2 to 4 electrons.
      cutoff: highest relative kinetic energy of a determinant, hartree.
    Raises:
      ValueError: the basis is empty or too large.
    """
    totals = _classes(system)
    levels: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for total in totals:
        block = block_of(system, total, cutoff)
        for kind, values in _levels(system, block).items():
            levels[kind].append(values)
    return Spectrum(totals, levels)


def canonical(system: System, relative: Spectrum) -> dict[str, IdealGas]:
    """Free energy, energy and entropy of the cell for each kind of KINDS.

    Temperature and twist are those of the gas.
    """
    # relative levels are the same at every twist, the motion of the centre is not
    motion = _centre_of_mass(system, relative.totals)
    return {kind: _canonical(system, motion, levels) for kind, levels in relative.levels.items()}


def infinite_basis(system: System, spectra: dict[float, Spectrum]) -> dict[str, Limits]:
    """F, E, S of the cell in an infinite basis: exact, of degenerate shells, and diagonal.

    What the basis leaves out of the levels is added to second order (Epstein and Nesbet; as in
    Huron, Malrieu and Rancurel, J. Chem. Phys. 58, 5745 (1973), doi:10.1063/1.1679199); it is no
    upper bound.  What is still missing falls as cutoff^-p once the cutoff is above all other
    energies.  p follows from the cusp: v(q)^2 / q^2 of the states left out, times 1 / q^2 for equal
    spins alone.

    Args:
      system: the gas.
      spectra: by cutoff, hartree; four at least.
    Returns:
      The limits by kind: "exact" by a line through the three highest cutoffs, its error how far it
      moves with the highest two alone and with the three before; "degenerate" and "diagonal" at the
      highest cutoff, their error the change from the one before.  All errors are bounds rather than
      standard deviations.
    """
    # two electrons of one spin meet less often: the error falls faster
    exponent = system.dim / 2 if system.n_down else system.dim / 2 + 1
    cutoffs = np.array(sorted(spectra))
    tables = [canonical(system, spectra[cutoff]) for cutoff in cutoffs]
    # F, E, S of the ideal gas in each basis, and in all orbitals
    in_basis = np.array([table["ideal"] for table in tables])
    levels = choose_cutoff(system, 1e-12).orbitals.energy
    ideal = thermodynamics(levels, system.beta, system.spins)
    limits = {}
    for kind in ("exact", "degenerate", "diagonal"):
        source = "corrected" if kind == "exact" else kind
        # the part of the interaction in each basis: F, E, S
        whole = np.array([table[source] for table in tables])
        added = whole - in_basis
        estimates = []
        for exact, values in zip(ideal, added.T):
            if kind == "exact":
                limit = _extrapolated(cutoffs**-exponent, values)
            else:  # these need no states but those in thermal reach
                before, last = values[-2:]
                limit = Estimate(last, abs(last - before))
            estimates.append(Estimate(exact + limit.mean, limit.error))
        limits[kind] = Limits(*estimates)
    return limits


def _extrapolated(x, values):
    """The values at x = 0 by lines through the last three, two, and three before the last."""
    # how far the others move from the first is the error
    lines = []
    for part in (slice(-3, None), slice(-2, None), slice(-4, -1)):
        at_zero, _ = polynomial.polyfit(x[part], values[part], 1)
        lines.append(at_zero)
    best = lines[0]
    return Estimate(best, max(abs(best - other) for other in lines[1:]))


def occupations(system: System, cutoff: float, n: np.ndarray) -> np.ndarray:
    """Mean occupation of plane waves at the temperature and twist of the gas.

    It is the exact momentum distribution.

    Args:
      system, cutoff: as in `spectrum`.
      n: integer vectors of the plane waves.                [M, d] int
    Returns:
      Of each spin, up first.                               [spins, M]
    """
    totals = _classes(system)
    blocks = [block_of(system, total, cutoff) for total in totals]
    solutions = [np.linalg.eigh(block.hamiltonian) for block in blocks]
    levels_of_classes = [solution.eigenvalues for solution in solutions]
    motion = _centre_of_mass(system, totals)
    log_z = _log_partition(system, motion, levels_of_classes)
    occupied = np.zeros((len(system.spins), len(n)))
    # each class once, then its images under shifts and symmetries
    for number, (levels, vectors) in enumerate(solutions):
        # of each determinant, without its centre of mass: sum_i |<D|i>|^2 e^{-beta E_i} / Z
        probabilities = np.exp(-system.beta * levels - log_z)
        weight = vectors**2 @ probabilities
        table = _occupation_table(system, blocks[number], weight)
        members = np.flatnonzero(motion.number == number)
        for index in members:
            boltzmann = np.exp(-system.beta * motion.energy[index])
            in_class = motion.image(index, n)
            occupied += boltzmann * table.at(in_class)
    return occupied


class _OccupationTable(NamedTuple):
    """Occupations of plane waves in one class of total momentum.

    Attributes:
      reach: largest component of n that is occupied.
      values: by spin and n + reach + 1; the rim is empty.    [spins, 2 reach + 3, ...]
    """

    reach: int
    values: np.ndarray

    def at(self, n):
        """Occupations of plane waves, wherever they are.  [M, d] -> [spins, M]"""
        index = np.clip(n + self.reach + 1, 0, 2 * self.reach + 2)
        return self.values[:, *index.T]


def _occupation_table(system, block, weight):
    """The table of a block whose determinants have the given weights [D]."""
    reach = int(np.max(np.abs(block.n)))
    sides = (2 * reach + 3,) * system.dim
    values = np.zeros((len(system.spins), *sides))
    weights = weight[:, None]
    for spin, part in enumerate(system.parts):
        index = block.n[:, part] + reach + 1
        # one array for each component of n
        components = tuple(index.transpose(2, 0, 1))
        # add.at counts a plane wave again for each determinant that has it
        np.add.at(values[spin], components, weights)
    return _OccupationTable(reach, values)


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

    def of_class(self, number):
        """Energies of the total momenta of one class."""
        return self.energy[self.number == number]

    def image(self, index, n):
        """Plane waves of one total momentum as they are in its class.  [M, d]"""
        return self.sign[index] * n[:, self.axes[index]] - self.shift[index]


def _classes(system):
    """Total momenta that differ by more than a symmetry of the cell and a shift of all n.

    [classes, d]
    """
    grid = np.indices((system.electrons // 2 + 1,) * system.dim)
    totals = grid.reshape(system.dim, -1).T
    ordered = np.all(np.diff(totals, axis=1) <= 0, axis=1)
    return totals[ordered]


def _centre_of_mass(system, totals):
    """All total momenta that the temperature reaches."""
    electrons = system.electrons
    unit = system.wavevector_unit**2 / 2
    shift = electrons * np.asarray(system.twist)
    reach = TAIL * system.temperature
    # the lowest Q lies within half a spacing of zero in each direction
    lowest = system.dim * electrons**2 / 4
    radius = np.sqrt(reach * electrons / unit + lowest)
    highest = int(np.ceil(radius)) + 1
    grid = integer_vectors(system.dim, highest)
    total = (grid - np.round(shift)).astype(int)
    # Q^2 / 2N with Q = (2 pi / L)(P + N twist)
    squared = np.sum((total + shift) ** 2, axis=1)
    energy = unit * squared / electrons
    inside = energy < energy.min() + reach
    total = total[inside]
    # each component into 0 ... N/2, then in decreasing order
    rest = total % electrons
    sign = np.where(2 * rest > electrons, -1, 1)
    reflected = (sign * total) % electrons
    axes = np.argsort(-reflected, axis=1, kind="stable")
    sign = np.take_along_axis(sign, axes, axis=1)
    image = sign * np.take_along_axis(total, axes, axis=1)
    # the class whose totals are the images modulo N
    rest = image % electrons
    same = np.all(rest[:, None] == totals, axis=2)
    return _Motion(
        energy=energy[inside],
        number=np.argmax(same, axis=1),
        axes=axes,
        sign=sign,
        shift=image // electrons,
    )


def _log_partition(system, motion, levels):
    """ln Z from the relative levels of each class."""
    logs = []
    # Z of a class is a product, and the sum over classes is Z
    beta = system.beta
    for number, relative in enumerate(levels):
        moving = motion.of_class(number)
        if len(moving):
            log_motion = logsumexp(-beta * moving)
            log_relative = logsumexp(-beta * relative)
            logs.append(log_motion + log_relative)
    return logsumexp(logs)


def _canonical(system, motion, levels):
    """Thermodynamics from the relative levels of each class."""
    log_z = _log_partition(system, motion, levels)
    beta = system.beta
    energy = 0.0
    for number, relative in enumerate(levels):
        # energies of the centre of mass and of the relative motion add
        both = np.add.outer(motion.of_class(number), relative)
        probability = np.exp(-beta * both - log_z)
        energy += np.sum(both * probability)
    free_energy = -log_z / beta
    entropy = beta * (energy - free_energy)
    return IdealGas(
        free_energy=float(free_energy),
        energy=float(energy),
        entropy=float(entropy),
    )


def _levels(system: System, block: Block) -> dict[str, np.ndarray]:
    """Relative levels of each kind; the degenerate ones mix determinants of one kinetic energy."""
    hamiltonian = block.hamiltonian
    exact, vectors = np.linalg.eigh(hamiltonian)
    degenerate = []
    for energy in np.unique(block.kinetic):
        shell = np.flatnonzero(block.kinetic == energy)
        within = hamiltonian[np.ix_(shell, shell)]
        degenerate.append(np.linalg.eigvalsh(within))
    # kinetic is N times the energy in units of (2 pi / L)^2 / 2
    unit = system.wavevector_unit**2 / 2
    corrections = level_corrections(system, block, exact, vectors)
    return {
        "exact": exact,
        "corrected": exact + corrections,
        "diagonal": np.diagonal(hamiltonian),
        "degenerate": np.concatenate(degenerate),
        "ideal": unit * block.kinetic / system.electrons,
    }
