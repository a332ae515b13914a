"""What a run is expected to cost."""

import dataclasses

import pytest

from heg import Config, ModelConfig, RunConfig, SamplerConfig, SystemConfig, build
from heg.cli import common, solve
from heg.training.cost import START, STEP, cost, operations, product_rate

RATE = 5e10


def config(electrons, steps=100, samples=1000, **sampler):
    gas = SystemConfig(electrons, 3, 5.0, 0.15, "1")
    return Config(
        gas,
        RunConfig("unused", steps=steps, samples=samples),
        ModelConfig(),
        SamplerConfig(**sampler),
    )


def expected(asked, rate=RATE):
    return cost(build(asked), asked, rate)


def test_time_is_that_of_the_samples():
    short, long = expected(config(7)), expected(config(7, steps=200))
    none = expected(config(7, steps=0, samples=2))
    assert none["seconds"] == pytest.approx(START, abs=0.01) and none["samples"] == 4
    measured = expected(config(7, steps=0))
    assert long["seconds"] - short["seconds"] == pytest.approx(
        short["seconds"] - measured["seconds"]
    )
    assert (short["seconds"] - START) == pytest.approx(
        2 * (expected(config(7), 2 * RATE)["seconds"] - START)
    )


def test_large_gases_cost_the_cube_of_their_electrons():
    of = lambda electrons: operations(build(config(electrons)), config(electrons))
    small, large = (sum(of(electrons)[name] for name in STEP) for electrons in (57, 114))
    assert large / small == pytest.approx(8, rel=0.1)


def test_memory_grows_with_the_batch():
    small, large = (expected(config(7, batch=batch))["memory_mib"] for batch in (256, 1024))
    assert 1 < large / small < 16


def test_the_product_rate_is_one_of_a_machine():
    assert 1e8 < product_rate() < 1e16


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (35, "35 seconds"),
        (119, "119 seconds"),
        (150, "2.5 minutes"),
        (7300, "2 hours"),
        (9e7, "1042 days"),
    ],
)
def test_durations_read_well(seconds, words):
    assert common.duration(seconds) == f"about {words}"


def test_a_dry_run_and_a_run_tell_it(tmp_path, capsys, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(solve, "solve_run", lambda *_: {})  # stopped at once
    asked = dataclasses.replace(
        config(2, steps=0, samples=16, batch=16),
        run=RunConfig(str(tmp_path / "a"), steps=0, samples=16),
    )
    solve._dry_run(asked)
    assert "time = about 3" in capsys.readouterr().out
    solve._run(asked)
    assert "Expected: about 3" in caplog.text
