"""What the documents say exists does exist."""

import contextlib
import functools
import importlib
import io
import re
from importlib import metadata
from pathlib import Path

import pytest

import heg
from heg.cli import eos, measure, solve

ROOT = Path(__file__).parents[1]
NAMES = sorted(
    set(re.findall(r"`(heg(?:\.\w+)+)`", "".join(p.read_text() for p in ROOT.glob("docs/*.md"))))
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_the_documents_exists(name):
    assert found_by_name(name) is not None


def found_by_name(name):
    """What a dotted name says: modules as far as they go, then attributes."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            thing = getattr(thing, part)
        return thing
    return None


def test_the_documents_name_the_functions_of_the_theory():
    assert len(NAMES) > 30


PAGES = [
    str(page.relative_to(ROOT))
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("checkpoints/*.md"))
]


@pytest.mark.parametrize("page", PAGES)
def test_links_between_documents_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


FLAG = re.compile(r"(?<!\S)--[a-z][a-z-]*")
COMMANDS = {"heg-solve": solve, "heg-measure": measure, "heg-eos": eos}
LINES = sorted(
    {
        (page, *found)
        for page in PAGES
        for found in re.findall(
            r"^[^|`]*?(heg-(?:solve|measure|eos)) (.*?)(?:  .*)?$",
            (ROOT / page).read_text().replace("\\\n", " "),  # a command may go on in the next line
            re.M,
        )
        if FLAG.search(found[1])  # a line without a flag could not fail
    }
)


@functools.cache
def flags_of(command):
    """All flags in the help of a command."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        COMMANDS[command].parse(["--help"])
    return {"--help", *re.findall(r"--[a-z][a-z-]*", output.getvalue())}


@pytest.mark.parametrize(("page", "command", "words"), LINES)
def test_the_flags_of_a_command_in_the_documents_exist(page, command, words):
    asked = set(FLAG.findall(words))
    assert asked
    assert asked <= flags_of(command)


def test_the_documents_have_many_commands():
    assert len(LINES) > 30


def test_the_version_is_the_same_everywhere():
    version = metadata.version("heg")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert heg.__version__ == version
