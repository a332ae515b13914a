"""What the documents say exists does exist."""

import importlib
import re
from importlib import metadata
from pathlib import Path

import pytest

import heg

ROOT = Path(__file__).parents[1]
NAMES = sorted(set(re.findall(r"`(heg(?:\.\w+)+)`", "".join(p.read_text() for p in ROOT.glob("docs/*.md")))))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_the_documents_exists(name):
    parts = name.split(".")
    module = importlib.import_module(".".join(parts[:2]))
    for part in parts[2:]:
        module = getattr(module, part)


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


def test_every_setting_in_the_readme_is_a_flag():
    from heg import cli_solve

    fields = {
        field
        for table in cli_solve.tables(
            cli_solve.parse(["--electrons", "2", "--dim", "2", "--rs", "1", "--theta", "1", "--run-dir", "x"])[0]
        ).values()
        for field in table
    }
    flags = set(re.findall(r"(?<![-|])--([a-z][a-z-]+)", (ROOT / "README.md").read_text())) - {"help", "dry-run"}
    assert flags and flags <= {field.replace("_", "-") for field in fields}


def test_the_version_is_the_same_everywhere():
    version = metadata.version("heg")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert heg.__version__ == version
