"""Drawn letters: data of another domain than the digits', which needs no network.

Table 3 of the paper compares a prior of the target domain with one of another domain (faces, where
objects are distilled). Where digits are distilled, letters are the other domain: as many classes,
as large, white on black too, and none of them a digit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from ld3m_min.data.dataset import ImageDataset
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.io.seeds import seeded

# capitals of three alphabets: class name -> letter
LETTERS = {
    "A": "A",
    "H": "H",
    "K": "K",
    "M": "M",
    "X": "X",
    "Xi": "Ξ",
    "Psi": "Ψ",
    "Omega": "Ω",
    "Zhe": "Ж",
    "De": "Д",
}
# files of matplotlib, which brings them along
FACES = tuple(
    f"DejaVu{face}{bold}" for face in ("Sans", "SansMono", "Serif") for bold in ("", "-Bold")
)
COUNTS = {"train": 1000, "validation": 200, "test": 300}
PIECES = 5  # straight pieces for a curve


def load_letters(size: int = 32) -> DataSplits:
    """1,500 drawn capitals of ten classes, in three equal channels: 1,000 / 200 / 300 images.

    Each is a letter's outline in one of six faces of the DejaVu fonts, turned, stretched, slanted,
    moved, and made bolder or thinner at random. It is drawn here from the outline's formulas and
    not by a library's rasteriser, so that it is the same wherever the outlines are.

    Args:
        size: side of the images in pixels, 16 or more.

    Returns:
        The three splits, each with as many images of one class as of another, normalised by the
        training split's statistics.

    Raises:
        InputError: a size below 16.

    Example:
        >>> from ld3m_min.data import load_letters
        >>> data = load_letters(size=16)
        >>> data.classes
        ('A', 'H', 'K', 'M', 'X', 'Xi', 'Psi', 'Omega', 'Zhe', 'De')
        >>> [len(data.train.class_positions(k)) for k in range(3)]
        [100, 100, 100]
    """
    if size < 16:
        raise InputError(f"letters can be drawn from 16 pixels on, not at {size}")
    train, validation, test = (_split(split, size) for split in COUNTS)
    statistics = train.images.double() / 255
    return DataSplits(
        "letters",
        train,
        validation,
        test,
        mean=tuple(statistics.mean((0, 2, 3)).tolist()),
        std=tuple(statistics.std((0, 2, 3)).tolist()),
        source="drawn capital letters of the DejaVu fonts",
    )


def _split(split: str, size: int) -> ImageDataset:
    """The images of one split; classes take turns."""
    names = tuple(LETTERS)
    labels = torch.arange(COUNTS[split]) % len(names)
    grey = [_drawn(names[int(k)], size, split, i) for i, k in enumerate(labels)]
    return ImageDataset(torch.stack(grey)[:, None].repeat(1, 3, 1, 1), labels, names, split)


def _drawn(name: str, size: int, split: str, number: int) -> UInt8[Tensor, "H H"]:
    """One image of a letter, all of whose draws belong to its split and number alone."""
    g = seeded(0, "letters", split, number)
    face = FACES[int(torch.randint(len(FACES), (), generator=g))]
    turn, slant, wide, high, right, down, bolder = (
        2 * torch.rand(7, generator=g, dtype=torch.float64) - 1
    ).tolist()
    a = math.radians(15) * turn
    rotation = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    shape = np.array([[1 + 0.15 * wide, 0.2 * slant], [0.0, 1 + 0.15 * high]])
    place = 0.5 + 0.05 * np.array([right, down])
    # einsum adds in the order of the formula, on every machine
    lines = np.einsum("ij,snj->sni", rotation @ shape, _outline(name, face))
    ink = drawn_outline(lines + place, size, (0.3 + 0.7 * bolder) / 32)
    return torch.from_numpy(np.rint(255 * ink).astype(np.uint8))


@cache
def _outline(name: str, face: str) -> Float64[np.ndarray, "S 2 2"]:
    """A letter's outline as straight lines, in order; y points down.

    It is centred at 0, and its longer side is 0.72.
    """
    import matplotlib
    from matplotlib.bezier import BezierSegment
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path as Outline
    from matplotlib.textpath import TextPath

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    path = TextPath((0, 0), LETTERS[name], size=100, prop=FontProperties(fname=file))
    lines: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = []
    # matplotlib's own annotation forgets the code
    segments = cast(Iterator[tuple[BezierSegment, int]], path.iter_bezier())
    for curve, code in segments:
        if code != Outline.MOVETO:
            pieces = PIECES if code in (Outline.CURVE3, Outline.CURVE4) else 1
            points = np.array([curve(t) for t in np.linspace(0, 1, pieces + 1)])
            lines += pairwise(points)
    found = np.array(lines) * (1, -1)
    low, high = found.min((0, 1)), found.max((0, 1))
    centred: npt.NDArray[np.float64] = (found - (low + high) / 2) * 0.72 / (high - low).max()
    return centred


def drawn_outline(
    lines: Float64[np.ndarray, "S 2 2"], size: int, bolder: float = 0.0
) -> Float64[np.ndarray, "{size} {size}"]:
    """Fill a closed outline.

    A pixel's ink is how far its centre lies within the outline, from 0 at half a pixel outside of
    it to 1 at half a pixel inside.

    Args:
        lines: from (x, y) to (x, y), in units of the image's side; x points right and y down. What
            they go round in one direction, more often than in the other, is inside.
        size: side of the image, pixels.
        bolder: how far the outline is moved outwards, in the same units.

    Returns:
        The ink, in [0, 1].
    """
    centres = (np.arange(size) + 0.5) / size
    (x0, y0), (x1, y1) = lines[:, 0].T, lines[:, 1].T
    dx, dy = x1 - x0, y1 - y0
    # from the start of each line to each column and to each row of centres
    x, y = centres[None, :, None] - x0, centres[:, None, None] - y0
    # nearest place on each line: its start plus t of its way; a line may be a point
    t = np.clip((x * dx + y * dy) / np.maximum(dx * dx + dy * dy, 1e-30), 0, 1)
    distance = np.sqrt(((x - t * dx) ** 2 + (y - t * dy) ** 2).min(2))
    # how often the outline goes round a centre: lines that pass it on one side, down less up
    side = x * dy - y * dx
    down, up = (y >= 0) & (y < dy) & (side < 0), (y >= dy) & (y < 0) & (side > 0)
    inside = down.sum(2) != up.sum(2)
    signed = np.where(inside, distance, -distance) + bolder
    ink: npt.NDArray[np.float64] = np.clip(signed * size + 0.5, 0, 1)
    return ink
