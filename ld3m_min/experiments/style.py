"""How the figures of the book look: one style sheet, and one colour for each thing."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.rcsetup import cycler

# told apart by the colour-blind, and dark enough for text on white
BLUE, ORANGE, PURPLE, GREY = "#1f5fa8", "#b4530a", "#7a3fa0", "#57606a"
GREEN, ROSE, INK = "#00795a", "#8f4a80", "#1f2328"
LIGHT, FAINT = "#8c959f", "#d0d5da"  # of what stands behind: a span, a line, bars under a curve
COLOURS = (BLUE, ORANGE, PURPLE, GREY)
SYSTEM_COLOURS = {"ld3m-paper": ORANGE, "ld3m-code": BLUE, "autoencoder": PURPLE, "pixel": GREY}
# decays in the order in which they keep the start, shortest first
DECAY_COLOURS = {
    "exponential": ROSE,
    "cosine": ORANGE,
    "linear": INK,
    "sqrt": BLUE,
    "constant": GREEN,
}
DECAY_MARKERS = dict(zip(DECAY_COLOURS, "vso^D", strict=True))

WIDTH = 4.6  # of a figure, inches: as wide as a phone, where its text can still be read
STYLE: dict[Any, Any] = {  # matplotlib's settings, by name
    "figure.figsize": (WIDTH, 2.8),
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 11,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.8,
    # lines differ in more than their colour
    "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=("-", "--", "-.", ":")),
}


def use_style() -> None:
    """Draw all further figures in the style of the book."""
    plt.rcParams.update(STYLE)
