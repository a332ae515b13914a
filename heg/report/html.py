"""Building blocks of the pages: one HTML file that needs no other, with its figures inside."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

# an alternative form of the interpolation says how large the error may be, not how large it is
SIZE_ERROR = (
    "The error of the size correction is half of its second-order exchange, and the distance of "
    "its rings from an interpolation of S(q) that is right for long waves alone: a cautious one."
)
STYLE = """body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em;
color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
td, th { padding: 0.15em 1em 0.15em 0; text-align: left; border-bottom: 1px solid #ddd;
font-variant-numeric: tabular-nums }
img { max-width: 100% }
pre { background: #f4f4f4; padding: 1em; overflow-x: auto }
figure { margin: 1em 0 }
figcaption { color: #555; font-size: 90% }"""
# a telephone shows the page as wide as it is itself, not as if from afar
VIEWPORT = '<meta name="viewport" content="width=device-width, initial-scale=1">'


def document(title: str, parts: list[str]) -> str:
    """A whole page with a heading, from the parts of its body in HTML."""
    title = html.escape(title)
    head = f'<meta charset="utf-8">{VIEWPORT}<title>{title}</title><style>{STYLE}</style>'
    body = "\n".join([f"<h1>{title}</h1>", *parts])
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>'


def paragraphs(texts: Iterable[str]) -> list[str]:
    """Texts in HTML as one paragraph each."""
    return [f"<p>{text}</p>" for text in texts]


def preformatted(heading: str, text: str) -> str:
    """A plain text under a heading, its line breaks kept."""
    return f"<h2>{heading}</h2><pre>{html.escape(text)}</pre>"


def embedded(caption: str, picture: Path) -> str:
    """A PNG file as a figure that is part of the page."""
    picture_in_page = image(caption, picture.read_bytes())
    return f"<figure>{picture_in_page}<figcaption>{html.escape(caption)}</figcaption></figure>"


def image(description: str, png: bytes) -> str:
    """A picture that is part of the page, so that the page can be sent by itself."""
    # a data URL: the picture travels inside of the page
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'


def html_table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table in HTML; the cells are escaped.

    One that is wider than the page scrolls; the page does not.
    """
    lines = [_table_row("th", head)]
    lines += [_table_row("td", row) for row in rows]
    # said here, not in STYLE: notebooks show the table without the page
    return f'<div style="overflow-x: auto"><table>{"".join(lines)}</table></div>'


def _table_row(tag, cells):
    inner = "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells)
    return f"<tr>{inner}</tr>"
