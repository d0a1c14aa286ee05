"""A look at a folder of images before it is read: its classes, its files, and their size."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from ld3m_min.data.folders import folder_of
from ld3m_min.data.images import SUFFIXES, is_clutter
from ld3m_min.data.listing import is_split
from ld3m_min.data.sides import short_sides
from ld3m_min.errors import InputError
from ld3m_min.io.disk import StrPath

SIZES = (32, 64, 128)  # that images are brought to where none is asked for


@dataclass(frozen=True)
class Glance:
    """What a folder of images seems to hold; what is wrong with it, reading it says.

    Attributes:
        root: the folder, unpacked where it was an archive.
        classes: names of its class folders, in the order of the labels.
        files: image files of all splits.
        size: the largest of `SIZES` that at least half of the looked-at images reach with their
            short side, in pixels; the smallest where none does.
        enlarged: whether none does.
    """

    root: Path
    classes: tuple[str, ...]
    files: int
    size: int
    enlarged: bool


def glance(path: StrPath) -> Glance:
    """Look at a folder, zip or tar of images, without decoding any.

    Args:
        path: as of :func:`~ld3m_min.data.folders.load_folder`.

    Raises:
        FileNotFoundError: there is no such folder.
        InputError: it is a distilled set, or the run that made one.
    """
    root = folder_of(path)
    for place in (root, root / "set"):
        if (place / "set.json").is_file() and (place / "set.safetensors").is_file():
            raise InputError(
                f"{path} {'is' if place == root else 'holds'} a distilled set, not images to "
                f"distil; networks are trained on it by: python -m ld3m_min evaluate {place} "
                "--dataset IMAGES"
            )
    top = root / "train" if is_split(root / "train") else root
    names = [p.name for p in top.iterdir() if p.is_dir() and not is_clutter(p)]
    classes = tuple(sorted(unicodedata.normalize("NFC", name) for name in names))
    files = sorted(
        f
        for f in root.rglob("*")
        if f.suffix.lower() in SUFFIXES and f.is_file() and not _in_clutter(f, root)
    )
    reached = _reached(files)
    enlarged = bool(files) and reached == 0
    return Glance(root, classes, len(files), reached or SIZES[0], enlarged)


def _in_clutter(file: Path, root: Path) -> bool:
    """Whether a file, or a folder around it, is what nobody put there to be read."""
    return any(is_clutter(Path(part)) for part in file.relative_to(root).parts)


def _reached(files: list[Path]) -> int:
    """The largest of `SIZES` that at least half of some files reach; 0 for none."""
    sides = short_sides(files)
    reached = [s for s in SIZES if sides and 2 * sum(side >= s for side in sides) >= len(sides)]
    return max(reached, default=0)
