"""The directory of a run of heg-solve: where its files are, how they are read and written.

    config.toml         the configuration, as resolved
    history.csv         a row for each step
    checkpoint-<n>.h5   the state after n steps; older ones are thinned out
    samples-<n>.h5      samples at the averaged parameters of step n
    summary.json        the result
    trouble.jsonl       steps that were undone
    lock                the process that is using the directory
    STOP                made by the user to end the run in order

Under a launcher the first process alone calls these methods.
"""

import contextlib
import dataclasses
import re
from pathlib import Path

from heg.config import Config, from_tables, tables
from heg.errors import StorageError
from heg.runs import files, hdf5, text_files
from heg.training.state import NUMBERS, TrainState

HISTORY = "history.csv"
TROUBLE = "trouble.jsonl"


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The files of one run.

    Attributes:
      path: the directory, which need not exist yet.
    """

    path: Path

    def __post_init__(self):
        object.__setattr__(self, "path", Path(self.path))

    def __str__(self):
        return str(self.path)

    @property
    def config_file(self) -> Path:
        """The configuration; a directory with this file holds a run."""
        return self.path / "config.toml"

    @property
    def history_file(self) -> Path:
        """A table with a row for each step."""
        return self.path / HISTORY

    @property
    def summary_file(self) -> Path:
        """The result of a finished run."""
        return self.path / "summary.json"

    @property
    def trouble_file(self) -> Path:
        """Steps that were undone, one JSON object a line."""
        return self.path / TROUBLE

    @property
    def stop_file(self) -> Path:
        """The user's request to end the run in order."""
        return self.path / "STOP"

    def checkpoint_file(self, step: int) -> Path:
        """The state after a number of steps."""
        return self.path / f"checkpoint-{step}.h5"

    def samples_file(self, step: int) -> Path:
        """Samples at the averaged parameters of a step."""
        return self.path / f"samples-{step}.h5"

    def locked(self) -> contextlib.AbstractContextManager[str]:
        """Hold the directory for this process, as `heg.runs.files.locked`."""
        return files.locked(self.path)

    def configuration(self) -> Config:
        """Read the configuration of the run.

        Raises:
          ValueError: the directory holds no run, or its config.toml is not one.
          StorageError: the file cannot be read.
        """
        if not self.config_file.exists():
            raise ValueError(f"{self} holds no run: give the run directory of heg-solve")
        try:
            config = from_tables(text_files.load_tables(self.config_file))
            config.system.build()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{self.config_file} is not the configuration of a run: {error}"
            ) from None
        return config

    def save_configuration(self, config: Config) -> None:
        """Write the configuration of the run."""
        text_files.save_config(self.config_file, tables(config))

    def history(self) -> list[dict[str, str]]:
        """Read the rows of the history; empty if there is none.

        Raises:
          StorageError: a row is damaged.
        """
        return text_files.read_history(self.history_file)

    def rewind_history(self, step: int) -> list[dict[str, str]]:
        """Drop the rows after a step, which are to be computed again; return the others."""
        return text_files.rewind_history(self.history_file, step)

    def append_history(self, row: dict[str, float]) -> None:
        """Add the row of a step to the history."""
        text_files.append_history(self.history_file, row)

    def append_trouble(self, trouble: dict) -> None:
        """Write down a step that was undone."""
        text_files.append_line(self.trouble_file, trouble)

    def summary(self) -> dict:
        """Read the result of the run.

        Raises:
          StorageError: there is none, or the file is damaged.
        """
        return text_files.load_json(self.summary_file)

    def save_summary(self, summary: dict) -> None:
        """Write the result of the run."""
        text_files.save_json(self.summary_file, summary)

    def checkpoints(self) -> list[Path]:
        """Paths of the checkpoints, newest first."""
        steps = {}
        for path in self.path.glob("checkpoint-*.h5"):
            step = _step_of(path)
            if step is not None:
                steps[path] = step
        return sorted(steps, key=lambda path: steps[path], reverse=True)

    def save_checkpoint(self, state: TrainState, **notes) -> None:
        """Write the state of a run, with notes as attributes of the file."""
        path = self.checkpoint_file(int(state.step))
        hdf5.save_tree(path, state, random_numbers=NUMBERS, **notes)

    def thin_out(self, newest: int, every: int) -> None:
        """Delete all checkpoints but the newest ones and those at a multiple of `every` steps."""
        for path in self.checkpoints()[newest:]:
            step = _step_of(path)
            if step is not None and step % every:
                path.unlink(missing_ok=True)

    def trained_state(self, template: TrainState, step: int | None = None) -> TrainState:
        """Read the newest checkpoint that can be used, or that of a step.

        Args:
          template: a state of the same model.
          step: that of the checkpoint; None for the newest.

        Raises:
          ValueError: there is none.
          OSError: a file cannot be read for a reason that is not in the file.
        """
        refusals = []
        for path in self.checkpoints():
            if step is not None and path != self.checkpoint_file(step):
                continue
            try:
                state, _ = load_state(path, template)
                return state
            except StorageError as error:
                refusals.append(str(error))
        wanted = "checkpoint" if step is None else f"checkpoint of step {step}"
        sentence = f"{self} has no {wanted} that can be used: run heg-solve"
        raise ValueError("; ".join([sentence, *refusals]))


def load_state(path: Path, template: TrainState) -> tuple[TrainState, dict]:
    """Read the state in a checkpoint, with as many walkers as the template has.

    Returns:
      The state, and the attributes of the file.

    Raises:
      StorageError: the file cannot be used, or its run draws other random numbers than this
        program.
      OSError: it cannot be read for a reason that is not in the file.
    """
    state, attributes = hdf5.load_tree(path, template, resized="walkers")
    numbers = attributes.get("random_numbers", NUMBERS)  # older files do not name them
    if numbers != NUMBERS:
        raise StorageError(
            f"{path} goes on with the random numbers of {numbers}, here they are {NUMBERS}"
        )
    return state, attributes


def _step_of(path: Path) -> int | None:
    """Step of a checkpoint; None if the name is another, such as that of somebody's copy."""
    name = re.fullmatch(r"checkpoint-([0-9]+)\.h5", path.name)
    return int(name[1]) if name else None
