"""Steps of a training that failed: their cause, what is written down, when to give up."""

import numpy as np

from heg.config import Config, OptimizerConfig
from heg.errors import RunError
from heg.runs.run_directory import TROUBLE
from heg.training.state import SAMPLING, StepInfo, TrainState
from heg.training.verdict import REDRAWN_FEW

MAX_REDRAWN_SHARE = 0.02  # of the draws of one step
MAX_FAILED_STEPS = 3  # one after the other


def trouble_of(config: Config, before: TrainState, after: TrainState, info: StepInfo) -> dict:
    """Cause of a failed step, and what is needed to look into it; empty if the step is sound.

    Args:
      config: of the run.
      before, after: the states around the step.
      info: of the step.
    """
    cause = _cause(info, config.sampler.batch)
    if not cause:
        return {}
    sample = int(info.worst)
    return {
        "step": int(before.step),
        "cause": cause,
        # the random numbers of the step follow from these three
        "seed": config.run.seed,
        "key": np.asarray(before.key).tolist(),
        "purpose": SAMPLING,
        "sample": sample,
        "state": np.asarray(after.walkers.state)[sample].tolist(),
        "x": np.asarray(after.walkers.x)[sample].tolist(),
    }


def give_up_after(troubles: list[dict], config: OptimizerConfig) -> None:
    """End a run whose steps fail one after the other.

    Args:
      troubles: of the steps that failed since the last sound one.
      config: of the optimiser, for the remedy.

    Raises:
      RunError: too many failed.
    """
    if len(troubles) < MAX_FAILED_STEPS:
        return
    first = troubles[0]["step"]
    last = troubles[-1]["step"]
    cause = troubles[-1]["cause"]
    raise RunError(
        f"steps {first} to {last} failed one after the other, the last because {cause} "
        f"({TROUBLE} has the samples): continue from the last checkpoint with a smaller step, "
        f"{_smaller_step(config)}"
    )


def _cause(info: StepInfo, batch: int) -> str:
    """Why a step failed, in words; empty if it did not."""
    lost = int(info.lost)
    redrawn = int(info.redrawn)
    if not info.finite:
        return "an energy, a gradient or a parameter is not finite"
    if lost:
        return f"{lost} samples could not be drawn"
    if redrawn > max(REDRAWN_FEW, MAX_REDRAWN_SHARE * batch):
        return f"{redrawn} of {batch} draws had no verified inverse"
    return ""


def _smaller_step(config: OptimizerConfig) -> str:
    """The flag that halves the steps of the optimiser."""
    if config.optimizer == "natural":
        return f"--max-norm {config.max_norm / 2:g}"
    return f"--learning-rate {config.learning_rate / 2:g}"
