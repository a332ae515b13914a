"""Independent samples at the averaged parameters of one step, kept in the run directory."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from heg.config import Config
from heg.errors import StorageError
from heg.parallel.processes import on_first
from heg.runs import files, hdf5
from heg.runs.run_directory import RunDirectory
from heg.training.state import MEASURING, TrainState, stream
from heg.training.step import Solver
from heg.training.verdict import check_draws


def frozen_samples(
    solver: Solver, config: Config, state: TrainState, stop: Callable[[], bool]
) -> dict[str, np.ndarray]:
    """F, E, kinetic, potential, S of independent samples at the averaged parameters of a state.

    Training never used these samples.  They are kept in samples-<step>.h5; those that the run
    directory holds already are read, not drawn again.  Called by all processes.

    Args:
      solver, config: of the run.
      state: holds the parameters.
      stop: true when the run is to end in order; asked before each batch.

    Returns:
      Values by name, hartree or k_B per electron, [samples] each; empty if stopped.

    Raises:
      RunError: a draw failed for good.
    """
    path = RunDirectory(Path(config.run.run_dir)).samples_file(int(state.step))
    # all that the values depend on, beside the model
    frozen = (state.average, state.regression, state.key)
    stored = on_first(_stored, path, config.run.samples, frozen)
    if stored:
        return stored
    values = _draw(solver, config, state, stop)
    if values:
        save = partial(
            hdf5.save_tree,
            units="hartree per electron; S: k_B per electron",
            parameters=hdf5.fingerprint(frozen),
        )
        on_first(save, path, values)
    return values


def _stored(path: Path, count: int, frozen: Any) -> dict[str, np.ndarray]:
    """The first samples of a file; empty if it has too few, or none of these parameters."""
    if not path.exists():
        return {}
    try:
        values, attributes = hdf5.load_arrays(path)
    except StorageError:
        return {}  # they are drawn again, the same numbers
    # of an earlier training of this directory, say
    if attributes.get("parameters") != hdf5.fingerprint(frozen):
        files.set_aside(path)
        return {}
    if len(values["F"]) < count:
        return {}
    return {name: array[:count] for name, array in values.items()}


def _draw(
    solver: Solver, config: Config, state: TrainState, stop: Callable[[], bool]
) -> dict[str, np.ndarray]:
    """Whole batches of samples, cut to the number that is asked for; empty if stopped."""
    count = config.run.samples
    batch = config.sampler.batch
    batches = -(-count // batch)  # rounded up
    parts = []
    redrawn = 0
    for index in range(batches):
        if stop():
            return {}
        # batch i has the same random numbers however many batches there are
        key = stream(state, MEASURING, index)
        samples, draws = solver.measure(state.average, key)
        redrawn += int(draws.redrawn)
        drawn = (index + 1) * batch
        check_draws(int(state.step), int(draws.lost), redrawn, drawn)
        parts.append(solver.per_electron(samples, state.regression))
    values = {}
    for name in parts[0]:
        joined = np.concatenate([part[name] for part in parts])
        values[name] = joined[:count]
    return values
