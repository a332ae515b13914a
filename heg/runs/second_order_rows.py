"""The states sampled for the second-order free energy, in a file that later measurements extend."""

import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from heg.errors import RunError, StorageError
from heg.observables.evaluation import Drawn, Frozen
from heg.observables.second_order.calibration import calibrate
from heg.observables.second_order.contributions import (
    Rows,
    beyond_second_order,
    contribution,
    known_part,
)
from heg.observables.second_order.excitations import Excitations, largest_transfer
from heg.observables.second_order.levels import Levels
from heg.observables.second_order.pair_operators import count_operators
from heg.observables.second_order.perturbation import Known, Row, ThirdOrder, second_order
from heg.observables.second_order.relaxation import Relaxation, relaxation
from heg.observables.second_order.third_order import third_order
from heg.observables.structure import grid_of
from heg.parallel.processes import any_process, on_first
from heg.runs import files, hdf5
from heg.training.state import EXCITING, stream

MIN_ROWS = 32
ROW_FORMAT = 1  # changes when rows of another kind would be misread
KNOWN_STATES = 2048  # states for the mean of the known elements
SHELL_STATES = 256  # states for the correction by degenerate ones
SKIPPED_DRAWS = 4096  # draws of K for the regression of the energies and the means over many K
SAVE_SECONDS = 30.0  # between writings of the states at hand
MIN_GROWTH = 1.1  # of the number of rows, where more are wanted ...
MAX_GROWTH = 4.0  # ... as the error of few rows is badly known


def collect(
    frozen: Frozen,
    run_dir: Path,
    drawn: Drawn,
    accuracy: float,
    show: Callable[[int, int], object],
    stop: Callable[[], bool],
) -> Rows | None:
    """Sample as many states as are needed, or add to those of an earlier measurement.

    Called by all processes.

    Args:
      frozen: the run.
      run_dir: holds second-order-<step>.h5.
      drawn: draws of K with ln p(K).
      accuracy: statistical error wanted, hartree per electron; it is not reached where the means
        over many K are not known so well, or where it takes more states than were drawn.
      show: takes the numbers of states at hand and wanted.
      stop: true when this is to end in order; what is at hand is kept.
    Returns:
      The rows; None if stopped.
    Raises:
      RunError: draws failed, or the second order is not finite.
    """
    # what all rows have in common
    excitations = excitations_of(frozen)
    key = stream(frozen.state, EXCITING)
    path = _path(frozen, run_dir)
    stored = on_first(_earlier, path, excitations)
    if stored is None:
        stored = _first_means(excitations, drawn.states, key)
    collection = _Collection(excitations, path, stored)
    orbitals = frozen.solver.cutoff.orbitals
    relaxed = on_first(
        relaxation, frozen.system, orbitals, stored.levels, drawn.states, drawn.log_p
    )
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    third = on_first(third_order, excitations, stored.levels, drawn.states, generator)

    # the first draws were used for the energies of the states
    available = len(drawn.states) - SKIPPED_DRAWS
    wanted = max(MIN_ROWS, collection.count)
    while True:
        # the draw and the key of a row follow from its number: a later measurement goes on
        # where this one ends
        for number in range(collection.count, wanted):
            if stop():
                collection.save_new()
                return None
            state = drawn.states[SKIPPED_DRAWS + number]
            row_key = jax.random.fold_in(key, number + 1)
            collection.add(contribution(excitations, stored.levels, state, row_key))
            show(number + 1, wanted)
            collection.save_in_time()
        result = on_first(collection.result, relaxed, third, drawn.states[:SHELL_STATES])
        wanted = on_first(_rows_wanted, frozen.system, result, accuracy, available)
        if wanted <= collection.count:
            break
    collection.save_new()
    return result


def compile_ahead(frozen: Frozen, run_dir: Path, threads: ThreadPoolExecutor) -> None:
    """Compiles in the threads what `collect` takes longest for, unless rows are at hand.

    Args:
      frozen, run_dir: as of `collect`.
      threads: of heg.parallel.compilation.compiler_threads.
    """
    if not on_first(_path(frozen, run_dir).exists):
        excitations_of(frozen).compile_ahead(threads)


def _path(frozen: Frozen, run_dir: Path) -> Path:
    return run_dir / f"second-order-{int(frozen.state.step)}.h5"


def excitations_of(frozen: Frozen) -> Excitations:
    """The excitations of a run, from the averages of its parameters."""
    return Excitations(
        system=frozen.system,
        config=frozen.config,
        params=frozen.state.average,
        step=int(frozen.state.step),
        largest=largest_transfer(frozen.system),
    )


class _Stored(NamedTuple):
    """The content of a file.

    Attributes:
      levels: energies of the states.
      known: the sum of W^2 h of the known elements over many K.
      rows: with the states along the first axis; None before the first.
    """

    levels: Levels
    known: Known
    rows: Row | None


class _Collection:
    """The rows at hand, and the file that keeps them.

    Args:
      excitations: of the run.
      path: of the file.
      stored: of an earlier measurement.
    """

    def __init__(self, excitations: Excitations, path: Path, stored: _Stored):
        self.excitations = excitations
        self.path = path
        self.levels = stored.levels
        self.known = stored.known
        self.parts = [] if stored.rows is None else [stored.rows]
        self.has_new = False
        self.saved_at = time.monotonic()

    @property
    def count(self) -> int:
        return sum(len(part.variance) for part in self.parts)

    @property
    def rows(self) -> Row:
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *self.parts)

    def add(self, row: Row) -> None:
        # an axis for the rows in front
        self.parts.append(jax.tree.map(lambda leaf: leaf[None], row))
        self.has_new = True

    def save_in_time(self) -> None:
        """Write the file if the last writing was SAVE_SECONDS ago."""
        if any_process(time.monotonic() - self.saved_at > SAVE_SECONDS):
            self.save_new()
            self.saved_at = time.monotonic()

    def save_new(self) -> None:
        """Write the file if it lacks rows."""
        if self.has_new:
            on_first(self._write)
            self.has_new = False

    def result(self, relaxed: Relaxation, third: ThirdOrder, states: np.ndarray) -> Rows:
        """The rows with the correction for degenerate states, from draws of K [B, N]."""
        rows = self.rows
        alike = rows.alike.mean(axis=0)
        return Rows(
            levels=self.levels,
            known=self.known,
            beyond=beyond_second_order(self.excitations, self.levels, alike, states),
            relaxation=relaxed,
            third=third,
            rows=rows,
        )

    def _write(self) -> None:
        tree = {"levels": self.levels, "known": np.array(self.known), "rows": self.rows}
        hdf5.save_tree(self.path, tree, **_marks(self.excitations))


def _first_means(excitations, states, key):
    """Energies of the states and the mean of the known elements, before any row."""
    levels_key = jax.random.fold_in(key, 0)
    levels = calibrate(excitations, states[:SKIPPED_DRAWS], levels_key)
    # those of one process for all, as the last digit may differ between hosts
    levels = on_first(lambda: levels)
    known = on_first(known_part, excitations, levels, states[:KNOWN_STATES])
    return _Stored(levels, known, None)


def _rows_wanted(system, collected: Rows, accuracy: float, available: int) -> int:
    """How many rows there should be.

    The means over many K have errors of their own, which more rows do not lower.

    Raises:
      RunError: the second order is not finite.
    """
    count = len(collected.rows.variance)
    result = second_order(
        system,
        rows=collected.rows,
        known=collected.known,
        beyond=collected.beyond,
        relaxed=collected.relaxation,
        third=collected.third,
    )
    if not np.isfinite(result.error):
        raise RunError("the second order is not finite: measure with --no-second-order")
    of_many = result.statistical**2 - result.of_rows**2
    # where the means over many K leave nothing, the rows get to half of the accuracy and no further
    left = max(accuracy**2 - of_many, accuracy**2 / 4)
    if result.of_rows**2 <= left:
        return count
    # errors fall with the square root of the number
    wanted = count * result.of_rows**2 / left
    fewest = MIN_GROWTH * count
    most = MAX_GROWTH * count
    wanted = min(max(wanted, fewest), most)
    return min(math.ceil(wanted), available)


def _marks(excitations):
    """Attributes of a file by which a later measurement knows rows of its own kind."""
    return {
        "parameters": hdf5.fingerprint(excitations.params),
        "samples_of_state": excitations.count,
        "largest": excitations.largest,
        "operators": count_operators(excitations.system),
        "rows": ROW_FORMAT,
    }


def _earlier(path: Path, excitations: Excitations) -> _Stored | None:
    """Rows of an earlier measurement of the same parameters; None if there are none.

    A file of other parameters, or one that cannot be read, is set aside.
    """
    if not path.exists():
        return None
    marks = _marks(excitations)
    count = hdf5.stored_length(path, "rows/variance")
    template = _template(excitations, count)
    with contextlib.suppress(StorageError):
        tree, attributes = hdf5.load_tree(path, template)
        stored_marks = {name: attributes.get(name) for name in marks}
        if stored_marks == marks:
            mean, error, variance = tree["known"].tolist()
            known = Known(mean, error, variance)
            return _Stored(tree["levels"], known, tree["rows"])
    files.set_aside(path)
    return None


def _template(excitations, count):
    """Zeros of the shapes of a file of so many rows."""
    grid = grid_of(excitations.system)
    spin_pairs = 3 if excitations.system.n_down else 1
    operators = count_operators(excitations.system)
    sizes = excitations.largest + 1  # |n|^2 from 0 to the largest
    zeros = lambda *shape: np.zeros((count, *shape))
    rows = Row(
        variance=zeros(),
        squared=zeros(sizes),
        lowered=zeros(sizes),
        known=zeros(),
        products=zeros(2),
        moved=zeros(2),
        alike=zeros(3, 2, sizes),
        response={
            "potential": zeros(),
            "S_q": zeros(spin_pairs, len(grid.shells.count)),
            "g_r": zeros(spin_pairs, len(grid.share)),
        },
    )
    levels = Levels(
        weights=np.zeros(3),
        covariance=np.zeros((2, 2)),
        operators=np.zeros(operators),
    )
    return {"levels": levels, "known": np.zeros(3), "rows": rows}
