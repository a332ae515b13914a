"""Says whether the documentation site can be read without a network.

    python scripts/check_site.py site/html

Lists every script, style sheet, font, image and frame that a page or a style sheet would load from
another host, and fails if there is one.  Links that a reader may follow are none of these.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import cyclopts

EXTERNAL = re.compile(r"(https?:)?//", re.I)
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
# what a <link> may say without a browser loading anything
NOT_LOADED = {"canonical", "index", "search", "next", "prev", "author", "license"}
IN_STYLE_SHEET = re.compile(r"(?:@import\s+|url\(\s*)[\"']?((?:https?:)?//[^\"')\s]+)", re.I)


class Loads(HTMLParser):
    """Collects the addresses that a browser loads to show a page."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        kinds = set((attributes.get("rel") or "").lower().split())
        address = attributes.get(LOADED.get(tag, ""))
        if address and not kinds & NOT_LOADED:
            self.addresses.append(address)


def external(text: str, suffix: str) -> list[str]:
    """Addresses of other hosts that a page (".html") or a style sheet (".css") loads."""
    if suffix == ".css":
        return IN_STYLE_SHEET.findall(text)
    page = Loads()
    page.feed(text)
    own_styles = IN_STYLE_SHEET.findall(text)
    return [address for address in page.addresses if EXTERNAL.match(address)] + own_styles


def faults(site: Path) -> Iterator[str]:
    """A line for each file and address of a site that needs the network."""
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css"):
            for address in external(path.read_text("utf-8"), path.suffix):
                yield f"{path.relative_to(site)}: {address}"


def main(site: Path) -> None:
    """Checks a site.

    Args:
      site: folder of the built pages.
    """
    if not (site / "index.html").exists():
        raise SystemExit(f"no site in {site}")
    found = list(faults(site))
    if found:
        raise SystemExit("\n".join(["The site needs a network:", *found]))


if __name__ == "__main__":
    cyclopts.run(main)
