"""The states looked at for the second-order free energy, kept in a file that a later measurement goes on with."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from heg import storage
from heg.excitations import Excitations, largest_transfer
from heg.parallel import on_first
from heg.second_order import BINS, Correction, Levels, Row, second_order
from heg.state import EXCITING, stream
from heg.statistics import Estimate

FEWEST = 32  # states
MANY = 2048  # states for the mean of the known elements
SHELLS = 256  # states for the correction by degenerate ones
SKIPPED = 4096  # draws of K that serve the regression of the energies
SAVE_SECONDS = 30.0  # between writings of the states at hand


class Rows(NamedTuple):
    """What is known of the states of a run.

    Attributes:
      levels: energies of the states.
      known, beyond: of `heg.second_order.second_order`.
      rows: with the states along the first axis.
    """

    levels: Levels
    known: Estimate
    beyond: Correction | None
    rows: Row | None


def collect(
    frozen,
    run_dir: Path,
    states: np.ndarray,
    accuracy: float,
    show: Callable,
    stop: Callable[[], bool],
) -> Rows | None:
    """Looks at as many states as are needed, or adds to those of an earlier measurement.

    Args:
      frozen: the run, of heg.results.
      run_dir: holds second-order-<step>.h5.
      states: draws of K.                                   [B, N]
      accuracy: statistical error wanted, hartree per electron.
      show: takes the numbers of states at hand and wanted.
      stop: true when this is to end in order; what is at hand is kept.
    Returns:
      The rows; None if stopped.
    """
    system, params = frozen.system, frozen.state.average
    excitations = Excitations(system, frozen.config, params, largest_transfer(system))
    path = run_dir / f"second-order-{int(frozen.state.step)}.h5"
    marks = {"parameters": storage.fingerprint(params), "samples_of_state": excitations.count}
    key = stream(frozen.state, EXCITING)
    found = on_first(_earlier, path, excitations, marks)
    if found is None:
        levels = excitations.calibrate(states[:SKIPPED], jax.random.fold_in(key, 0))
        known = excitations.known(levels, states[:MANY])
        found = Rows(levels, known, None, None)
    parts = [] if found.rows is None else [found.rows]
    keep = lambda: on_first(lambda: storage.save_tree(path, _tree(found, parts), **marks))
    have = sum(len(part.variance) for part in parts)
    wanted, saved = max(FEWEST, have), time.monotonic()
    while True:
        for number in range(have, wanted):
            if stop():
                if parts:
                    keep()
                return None
            state = states[(SKIPPED + number) % len(states)]
            row = excitations.row(found.levels, state, jax.random.fold_in(key, number + 1))
            parts.append(jax.tree.map(lambda leaf: leaf[None], row))
            show(number + 1, wanted)
            if time.monotonic() - saved > SAVE_SECONDS:
                keep()
                saved = time.monotonic()
        have = wanted
        rows = _joined(parts)
        beyond = excitations.beyond(found.levels, rows.alike.mean(axis=0), states[:SHELLS])
        error = second_order(system, rows, found.known, beyond).statistical
        if error <= accuracy:
            break
        # errors fall with the square root of the number
        wanted = int(min(max(have * (error / accuracy) ** 2, 1.1 * have), 4 * have)) + 1
    keep()
    return found._replace(beyond=beyond, rows=rows)


def _tree(found, parts):
    return {"levels": found.levels, "known": np.array(found.known), "rows": _joined(parts)}


def _joined(parts):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _earlier(path, excitations, marks):
    """Rows of an earlier measurement of the same parameters; None if there are none."""
    if not path.exists():
        return None
    count = storage.stored_length(path, "rows/variance")
    with contextlib.suppress(storage.StorageError):
        tree, attributes = storage.load_tree(path, _template(excitations, count))
        if all(attributes.get(name) == mark for name, mark in marks.items()):
            return Rows(tree["levels"], Estimate(*map(float, tree["known"])), None, tree["rows"])
    storage.set_aside(path)
    return None


def _template(excitations, count):
    """Zeros of the shapes of a file of so many rows."""
    spin_pairs, shells, bins = excitations.structure_shape
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
    levels = Levels(np.zeros(3), np.zeros((2, 2)), np.zeros(excitations.operators))
    return {"levels": levels, "known": np.zeros(2), "rows": rows}
