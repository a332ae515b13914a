"""The state of a run as one value, its random streams, and the record of one step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from heg.model.density_matrix import Params
from heg.parallel.devices import everywhere
from heg.sampling.batch import Walkers
from heg.statistics import Estimate
from heg.training.control_variates import Regression

RANDOM = "threefry2x32"  # the generator; heg.gas.system sets jax_threefry_partitionable
NUMBERS = f"{RANDOM}, partitionable"  # written in checkpoints: which random numbers a seed means

# Purposes of random numbers, each with a stream of its own.  The values are part of
# reproducibility: another order would give the same seed other numbers.  New purposes come last.
STARTING = 0
SAMPLING = 1
MEASURING = 2
FIRST_BATCH = 3
FOLDING = 4
OBSERVING = 5
REPEATING = 6
OCCUPYING = 7
EXCITING = 8

# of Threefry-2x32, as in its reference implementation and in jax._src.prng
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
LARGEST_WORD = 0xFFFFFFFF


class TrainState(NamedTuple):
    """Exactly what a checkpoint holds.

    Attributes:
      step: steps done.                                     []
      params, opt_state: of the model and the optimiser.
      average: of the flow over the last part of the steps, with p(K) as it is: what is measured.
      walkers: the last batch.
      regression: of the energies, for control variates and b(K).
      width: of the chains' proposal, bohr.                 []
      redrawn: draws repeated so far.                       []
      key: data of the key of the run; purpose and step are folded in.    [2] uint32
    """

    step: jax.Array
    params: Params
    opt_state: optax.OptState
    average: Params
    walkers: Walkers
    regression: Regression
    width: jax.Array
    redrawn: jax.Array
    key: jax.Array


def key_of_run(seed: int) -> jax.Array:
    """The key from which all random numbers of a run come, whatever JAX's default generator is."""
    # the words of jax.random.key, which would compile two programs to take them apart
    words = (seed >> 32 & LARGEST_WORD, seed & LARGEST_WORD)
    return key_from(jnp.asarray(np.array(words, np.uint32)))


def key_from(data: jax.Array) -> jax.Array:
    """The key with these data, as a TrainState holds them.  [2] uint32"""
    return jax.random.wrap_key_data(data, impl=RANDOM)


def stream(state: TrainState, purpose: int, *numbers: int) -> jax.Array:
    """Key of the random numbers for a purpose, such as SAMPLING, at the step of the state.

    The key of a run never changes, so that a run resumed at a step goes on with the same numbers.

    Args:
      state: of the run.
      purpose: of those above.
      numbers: told apart within the purpose, such as the number of a batch.
    """
    first, second = np.asarray(state.key).tolist()
    words = (first, second)
    # purpose first, then step: exchanged, they would be other streams
    for number in (purpose, int(state.step), *numbers):
        words = _fold_in(words, number)
    return key_from(everywhere(np.array(words, np.uint32)))


def _fold_in(key: tuple[int, int], number: int) -> tuple[int, int]:
    """jax.random.fold_in of the words of a key, without a program to compile.

    Threefry-2x32 of 20 rounds of the block (0, number), whose low 32 bits count.
    Source: Salmon, Moraes, Dror and Shaw, SC'11 (2011), doi:10.1145/2063384.2063405.
    """
    # sums are those of 32-bit words
    first, second = key
    schedule = (first, second, first ^ second ^ PARITY)
    left = first
    right = number + second & LARGEST_WORD
    for group in range(5):
        # four rounds, each a sum, a rotation and an exclusive or
        for rotation in ROTATIONS[group % 2]:
            left = left + right & LARGEST_WORD
            rotated = right << rotation | right >> 32 - rotation
            right = rotated & LARGEST_WORD ^ left
        # then a part of the key comes in, and the number of the group
        to_left = schedule[(group + 1) % 3]
        to_right = schedule[(group + 2) % 3]
        left = left + to_left & LARGEST_WORD
        right = right + to_right + group + 1 & LARGEST_WORD
    return left, right


class StepInfo(NamedTuple):
    """The record of one step, at the parameters it started from.

    Attributes:
      estimates: F, E, kinetic, potential (hartree), S (k_B) per electron.
      variance: of E_loc, hartree^2 per cell.
      acceptance: of the moves of chains; 1 for exact draws.
      redrawn, lost: draws repeated, draws given up.
      min_det: lowest determinant of a layer found.
      finite: are all energies, the gradient and the new parameters finite?
      worst: the sample whose E_loc is farthest from the mean, or not finite.
    """

    estimates: dict[str, Estimate]
    variance: jax.Array
    acceptance: jax.Array
    redrawn: jax.Array
    lost: jax.Array
    min_det: jax.Array
    finite: jax.Array
    worst: jax.Array
