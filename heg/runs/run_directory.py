"""What a run directory of heg-solve holds: its configuration, its trained state, and how another
run starts from it."""

from pathlib import Path

import jax
import numpy as np

from heg.config import Config, from_tables
from heg.errors import StorageError
from heg.gas.plane_waves import Orbitals
from heg.model.density_matrix import Params
from heg.parallel.processes import on_first
from heg.runs import files, text_files
from heg.training.state import NUMBERS, TrainState
from heg.training.step import Solver, build

LEVELS = "levels"  # the parameters of p(K) that belong to one plane wave each


def configuration(run_dir: Path) -> Config:
    """The configuration of a run.

    Raises:
      ValueError: the directory holds no run, or its config.toml is not one.
      StorageError: the file cannot be read.
    """
    path = run_dir / "config.toml"
    if not path.exists():
        raise ValueError(f"{run_dir} holds no run: give the run directory of heg-solve")
    try:
        config = from_tables(text_files.load_tables(path))
        config.system.build()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not the configuration of a run: {error}") from None
    return config


def load_state(path: Path, template: TrainState) -> tuple[TrainState, dict]:
    """The state in a checkpoint, its walkers as many as the template's, and the attributes of the
    file.

    Raises:
      StorageError: the file cannot be used, or the random numbers of its run are not those of this
        program.
      OSError: it cannot be read for a reason that is not in the file.
    """
    state, attributes = files.load_tree(path, template, resized="walkers")
    numbers = attributes.get("random_numbers", NUMBERS)  # older files do not say it
    if numbers != NUMBERS:
        raise StorageError(
            f"{path} goes on with the random numbers of {numbers}, here they are {NUMBERS}"
        )
    return state, attributes


def trained_state(run_dir: Path, template: TrainState, step: int | None = None) -> TrainState:
    """The newest checkpoint that can be used, or that of a step.

    Raises:
      ValueError: there is none.
      OSError: a file cannot be read for a reason that is not in the file.
    """
    refusals = []
    for path in files.checkpoints(run_dir):
        if step is not None and path.stem != f"checkpoint-{step}":
            continue
        try:
            return load_state(path, template)[0]
        except StorageError as error:
            refusals.append(str(error))
    wanted = "checkpoint" if step is None else f"checkpoint of step {step}"
    raise ValueError(
        "; ".join([f"{run_dir} has no {wanted} that can be used: run heg-solve", *refusals])
    )


def start_from(run_dir: Path, solver: Solver) -> Params:
    """Parameters for a run to start from: the average of another run of as many electrons of each
    spin.

    They serve any r_s, temperature and twist: features are in units of the cell, levels in units of
      E_F.  Called by all
    processes, as its solver is built by all.

    Raises:
      ValueError: that run is of other electrons or of another model, or holds no checkpoint.
    """
    run_dir = Path(run_dir)
    before = build(on_first(configuration, run_dir))
    for name in ("n_up", "n_down", "dim"):
        there, here = (getattr(gas, name) for gas in (before.system, solver.system))
        if there != here:
            raise ValueError(
                f"start is {run_dir}: it has {name} {there}, this run {here}; give one of equal {name}"
            )
    state = on_first(trained_state, run_dir, before.template)
    found = transfer(state.average, before.cutoff.orbitals, solver.cutoff.orbitals)
    shapes = lambda params: jax.tree.map(np.shape, params)
    if shapes(found) != shapes(solver.template.params):
        raise ValueError(
            f"start is {run_dir}: its run has another [model]; give one of equal sizes"
        )
    return found


def transfer(params: Params, before: Orbitals, after: Orbitals) -> Params:
    """Parameters for other plane waves: those in both keep their levels, new ones have the ideal
    gas's."""
    place = {tuple(n): number for number, n in enumerate(before.n)}
    found = np.array([place.get(tuple(n), -1) for n in after.n])

    def of_leaf(path, leaf):
        if jax.tree_util.keystr(path[-1:], simple=True) != LEVELS:
            return np.asarray(leaf)
        return np.where(found >= 0, np.asarray(leaf)[:, found], 0.0)

    return Params(
        jax.tree_util.tree_map_with_path(of_leaf, params.occupations),
        jax.tree.map(np.asarray, params.flow),
    )
