"""The loop of heg-eos: every point of a grid trained and measured, whatever happens to one of them.

Every point is an ordinary run in a directory of its own, which all processes of a job share.
Several jobs may work on one grid: a point that another one holds is passed over.
"""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax

from heg.config import Config
from heg.eos.doubts import doubts
from heg.eos.grid import Point, TableConfig, points, run_config
from heg.eos.table_directory import (
    FAILURES_FILE,
    KEPT_OBSERVABLES,
    POINT_FILE,
    claim,
    is_done,
)
from heg.errors import InUse, RunError, StorageError
from heg.parallel.processes import any_process, is_first, on_first
from heg.runs import text_files
from heg.runs.measure import Sampled, measure, sample
from heg.runs.run_directory import RunDirectory
from heg.runs.solve import solve
from heg.statistics import Estimate
from heg.training.convergence import settled

LOG = logging.getLogger(__name__)

# what may go wrong with one point and leaves the others alone, too little memory among it
FAILURES_OF_A_POINT = (
    RunError,
    StorageError,
    ValueError,
    RuntimeError,
    MemoryError,
    OverflowError,
)
# those that all processes of a job know of
SHARED_FAILURES = (RunError, StorageError, ValueError)
MARGIN = 1.1  # of the number of samples

Outcome = Literal["done", "stopped", "held", "failed"]


class Hooks(NamedTuple):
    """Functions that the survey calls.

    Attributes:
      show: takes the point, what is going on, how much of it is done, how much there is, and in
        training F of the step, hartree per electron.
      done: called after each point that is finished.
      stop: true when the survey is to end in order.
    """

    show: Callable
    done: Callable
    stop: Callable[[], bool]


def survey(table: TableConfig, run_dir: Path, hooks: Hooks) -> bool:
    """Compute the points of a grid that are missing.  Called by all processes.

    Args:
      table: the settings.
      run_dir: directory of the table.
      hooks: to tell the user, and to be stopped.

    Returns:
      Whether points are left that the same call goes on with: the survey was stopped, or another
      job holds a point.

    Raises:
      ValueError: the grid is impossible, or the directory holds another one.
      OSError: a file cannot be written.
    """
    run_dir = Path(run_dir).resolve()
    every = points(table.grid)
    on_first(claim, table, run_dir)
    stop_file = run_dir / "STOP"

    def asked_to_stop() -> bool:
        return hooks.stop() or (is_first() and stop_file.exists())

    # another job works on a point: the table is not finished by this call
    is_held = False
    for point in every:
        if on_first(is_done, table, run_dir, point):
            continue
        work = PointWork(table, run_dir, point, hooks._replace(stop=asked_to_stop))
        outcome = "stopped" if any_process(asked_to_stop()) else work.attempt_all()
        if outcome == "stopped":
            on_first(partial(stop_file.unlink, missing_ok=True))
            return True
        if outcome == "held":
            is_held = True
        if outcome == "done":
            on_first(hooks.done)
    return is_held


@dataclasses.dataclass(frozen=True)
class PointWork:
    """The work on one point: training, samples until F is as accurate as wanted, second order.

    Attributes:
      table: settings of the table.
      run_dir: directory of the table.
      point: the point.
      hooks: as in `survey`.
    """

    table: TableConfig
    run_dir: Path
    point: Point
    hooks: Hooks

    @property
    def directory(self) -> RunDirectory:
        """That of the run of the point."""
        return RunDirectory(self.run_dir / self.point.name)

    def attempt_all(self) -> Outcome:
        """Compute the point, with smaller steps again where an attempt fails."""
        for attempt in range(self.table.grid.retries + 1):
            try:
                return "done" if self.compute(attempt) else "stopped"
            except InUse as error:
                LOG.warning(f"{self.point.name} is passed over: {error}.")
                return "held"
            except FAILURES_OF_A_POINT as error:
                if jax.process_count() > 1 and not isinstance(error, SHARED_FAILURES):
                    raise  # the other processes may not know of it
                self._report_failure(error)
        return "failed"

    def _report_failure(self, error: Exception) -> None:
        # one line, whatever the error says
        sentence = " ".join(str(error).split())
        failure = {"point": self.point.name, "what": sentence}
        on_first(text_files.append_line, self.run_dir / FAILURES_FILE, failure)
        LOG.warning(f"{self.point.name} failed: {sentence}.")

    def compute(self, attempt: int) -> bool:
        """Train and measure the point, and write point.json; false if stopped."""
        begun = on_first(self._begun)
        # an attempt that failed begins from the same run
        start = begun.run.start if begun else on_first(self._start)
        summary = self._train(begun, start, attempt)
        if not summary:
            return False
        trained = time.monotonic()
        sampled = self._sample_until_accurate(summary)
        if sampled is None:
            return False
        samples = sampled.samples
        accuracy = self.point.accuracy
        show = partial(self.hooks.show, self.point)
        path = self.directory.path
        # what is measured on these samples, and the second order to the accuracy of the point
        if measure(path, samples, show, self.hooks.stop, second_order=accuracy) is None:
            return False
        observables = on_first(text_files.load_json, path / "observables.json")
        free_energy = sampled.free_energy
        history = on_first(self.directory.history)
        temperature = self.point.system.build().temperature
        has_settled = settled(history, accuracy, temperature)
        measured = _kept(observables)
        facts = {
            "F": free_energy._asdict(),
            "accuracy_ha": accuracy,
            "limits": [self.table.grid.steps, self.table.grid.samples],
            "settled": has_settled,
            "reached": has_settled and free_energy.error <= accuracy,
            "start": start,
            "steps": summary["steps"],
            "samples": samples,
            "attempt": attempt,
            "seconds": summary["seconds"] + time.monotonic() - trained,
            "seconds_of_training": summary["seconds"],
            # the table is made of this: another measurement of the run does not change it
            "measured": measured,
            "doubts": doubts(summary, history, measured, accuracy, temperature),
        }
        on_first(text_files.save_json, path / POINT_FILE, facts)
        return True

    def _begun(self) -> Config | None:
        """The configuration of the run of the point; None if it has not begun."""
        if not self.directory.config_file.exists():
            return None
        return self.directory.configuration()

    def _start(self) -> str | None:
        """Directory of the nearest neighbour that is done; None, for the ideal gas, if none is."""
        if not self.table.grid.warm:
            return None
        for name in self.point.neighbours:
            if (self.run_dir / name / POINT_FILE).exists():
                return str(self.run_dir / name)
        return None

    def _train(self, begun: Config | None, start: str | None, attempt: int) -> dict:
        """The summary of the trained run; empty if stopped."""
        config = run_config(
            self.table,
            self.point,
            run_dir=str(self.directory),
            start=start,
            attempt=attempt,
        )
        # a run keeps its plane waves, though the grid may have got hotter temperatures since
        if begun:
            config = dataclasses.replace(config, model=begun.model)

        def show(step, info):
            mean, error = info.estimates["F"]
            free_energy = Estimate(float(mean), float(error))
            self.hooks.show(self.point, "step", step, self.table.grid.steps, free_energy)

        with _silent_runs():
            return solve(config, show, self.hooks.stop)

    def _sample_until_accurate(self, summary: dict) -> Sampled | None:
        """Samples with the wanted error of F, or as many as allowed; None if stopped."""
        count = summary["samples"]
        error = summary["F"]["error"]
        max_count = self.table.grid.samples
        while True:
            # errors fall with the square root of the number; each round at least doubles it
            too_large = error / self.point.accuracy
            wanted = MARGIN * count * too_large**2
            twice = 2 * count
            count = min(max(wanted, twice), max_count)
            show = partial(self.hooks.show, self.point)
            sampled = sample(self.directory.path, math.ceil(count), show, self.hooks.stop)
            if sampled is None:
                return None
            count = sampled.samples
            error = sampled.free_energy.error
            if error <= self.point.accuracy or count >= max_count:
                return sampled


@contextlib.contextmanager
def _silent_runs() -> Iterator[None]:
    """Keep the sentences of a run to itself: the survey has lines of its own."""
    log = logging.getLogger("heg.runs")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _kept(observables: dict) -> dict:
    """The part of observables.json that the table is made of."""
    kept = {name: observables[name] for name in KEPT_OBSERVABLES}
    kept["q"] = observables["q"]["mean"][0]
    kept["S_q"] = [row[0] for row in observables["S_q"]["mean"]]
    kept["F_2"] = _f_2_with_errors(observables["second_order"])
    return kept


def _f_2_with_errors(parts: dict) -> dict[str, float]:
    """F_2 with its statistical and its systematic error, hartree per electron.

    The systematic error is the rest of the whole one.
    """
    if not parts:  # a single electron is not correlated
        return {"mean": 0.0, "error": 0.0, "systematic": 0.0}
    systematic = math.sqrt(max(parts["error"] ** 2 - parts["statistical"] ** 2, 0.0))
    return {"mean": parts["value"], "error": parts["statistical"], "systematic": systematic}
