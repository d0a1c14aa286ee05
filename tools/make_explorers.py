"""What the book's explorers show, from the package and the shipped prior of the digits.

    python tools/make_explorers.py            all of them, some ten minutes of one core
    python tools/make_explorers.py residual   one of them

Files go to book/_assets/explorers. The table explorer has none here: its data are the records, and
are read while the book is built.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from explorers import growth, live, pictures, planner, toy  # noqa: E402

PARTS = {
    "growth": growth.growth,
    "residual": pictures.residual,
    "survive": pictures.survive,
    "grid": pictures.grid,
    "losses": toy.losses,
    "planner": planner.planner,
    "live": live.live,
}


def main(names: list[str]) -> int:
    """Make the named ones, or all; 2 for a name that is none."""
    if unknown := [n for n in names if n not in PARTS]:
        print(f"error: no explorer {', '.join(unknown)}; choose {', '.join(PARTS)}")
        return 2
    for name in names or PARTS:
        PARTS[name]()
        print("made", name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
