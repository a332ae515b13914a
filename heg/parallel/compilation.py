"""Programs that are compiled side by side, before they are called.

XLA compiles outside of the interpreter's lock, each program mostly on one core.  `ahead` hands a
program to threads, and a later call waits for its own program alone.  What is compiled is what the
call itself would compile, so that no number depends on it.  Nothing is computed meanwhile: no
process waits for another, in whatever order the programs are done.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from heg.parallel.devices import jit
from heg.parallel.processes import own_cores


class Program:
    """A function with arguments and results that are whole on every device, once compiled."""

    def __init__(self, function: Callable):
        self._jitted: Any = jit(function)
        self._compiled: dict[Any, Future] = {}

    def __call__(self, *arguments):
        """The function of the arguments, compiled now unless it was ahead."""
        compiled = self._compiled.get(_kind(arguments))
        # one that was called off before its turn is as if it had never been asked for
        if compiled is None or compiled.cancelled():
            return self._jitted(*arguments)
        return compiled.result()(*arguments)

    def shapes(self, *arguments):
        """Shapes and types of the results; nothing is compiled.

        Args:
          arguments: arrays, or shapes and types in their place.
        """
        return self._jitted.eval_shape(*arguments)

    def lower(self, *arguments) -> jax.stages.Lowered:
        """The program before XLA has compiled it, as of a function under jax.jit."""
        return self._jitted.lower(*arguments)

    def ahead(self, threads: ThreadPoolExecutor, *arguments) -> None:
        """Compiles for arguments of these shapes in one of the threads, unless it was done before.

        Args:
          threads: of `compiler_threads`.
          arguments: as of `shapes`.
        """
        kind = _kind(arguments)
        known = self._compiled.get(kind)
        if known is None or known.cancelled():
            # traced here: tracing holds the lock of the interpreter
            lowered = self._jitted.lower(*arguments)
            self._compiled[kind] = threads.submit(lowered.compile)


@contextlib.contextmanager
def compiler_threads() -> Iterator[ThreadPoolExecutor]:
    """A thread for each core of this process; programs not begun at the end are called off."""
    threads = ThreadPoolExecutor(len(own_cores()), thread_name_prefix="compile")
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def _kind(arguments):
    """What decides the program of a call: the structure of its arguments, shapes and types."""
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple(_type(leaf) for leaf in leaves)


def _type(leaf):
    """Shape and type of an array, or of a plain number."""
    return np.shape(leaf), getattr(leaf, "dtype", type(leaf))
