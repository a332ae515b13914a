"""Means over blocks of samples of a measurement, in a file that a later measurement adds to."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from heg.errors import StorageError
from heg.observables.evaluation import Frozen
from heg.observables.programs import block_size
from heg.observables.thermodynamics import Observed
from heg.parallel.compilation import compiler_threads
from heg.parallel.processes import any_process, on_first
from heg.runs import files, hdf5
from heg.statistics import MIN_BLOCKS
from heg.training.state import OBSERVING, stream
from heg.training.verdict import check_draws

SAVE_SECONDS = 30.0  # between writings of the samples at hand


def collect_blocks(
    frozen: Frozen,
    directory: Path,
    samples: int,
    show: Callable[[int, int], object],
    stop: Callable[[], bool],
) -> Observed | None:
    """Means over blocks of all samples, of earlier measurements and new ones.

    They are kept in observed-<step>.h5.  Called by all processes.

    Args:
      frozen: the run.
      directory: where the file is.
      samples: number wanted in all, rounded up to whole batches.
      show: takes the numbers of samples at hand and wanted.
      stop: true when this is to end in order; what is at hand is kept.

    Returns:
      The means, with the blocks along the first axis of each array; None if stopped.

    Raises:
      ValueError: too few samples for an error.
      RunError: a draw failed for good.
    """
    batch = frozen.config.sampler.batch
    blocks_in_batch = batch // block_size(batch)
    step = int(frozen.state.step)
    key = stream(frozen.state, OBSERVING)
    frozen_values = (frozen.state.average, frozen.state.regression)
    # blocks of other parameters or of another batch do not belong to these
    kept = _KeptBlocks(
        path=directory / f"observed-{step}.h5",
        marks={"parameters": hdf5.fingerprint(frozen_values), "batch": batch},
    )

    def shapes_of_batch() -> Observed:
        return frozen.instruments.shapes_of_means(*frozen_values)

    # one process reads the file, all go on with its blocks
    kept.parts = on_first(kept.load, shapes_of_batch)
    # in batches
    have = kept.count() // blocks_in_batch
    wanted = -(-samples // batch)  # rounded up
    blocks = max(have, wanted) * blocks_in_batch
    _check_number(samples, blocks, block_size(batch))
    if wanted <= have:
        return kept.joined()
    redrawn = 0
    with compiler_threads() as threads:
        frozen.instruments.compile_ahead(*frozen_values, threads)
        for index in range(have, wanted):
            if stop():
                # without parts there is nothing to keep, and no file is made
                if kept.parts:
                    kept.save()
                return None
            # batch i has the same random numbers in every measurement
            batch_key = jax.random.fold_in(key, index)
            means, again, lost = frozen.instruments.observe(*frozen_values, batch_key)
            kept.parts.append(jax.tree.map(np.asarray, means))
            redrawn += int(again)
            check_draws(step, int(lost), redrawn, (index + 1 - have) * batch)
            show((index + 1) * batch, wanted * batch)
            kept.save_now_and_then()
    kept.save()
    return kept.joined()


@dataclasses.dataclass
class _KeptBlocks:
    """Means over blocks, and the file that keeps them.

    Attributes:
      path: the file.
      marks: attributes of the file; blocks of other marks do not belong to these.
      parts: means over the blocks of earlier measurements, and of each batch since.
      saved_at: reading of the clock when the file was written.
    """

    path: Path
    marks: dict[str, Any]
    parts: list[Observed] = dataclasses.field(default_factory=list)
    saved_at: float = dataclasses.field(default_factory=time.monotonic)

    def load(self, shapes_of_batch: Callable[[], Observed]) -> list[Observed]:
        """Means of an earlier measurement with the same marks, in a list; empty if there is none.

        Args:
          shapes_of_batch: gives the shapes of the means of one batch.  It traces the program,
            which is spared where there is no file.
        """
        if not self.path.exists():
            return []
        # the file says how many blocks it has, the program what a block looks like
        blocks = hdf5.stored_length(self.path, "energies/F")

        def zeros(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
            return np.zeros((blocks, *leaf.shape[1:]), leaf.dtype)

        template = jax.tree.map(zeros, shapes_of_batch())
        with contextlib.suppress(StorageError):
            means, attributes = hdf5.load_tree(self.path, template)
            marks = {name: attributes.get(name) for name in self.marks}
            if marks == self.marks:
                return [means]
        # of other parameters, or damaged: kept under another name
        files.set_aside(self.path)
        return []

    def count(self) -> int:
        """Number of blocks at hand."""
        return sum(len(part.energies["F"]) for part in self.parts)

    def joined(self) -> Observed:
        """All parts as one."""
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *self.parts)

    def save(self) -> None:
        """Write the blocks at hand."""
        on_first(lambda: hdf5.save_tree(self.path, self.joined(), **self.marks))
        self.saved_at = time.monotonic()

    def save_now_and_then(self) -> None:
        """Write the blocks at hand if the last writing was long ago, on any process."""
        if any_process(time.monotonic() - self.saved_at > SAVE_SECONDS):
            self.save()


def _check_number(samples: int, blocks: int, samples_in_block: int) -> None:
    """Refuse a measurement of so few blocks that its error would be widened."""
    if blocks < MIN_BLOCKS:
        raise ValueError(
            f"samples is {samples}: these are {blocks} blocks, too few for an error; "
            f"ask for at least {MIN_BLOCKS * samples_in_block}"
        )
