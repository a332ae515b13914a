import dataclasses
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from heg import config, plasma
from heg.cli import eos, measure, solve
from heg.config import ModelConfig, OptimizerConfig, RunConfig, SamplerConfig, SystemConfig
from heg.gas.system import System
from heg.runs import text_files

CHECKPOINTS = sorted(Path(__file__).parents[1].glob("checkpoints/*/"))
GAS = SystemConfig(electrons=14, dim=2, rs=2.0, theta=0.5)


@pytest.mark.parametrize(
    "electrons, polarization, spins",
    [
        (14, "0", (7, 7)),
        (14, "3/7", (10, 4)),
        (7, "3/7", (5, 2)),
        (7, "1", (7,)),
        (4, "0.5", (3, 1)),
        (1, "1", (1,)),
    ],
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
    with pytest.raises(ValueError, match=rf"^{field} (is|has) "):
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
    with pytest.raises(ValueError, match=rf"^{field} (is|has) "):
        group(**needed, **{field: value})


F = ["--electrons", "2", "--dim", "2", "--rs", "2", "--theta", "1", "--run-dir", "a"]


@pytest.mark.parametrize(
    "flag", ["samples", "batch", "steps", "seed", "save-every", "transformer-width", "chunk"]
)
def test_a_whole_number_is_not_rounded(flag):
    with pytest.raises(ValueError, match=f"--{flag}: '32.5' is not a whole number"):
        solve.parse([*F, f"--{flag}", "32.5"])
    for word, value in (("32", 32), ("3.2e1", 32), ("32.0", 32)):
        tables = config.tables(solve.parse([*F, f"--{flag}", word])[0])
        assert (
            next(
                table[flag.replace("-", "_")]
                for table in tables.values()
                if flag.replace("-", "_") in table
            )
            == value
        )


def test_whole_numbers_of_files_are_not_rounded_either(tmp_path):
    path = tmp_path / "run.toml"
    for line, words in (("electrons = 7.9", "electrons"), ("electrons = true", "electrons")):
        path.write_text(
            f'[system]\n{line}\ndim = 2\nrs = 2.0\ntheta = 1.0\npolarization = "1"\n'
            '[run]\nrun_dir = "a"\n'
        )
        with pytest.raises(ValueError, match=words):
            solve.parse([str(path)])
    path.write_text("[grid]\ndim = 2\nelectrons = [2.5]\nrs = [1.0]\ntheta = [0.5]\n")
    with pytest.raises(ValueError, match="electrons.*2.5"):
        eos.parse([str(path), "--run-dir", "a"])
    with pytest.raises(ValueError, match="--samples: '2.5' is not a whole number"):
        measure.parse(["a", "--samples", "2.5"])


def test_a_configuration_of_numpy_numbers_is_that_of_python_numbers():
    numpy = SystemConfig(
        np.int64(14), np.int64(2), np.float32(2), np.float64(0.5), np.float32(0), np.zeros(2)
    )
    assert (
        numpy == dataclasses.replace(GAS, polarization="0.0", twist=(0.0, 0.0))
        and numpy.build() == GAS.build()
    )
    made = config.Config(
        numpy,
        RunConfig(Path("a"), np.int64(3), seed=np.uint32(7)),
        sampler=SamplerConfig(batch=32.0),
    )
    assert tomllib.loads(tomli_w.dumps({"run": {"seed": made.run.seed}})) == {"run": {"seed": 7}}
    assert (
        made.run.run_dir == "a"
        and repr(made.sampler.batch) == "32"
        and repr(made.system.rs) == "2.0"
    )
    with pytest.raises(ValueError, match="batch is 33.7: it must be a whole number"):
        SamplerConfig(batch=33.7)
    with pytest.raises(ValueError, match="rs is None: it must be a number"):
        SystemConfig(2, 2, None, 0.5)


def test_a_start_is_the_same_directory_however_it_is_written():
    before = config.Config(GAS, RunConfig("a", start="real"))
    for written in ("real/", "./real", str(Path("real").absolute())):
        after = dataclasses.replace(before, run=dataclasses.replace(before.run, start=written))
        assert not config.changes(after, config.tables(before)).refused
    other = dataclasses.replace(before, run=dataclasses.replace(before.run, start="unreal"))
    assert config.changes(other, config.tables(before)).refused


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.name)
def test_a_shipped_run_can_be_continued(path):
    stored = text_files.load_tables(path / "config.toml")
    assert config.changes(config.from_tables(stored), stored) == ([], [])


def test_a_run_of_a_version_that_lacked_a_field_has_its_default():
    now = config.Config(GAS, RunConfig("a"))
    stored = config.tables(now)
    del stored["model"]["min_orbitals"]
    assert config.changes(now, stored) == ([], [])
    more = dataclasses.replace(now, model=ModelConfig(min_orbitals=5))
    assert config.changes(more, stored).refused == ["[model] min_orbitals is 5, the run has 1"]
    # where there is no default nothing is taken for granted
    elsewhere = dataclasses.replace(now, run=RunConfig("a", start="b"))
    assert config.changes(elsewhere, stored).refused == ["[run] start is b, the run has None"]


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({}, "rs is None: it must be a number; statistics classical alone does without"),
        ({"rs": 1.0}, "theta is None"),
        ({"rs": 1.0, "theta": 1.0, "gamma": 1.0}, "gamma is 1.0: it is for statistics classical"),
        ({"statistics": "classical"}, "gamma is None: it must be a number"),
        ({"statistics": "classical", "gamma": -1.0}, "gamma is -1.0: it must lie between 0"),
        ({"statistics": "classical", "gamma": 1.0, "rs": 2.0}, "rs is 2.0: it is for statistics q"),
        ({"statistics": "classical", "gamma": 1.0, "twist": (0.1, 0.0)}, "twist is"),
        ({"statistics": "bosonic", "gamma": 1.0}, "statistics is bosonic: it must be one of"),
    ],
)
def test_a_plasma_and_a_gas_have_fields_of_their_own(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        SystemConfig(electrons=4, dim=2, **fields)


def test_the_configuration_of_a_plasma_is_written_and_read_back():
    gas = SystemConfig(electrons=4, dim=2, statistics="classical", gamma=3.0)
    made = config.Config(gas, RunConfig("a"))
    read = config.from_tables(tomllib.loads(tomli_w.dumps(_without_none(config.tables(made)))))
    assert read == made
    assert read.system.build() == plasma(4, 2, 3.0) != GAS.build()
    assert (read.system.build().temperature, read.system.build().coupling) == (1.0, 3.0)


def _without_none(tables):
    return {
        name: {field: value for field, value in table.items() if value is not None}
        for name, table in tables.items()
    }
