r"""Full diagonalisation of a few electrons: the reference that cannot be argued with.

The Hamiltonian conserves the total momentum Q = (2 pi / L)(P + N twist), P the sum of the integer vectors n of the
occupied plane waves, and Coulomb energies do not change when all n are shifted by the same vector.  So the levels of P
are

.. math:: E = Q^2 / 2N + E_{rel}(P \bmod N) ,

the same relative levels for every twist: N^d blocks, fewer by the symmetry of the cell, give the whole partition
function.  A block holds the determinants of relative kinetic energy up to a cutoff; between two of them the
interaction is, with v(q) = 4 pi / q^2 in three and 2 pi / q in two dimensions,

.. math:: V = \frac{\lambda}{2 L^d} \sum_{q \ne 0} v(q) \sum_{k k' s s'}
          c^+_{k+q,s} c^+_{k'-q,s'} c_{k',s'} c_{k,s} + \frac{\lambda N v_M}{2}

(Fetter and Walecka, Quantum Theory of Many-Particle Systems, section 3; the Madelung term as in heg.ewald).  Three
free energies come from each block: the exact one; that of the best p(K) without flow,
F_diag = -T ln sum_K e^{-beta <K|H|K>}; and that of determinants mixed within each degenerate kinetic energy alone.
In a finite basis each is an upper bound of its limit (Peierls and Bogoliubov).
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from heg.ewald import madelung
from heg.ideal import IdealGas, choose_cutoff, thermodynamics
from heg.statistics import Estimate
from heg.system import System

TAIL = 45.0  # centre-of-mass energies above the lowest by more than TAIL * T weigh e^-45
MOST = 8000  # determinants in a block: 0.5 GB of matrix
KINDS = ("exact", "diagonal", "degenerate", "ideal")


class Block(NamedTuple):
    """Determinants of one total momentum and the Hamiltonian of relative motion between them.

    Attributes:
      n: occupied plane waves, in order within a spin.      [D, N, d] int
      kinetic: relative kinetic energy in units of (2 pi / L)^2 / 2, times N: an integer.    [D] int
      hamiltonian: hartree.                                 [D, D]
    """

    n: np.ndarray
    kinetic: np.ndarray
    hamiltonian: np.ndarray


class Spectrum(NamedTuple):
    """Relative levels of the classes of total momentum, each class by its member with N/2 >= P_1 >= P_2 ... >= 0.

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
        block = make_block(system, total, cutoff)
        for kind, values in _levels(system, block).items():
            levels[kind].append(values)
    return Spectrum(totals, levels)


def canonical(system: System, found: Spectrum) -> dict[str, IdealGas]:
    """Free energy, energy and entropy of the cell at the temperature and twist of the gas, for each kind of KINDS."""
    motion = _centre_of_mass(system, found.totals)
    return {kind: _canonical(system, motion, levels) for kind, levels in found.levels.items()}


def infinite_basis(system: System, spectra: dict[float, Spectrum]) -> dict[str, IdealGas]:
    """The limit of an infinite basis: F, E, S of the cell as Estimates, for each kind but the ideal gas.

    The difference to the ideal gas in the same basis falls as cutoff^-p once the cutoff is above all other energies; p
    follows from the cusp: v(q)^2 / q^2 of the states left out, times 1 / q^2 for equal spins alone.

    Args:
      system: the gas.
      spectra: by cutoff, hartree; four at least.
    Returns:
      Means from the three highest cutoffs.  The error is how far these move with the highest two alone and with the
      three before, a bound rather than a standard deviation.
    """
    exponent = system.dim / 2 if system.n_down else system.dim / 2 + 1
    cutoffs = np.array(sorted(spectra))
    tables = [canonical(system, spectra[cutoff]) for cutoff in cutoffs]
    ideal = thermodynamics(choose_cutoff(system, 1e-12).orbitals.energy, system.beta, system.spins)

    def limit(kind, name):
        beyond = np.array([getattr(table[kind], name) - getattr(table["ideal"], name) for table in tables])
        if kind == "diagonal":  # no states but those in thermal reach
            return Estimate(getattr(ideal, name) + beyond[-1], abs(beyond[-1] - beyond[-2]))
        fit = lambda part: np.polynomial.polynomial.polyfit(cutoffs[part] ** -exponent, beyond[part], 1)[0]
        best = fit(slice(-3, None))
        return Estimate(
            getattr(ideal, name) + best, max(abs(best - fit(slice(-2, None))), abs(best - fit(slice(-4, -1))))
        )

    return {kind: IdealGas(*(limit(kind, name) for name in IdealGas._fields)) for kind in KINDS if kind != "ideal"}


def occupations(system: System, cutoff: float, n: np.ndarray) -> np.ndarray:
    """Mean occupation of plane waves at the temperature and twist of the gas: the exact momentum distribution.

    Args:
      system, cutoff: as in `spectrum`.
      n: integer vectors of the plane waves.                [M, d] int
    Returns:
      Of each spin, up first.                               [spins, M]
    """
    totals = _classes(system)
    blocks = [make_block(system, total, cutoff) for total in totals]
    levels, vectors = zip(*(np.linalg.eigh(block.hamiltonian) for block in blocks))
    motion = _centre_of_mass(system, totals)
    log_z = _log_partition(system, motion, levels)
    found = np.zeros((len(system.spins), len(n)))
    for number, (block, level, vector) in enumerate(zip(blocks, levels, vectors)):
        weight = vector**2 @ np.exp(-system.beta * level - log_z)  # of each determinant, without its centre of mass
        reach = int(np.max(np.abs(block.n)))
        table = np.zeros((len(system.spins), *(2 * reach + 3,) * system.dim))
        for spin, part in enumerate(system.parts):
            np.add.at(table[spin], tuple((block.n[:, part] + reach + 1).transpose(2, 0, 1)), weight[:, None])
        for place in np.flatnonzero(motion.number == number):
            image = motion.sign[place] * n[:, motion.axes[place]] - motion.shift[place]
            image = tuple(np.clip(image + reach + 1, 0, 2 * reach + 2).T)  # the rim of the table is empty
            found += np.exp(-system.beta * motion.energy[place]) * table[:, *image]
    return found


def make_block(system: System, total: np.ndarray, cutoff: float) -> Block:
    """The determinants with sum of n = `total` [d] and their Hamiltonian; `cutoff` as in `spectrum`."""
    unit = (2 * np.pi / system.box) ** 2 / 2
    n = _determinants(system, np.asarray(total), cutoff / unit)
    if not 0 < len(n) <= MOST:
        raise ValueError(f"a cutoff of {cutoff:g} Ha gives {len(n)} determinants: choose one that gives 1 to {MOST}")
    kinetic = system.electrons * np.sum(n**2, axis=(1, 2)) - np.sum(np.square(total))
    hamiltonian = system.coupling * _interaction(system, n, kinetic)
    diagonal = unit * kinetic / system.electrons + system.coupling * system.electrons * madelung(system) / 2
    hamiltonian[np.diag_indices(len(n))] += diagonal
    return Block(n, kinetic, hamiltonian)


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
    """Total momenta that differ by more than a symmetry of the cell and a shift of all n.  [classes, d]"""
    grid = np.indices((system.electrons // 2 + 1,) * system.dim).reshape(system.dim, -1).T
    return grid[np.all(np.diff(grid, axis=1) <= 0, axis=1)]


def _centre_of_mass(system, totals):
    """All total momenta that the temperature reaches."""
    electrons, unit = system.electrons, (2 * np.pi / system.box) ** 2 / 2
    twist = np.asarray(system.twist)
    radius = int(np.ceil(np.sqrt(TAIL * system.temperature * electrons / unit + system.dim * electrons**2 / 4))) + 1
    total = np.indices((2 * radius + 1,) * system.dim).reshape(system.dim, -1).T - radius - np.round(electrons * twist)
    total = total.astype(int)
    energy = unit * np.sum((total + electrons * twist) ** 2, axis=1) / electrons
    total, energy = (array[energy < energy.min() + TAIL * system.temperature] for array in (total, energy))
    rest = total % electrons
    sign = np.where(2 * rest > electrons, -1, 1)
    axes = np.argsort(-((sign * total) % electrons), axis=1, kind="stable")
    sign = np.take_along_axis(sign, axes, axis=1)
    image = sign * np.take_along_axis(total, axes, axis=1)
    number = np.argmax(np.all((image % electrons)[:, None] == totals, axis=2), axis=1)
    return _Motion(energy, number, axes, sign, image // electrons)


def _log_partition(system, motion, levels):
    weights = [-system.beta * motion.energy[motion.number == number] for number in range(len(levels))]
    return logsumexp([logsumexp(w) + logsumexp(-system.beta * level) for w, level in zip(weights, levels) if len(w)])


def _canonical(system, motion, levels):
    log_z, energy = _log_partition(system, motion, levels), 0.0
    for number, level in enumerate(levels):
        moving = motion.energy[motion.number == number]
        both = np.add.outer(moving, level)
        energy += np.sum(both * np.exp(-system.beta * both - log_z))
    free_energy = -log_z / system.beta
    return IdealGas(float(free_energy), float(energy), float(system.beta * (energy - free_energy)))


def _levels(system, block):
    """Relative levels of each kind.  The degenerate kind mixes determinants of one kinetic energy alone."""
    diagonal = np.diagonal(block.hamiltonian)
    shells = [np.flatnonzero(block.kinetic == energy) for energy in np.unique(block.kinetic)]
    return {
        "exact": np.linalg.eigvalsh(block.hamiltonian),
        "diagonal": diagonal,
        "degenerate": np.concatenate([np.linalg.eigvalsh(block.hamiltonian[np.ix_(s, s)]) for s in shells]),
        "ideal": (2 * np.pi / system.box) ** 2 / 2 * block.kinetic / system.electrons,
    }


def _determinants(system, total, highest):
    """Sets of plane waves with sum of n = `total` and sum of |n - P/N|^2 up to `highest`, in order within a spin.

    Built electron by electron; the last one is what the total leaves, and those to come cost at least what undoes the
    momentum so far.  [D, N, d]
    """
    electrons, centre = system.electrons, total / system.electrons
    reach = int(np.sqrt(highest)) + 2
    grid = np.indices((2 * reach + 1,) * system.dim).reshape(system.dim, -1).T - reach
    candidates = np.flatnonzero(np.sum((grid - centre) ** 2, axis=1) * electrons / (electrons - 1) <= highest + 1e-9)
    sets = np.zeros((1, 0), int)
    for place in range(electrons):
        left = electrons - 1 - place
        if left:
            new = np.tile(candidates, len(sets))
            sets = np.repeat(sets, len(candidates), axis=0)
        else:
            rest = total - np.sum(grid[sets], axis=1)
            sets, rest = (array[np.all(np.abs(rest) <= reach, axis=1)] for array in (sets, rest))
            new = np.ravel_multi_index((rest + reach).T, (2 * reach + 1,) * system.dim)
        sets = np.column_stack([sets, new])
        if place and place != system.n_up:
            sets = sets[sets[:, -2] < sets[:, -1]]
        kappa = grid[sets] - centre
        recoil = np.sum(np.sum(kappa, axis=1) ** 2, axis=1)
        sets = sets[np.sum(kappa**2, axis=(1, 2)) + recoil / max(left, 1) <= highest + 1e-9]
    return grid[sets]


def _interaction(system, n, kinetic):
    """V of the module's formula without its last term and lambda.  [D, D]"""
    electrons, dim, v = system.electrons, system.dim, np.zeros((len(n), len(n)))
    reach = int(np.sqrt(kinetic.max() / electrons)) + 2
    side = 2 * reach + 1
    code = lambda n: (n + reach) @ side ** np.arange(dim)[::-1]  # rises in the order of `n`
    word = lambda codes: codes @ (side**dim) ** np.arange(electrons)  # of a determinant
    codes = code(n)
    words = word(codes)
    order = np.argsort(words)
    transfer = np.indices((2 * side - 1,) * dim).reshape(dim, -1).T - side + 1
    transfer = transfer[np.any(transfer, axis=1)]
    size = 2 * np.pi / system.box * np.linalg.norm(transfer, axis=1)
    strength = (4 * np.pi / size**2 if dim == 3 else 2 * np.pi / size) / system.box**dim
    same = [(i, j) for part in system.parts for i in range(electrons)[part] for j in range(electrons)[part] if i < j]
    for a, b in itertools.combinations(range(electrons), 2):
        cost = 2 * electrons * (np.sum(transfer**2, axis=1) + (n[:, a] - n[:, b]) @ transfer.T)
        row, q = np.nonzero(kinetic[:, None] + cost <= kinetic.max())
        moved = codes[row]
        moved[:, a], moved[:, b] = code(n[row, a] + transfer[q]), code(n[row, b] - transfer[q])
        # two electrons in one plane wave: none; others are brought in order, with the sign of that
        sign = np.ones(len(row))
        for i, j in same:
            sign *= np.sign(moved[:, j] - moved[:, i])
        for part in system.parts:
            moved[:, part] = np.sort(moved[:, part], axis=1)
        column = order[np.searchsorted(words, word(moved), sorter=order) % len(n)]
        np.add.at(v, (row, column), np.where(sign, sign * strength[q], 0.0))
    return v
