"""Draw what ten images are worth, for the README, from the records.

    python tools/make_readme_figure.py

Written to book/images/worth.png. The numbers that it shows stand in the picture's description, by
which a test sees whether it is that of the records.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from ld3m_min.experiments import figures
from ld3m_min.experiments.results import Results, label

FILE = Path(__file__).parents[1] / "book" / "images" / "worth.png"


def described(found):
    """The numbers of the picture, as text."""
    lines = [f"{label(cell)}: {found.worth(cell)}" for cell, *_ in figures.worth_lines(found)]
    return "Worth so many random real images of each class. " + "; ".join(lines)


def main(file=FILE):
    figures.use_style()
    found = Results("digits", "evidence")
    figure = figures.worth(found)
    if figure is None:
        sys.exit("real images are not measured: python -m ld3m_min real-images --preset evidence")
    figure.savefig(file, dpi=120, metadata={"Description": described(found), "Software": None})
    plt.close(figure)
    print(f"{file.name}: {described(found)}")


if __name__ == "__main__":
    sys.exit(main())
