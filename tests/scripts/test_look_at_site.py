"""The look at the site in a browser finds what a reader would see."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import look_at_site  # noqa: E402

from heg.report import html  # noqa: E402

VIEWPORT = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
WIDE_TABLE = '<table><tr><td style="min-width: 600px">wide</table>'
LONG_LINE = "x" * 300
# what is wrong by page, and the words of the fault
FAULTY = {
    r"<p>\(r_s\)": "formula not set",
    "<p>$r_s$": "formula not set",
    '<span class="math">r</span>': "formula not set",
    '<span class="math"><mjx-container><mjx-merror>r': "formula not set",
    WIDE_TABLE: "cut: <table>",
    f'<div style="overflow: hidden">{WIDE_TABLE}</div>': "cut: <table>",
    f'<pre style="overflow: hidden">{LONG_LINE}</pre>': "cut: <pre>",
    '<img style="position: relative; left: -50px; width: 30px" alt="plot">': "cut: <img> plot",
    f"<p>{LONG_LINE}": "pixels wide",
    "<script>console.error('bad')</script>": "console: bad",
    "<script>throw Error('bad')</script>": "console: bad",
    '<img src="nothing.png">': "ERR_FILE_NOT_FOUND",
    '<img src="https://example.org/a.png">': "network: https://example.org/a.png",
}
# what a reader can reach or was meant to see
GOOD = [
    '<span class="math"><mjx-container>r</mjx-container></span>',
    r"<code>\(r_s\)</code><pre>$r_s$</pre><p>5 $",
    f'<div style="overflow-x: auto">{WIDE_TABLE}</div>',
    f'<pre style="overflow-x: auto">{LONG_LINE}</pre>',
    f'<div style="display: none">{WIDE_TABLE}</div>',
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Faults by page, each page looked at once."""
    pytest.importorskip("playwright")
    executable = look_at_site.browser()
    if executable is None:
        pytest.skip("no Chromium")
    place = tmp_path_factory.mktemp("pages")
    contents = [*(VIEWPORT + body for body in (*FAULTY, *GOOD)), "<p>as if from afar", report()]
    paths = []
    for number, content in enumerate(contents):
        path = place / f"{number:02d}.html"
        path.write_text(content)
        paths.append(path)
    found = {content: [] for content in contents}
    for fault in look_at_site.faults(paths, executable):
        page = Path(fault.split(" at ")[0])
        found[page.read_text()].append(fault)
    return found


def report():
    """A page of the package with a table and a listing that are too wide for any screen."""
    cells = ["1" * 50] * 9
    parts = [html.html_table(cells, [cells]), html.preformatted("File", LONG_LINE)]
    return html.document("Report", parts)


@pytest.mark.parametrize("body", FAULTY)
def test_what_a_reader_would_see_is_found(seen, body):
    faults = seen[VIEWPORT + body]
    assert any(FAULTY[body] in fault for fault in faults)


@pytest.mark.parametrize("body", GOOD)
def test_what_can_be_read_is_no_fault(seen, body):
    assert seen[VIEWPORT + body] == []


def test_a_page_that_a_telephone_shows_from_afar_is_found(seen):
    assert "no viewport" in seen["<p>as if from afar"][0]


def test_a_wide_report_can_be_read_at_every_width(seen):
    assert seen[report()] == []


def test_a_fault_names_page_and_width(seen):
    faults = seen[VIEWPORT + "<p>$r_s$"]
    assert [fault.split("/")[-1].split(":")[0] for fault in faults] == [
        "01.html at 1200 pixels",
        "01.html at 400 pixels",
    ]


def test_without_a_browser_a_line_says_that_nothing_was_looked_at(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    look_at_site.main(tmp_path)
    assert "not looked at" in capsys.readouterr().out
