"""How a process uses the machine."""

import jax
import scipy.linalg  # noqa: F401  loads the BLAS that XLA calls on a CPU
from threadpoolctl import threadpool_limits

from heg.system import System

CACHE = 8 * 2**20  # bytes that a CPU has near its cores
WALKER_NUMBERS = 8  # times N^2 d^4: numbers in use at once by the kinetic energy of one walker
FEWEST = 4  # walkers computed at once, lest the cost of starting an operation rule


def prepare_process() -> None:
    """To be called once by a command before it computes anything: BLAS is left with one thread.

    XLA has threads of its own, from which it calls LAPACK for many small matrices at once.  With threads of BLAS
    beside them they wait for each other: at N = 29 in 2D the kinetic energy took 2.5 times as long on two cores.
    """
    threadpool_limits(limits=1, user_api="blas")


def walkers_at_once(system: System, batch: int) -> int:
    """Walkers computed at once that fit the memory at hand: a quarter of an accelerator's, the cache of a CPU.

    What a walker needs is N^2 d^4 numbers a few times over: the second derivatives of its pairs (heg.kinetic).

    Args:
      system: gives N and d.
      batch: walkers in all, of which the result is a divisor.
    """
    device = jax.local_devices()[0]
    memory = CACHE if device.platform == "cpu" else device.memory_stats()["bytes_limit"] / 4
    most = memory / (WALKER_NUMBERS * 8 * system.electrons**2 * system.dim**4)
    return divisor(batch, max(most, FEWEST))


def divisor(batch: int, most: float) -> int:
    """The largest divisor of the batch that is at most `most`: no rest to compile for."""
    return max(number for number in range(1, batch + 1) if batch % number == 0 and number <= max(most, 1))
