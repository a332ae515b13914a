"""Parameters for a run from another, trained run.

They serve any r_s, temperature and twist: features are in units of the cell, levels in units of the
Fermi energy.
"""

from pathlib import Path

import jax
import numpy as np

from heg.gas.plane_waves import Orbitals
from heg.model.density_matrix import Params
from heg.parallel.processes import on_first
from heg.runs.run_directory import RunDirectory
from heg.training.step import Solver, build

LEVELS = "levels"  # the parameters of p(K) that belong to one plane wave each


def start_from(run_dir: Path, solver: Solver) -> Params:
    """Parameters for a run to start from: the average of another run.

    All processes call this, since they all build the solver of that run.

    Args:
      run_dir: the other run.
      solver: of the run that starts.

    Raises:
      ValueError: that run has other electrons or another model, or holds no checkpoint.
    """
    directory = RunDirectory(Path(run_dir))
    other = build(on_first(directory.configuration))
    for name in ("n_up", "n_down", "dim"):
        there = getattr(other.system, name)
        here = getattr(solver.system, name)
        if there != here:
            raise ValueError(
                f"start is {directory}: it has {name} {there}, this run {here}; "
                f"give one of equal {name}"
            )
    state = on_first(directory.trained_state, other.template)
    # the average has less noise than the parameters after the last step
    params = transfer(state.average, other.cutoff.orbitals, solver.cutoff.orbitals)
    if _shapes(params) != _shapes(solver.template.params):
        raise ValueError(
            f"start is {directory}: its run has another [model]; give one of equal sizes"
        )
    return params


def transfer(params: Params, before: Orbitals, after: Orbitals) -> Params:
    """Parameters of one set of plane waves as those of another.

    Plane waves in both keep their levels; new ones have the levels of the ideal gas.

    Args:
      params: of the plane waves `before`.
      before, after: the plane waves, each in the order of their energies.
    """
    # the order of energies changes with temperature and twist, the integers n of a wave do not
    index_before = {tuple(n): index for index, n in enumerate(before.n)}
    source = np.array([index_before.get(tuple(n), -1) for n in after.n])
    is_known = source >= 0

    def move(path, leaf):
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path[-1:], simple=True)
        if name != LEVELS:
            return array
        # a level of zero is that of the ideal gas
        return np.where(is_known, array[:, source], 0.0)

    occupations = jax.tree_util.tree_map_with_path(move, params.occupations)
    flow = jax.tree.map(np.asarray, params.flow)
    return Params(occupations, flow)


def _shapes(params: Params) -> Params:
    """The shapes of all arrays, in their places."""
    return jax.tree.map(np.shape, params)
