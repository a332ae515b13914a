"""A trained density matrix, its parameters frozen, and the double excitations of its states."""

import dataclasses
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import jax
import numpy as np
from jaxtyping import Int

from heg.config import Config
from heg.gas.ideal import choose_cutoff
from heg.gas.plane_waves import Orbitals
from heg.gas.system import System
from heg.model.density_matrix import Params
from heg.observables.second_order.amplitudes import (
    AmplitudePrograms,
    Looked,
    amplitude_programs,
    wide_orbitals,
)
from heg.observables.second_order.doubles import DoublesOf, count_doubles
from heg.observables.second_order.perturbation import thermal_denominator
from heg.parallel.devices import everywhere
from heg.training.state import key_of_run
from heg.training.verdict import check_draws

SMALL_GAS = 10  # electrons at most
SAMPLES_OF_SMALL_GAS = 512  # of x at each K
SAMPLES = 256  # of x at each K in larger gases
LONGEST_TRANSFER = 3.0  # momentum transfers up to LONGEST_TRANSFER k_F ...
FEW_DOUBLES = 8000  # ... and farther in small gases, as long as there are no more doubles
MAX_DOUBLES = 2 * 10**6  # ... and less far in large ones
FARTHEST_TRANSFER = 10  # times 2 pi / L, the most in small gases


def largest_transfer(system: System) -> int:
    """|n|^2 of the largest momentum transfer by default."""
    # the same for all densities
    gas = system.of_unit_density
    # in units of 2 pi / L
    reach = LONGEST_TRANSFER * gas.fermi_wavevector * gas.box / (2 * np.pi)
    largest = max(1, int(reach**2))
    for length in range(1, FARTHEST_TRANSFER + 1):
        squared = length**2
        if count_doubles(gas, squared) <= FEW_DOUBLES:
            largest = max(largest, squared)
    while largest > 1 and count_doubles(gas, largest) > MAX_DOUBLES:
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
        """Number of samples of x at each K, the same on all machines."""
        return SAMPLES_OF_SMALL_GAS if self.system.electrons <= SMALL_GAS else SAMPLES

    @cached_property
    def programs(self) -> AmplitudePrograms:
        """What is compiled for all gases of this shape."""
        return amplitude_programs(
            self.system.shape,
            len(self.drawn_orbitals.energy),
            self.config.model,
            self.count,
            self.largest,
        )

    @cached_property
    def drawn_orbitals(self) -> Orbitals:
        """The plane waves of p(K)."""
        sizes = self.config.model
        cutoff = choose_cutoff(
            self.system.of_unit_density, sizes.orbital_tolerance, sizes.min_orbitals
        )
        return cutoff.orbitals.at_density(self.system.rs)

    @cached_property
    def orbitals(self) -> Orbitals:
        """The plane waves of p(K), in front, and all that a double can occupy."""
        return wide_orbitals(self.system, self.drawn_orbitals, self.largest)

    @cached_property
    def doubles_of(self) -> DoublesOf:
        """The doubles of any K of p(K)."""
        return DoublesOf(self.system, self.drawn_orbitals, self.largest)

    def compile_ahead(self, threads: ThreadPoolExecutor) -> None:
        """Compiles the longest of the programs in one of the threads, while this one goes on.

        Args:
          threads: of heg.parallel.compilation.compiler_threads.
        """
        states = jax.ShapeDtypeStruct((self.count, self.system.electrons), np.int32)
        keys = jax.random.split(key_of_run(0), self.count)  # any keys will do
        self.programs.look.ahead(threads, self.system, self.params.flow, states, states, keys)

    def look(
        self,
        states: Int[np.ndarray, "batch electrons"],
        guides: Int[np.ndarray, "batch electrons"],
        key: jax.Array,
    ) -> Looked:
        """Samples of x at given states, drawn from these and their guides.

        Args:
          states: `count` of them, occupied orbitals.
          guides: one for each state.
          key: of the random numbers.
        Raises:
          RunError: a draw failed for good, or too many were repeated.
        """
        # whole on every device, as the programs are compiled for that
        looked = self.programs.look(
            self.system,
            self.params.flow,
            everywhere(states.astype(np.int32)),
            everywhere(guides.astype(np.int32)),
            jax.random.split(key, len(states)),
        )
        check_draws(self.step, int(looked.lost), int(looked.redrawn), len(states))
        return looked

    def excite(
        self, state: Int[np.ndarray, " electrons"], generator: np.random.Generator
    ) -> Int[np.ndarray, " electrons"]:
        """A random double of K, with a chance that goes as its part of the bare second order.

        Args:
          state: occupied orbitals.
          generator: of random numbers.
        Returns:
          Occupied orbitals of the double, those of `orbitals`; K itself if it has no doubles.
        """
        # doubles with large amplitudes are drawn more often: it is their terms that must be bounded
        weight = self._bare_second_order(state)
        if not weight.any():
            return state
        chance = weight / weight.sum()
        index = generator.choice(len(chance), p=chance)
        # the integer vectors of K with those of two electrons changed
        before = self.doubles_of.n[state]
        n = self.doubles_of.excited(before, index)
        parts = [self._occupied(n[part]) for part in self.system.parts]
        return np.concatenate(parts)

    def _bare_second_order(self, state) -> np.ndarray:
        """W^2 h of the bare interaction and the kinetic energies.  [D], hartree"""
        doubles = self.doubles_of(state)
        strength = self.doubles_of.strength
        # the strength at 0, in place of an exchange of opposite spins, is zero
        bare = strength[doubles.transfer] - strength[doubles.exchanged]
        h = thermal_denominator(doubles.ideal, self.system.beta)
        return np.where(doubles.allowed, bare**2 * h, 0.0)

    def _occupied(self, n: Iterable) -> list[int]:
        """Indices among `orbitals` of the integer vectors of one spin, increasing."""
        return sorted(self._orbital_indices[tuple(vector)] for vector in n)

    @cached_property
    def _orbital_indices(self) -> dict[tuple, int]:
        return {tuple(vector): index for index, vector in enumerate(self.orbitals.n)}
