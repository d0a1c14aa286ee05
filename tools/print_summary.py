"""Print what the quickstart measured, and where to open the book.

usage: python tools/print_summary.py [runs/quickstart/summary.json]

The file is an object whose `rows` are objects with equal keys, one a line of the table; its other
entries that are plain values (dataset, preset, seconds, ...) are printed above the table.
"""

import json
import sys
from pathlib import Path

import pandas

ROOT = Path(__file__).resolve().parents[1]


def main(argv):
    """Print the summary; 1 with a message when there is none."""
    path = Path(argv[0]) if argv else ROOT / "runs" / "quickstart" / "summary.json"
    if not path.is_file():
        print(
            f"error: {path} is missing; the quickstart notebook writes it: run `make book`",
            file=sys.stderr,
        )
        return 1
    summary = json.loads(path.read_text(encoding="utf-8"))
    rows = summary.get("rows")
    if not rows:
        print(f"error: {path} holds no rows; run `make book` again", file=sys.stderr)
        return 1
    print()
    print(
        ", ".join(
            f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}"
            for k, v in summary.items()
            if isinstance(v, str | int | float)
        )
    )
    print()
    print(pandas.DataFrame(rows).to_string(index=False, float_format="{:.1f}".format))
    print()
    page = ROOT / "_build" / "html" / "index.html"
    print(
        f"Open the book: {page.as_uri()}"
        if page.is_file()
        else f"The book is not built: {page} is missing"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
