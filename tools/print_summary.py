"""Print what the quickstart measured, and where to open the book.

usage: python tools/print_summary.py [runs/quickstart/summary.json]

The file is an object whose `rows` are objects with equal keys, one a line of the table; its other entries that are
plain values (dataset, preset, seconds, ...) are printed above the table.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def show(value):
    """A table cell: floats with one decimal, everything else as it is."""
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def table(rows):
    """`rows`, a non-empty list of mappings with equal keys, as lines of text in aligned columns."""
    names = list(rows[0])
    cells = [names, *([show(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    lines = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]
    return [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]


def main(argv):
    """Print the summary; 1 with a message when there is none."""
    path = Path(argv[0]) if argv else ROOT / "runs" / "quickstart" / "summary.json"
    if not path.is_file():
        print(f"error: {path} is missing; the quickstart notebook writes it: run `make book`", file=sys.stderr)
        return 1
    summary = json.loads(path.read_text(encoding="utf-8"))
    rows = summary.get("rows")
    if not rows:
        print(f"error: {path} holds no rows; run `make book` again", file=sys.stderr)
        return 1
    print()
    print(", ".join(f"{k} {show(v)}" for k, v in summary.items() if isinstance(v, (str, int, float))))
    print()
    print("\n".join(table(rows)))
    print()
    page = ROOT / "_build" / "html" / "index.html"
    print(f"Open the book: {page.as_uri()}" if page.is_file() else f"The book is not built: {page} is missing")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
