"""The page for developers says what is so: its rooms are those of the package, its code runs."""

import importlib
import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "developing.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture
def quick_to_compile():
    """Nothing here computes for long: what is compiled need not be fast."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_the_code_of_the_page_runs(quick_to_compile):
    """All blocks share one namespace, as a reader would type them; their assertions are physics."""
    assert len(BLOCKS) >= 7
    names = {"__name__": "developing"}
    for number, block in enumerate(BLOCKS, 1):
        exec(compile(block, f"docs/developing.md, block {number}", "exec"), names)
    assert names["f"].error > 0


def rooms_of_the_page():
    """Each room of the table with its sentence, in order."""
    rows = re.findall(r"^\| `(heg\.\w+)` \| (.*?) \| `", PAGE, re.M)
    return {room: sentence.replace(r"\|", "|") for room, sentence in rows}


def test_the_rooms_are_those_of_the_package_in_the_words_of_their_docstrings():
    folders = {path.parent.name for path in ROOT.glob("heg/*/__init__.py")}
    rooms = rooms_of_the_page()
    assert set(rooms) == {f"heg.{folder}" for folder in folders}
    for room, sentence in rooms.items():
        assert importlib.import_module(room).__doc__.splitlines()[0] == sentence


def test_the_rooms_are_in_the_order_that_the_imports_keep():
    contract = (ROOT / "pyproject.toml").read_text()
    order = re.findall(r'^  "(heg\.[^"]*)",$', contract, re.M)
    layers = order[::-1]
    places = [
        next(place for place, layer in enumerate(layers) if room in layer.split(" | "))
        for room in rooms_of_the_page()
    ]
    assert places == sorted(places)
