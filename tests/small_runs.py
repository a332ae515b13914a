"""Runs as small as they can be, for tests of loops and files."""

import contextlib

import pytest

from heg.config import Config, ModelConfig, OptimizerConfig, RunConfig, SamplerConfig
from heg.runs import second_order_rows

BATCH = 16
# states of the second order where its loop and files are tested: heg.runs.second_order_rows
FEW_STATES = {"MIN_ROWS": 8, "SKIPPED_DRAWS": 512, "KNOWN_STATES": 64, "SHELL_STATES": 16}
FLAGS = {
    **{
        "electrons": "3",
        "dim": "2",
        "polarization": "1",
        "rs": "4",
        "theta": "0.3",
        "twist": "0.1 0.2",
    },
    **{"transformer-layers": "1", "transformer-width": "4", "transformer-heads": "2"},
    **{
        "flow-layers": "1",
        "flow-width": "4",
        "batch": "16",
        "steps": "6",
        "samples": "64",
        "save-every": "2",
    },
}


def command_line(run_dir, **changed):
    """Flags of a small run; changed ones by name, underscores for dashes."""
    flags = (
        FLAGS
        | {name.replace("_", "-"): value for name, value in changed.items()}
        | {"run-dir": str(run_dir)}
    )
    return [word for name, value in flags.items() for word in (f"--{name}", *value.split())]


def small_config(gas, flow_layers=1, transformer_layers=1, sampler="exact", optimizer="natural"):
    return Config(
        gas,
        RunConfig("not-used"),
        ModelConfig(1e-2, transformer_layers, 8, 2, flow_layers, 8),
        SamplerConfig(sampler, BATCH, moves=20, chunk=8),
        OptimizerConfig(optimizer),
    )


@contextlib.contextmanager
def few_states():
    """The loop of the second order looks at FEW_STATES; its accuracy is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name, number in FEW_STATES.items():
            patch.setattr(second_order_rows, name, number)
        yield
