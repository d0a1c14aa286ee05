"""Figures of numbers and images; nothing is measured here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from ld3m_min.evaluate.cross_architecture import EvalResult
from ld3m_min.experiments import real_images
from ld3m_min.experiments.cells import Cell
from ld3m_min.experiments.results import Results, label
from ld3m_min.experiments.style import COLOURS, WIDTH
from ld3m_min.experiments.style import use_style as use_style
from ld3m_min.systems import SYSTEMS


def image_grid(
    images: Float[Tensor, "B 3 H W"],
    columns: int = 10,
    titles: Sequence[object] | None = None,
    row_labels: Sequence[object] | None = None,
    scale: float = 0.9,
) -> Figure:
    """Images as a grid, row by row.

    Args:
        images: in [0, 1].
        columns: images in a row.
        titles: one for each column, above the first row.
        row_labels: one for each row.
        scale: side of an image, inches.
    """
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(scale * columns, scale * rows + 0.25), squeeze=False
    )
    for i, axis in enumerate(axes.flat):
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
        axis.grid(False)
        if i < len(images):
            array = images[i].detach().cpu().permute(1, 2, 0).numpy()
            axis.imshow(np.clip(array, 0, 1), interpolation="nearest")
        if titles and i < min(columns, len(titles)):
            axis.set_title(titles[i], fontsize=8)
        if row_labels and i % columns == 0 and i // columns < len(row_labels):
            label = row_labels[i // columns]
            axis.set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center")
    figure.tight_layout(pad=0.3)
    return figure


def curve(
    values: Sequence[float] | Mapping[str, Sequence[float]],
    ylabel: str,
    xlabel: str = "iteration",
    logy: bool = False,
) -> Figure:
    """Numbers against their index.

    Args:
        values: of one line; or of several, by their labels.
        ylabel: what the numbers are.
        xlabel: what their index is.
        logy: a logarithmic scale for the numbers.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 2.6))
    if isinstance(values, Mapping):
        for label, line in values.items():
            axis.plot(line, label=label, lw=1.5)
        axis.legend(frameon=False)
    else:
        axis.plot(values, lw=1.5)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if logy:
        axis.set_yscale("log")
    axis.grid(alpha=0.3)
    figure.tight_layout()
    return figure


def accuracy_bars(results: Mapping[str, EvalResult], chance: float | None = None) -> Figure:
    """Mean accuracy of each architecture as bars, each repeat as a dot.

    From three repeats on, bars have 95 % intervals.

    Args:
        results: by the name of what was evaluated; of the same architectures.
        chance: accuracy of guessing, in [0, 1].
    """
    architectures = list(next(iter(results.values())).accuracies)
    figure, axis = plt.subplots(figsize=(WIDTH, 3))
    width = 0.8 / len(results)
    for i, (name, result) in enumerate(results.items()):
        place = np.arange(len(architectures)) + (i - (len(results) - 1) / 2) * width
        middle = np.array([100 * result.mean(a) for a in architectures])
        error = None
        if len(result.values()) >= 3:
            intervals = [result.confidence_interval(a) for a in architectures]
            error = np.abs(np.array([[100 * v for v in x] for x in intervals]) - middle[:, None]).T
        axis.bar(
            place,
            middle,
            width,
            yerr=error,
            label=name,
            error_kw={"lw": 0.8},
            color=COLOURS[i % 4],
            hatch=("", "///", "...", "xx")[i % 4],
            edgecolor="white",
        )
        for x, a in zip(place, architectures, strict=True):
            repeats = 100 * result.values(a)
            axis.plot([x] * len(repeats), repeats, ".", ms=3, color="black")
    axis.set_ylim(0, 100)
    axis.set_xticks(range(len(architectures)), architectures, fontsize=9)
    axis.set_ylabel("accuracy, %")
    if chance is not None:
        axis.axhline(100 * chance, ls=":", c="grey", lw=1)
    axis.legend(
        frameon=False,
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, 1.16),
        ncols=len(results),
    )
    axis.grid(axis="y", alpha=0.3)
    figure.tight_layout()
    return figure


# of the figure of what ten images are worth: system, colour and style of its line
WORTH = (
    ("pixel", "#57606a", ":"),
    ("autoencoder", "#7a3fa0", "-."),
    ("ld3m-paper", "#b4530a", "--"),
    ("ld3m-code", "#1f5fa8", "-"),
    ("class-mean", "#1a7f64", (0, (1, 3))),
)


def worth_lines(found: Results, algorithm: str = "DM") -> list[tuple[Cell, str, Any]]:
    """The measured systems of :func:`worth`, each with the colour and style of its line.

    Args:
        found: the records.
        algorithm: that distilled what is learned.
    """
    lines = []
    for name, colour, style in WORTH:
        how = algorithm if SYSTEMS[name].how == "learned" else "none"
        if (cell := found.cell(name, how)) in found.runs:
            lines.append((cell, colour, style))
    return lines


def worth(found: Results, algorithm: str = "DM") -> Figure | None:
    """What real images are worth: the curve of random ones, and a line for each measured system.

    Args:
        found: the records.
        algorithm: that distilled the systems of `WORTH`.

    Returns:
        The figure; None where the curve is not measured.
    """
    if found.real is None:
        return None
    known = real_images.curve(found.real)
    counts = sorted(n for n in known if n)
    figure, axis = plt.subplots(figsize=(WIDTH, 3.4))
    middle = [100 * known[n].mean() for n in counts]
    spread = [100 * known[n].std() for n in counts]
    axis.errorbar(
        counts,
        middle,
        spread,
        marker="o",
        ms=4,
        capsize=3,
        color="black",
        label="random real images",
    )
    if 0 in known:
        axis.axhline(100 * known[0].mean(), color="#8c959f", lw=1, label="all of them")
    for cell, colour, style in worth_lines(found, algorithm):
        mean = 100 * found.runs[cell].trainings().mean()
        axis.axhline(mean, color=colour, ls=style, lw=1.4, label=label(cell))
    axis.set(xscale="log", xlabel="real images of each class", ylabel="unseen networks, %")
    axis.set_xticks(counts, [str(n) for n in counts])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def with_sliders(draw: Callable[..., object], live: bool, **controls: Sequence[Any]) -> object:
    """Draw with the first value of each control; live, again whenever a slider moves.

    Args:
        draw: takes one value of each control by its name, and shows a picture.
        live: whether a kernel is there to draw again; the stored notebooks have one picture.
        controls: values to choose from, the one to begin with first.

    Returns:
        What `draw` returns, or the sliders with their picture (ipywidgets).
    """
    if not live:
        return draw(**{name: values[0] for name, values in controls.items()})
    from ipywidgets import SelectionSlider, interactive

    sliders = {
        name: SelectionSlider(
            options=values if isinstance(values[0], str) else sorted(values),
            value=values[0],
            continuous_update=False,
        )
        for name, values in controls.items()
    }
    return interactive(draw, **sliders)


def _one_of_each(picture: np.ndarray, columns: int = 10) -> tuple[np.ndarray, int]:
    """One row of a picture of many images in the order of their classes, and how many there are.

    Args:
        picture: H x W or H x W x channels, square images row by row; blank ones at its end are
            white.
        columns: images in a row, and classes.

    Returns:
        The middle image of each tenth; a single row as it is.
    """
    side = picture.shape[1] // columns
    if picture.shape[0] <= side or picture.shape[1] % columns or picture.shape[0] % side:
        return picture, columns
    rows = (picture[y : y + side] for y in range(0, picture.shape[0], side))
    images = [row[:, x : x + side] for row in rows for x in range(0, side * columns, side)]
    while len(images) > columns and images[-1].min() == 1:
        images.pop()
    middle = [images[(2 * k + 1) * len(images) // (2 * columns)] for k in range(columns)]
    return np.concatenate(middle, axis=1), len(images)


def strips(
    files: Mapping[str, str | Path], title: str = "", titles: Sequence[object] | None = None
) -> Figure | None:
    """Pictures of sets one below the other, each as one row below its name.

    Args:
        files: PNG by label; those that do not exist are left out. Of a set of several rows one
            image of each class is shown, and its label says of how many.
        title: of the whole.
        titles: one below each picture of the last row; the files then hold one row each.

    Returns:
        The figure, as wide as a phone; None where no file exists.
    """
    found = {label: plt.imread(file) for label, file in files.items() if Path(file).exists()}
    if not found:
        return None
    rows = {}
    for name, picture in found.items():
        row, images = (picture, 0) if titles else _one_of_each(picture)
        rows[name if row is picture else f"{name}, 10 of {images}"] = row
    columns = max(x.shape[1] / x.shape[0] for x in rows.values())
    figure, axes = plt.subplots(
        len(rows),
        1,
        figsize=(WIDTH, (WIDTH / columns + 0.24) * len(rows) + 0.5),
        squeeze=False,
        layout="constrained",
    )
    for axis, (name, row) in zip(axes.flat, rows.items(), strict=True):
        axis.imshow(row, interpolation="nearest")
        axis.set_title(name, loc="left", fontsize=9, pad=2)
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)
    if titles:
        height = row.shape[0]
        places = [(i + 0.5) * height for i in range(len(titles))]
        axis.set_xticks(places, [str(x) for x in titles])
        axis.tick_params(length=0)
    figure.suptitle(title, fontsize=10)
    return figure
