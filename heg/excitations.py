"""The rows of the second-order free energy: a trained density matrix looked at state by state."""

import dataclasses
from functools import cached_property, partial

import jax
import numpy as np

from heg.amplitudes import AmplitudePrograms, Looked, programs, wide_orbitals
from heg.config import Config
from heg.degenerate import shell_correction
from heg.devices import everywhere
from heg.doubles import DoublesOf, count_doubles
from heg.free_energy import Params
from heg.ideal import choose_cutoff
from heg.orbitals import Orbitals
from heg.pair_operators import PairElements, count_operators, pair_elements, usable_operators
from heg.run import check_draws
from heg.second_order import (
    Correction,
    Known,
    Levels,
    Row,
    spectrum_energies,
    spectrum_of,
    thermal_denominator,
    unbiased_square,
)
from heg.statistics import independent
from heg.structure import grid_of
from heg.system import System

SAMPLES = {10: 512}  # of x at each K, in gases of at most so many electrons
FEWEST_SAMPLES = 256  # in larger ones
REPEATED = 16  # samples of x at each state of the regression of the energies
STATES = 128  # drawn, and as many excited, for that regression
LONGEST = 3.0  # momentum transfers up to LONGEST k_F ...
FEW_DOUBLES = 8000  # ... and farther in small gases, as long as there are no more doubles
MOST_DOUBLES = 2 * 10**6  # ... and less far in large ones
FARTHEST = 10  # times 2 pi / L, the most in small gases
KNOWN_DOUBLES = 10**8  # of all K together whose known elements are computed


def largest_transfer(system: System) -> int:
    """|n|^2 of the largest momentum transfer by default."""
    gas = system.of_unit_density
    needed = int((LONGEST * gas.fermi_wavevector * gas.box / (2 * np.pi)) ** 2)
    few = [reach**2 for reach in range(1, FARTHEST + 1) if count_doubles(gas, reach**2) <= FEW_DOUBLES]
    largest = max(needed, *few, 1)
    while largest > 1 and count_doubles(gas, largest) > MOST_DOUBLES:
        largest -= 1
    return largest


@dataclasses.dataclass(frozen=True)
class Excitations:
    """A density matrix with frozen parameters and its double excitations.

    Attributes:
      system: the gas.
      config: of the run; gives the sizes of the model.
      params: of the model.
      step: of the checkpoint they are from.
      largest: |n|^2 of the largest momentum transfer.
    """

    system: System
    config: Config
    params: Params
    step: int
    largest: int

    @property
    def count(self) -> int:
        """Samples of x at each K, the same on all machines."""
        return next((count for most, count in SAMPLES.items() if self.system.electrons <= most), FEWEST_SAMPLES)

    @property
    def operators(self) -> int:
        """Number of operators of heg.pair_operators."""
        return count_operators(self.system)

    @cached_property
    def structure_shape(self) -> tuple[int, int, int]:
        """Pairs of spins, shells of S(q) and bins of g(r)."""
        grid = grid_of(self.system)
        return len(self.system.spins) * (len(self.system.spins) + 1) // 2, len(grid.shells.count), len(grid.share)

    @cached_property
    def programs(self) -> AmplitudePrograms:
        """Compiled functions of the gas."""
        gas = self.system.of_unit_density
        compiled = programs(gas, self.config.model, self.count, self.largest)
        return AmplitudePrograms(*(partial(program, self.system) for program in compiled))

    @cached_property
    def orbitals(self) -> Orbitals:
        """The plane waves of p(K), in front, and all that a double can occupy."""
        gas = self.system.of_unit_density
        orbitals = choose_cutoff(gas, self.config.model.orbital_tolerance).orbitals
        return wide_orbitals(gas, orbitals, self.largest).at_density(self.system.rs)

    @cached_property
    def doubles_of(self) -> DoublesOf:
        """The doubles of any K of p(K)."""
        gas = self.system.of_unit_density
        orbitals = choose_cutoff(gas, self.config.model.orbital_tolerance).orbitals
        return DoublesOf(self.system, orbitals, self.largest)

    def look(self, states: np.ndarray, guides: np.ndarray, key: jax.Array) -> Looked:
        """Samples of x at states [B, N], B = `count`, drawn from these and their guides.

        Raises:
          RunError: a draw failed for good, or too many were repeated.
        """
        keys = jax.random.split(key, len(states))
        states, guides = (everywhere(each.astype(np.int32)) for each in (states, guides))
        found = self.programs.look(self.params.flow, states, guides, keys)
        check_draws(self.step, int(found.lost), int(found.redrawn), len(states))
        return found

    def calibrate(self, states: np.ndarray, key: jax.Array) -> Levels:
        """Fits the energies and what goes along with the operators.

        Args:
          states: draws of K; STATES of them are used.      [B, N]
          key: of the random numbers.
        """
        each = self.count // REPEATED // 2
        generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        looked = []
        for number in range(-(-STATES // each)):
            drawn = states[number * each : (number + 1) * each]
            excited = np.stack([self._excite(state, generator) for state in drawn])
            both = np.repeat(np.concatenate([drawn, excited]), REPEATED, axis=0)
            filled = np.resize(both, (self.count, both.shape[1]))
            found = self.look(filled, filled, jax.random.fold_in(key, number))
            samples = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(both)], _samples(found))
            looked.append(samples | {"drawn": np.arange(len(both)) < len(both) // 2})
        together = {name: np.concatenate([part[name] for part in looked]) for name in looked[0]}
        return _fit(together, usable_operators(self.system))

    def row(self, levels: Levels, state: np.ndarray, key: jax.Array) -> Row:
        """What one K says.

        Args:
          levels: of `calibrate`.
          state: occupied orbitals.                         [N]
          key: of the random numbers.
        """
        guide = self._excite(np.asarray(state), np.random.default_rng(np.asarray(jax.random.key_data(key))))
        looked = self.look(*(np.tile(each, (self.count, 1)) for each in (state, guide)), key)
        energy = looked.energy - looked.of_state @ levels.weights
        deviation = looked.weight * (energy - looked.operators @ levels.operators)
        half = self.count // 2
        first, second = slice(0, half), slice(half, None)
        project = lambda part: jax.tree.map(np.asarray, self.programs.project(looked.z[part], state, deviation[part]))
        sums = project(first), project(second)
        doubles = self.doubles_of(state)
        operators = self.elements(levels)
        allowed, known = doubles.allowed, doubles.elements(operators)
        total = [np.add(*parts)[allowed] for parts in zip(*sums)]
        squares = unbiased_square(known[allowed], *total, self.count)
        gap = levels.gap(doubles)
        h = thermal_denominator(gap, self.system.beta)
        lowered, of_known = squares @ h[allowed], known[allowed] ** 2 @ h[allowed]
        responses = []
        for sampled, other in ((sums[0], second), (sums[1], first)):
            weights = np.where(allowed, (known + sampled.first / half) * h, 0.0)
            part = (looked.x[other], looked.z[other], looked.potential[other], looked.weight[other])
            responses.append(self.programs.respond(*part, state, weights))
        change = jax.tree.map(lambda a, b: -np.asarray(a + b), *responses)
        by_transfer = lambda values: np.bincount(doubles.transfer[allowed], values, self.largest + 1)
        moved = []
        for direction in levels.directions():
            shifted = gap + direction[0] * doubles.ideal + direction[1] * doubles.fock
            moved.append(squares @ thermal_denominator(shifted[allowed], self.system.beta))
        sampled = known[allowed] + total[0] / self.count
        products = squares, sampled * known[allowed], known[allowed] ** 2
        near, kind = doubles.alike[allowed], (doubles.exchanged[allowed] == 0).astype(int)
        place = kind * (self.largest + 1) + doubles.transfer[allowed]
        alike = [np.bincount(place, near * values, 2 * (self.largest + 1)) for values in products]
        return Row(
            variance=_variance(np.asarray(looked.energy), np.asarray(looked.weight)),
            squared=by_transfer(squares),
            lowered=by_transfer(squares * h[allowed]),
            known=np.asarray(of_known),
            products=np.array([lowered, of_known]) * of_known,
            moved=np.array(moved),
            alike=np.reshape(alike, (3, 2, -1)),
            spectrum=spectrum_of(squares, gap[allowed], spectrum_energies(self.system)),
            response={
                "potential": change.potential / self.system.electrons,
                "S_q": change.s,
                "g_r": change.g,
            },
        )

    def elements(self, levels: Levels) -> PairElements:
        """Elements of the known part of H."""
        return pair_elements(self.system, levels.operators, self.doubles_of.strength)

    def known(self, levels: Levels, states: np.ndarray) -> Known:
        """The sum of W^2 h of the known elements over states [B, N].

        Of large gases fewer states are taken, KNOWN_DOUBLES over their number of doubles, but 64 at least.
        """
        operators = self.elements(levels)
        states = states[: max(64, KNOWN_DOUBLES // count_doubles(self.system, self.largest))]
        distinct, counts = np.unique(states, axis=0, return_counts=True)
        values = []
        for state in distinct:
            doubles = self.doubles_of(state)
            squares = np.where(doubles.allowed, doubles.elements(operators), 0.0) ** 2
            values.append(squares @ thermal_denominator(levels.gap(doubles), self.system.beta))
        values = np.repeat(values, counts)
        return Known(*independent(values), float(np.var(values)))

    def beyond(self, levels: Levels, alike: np.ndarray, states: np.ndarray) -> Correction:
        """What degenerate states add, mean over states [B, N]; `alike` is the mean of `Row.alike`.

        The known elements are scaled to those that were sampled, for each momentum transfer.
        """
        operators = self.elements(levels)
        scale = np.divide(alike[1], alike[2], out=np.ones_like(alike[1]), where=alike[2] > 0)

        def scaled(doubles):
            by_transfer = scale[(doubles.exchanged == 0).astype(int), doubles.transfer]
            return doubles.elements(operators) * np.where(doubles.alike, by_transfer, 1.0)

        distinct, counts = np.unique(states, axis=0, return_counts=True)
        found = []
        for state in distinct:
            vectors = self.doubles_of.n[state]
            found.append(shell_correction(self.doubles_of, vectors, scaled, levels.gap, self.system.beta))
        values, unsure = np.repeat(found, counts, axis=0).T
        return Correction(float(values.mean()), independent(values).error, float(unsure.mean()))

    def _excite(self, state, generator):
        """A double of K, likely one that counts, as its occupied orbitals [N]."""
        doubles = self.doubles_of(state)
        direct = self.doubles_of.strength[doubles.transfer] - self.doubles_of.strength[doubles.exchanged]
        chance = np.where(doubles.allowed, direct**2 * thermal_denominator(doubles.ideal, self.system.beta), 0.0)
        if not chance.any():
            return state
        place = generator.choice(len(chance), p=chance / chance.sum())
        n = self.doubles_of.excited(self.doubles_of.n[state], place)
        index = {tuple(vector): number for number, vector in enumerate(self.orbitals.n)}
        parts = [sorted(index[tuple(vector)] for vector in n[part]) for part in self.system.parts]
        return np.concatenate(parts)


def _variance(energy, weight):
    """Of complex energies with weights of mean 1."""
    deviation = energy - np.average(energy, weights=weight)
    return weight @ np.abs(deviation) ** 2 / (len(weight) - 1)


def _samples(looked):
    return {"energy": looked.energy, "of_state": looked.of_state, "operators": looked.operators}


def _fit(samples, usable):
    """Levels from samples of states, REPEATED of each one after the other."""
    of_each = lambda values: values.reshape(-1, REPEATED, *values.shape[1:])
    energy, operators = of_each(samples["energy"]), of_each(samples["operators"])
    of_state = of_each(samples["of_state"])[:, 0]
    # the operators within each drawn state: the flow serves these, and couples excited ones in another way
    drawn = samples["drawn"][::REPEATED]
    centred = lambda values: (values - values.mean(axis=1, keepdims=True)).reshape(-1, *values.shape[2:])
    weights = np.zeros(len(usable))
    weights[usable] = _least_squares(centred(operators[drawn][..., usable]), centred(energy[drawn]))
    # over the states: the energies
    means = np.real(energy - operators @ weights).mean(axis=1)
    coefficients, covariance = _linear_fit(of_state, means)
    return Levels(coefficients, covariance[1:, 1:], weights)


def _least_squares(regressors, values):
    """Real weights of complex regressors [S, R] for complex values [S]."""
    scale = np.sqrt(np.mean(np.abs(regressors) ** 2, axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    both = np.concatenate([regressors.real, regressors.imag]) / scale
    target = np.concatenate([values.real, values.imag])
    return np.linalg.lstsq(both, target, rcond=1e-6)[0] / scale


def _linear_fit(regressors, values):
    """Coefficients and their covariance; without room for a fit, those of the ideal and Hartree-Fock energies."""
    prior = np.array([0.0, 1.0, 1.0])
    deviations = regressors - regressors.mean(axis=0)
    scale = np.sqrt(np.mean(deviations**2, axis=0))
    used = scale > 1e-9 * np.abs(regressors).max(axis=0)
    design = np.column_stack([np.ones(len(values)), deviations[:, used] / scale[used]])
    target = values - regressors @ prior
    inverse = np.linalg.pinv(design.T @ design, rcond=1e-10)
    solution = inverse @ design.T @ target
    residual = target - design @ solution
    spread = residual @ residual / max(len(values) - design.shape[1], 1)
    coefficients, covariance = prior.copy(), np.zeros((3, 3))
    coefficients[used] += solution[1:] / scale[used]
    covariance[np.ix_(used, used)] = spread * inverse[1:, 1:] / np.outer(scale[used], scale[used])
    coefficients[0] = np.mean(values - regressors[:, 1:] @ coefficients[1:])
    return coefficients, covariance
