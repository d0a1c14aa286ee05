"""From listed image files to a data set: what is held out, and the images of all splits in one go.

What is held out depends on the files' names alone (the smallest SHA-256 of class folder and stem).
So it is the same on every machine, in every layout and image format, and one file more or less
moves no other.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from jaxtyping import UInt8
from torch import Tensor

from ld3m_min.data.cache import cache_folder, decode
from ld3m_min.data.dataset import IMAGENET_MEAN, IMAGENET_STD, ImageDataset
from ld3m_min.data.images import ClassFolder, file_kind
from ld3m_min.data.report import DataReport, compared, left_out
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.io.disk import StrPath
from ld3m_min.io.text import shown


@dataclass(frozen=True)
class Labelled:
    """An image file and its class.

    Attributes:
        file: the image file.
        label: position of its class.
    """

    file: Path
    label: int

    @property
    def key(self) -> str:
        """Class folder and stem: what the file is in every layout and image format."""
        return f"{self.file.parent.name}/{self.file.stem}"


@dataclass(frozen=True)
class Cut:
    """Files of which some of each class are held out.

    Attributes:
        held: those.
        rest: the others.
    """

    held: list[Labelled]
    rest: list[Labelled]


@dataclass(frozen=True)
class Parts:
    """The files of the three splits.

    Attributes:
        train: of the training split.
        validation: of the validation split.
        test: of the test split.
    """

    train: list[Labelled]
    validation: list[Labelled]
    test: list[Labelled]


@dataclass(frozen=True)
class Reading:
    """How image files are read.

    Attributes:
        size: side of the images, pixels.
        cache: True keeps the decoded images in a memory-mapped file of
            :func:`~ld3m_min.data.cache.cache_folder`; a path names another folder; False keeps them
            in memory.
        progress: whether a bar is drawn.
        workers: threads that decode; None for one per core, at most 8.
    """

    size: int
    cache: StrPath | bool
    progress: bool
    workers: int | None

    @property
    def folder(self) -> StrPath | None:
        """Where decoded images are kept; None for memory alone."""
        if self.cache is True:
            return cache_folder()
        return self.cache or None


def labelled(listing: Sequence[ClassFolder]) -> list[Labelled]:
    """The files of classes, with the classes' positions as labels."""
    return [Labelled(f, label) for label, c in enumerate(listing) for f in c.files]


def tenth(n: int) -> int:
    """What is held out of n images for validation: a tenth, at least 1."""
    return max(1, n // 10)


def hold_out(
    part: Sequence[Labelled], count: Callable[[int], int], classes: Sequence[str], pieces: int = 2
) -> Cut:
    """Cut files in two: of each class the files of smallest hash, and the rest.

    Args:
        part: the files.
        count: number of a class's files -> number of those that are held out.
        classes: the class names.
        pieces: splits that all of these files are for in the end; each needs one of each class.

    Returns:
        The two, each ordered by class and hash.

    Raises:
        InputError: a class has too few files.
    """
    by_class: list[list[Labelled]] = [[] for _ in classes]
    for x in part:
        by_class[x.label].append(x)
    cut = Cut([], [])
    for name, mine in zip(classes, by_class, strict=True):
        if len(mine) < pieces:
            raise InputError(
                f"class {name!r} has {len(mine)} image(s) to split; {pieces} splits need {pieces} "
                "of each class"
            )
        mine.sort(key=lambda x: (hashlib.sha256(os.fsencode(x.key)).digest(), x.file.name))
        n = min(count(len(mine)), len(mine) - pieces + 1)
        cut.held.extend(mine[:n])
        cut.rest.extend(mine[n:])
    return cut


def assemble(
    name: str,
    parts: Parts,
    classes: tuple[str, ...],
    reading: Reading,
    *,
    source: str,
    root: Path,
    ids: tuple[int, ...] = (),
    bad: Mapping[Path, str] = MappingProxyType({}),
) -> DataSplits:
    """Decode all files in one go; the splits are views of one tensor, or of a file of the cache.

    Args:
        name: of the data set.
        parts: the files of the splits.
        classes: the class names, in label order.
        reading: how they are read.
        source: where the data come from, for records.
        root: the folder that the files lie in.
        ids: ImageNet class ids of the classes.
        bad: files of class folders that are not among the parts, and why.

    Returns:
        The data set, with ImageNet's normalisation.

    Raises:
        Unusable: files that cannot be used; names all of them.
        InputError: all images show the same.
        OSError: the cache has no room.
    """
    ordered = [  # an order that no layout changes
        sorted(part, key=lambda x: (x.label, x.file.stem, x.file.name))
        for part in (parts.train, parts.validation, parts.test)
    ]
    files = [x.file for part in ordered for x in part]
    images = decode(
        files,
        reading.size,
        cache=reading.folder,
        name=name,
        progress=reading.progress,
        workers=reading.workers,
    )
    train, validation, test = (
        ImageDataset(pixels, torch.tensor([x.label for x in part]), classes, which)
        for pixels, part, which in zip(
            torch.split(images, [len(p) for p in ordered]),
            ordered,
            ("train", "validation", "test"),
            strict=True,
        )
    )
    report = _reported((train, validation, test), ordered, bad)
    return DataSplits(
        name,
        train,
        validation,
        test,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        source=source,
        ids=ids,
        root=root,
        files=file_kind(files[0]),
        report=report,
    )


def _reported(
    splits: Sequence[ImageDataset],
    parts: Sequence[Sequence[Labelled]],
    bad: Mapping[Path, str],
) -> DataReport:
    """What was left out and what looks odd, said aloud where there is anything.

    Args:
        splits: training, validation and test.
        parts: their files, in the order of their images.
        bad: the files that were left out, and why.

    Returns:
        The report.

    Raises:
        InputError: all images show the same.
    """

    def pixels(image: UInt8[Tensor, "3 H W"]) -> bytes:
        return hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()

    known = [[pixels(image) for image in split.images] for split in splits]
    _warn_of_twins(known, parts)
    files = [x for part in parts for x in part]
    names = [f"{x.file.parent.name}/{x.file.name}" for x in files]
    keys = [key for part in known for key in part]
    notes = compared(names, [x.label for x in files], keys, splits[0].classes)
    report = DataReport(len(files), left_out(bad), notes)
    if report.text:
        warnings.warn(f"about these images: {report.text}", stacklevel=5)
    return report


def _warn_of_twins(pixels: Sequence[Sequence[bytes]], parts: Sequence[Sequence[Labelled]]) -> None:
    """Say aloud that test images are training images too: every accuracy would be too good.

    Args:
        pixels: digests of the images of the training, validation and test split.
        parts: their files, in the same order.
    """
    pairs = [pair for i in (0, 1) for pair in zip(pixels[i], parts[i], strict=True)]
    known = {key: x.file for key, x in pairs}
    held = list(zip(pixels[2], parts[2], strict=True))
    if twins := [(x.file, known[key]) for key, x in held if key in known]:
        a, b = (shown(f"{x.parent.name}/{x.name}") for x in twins[0])
        warnings.warn(
            f"{len(twins)} of {len(held)} test images are among the training images too, e.g. {a} "
            f"is {b}: accuracies will be too good; remove them from one of the two",
            stacklevel=5,
        )
