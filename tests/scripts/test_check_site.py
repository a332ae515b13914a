"""The check that the documentation needs no network finds what a browser would load."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import check_site  # noqa: E402

CDN = "https://cdn.example.org/mathjax.js"


@pytest.mark.parametrize(
    "page",
    [
        f'<script defer src="{CDN}"></script>',
        f'<link rel="stylesheet" href="{CDN}">',
        f'<link rel="preload" as="font" href="{CDN[6:]}">',
        f'<img src="{CDN}"/>',
        f"<style>@import '{CDN}';</style>",
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(page):
    assert len(check_site.external(page, ".html")) == 1


@pytest.mark.parametrize(
    "page",
    [
        '<script src="_static/mathjax/tex-chtml.js"></script>',
        f'<a href="{CDN}">a link</a>',
        f'<link rel="canonical" href="{CDN}">',
        '<img src="data:image/png;base64,//8A">',
        "<script>url = 'https://example.org'</script>",
    ],
)
def test_what_is_at_hand_or_only_linked_is_no_fault(page):
    assert check_site.external(page, ".html") == []


def test_a_font_of_a_style_sheet_is_found():
    sheet = f"@font-face {{ src: url({CDN}) }} body {{ background: url(local.png) }}"
    assert check_site.external(sheet, ".css") == [CDN]


def test_a_site_fails_by_the_name_of_its_page(tmp_path):
    (tmp_path / "index.html").write_text("<p>none</p>")
    check_site.main(tmp_path)
    (tmp_path / "theory.html").write_text(f'<script src="{CDN}"></script>')
    with pytest.raises(SystemExit, match=f"theory.html: {CDN}"):
        check_site.main(tmp_path)
    with pytest.raises(SystemExit, match="no site"):
        check_site.main(tmp_path / "elsewhere")
