"""A trained density matrix, its parameters frozen, and the double excitations of its states."""

import dataclasses
from functools import cached_property, partial

import jax
import numpy as np

from heg.config import Config
from heg.gas.ideal import choose_cutoff
from heg.gas.plane_waves import Orbitals
from heg.gas.system import System
from heg.model.density_matrix import Params
from heg.observables.second_order.amplitudes import (
    AmplitudePrograms,
    Looked,
    programs,
    wide_orbitals,
)
from heg.observables.second_order.doubles import DoublesOf, count_doubles
from heg.observables.second_order.perturbation import thermal_denominator
from heg.parallel.devices import everywhere
from heg.training.verdict import check_draws

SAMPLES = {10: 512}  # of x at each K, in gases of at most so many electrons
FEWEST_SAMPLES = 256  # in larger ones
LONGEST = 3.0  # momentum transfers up to LONGEST k_F ...
FEW_DOUBLES = 8000  # ... and farther in small gases, as long as there are no more doubles
MOST_DOUBLES = 2 * 10**6  # ... and less far in large ones
FARTHEST = 10  # times 2 pi / L, the most in small gases


def largest_transfer(system: System) -> int:
    """|n|^2 of the largest momentum transfer by default."""
    gas = system.of_unit_density
    needed = int((LONGEST * gas.fermi_wavevector * gas.box / (2 * np.pi)) ** 2)
    few = [
        reach**2 for reach in range(1, FARTHEST + 1) if count_doubles(gas, reach**2) <= FEW_DOUBLES
    ]
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
        return next(
            (count for most, count in SAMPLES.items() if self.system.electrons <= most),
            FEWEST_SAMPLES,
        )

    @cached_property
    def programs(self) -> AmplitudePrograms:
        """Compiled functions of the gas."""
        gas = self.system.of_unit_density
        compiled = programs(gas, self.config.model, self.count, self.largest)
        return AmplitudePrograms(*(partial(program, self.system) for program in compiled))

    @cached_property
    def drawn_orbitals(self) -> Orbitals:
        """The plane waves of p(K)."""
        cutoff = choose_cutoff(self.system.of_unit_density, self.config.model.orbital_tolerance)
        return cutoff.orbitals.at_density(self.system.rs)

    @cached_property
    def orbitals(self) -> Orbitals:
        """The plane waves of p(K), in front, and all that a double can occupy."""
        return wide_orbitals(self.system, self.drawn_orbitals, self.largest)

    @cached_property
    def doubles_of(self) -> DoublesOf:
        """The doubles of any K of p(K)."""
        return DoublesOf(self.system, self.drawn_orbitals, self.largest)

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

    def excite(self, state: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """A random double of K, with the chance that it has in the bare second order; K where there
        is none.

        Args:
          state: occupied orbitals.                         [N]
          generator: of random numbers.
        Returns:
          Occupied orbitals of the double, those of `orbitals`.    [N]
        """
        doubles = self.doubles_of(state)
        strength = self.doubles_of.strength
        bare = strength[doubles.transfer] - strength[doubles.exchanged]
        h = thermal_denominator(doubles.ideal, self.system.beta)
        chance = np.where(doubles.allowed, bare**2 * h, 0.0)
        if not chance.any():
            return state
        place = generator.choice(len(chance), p=chance / chance.sum())
        n = self.doubles_of.excited(self.doubles_of.n[state], place)
        index = {tuple(vector): number for number, vector in enumerate(self.orbitals.n)}
        parts = [sorted(index[tuple(vector)] for vector in n[part]) for part in self.system.parts]
        return np.concatenate(parts)
