"""How many walkers a device computes at once."""

import jax

from heg.gas.system import System
from heg.parallel.processes import gathered

CACHE = 4 * 2**20  # bytes that each core of a CPU has near it
WALKER_NUMBERS = 8  # times N^2 d^4: numbers in use at once by the kinetic energy of one walker
FEWEST = 4  # walkers computed at once, lest the cost of starting an operation rule


def walkers_at_once(system: System, batch: int, size: int | None = None) -> int:
    """Walkers computed at once that fit the memory at hand: a quarter of an accelerator's, the
    cache of a CPU's core.

    Args:
      system: gives N and d.
      batch: walkers in all; the result divides each device's share of them.
      size: bytes of one walker; none: those of the kinetic energy.
    """
    device = jax.local_devices()[0]
    memory = (
        CACHE
        if device.platform == "cpu"
        else min(gathered(device.memory_stats()["bytes_limit"])) / 4
    )
    most = memory / (size or bytes_of_walker(system))
    return divisor(batch, max(most, FEWEST))


def bytes_of_walker(system: System) -> int:
    """What the second derivatives of its pairs need (heg.model.kinetic): N^2 d^4 numbers a few
    times over."""
    return WALKER_NUMBERS * 8 * system.electrons**2 * system.dim**4


def divisor(batch: int, most: float) -> int:
    """The largest divisor of each device's share of the batch that is at most `most`: no rest to
    compile for."""
    share = -(-batch // jax.device_count())
    return max(
        number for number in range(1, share + 1) if share % number == 0 and number <= max(most, 1)
    )
