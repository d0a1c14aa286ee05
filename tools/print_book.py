"""`make pdf`: print the book, built as one long page, to a PDF with Chromium."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "_build" / "singlehtml" / "book" / "intro.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOOTER = (
    '<div style="font-size: 8px; width: 100%; text-align: center">'
    '<span class="pageNumber"></span></div>'
)
# paper has no folds: answers, and the numbers that they rest on, are shown
UNFOLD = "() => document.querySelectorAll('details').forEach((d) => { d.open = true; })"
MATHS = "() => window.MathJax?.startup?.promise.then(() => true)"
# what would be printed as it must not: pictures that are not there, formulas that were not set
LACKING = """() => [
    ...[...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.src),
    ...[...document.querySelectorAll('.math')].filter((m) => !m.querySelector('mjx-container'))
        .map((m) => m.textContent)]"""

# a listing, table or figure that fits on a page is not cut in two, and nothing says "Hide"
PRINTED = """div.highlight, pre, table, figure, .cell_input, .cell_output { break-inside: avoid; }
details.hide > summary { display: none; }"""


def print_book(page: Path, out: Path) -> None:
    """Print a page, when its formulas and pictures are there.

    Args:
        page: built by `jupyter-book build . --builder singlehtml`.
        out: the PDF.

    Raises:
        SystemExit: there is no page, or no Chromium, or a picture or formula is not to be seen.
    """
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        sys.exit(f"`make pdf` needs Chromium; none of {', '.join(BROWSERS)} is on the PATH")
    if not page.exists():
        sys.exit(f"{page} is missing: jupyter-book build . --builder singlehtml")
    # its addresses are those of a page at the top, wherever the first chapter lies
    top = page.parents[1] / "print.html"
    shutil.copy(page, top)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(color_scheme="light")
        tab.set_default_timeout(0)
        tab.goto(top.as_uri())
        tab.evaluate(MATHS)
        tab.evaluate(UNFOLD)
        if lacking := tab.evaluate(LACKING):
            sys.exit(f"{len(lacking)} pictures or formulas are not to be seen, first {lacking[:3]}")
        tab.add_style_tag(content=PRINTED)
        tab.pdf(
            path=out, format="A4", scale=0.75, print_background=True, outline=True, tagged=True,
            display_header_footer=True, header_template="<span></span>", footer_template=FOOTER,
            margin={"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
        )  # fmt: skip
        browser.close()


if __name__ == "__main__":
    OUT = ROOT / "_build" / "ld3m-book.pdf"
    print_book(PAGE, OUT)
    print(f"{OUT.relative_to(ROOT)}: {OUT.stat().st_size / 2**20:.1f} MB")
