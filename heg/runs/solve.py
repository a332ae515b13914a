"""The training of a run from its beginning, or its last checkpoint, to its result.

This is heg-solve without its command line.  Read `solve` first: it calls the steps of a `Run` in
their order.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from heg.config import Config, changes
from heg.errors import StorageError
from heg.model.density_matrix import Params
from heg.parallel.compilation import compiler_threads
from heg.parallel.devices import everywhere
from heg.parallel.processes import any_process, is_first, on_first
from heg.runs import files, hdf5, text_files
from heg.runs.frozen_samples import frozen_samples
from heg.runs.run_directory import RunDirectory, load_state
from heg.runs.summary import history_row, summarise
from heg.runs.trouble import give_up_after, trouble_of
from heg.runs.warm_start import start_from
from heg.training.convergence import settled
from heg.training.state import NUMBERS, StepInfo, TrainState, key_of_run
from heg.training.step import Solver, build
from heg.training.verdict import verdict

# its sentences are warnings: Python shows nothing below them unless it is asked to
LOG = logging.getLogger(__name__)

Samples = dict[str, np.ndarray]  # F, E, ... of independent samples per electron, [samples] each


def solve(
    config: Config,
    show: Callable[[int, StepInfo], object],
    stop: Callable[[], bool],
) -> dict:
    """Run, or continue to its end, the run in config.run.run_dir.  Called by all processes.

    Args:
      config: of the run.
      show: takes the number of steps done and the StepInfo of the last one.
      stop: true when the run is to end in order, with a checkpoint; so does a file STOP in the run
        directory.

    Returns:
      The summary, as in summary.json; empty if the run was stopped before its end.

    Raises:
      ValueError: the configuration is impossible, or differs from that of the run in a field that
        may not change.
      RunError: the run cannot go on.
      StorageError, OSError: a file cannot be used, or another run is using the directory.
    """
    directory = RunDirectory(Path(config.run.run_dir))

    def asked_to_stop() -> bool:
        # a signal may reach one process alone: all of them end together
        return any_process(stop() or (is_first() and directory.stop_file.exists()))

    run = Run(
        config=config,
        solver=build(config),
        directory=directory,
        show=show,
        stop=asked_to_stop,
    )
    # a start that does not fit is refused before there is a directory
    other_params = run.parameters_of_other_run()
    with contextlib.ExitStack() as held:
        # files belong to the first process: it alone holds the lock
        on_first(run.claim_directory, held)
        # a run that has its result needs few programs, or none
        if not on_first(directory.summary_file.exists):
            run.solver.compile_ahead(held.enter_context(compiler_threads()))
        first = run.first_state(other_params)
        progress = run.restore(first)
        # before the training too: the summary has the untrained values beside the result
        initial = run.samples_at(first)
        run.train(progress)
        final: Samples = {}
        if run.is_trained(progress):
            final = run.samples_at(progress.state)
        summary: dict = {}
        if initial and final:
            summary = run.conclude(progress, initial, final)
        # the request has been heard; left there it would end the next run at once
        on_first(partial(directory.stop_file.unlink, missing_ok=True))
    return summary


@dataclasses.dataclass
class Progress:
    """How far a training is.

    Attributes:
      state: after the last step.
      rows: dicts of the history up to it, oldest first.
      saved_step: that of the newest checkpoint; None without one.
      seconds_before: spent on the run by earlier processes.
      begin: reading of the clock when this process took the run up.
      troubles: of the steps that failed since the last sound one.
    """

    state: TrainState
    rows: list[Any]
    saved_step: int | None
    seconds_before: float
    begin: float
    troubles: list[dict] = dataclasses.field(default_factory=list)

    @property
    def step(self) -> int:
        """Steps done, with those that were passed over."""
        return int(self.state.step)

    @property
    def seconds(self) -> float:
        """Time spent on the run by all processes so far."""
        return self.seconds_before + time.monotonic() - self.begin


class Checkpoint(NamedTuple):
    """A checkpoint that was read.

    Attributes:
      state: what it holds; None where there is none.
      seconds: spent on the run until it was written.
    """

    state: TrainState | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Run:
    """A run made ready, and its steps from the claim of its directory to its summary.

    Attributes:
      config: as asked for.
      solver: built from it.
      directory: where its files are.
      show, stop: as in `solve`; stop gives the same answer to all processes.
    """

    config: Config
    solver: Solver
    directory: RunDirectory
    show: Callable[[int, StepInfo], object]
    stop: Callable[[], bool]

    def parameters_of_other_run(self) -> Params | None:
        """The parameters that a new run starts from; None if it is not new, or from the ideal gas.

        Raises:
          ValueError: the other run is of another dimension, other spins or another model.
        """
        start = self.config.run.start
        if start and not on_first(self.directory.config_file.exists):
            return start_from(Path(start), self.solver, self.config.run.seed)
        return None

    def claim_directory(self, held: contextlib.ExitStack) -> None:
        """Hold the directory until `held` is closed, and write or check its configuration.

        Raises:
          ValueError: it holds another run.
          StorageError: another process is using it.
        """
        self.directory.path.mkdir(parents=True, exist_ok=True)
        previous_holder = held.enter_context(self.directory.locked())
        if previous_holder:
            LOG.warning(f"The run that was here did not end in order ({previous_holder}).")
        if self.directory.config_file.exists():
            self._check_configuration()
        # without its configuration a run cannot be told from another
        elif (
            any(self.directory.path.glob("checkpoint-*.h5")) or self.directory.history_file.exists()
        ):
            raise ValueError(
                f"{self.directory} holds a run without its config.toml: choose another --run-dir"
            )
        self.directory.save_configuration(self.config)

    def _check_configuration(self) -> None:
        """Refuse changes that make another run of it, and name the others."""
        stored = text_files.load_tables(self.directory.config_file)
        differences = changes(self.config, stored)
        if differences.refused:
            raise ValueError(
                f"{self.directory} holds another run: {'; '.join(differences.refused)}; "
                "choose another --run-dir"
            )
        for change in differences.announced:
            LOG.warning(f"Changed: {change}.")

    def first_state(self, other_params: Params | None) -> TrainState:
        """The state before the first step: untrained, or with the parameters of another run.

        The latter is kept in checkpoint-0.h5: the run goes on when the other one is gone.

        Args:
          other_params: from `parameters_of_other_run`.
        """
        untrained = self.solver.init(key_of_run(self.config.run.seed))
        start = self.config.run.start
        if not start:
            return everywhere(untrained)
        path = self.directory.checkpoint_file(0)
        first = on_first(self._load_first_state, path)
        if first is None:
            params = other_params
            # a run that is continued, but whose checkpoint-0.h5 was lost
            if params is None:
                params = start_from(Path(start), self.solver, self.config.run.seed)
            on_host = jax.tree.map(np.asarray, untrained)
            first = on_host._replace(params=params, average=params)
            save = partial(hdf5.save_tree, random_numbers=NUMBERS)
            on_first(save, path, first)
            LOG.warning(f"Starting from {start}.")
        return everywhere(first)

    def _load_first_state(self, path: Path) -> TrainState | None:
        """The state in a file; None if there is none that can be used."""
        with contextlib.suppress(StorageError):
            state, _ = load_state(path, self.solver.template)
            return state
        # it is made anew from the other run
        self._set_aside([path])
        return None

    def restore(self, first: TrainState) -> Progress:
        """Where the training goes on: at its newest checkpoint, or at the first state.

        Rows of the history after the checkpoint are dropped; they are computed again, bit for bit.
        """
        begin = time.monotonic()
        checkpoint = on_first(self._newest_checkpoint)
        is_new = checkpoint.state is None
        state = first if is_new else everywhere(checkpoint.state)
        step = int(state.step)
        return Progress(
            state=state,
            rows=on_first(self.directory.rewind_history, step),
            saved_step=None if is_new else step,
            seconds_before=checkpoint.seconds,
            begin=begin,
        )

    def _newest_checkpoint(self) -> Checkpoint:
        """The newest checkpoint that can be used; newer ones are set aside."""
        unusable = []
        for path in self.directory.checkpoints():
            try:
                state, attributes = load_state(path, self.solver.template)
            except StorageError as error:
                LOG.warning(f"{error}; the checkpoint before it is used.")
                unusable.append(path)
                continue
            self._set_aside(unusable)
            LOG.warning(f"Continuing from {path.name}.")
            seconds = float(attributes.get("seconds", 0.0))
            return Checkpoint(state, seconds)
        rows = self.directory.history()
        last_step = 0
        if rows:
            last_step = int(rows[-1]["step"])
        # a run that ended before its first checkpoint begins anew without a word
        had_checkpoints = last_step > self.config.run.save_every
        if unusable or had_checkpoints:
            self._set_aside([*unusable, self.directory.history_file])
            LOG.warning("No checkpoint is left: the run begins anew.")
        return Checkpoint(None, 0.0)

    def _set_aside(self, paths: list[Path]) -> None:
        for path in paths:
            if path.exists():
                LOG.warning(f"{path.name} is kept as {files.set_aside(path).name}.")

    def train(self, progress: Progress) -> None:
        """Take steps until the training is at its end or asked to stop; leave a checkpoint."""
        while not self.is_trained(progress) and not self.stop():
            self._take_step(progress)
        # a run that was at its end already has this checkpoint
        if progress.saved_step != progress.step:
            self._save_checkpoint(progress)

    def is_trained(self, progress: Progress) -> bool:
        """Whether the training is at its end.

        The answer is the same for all processes, and for a run that is continued.
        """
        if progress.step >= self.config.run.steps:
            return True
        accuracy = self.config.run.accuracy
        return accuracy is not None and settled(
            progress.rows, accuracy, self.solver.system.temperature
        )

    def _take_step(self, progress: Progress) -> None:
        # the state before is kept until the step is known to be sound
        before = progress.state
        after, info = self.solver.step(before)
        trouble = trouble_of(self.config, before, after, info)
        if trouble:
            self._undo(progress, trouble)
        else:
            self._keep(progress, after, info)

    def _undo(self, progress: Progress, trouble: dict) -> None:
        """Go on from the state before a step that failed.

        Raises:
          RunError: too many failed one after the other.
        """
        progress.troubles.append(trouble)
        on_first(self.directory.append_trouble, trouble)
        give_up_after(progress.troubles, self.config.optimizer)
        # the parameters stay, the random numbers of this step are passed over: the same step
        # would fail again
        progress.state = progress.state._replace(step=progress.state.step + 1)

    def _keep(self, progress: Progress, after: TrainState, info: StepInfo) -> None:
        """Take over the state after a sound step, and write down what it saw."""
        progress.troubles.clear()
        progress.state = after
        row = history_row(progress.step, info)
        progress.rows.append(row)
        on_first(self.directory.append_history, row)
        self.show(progress.step, info)
        if progress.step % self.config.run.save_every == 0:
            self._save_checkpoint(progress)

    def _save_checkpoint(self, progress: Progress) -> None:
        """Write a checkpoint and delete the older ones that are not to be kept."""
        save = partial(self.directory.save_checkpoint, seconds=progress.seconds)
        on_first(save, progress.state)
        # older ones go once the new one is whole, so that there is always one to go on with
        on_first(self.directory.thin_out, self.config.run.keep, self.config.run.keep_every)
        progress.saved_step = progress.step

    def samples_at(self, state: TrainState) -> Samples:
        """Independent samples at the averaged parameters of a state; empty if stopped."""
        return frozen_samples(self.solver, self.config, state, self.stop)

    def conclude(self, progress: Progress, initial: Samples, final: Samples) -> dict:
        """Write summary.json from the samples before and after the training; return it."""
        summary = summarise(
            self.solver,
            self.config,
            progress.state,
            initial=initial,
            final=final,
        )
        # one batch for each step, and the first batch of chains
        draws = self.config.sampler.batch * (summary["steps"] + 1)
        summary["verdict"] = verdict(summary, progress.rows, draws)
        summary["seconds"] = progress.seconds
        on_first(self.directory.save_summary, summary)
        return summary
