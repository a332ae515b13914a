import dataclasses

import pytest

from heg.config import ModelConfig, OptimizerConfig, RunConfig, SamplerConfig, SystemConfig
from heg.system import System

GAS = SystemConfig(electrons=14, dim=2, rs=2.0, theta=0.5)


@pytest.mark.parametrize(
    "electrons, polarization, spins",
    [(14, "0", (7, 7)), (14, "3/7", (10, 4)), (7, "3/7", (5, 2)), (7, "1", (7,)), (4, "0.5", (3, 1)), (1, "1", (1,))],
)
def test_polarization_splits_the_electrons(electrons, polarization, spins):
    gas = dataclasses.replace(GAS, electrons=electrons, polarization=polarization).build()
    assert gas.spins == spins and gas.electrons == electrons


def test_system_is_that_of_the_settings():
    assert GAS.build() == System(7, 7, 2, rs=2.0, theta=0.5, twist=(0.0, 0.0), coupling=1.0)
    twisted = dataclasses.replace(GAS, twist=(0.25, -0.5), coupling=0.5).build()
    assert twisted.twist == (0.25, -0.5) and twisted.coupling == 0.5


@pytest.mark.parametrize(
    "field, value",
    [
        ("electrons", 0),
        ("electrons", -3),
        ("dim", 4),
        ("rs", 0.0),
        ("theta", -1.0),
        ("twist", (0.1,)),
        ("twist", (0.1, 0.7)),
        ("coupling", -1.0),
        ("polarization", "1/3"),
        ("polarization", "-1"),
        ("polarization", "9/7"),
        ("polarization", "half"),
        ("polarization", "1/0"),
        ("polarization", "nan"),
    ],
)
def test_impossible_system_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(GAS, **{field: value}).build()


def test_impossible_polarization_tells_the_possible_ones():
    with pytest.raises(ValueError, match="1/5, 3/5, 1"):
        dataclasses.replace(GAS, electrons=5, polarization="0").build()


@pytest.mark.parametrize(
    "group, field, value",
    [
        (ModelConfig, "orbital_tolerance", 0.0),
        (ModelConfig, "transformer_layers", -1),
        (ModelConfig, "transformer_heads", 0),
        (ModelConfig, "transformer_width", 7),
        (ModelConfig, "flow_layers", -1),
        (ModelConfig, "flow_width", 0),
        (SamplerConfig, "batch", 1),
        (SamplerConfig, "moves", 0),
        (SamplerConfig, "acceptance", 1.0),
        (SamplerConfig, "chunk", 0),
        (OptimizerConfig, "learning_rate", 0.0),
        (OptimizerConfig, "damping", -1.0),
        (OptimizerConfig, "max_norm", float("nan")),
        (RunConfig, "steps", -1),
        (RunConfig, "samples", 1),
        (RunConfig, "save_every", 0),
        (RunConfig, "max_seconds", 0.0),
    ],
)
def test_impossible_setting_is_named(group, field, value):
    needed = {"run_dir": "run"} if group is RunConfig else {}
    with pytest.raises(ValueError, match=field):
        group(**needed, **{field: value})
