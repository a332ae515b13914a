"""The states looked at for the second-order free energy, kept in a file that a later measurement
goes on with."""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from heg.errors import RunError, StorageError
from heg.observables.evaluation import Drawn
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
from heg.observables.second_order.perturbation import BINS, Known, Row, second_order
from heg.observables.second_order.relaxation import relaxation
from heg.observables.structure import grid_of
from heg.parallel.processes import any_process, on_first
from heg.runs import files
from heg.training.state import EXCITING, stream

FEWEST_ROWS = 32
ROW_FORMAT = 1  # changes when rows of another kind would be misread
MANY = 2048  # states for the mean of the known elements
SHELLS = 256  # states for the correction by degenerate ones
SKIPPED = 4096  # draws of K that serve the regression of the energies and the means over many K
SAVE_SECONDS = 30.0  # between writings of the states at hand


def collect(
    frozen,
    run_dir: Path,
    drawn: Drawn,
    accuracy: float,
    show: Callable,
    stop: Callable[[], bool],
) -> Rows | None:
    """Looks at as many states as are needed, or adds to those of an earlier measurement.

    Args:
      frozen: the run, of heg.observables.evaluation.
      run_dir: holds second-order-<step>.h5.
      drawn: draws of K with ln p(K).
      accuracy: statistical error wanted, hartree per electron; it is not reached where the means
        over many K are not known so well, or where it takes more states than were drawn.
      show: takes the numbers of states at hand and wanted.
      stop: true when this is to end in order; what is at hand is kept.
    Returns:
      The rows; None if stopped.
    """
    excitations, states = probe(frozen), drawn.states
    path = run_dir / f"second-order-{int(frozen.state.step)}.h5"
    marks = _marks(excitations)
    key = stream(frozen.state, EXCITING)
    found = on_first(_earlier, path, excitations, marks)
    if found is None:
        levels = calibrate(excitations, states[:SKIPPED], jax.random.fold_in(key, 0))
        # one process says, as the last digit may differ between hosts
        levels, known = on_first(lambda: (levels, known_part(excitations, levels, states[:MANY])))
        found = Rows(levels, known, None, None, None)
    orbitals = frozen.solver.cutoff.orbitals
    relaxed = on_first(relaxation, frozen.system, orbitals, found.levels, drawn.states, drawn.log_p)
    found = found._replace(relaxation=relaxed)
    parts = [] if found.rows is None else [found.rows]
    have = sum(len(part.variance) for part in parts)
    most = len(states) - SKIPPED
    wanted, saved = max(FEWEST_ROWS, have), time.monotonic()

    def keep():
        on_first(lambda: files.save_tree(path, _tree(found, parts), **marks))

    while True:
        for number in range(have, wanted):
            if stop():
                if parts:
                    keep()
                return None
            row = contribution(
                excitations,
                found.levels,
                states[SKIPPED + number],
                jax.random.fold_in(key, number + 1),
            )
            parts.append(jax.tree.map(lambda leaf: leaf[None], row))
            show(number + 1, wanted)
            if any_process(time.monotonic() - saved > SAVE_SECONDS):
                keep()
                saved = time.monotonic()
        rows = _joined(parts)
        have, before = wanted, have
        found, wanted = on_first(
            _summed_up, excitations, found._replace(rows=rows), states[:SHELLS], accuracy, most
        )
        if wanted <= have:
            break
    if have > before or not path.exists():
        keep()
    return found


def probe(frozen) -> Excitations:
    """What looks at the states of a run."""
    system = frozen.system
    step = int(frozen.state.step)
    return Excitations(system, frozen.config, frozen.state.average, step, largest_transfer(system))


def _summed_up(excitations, found, states, accuracy, most):
    """The rows with the correction for degenerate states, and how many rows there should be.

    The means over many K have errors of their own, which more rows do not lower.
    """
    beyond = beyond_second_order(excitations, found.levels, found.rows.alike.mean(axis=0), states)
    found = found._replace(beyond=beyond)
    have = len(found.rows.variance)
    result = second_order(excitations.system, found.rows, found.known, beyond, found.relaxation)
    if not np.isfinite(result.error):
        raise RunError("the second order is not finite: measure with --no-second-order")
    of_many = result.statistical**2 - result.of_rows**2
    # where the means over many K leave nothing, the rows get to half of the accuracy and no further
    left = max(accuracy**2 - of_many, accuracy**2 / 4)
    if result.of_rows**2 <= left:
        return found, have
    # errors fall with the square root of the number
    wanted = have * result.of_rows**2 / left
    return found, min(math.ceil(min(max(wanted, 1.1 * have), 4 * have)), most)


def _marks(excitations):
    return {
        "parameters": files.fingerprint(excitations.params),
        "samples_of_state": excitations.count,
        "largest": excitations.largest,
        "operators": count_operators(excitations.system),
        "rows": ROW_FORMAT,
    }


def _tree(found, parts):
    return {"levels": found.levels, "known": np.array(found.known), "rows": _joined(parts)}


def _joined(parts):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _earlier(path, excitations, marks):
    """Rows of an earlier measurement of the same parameters; None if there are none."""
    if not path.exists():
        return None
    count = files.stored_length(path, "rows/variance")
    with contextlib.suppress(StorageError):
        tree, attributes = files.load_tree(path, _template(excitations, count))
        if all(attributes.get(name) == mark for name, mark in marks.items()):
            return Rows(tree["levels"], Known(*map(float, tree["known"])), None, None, tree["rows"])
    files.set_aside(path)
    return None


def _template(excitations, count):
    """Zeros of the shapes of a file of so many rows."""
    system, grid = excitations.system, grid_of(excitations.system)
    spin_pairs, shells, bins = 3 if system.n_down else 1, len(grid.shells.count), len(grid.share)
    rows = Row(
        variance=(),
        squared=(excitations.largest + 1,),
        lowered=(excitations.largest + 1,),
        known=(),
        products=(2,),
        moved=(2,),
        alike=(3, 2, excitations.largest + 1),
        spectrum=(BINS,),
        response={"potential": (), "S_q": (spin_pairs, shells), "g_r": (spin_pairs, bins)},
    )
    is_shape = lambda node: isinstance(node, tuple) and not hasattr(node, "_fields")
    rows = jax.tree.map(lambda shape: np.zeros((count, *shape)), rows, is_leaf=is_shape)
    levels = Levels(np.zeros(3), np.zeros((2, 2)), np.zeros(count_operators(excitations.system)))
    return {"levels": levels, "known": np.zeros(3), "rows": rows}
