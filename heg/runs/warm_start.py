"""Parameters for a run from another, trained run.

They serve any r_s, temperature and twist: features are in units of the cell, levels in units of the
Fermi energy.  In a cell of other electrons the flow alone is taken over.
"""

from pathlib import Path

import jax
import numpy as np

from heg.gas.plane_waves import Orbitals
from heg.model.density_matrix import Params
from heg.model.pairs import make_pairs
from heg.parallel.processes import on_first
from heg.runs.run_directory import RunDirectory
from heg.training.state import key_of_run
from heg.training.step import Solver, build

LEVELS = "levels"  # the parameters of p(K) that belong to one plane wave each


def start_from(run_dir: Path, solver: Solver, seed: int) -> Params:
    """Parameters for a run to start from: the average of another run.

    A run of other electrons gives its flow, and p(K) begins as that of the ideal gas.  All
    processes call this, since they all build the solver of that run.

    Args:
      run_dir: the other run.
      solver: of the run that starts.
      seed: of the parameters that are not taken over.

    Raises:
      ValueError: that run has another dimension, other kinds of spins or another model, or holds
        no checkpoint.
    """
    # compared before anything is read that may not fit
    directory = RunDirectory(Path(run_dir))
    other = build(on_first(directory.configuration))
    there, here = other.system, solver.system
    if there.dim != here.dim:
        raise ValueError(
            f"start is {directory}: it has dim {there.dim}, this run {here.dim}; "
            "give one of equal dim"
        )
    if set(make_pairs(there).kinds) != set(make_pairs(here).kinds):
        raise ValueError(
            f"start is {directory}: it is {there.label}, this run {here.label}; give one whose "
            "electrons have one spin or two, as here"
        )
    state = on_first(directory.trained_state, other.template)
    # the average has less noise than the parameters after the last step
    params = state.average
    if there.spins == here.spins:
        params = transfer(params, other.cutoff.orbitals, solver.cutoff.orbitals)
    else:
        # eta as a function of the same features: one adapted to the larger cell, so that close
        # pairs keep theirs, has to be extrapolated for distant ones, and folds
        untrained = solver.init(key_of_run(seed)).params
        params = Params(
            occupations=jax.tree.map(np.asarray, untrained.occupations),
            flow=jax.tree.map(np.asarray, params.flow),
        )
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
    index_before = {}
    for index, n in enumerate(before.n):
        index_before[tuple(n)] = index
    source = np.array([index_before.get(tuple(n), -1) for n in after.n])
    is_known = source >= 0

    def move(path, leaf):
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path[-1:], simple=True)
        if name != LEVELS:
            return array
        # a level of zero is that of the ideal gas
        moved = array[:, source]
        return np.where(is_known, moved, 0.0)

    occupations = jax.tree_util.tree_map_with_path(move, params.occupations)
    flow = jax.tree.map(np.asarray, params.flow)
    return Params(occupations, flow)


def _shapes(params: Params) -> Params:
    """The shapes of all arrays, in their places."""
    return jax.tree.map(np.shape, params)
