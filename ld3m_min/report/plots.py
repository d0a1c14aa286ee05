"""Plots as SVG that stands in a page: their lines and letters have the colour of its text."""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ld3m_min.report.html import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#010203"  # becomes the page's own colour
_COLOURS = ("#3b82c4", "#c46a1b", "#3f9b5f", "#9a5fc0", "#b03a52")  # on white and on black
MOST_POINTS = 1000  # of a line
SMOOTHED = 30  # numbers from which on their running mean is drawn


def lines(
    values: Mapping[str, Sequence[float | None]],
    alt: str,
    *,
    ylabel: str,
    smooth: bool = False,
) -> str:
    """Numbers over the iterations, on a logarithmic scale where all of them are above 0.

    Args:
        values: by the name of the line; None and what is not finite leave a gap.
        alt: what the plot shows, for those who don't see it.
        ylabel: what the numbers are.
        smooth: draw the running mean over the numbers.

    Returns:
        HTML.
    """
    figure, axes = _empty(6.4, 2.6)
    log = True
    for (label, line), colour in zip(values.items(), _COLOURS, strict=False):
        y = np.array([math.nan if v is None else v for v in line], dtype=float)
        y[~np.isfinite(y)] = math.nan
        log = log and not bool((y <= 0).any())
        x = np.arange(1, len(y) + 1)
        every = max(1, len(y) // MOST_POINTS)
        faint = 0.35 if smooth and len(y) >= SMOOTHED else 1.0
        axes.plot(x[::every], y[::every], color=colour, lw=1.2, alpha=faint, label=label)
        if faint < 1:
            axes.plot(x[::every], running_mean(y)[::every], color=colour, lw=1.8)
    axes.set_xlabel("iteration")
    axes.set_ylabel(ylabel)
    if log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_formatter("{x:g}")
        # between the powers of ten only where few of these are in sight
        axes.yaxis.set_minor_formatter("{x:g}" if high < 20 * low else "")
    if len(values) > 1:
        _legend(axes)
    return _svg(figure, alt)


def running_mean(y: NDArray[np.float64], share: float = 0.1) -> NDArray[np.float64]:
    """The mean of each number and those around it; what is not finite is left out.

    Args:
        y: the numbers.
        share: of them that a mean is taken of.
    """
    width = max(1, round(share * len(y)))
    there = np.isfinite(y)
    ones = np.ones(width)
    total = np.convolve(np.where(there, y, 0.0), ones, mode="same")
    count = np.convolve(there.astype(float), ones, mode="same")
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: NDArray[np.float64] = total / count
    return mean


def bars(
    rows: Mapping[str, Mapping[str, Sequence[float]]],
    alt: str,
    *,
    chance: float,
) -> str:
    """Accuracies of networks side by side: a bar for their mean, a dot for each training.

    Args:
        rows: what was trained on -> network -> an accuracy of each training, in [0, 1].
        alt: what the plot shows, for those who don't see it.
        chance: accuracy of guessing, in [0, 1]; a dotted line.

    Returns:
        HTML.
    """
    figure, axes = _empty(6.4, 3.0)
    networks = list(next(iter(rows.values())))
    width = 0.8 / len(rows)
    for i, ((label, row), colour) in enumerate(zip(rows.items(), _COLOURS, strict=False)):
        place = np.arange(len(networks)) + (i - (len(rows) - 1) / 2) * width
        values = [100 * np.array(row[network]) for network in networks]
        axes.bar(place, [v.mean() for v in values], 0.9 * width, color=colour, label=label)
        for x, v in zip(place, values, strict=True):
            axes.plot([x] * len(v), v, ".", ms=4, color=_INK)
    axes.axhline(100 * chance, ls=":", lw=1.2, color=_INK)
    axes.set_ylim(0, 100)
    axes.set_xticks(range(len(networks)), networks)
    axes.set_ylabel("accuracy, %")
    _legend(axes)
    return _svg(figure, alt)


def _empty(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of its own, which no window or list of figures knows, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    # in inches, by hand: a layout that is searched for takes most of a plot's time
    figure.subplots_adjust(0.75 / width, 0.5 / height, 1 - 0.1 / width, 1 - 0.35 / height)
    for spine in axes.spines.values():
        spine.set_color(_INK)
        spine.set_visible(False)
    axes.spines["bottom"].set_visible(True)
    axes.tick_params(colors=_INK, which="both")
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    axes.grid(axis="y", which="both", color=_INK, alpha=0.12, lw=0.6)
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    return figure, axes


def warm_up() -> None:
    """Load what draws, so that the first plot of a run does not wait for it."""
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401


def _legend(axes: Axes) -> None:
    """Above the axes, so that it covers nothing."""
    made = axes.legend(
        frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2
    )
    for text in made.get_texts():
        text.set_color(_INK)


def _svg(figure: Figure, alt: str) -> str:
    """The figure as an element of a page."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(_INK, "currentColor")
    own = f"p{zlib.crc32(alt.encode(errors='replace')):08x}-"  # two plots of a page share no id
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{plain(alt)}"', 1)
