"""A look at a folder of classes before its images are decoded: how many, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ld3m_min.data.folders import folder_of
from ld3m_min.data.images import FORMATS, list_images
from ld3m_min.data.listing import HELD_OUT, is_split
from ld3m_min.io.disk import StrPath

MOST = 1000  # files whose sides are read


@dataclass(frozen=True)
class FolderLook:
    """What a folder of images holds.

    Attributes:
        name: of the folder.
        classes: names of its class folders.
        counts: image files of each class that are for training, validation and test together; of a
            folder with train/ those in there.
        trained_on: about how many of all are in the training split.
        short_sides: of some of the images, pixels; of those that can be opened.
    """

    name: str
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    trained_on: int
    short_sides: tuple[int, ...]


def look_at_folder(path: StrPath) -> FolderLook:
    """List a folder of images, or an archive of one, and read the sides of some of them.

    Args:
        path: as for :func:`~ld3m_min.data.folders.load_folder`.

    Returns:
        What is there.

    Raises:
        FileNotFoundError: no such folder, or no class in it.
        InputError: a class without images, or more files that are no images than are left out.
    """
    root = folder_of(path)
    split = is_split(root / "train")
    # what is left out when the images are read is not counted
    listing = list_images(root / "train" if split else root, left_out={})
    counts = tuple(len(c.files) for c in listing)
    if split:
        apart = any(is_split(root / n) for n in HELD_OUT) and is_split(root / "test")
        trained_on = sum(counts) if apart else sum(n - max(1, n // 10) for n in counts)
    else:
        rest = [n - max(1, round(0.2 * n)) for n in counts]
        trained_on = sum(n - max(1, n // 10) for n in rest)
    files = [f for c in listing for f in c.files]
    return FolderLook(
        root.name, tuple(c.name for c in listing), counts, trained_on, short_sides(files)
    )


def short_sides(files: Sequence[Path]) -> tuple[int, ...]:
    """Short sides of at most `MOST` of the files, evenly chosen, in pixels.

    Args:
        files: image files; one that can't be opened is passed over, whoever reads it names it.
    """
    found = []
    for file in files[:: max(1, len(files) // MOST)]:
        with suppress(Exception), Image.open(file, formats=FORMATS) as image:
            found.append(min(image.size))
    return tuple(found)
