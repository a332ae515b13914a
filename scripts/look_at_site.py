"""Looks at HTML pages in a headless Chromium, as wide as a desk and as narrow as a telephone.

    python scripts/look_at_site.py site/html
    python scripts/look_at_site.py run/report.html table/table.html

Fails on a formula that is not set, on a table, figure or listing that is cut, on an error in the
console and on a page that asks the network for something.  Without a Chromium it looks at nothing
and says so.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import cyclopts

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (1200, 400)  # pixels
HEIGHT = 900
AT_HAND = ("file:", "data:", "blob:", "about:")
SETTLED = "async () => { await window.MathJax?.startup?.promise; await document.fonts.ready }"
# run in the page: the faults that its reader would see, a line each
VISIBLE_FAULTS = r"""() => {
  const faults = [];
  const width = document.documentElement.clientWidth;

  function name(element) {
    const text = (element.alt || element.textContent).trim().replace(/\s+/g, ' ');
    return `<${element.localName}> ${text.slice(0, 60)}`;
  }

  function sticksOut(inner, outer) {
    return inner.left < outer.left - 1 || inner.right > outer.right + 1;
  }

  // what a scrolling container holds can be reached, what others cut off cannot
  function isCut(element) {
    let box = element.getBoundingClientRect();
    for (let outer = element; outer !== document.body; outer = outer.parentElement) {
      const overflow = getComputedStyle(outer).overflowX;
      const frame = outer.getBoundingClientRect();
      const content = outer === element ? outer.scrollWidth > outer.clientWidth + 1
                                        : sticksOut(box, frame);
      if (overflow === 'auto' || overflow === 'scroll') box = frame;
      else if (overflow !== 'visible' && content) return true;
    }
    return sticksOut(box, {left: 0, right: width});
  }

  // prose that TeX was written in, and that nothing has set
  function rawFormulas() {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const raw = [];
    while (texts.nextNode()) {
      const text = texts.currentNode;
      const isProse = !text.parentElement.closest('script, style, code, pre, textarea');
      if (isProse && /\\[()[\]]|\$[^$]+\$/.test(text.data)) raw.push(text.parentElement);
    }
    return raw;
  }

  const isSet = (formula) => formula.querySelector('mjx-container');
  const unset = [...document.querySelectorAll('.math')].filter((formula) => !isSet(formula));
  const wrong = document.querySelectorAll('mjx-merror');
  for (const formula of new Set([...unset, ...wrong, ...rawFormulas()]))
    faults.push(`formula not set: ${name(formula)}`);

  for (const element of document.querySelectorAll('table, figure, img, pre, mjx-container')) {
    // the drawers of a narrow page lie beside it until they are opened
    const isShown = element.checkVisibility() && !element.closest('aside');
    if (isShown && isCut(element)) faults.push(`cut: ${name(element)}`);
  }

  const reach = document.documentElement.scrollWidth;
  if (reach > width) faults.push(`the page is ${reach} pixels wide`);
  if (!document.querySelector('meta[name=viewport]'))
    faults.push('no viewport is named: a telephone shows the page as if from afar');
  return faults;
}"""


def browser() -> str | None:
    """Path of a Chromium; None where there is none."""
    found = filter(None, map(shutil.which, BROWSERS))
    return next(found, None)


def pages_of(place: Path) -> list[Path]:
    """A page, or all pages below a folder."""
    return sorted(place.rglob("*.html")) if place.is_dir() else [place]


def faults(pages: list[Path], executable: str) -> Iterator[str]:
    """A line for each fault, page and width.

    Args:
      pages: files to look at.
      executable: path of a Chromium.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable)
        for width in WIDTHS:
            tab = chromium.new_page(viewport={"width": width, "height": HEIGHT})
            heard = []  # faults of the page that is open, as they happen
            listen(tab, heard)
            for page in pages:
                heard.clear()
                tab.goto(page.resolve().as_uri())
                tab.evaluate(SETTLED)
                for fault in [*heard, *tab.evaluate(VISIBLE_FAULTS)]:
                    yield f"{page} at {width} pixels: {fault}"
        chromium.close()


def listen(tab, heard: list[str]) -> None:
    """Adds the errors of a tab of the browser to a list, and what it asks the network for."""

    def note_message(message):
        if message.type == "error":
            heard.append(f"console: {message.text}")

    def note_request(request):
        if not request.url.startswith(AT_HAND):
            heard.append(f"network: {request.url}")

    tab.on("console", note_message)
    tab.on("pageerror", lambda error: heard.append(f"console: {error}"))
    tab.on("request", note_request)


def main(*places: Path) -> None:
    """Looks at pages.

    Args:
      places: HTML files, or folders of them.
    """
    executable = browser()
    if executable is None:
        print("The pages were not looked at: there is no Chromium on PATH.")
        return
    pages = [page for place in places for page in pages_of(place)]
    if not pages:
        raise SystemExit("no pages")
    found = list(faults(pages, executable))
    if found:
        raise SystemExit("\n".join(found))
    print(f"{len(pages)} pages looked at, {' and '.join(map(str, WIDTHS))} pixels wide.")


if __name__ == "__main__":
    cyclopts.run(main)
