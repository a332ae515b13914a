"""A few of the inputs of scripts/fuzz.py, which tries thousands."""

import sys
from pathlib import Path

import pytest
from fake_solver import USERS, FakeSolver

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import fuzz  # noqa: E402

SLOW = {"measured", "surveys", "environment"}  # what is damaged takes a minute to make: by hand
OF_FILES = {"runs", "lists"}  # what is damaged are files, whatever their numbers


@pytest.mark.parametrize("kind", sorted(set(fuzz.KINDS) - SLOW))
def test_no_input_ends_in_a_traceback_or_changes_a_file(kind, monkeypatch):
    if kind in OF_FILES:
        for module in USERS:
            monkeypatch.setattr(module, "build", FakeSolver)
    tally = fuzz.campaign(kind, 15)
    assert sum(tally.values()) >= 15
    outcomes = {name.split(": ")[-1] for name in tally}
    assert outcomes <= set(fuzz.OUTCOMES.values()) and "refused" in outcomes


def two_sentences(arguments):
    sys.stderr.write("one\ntwo\n")
    sys.exit(1)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (lambda arguments: 1 / 0, "division"),
        (lambda arguments: sys.exit(3), "exit code 3"),
        (lambda arguments: sys.exit(2), "not one sentence"),
        (two_sentences, "not one sentence"),
    ],
)
def test_what_a_command_must_not_do_is_noticed(command, words):
    with pytest.raises((AssertionError, ZeroDivisionError), match=words):
        fuzz.outcome(command, [])
