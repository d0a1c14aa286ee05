"""Which files of a folder of one's own belong to which class and split."""

from __future__ import annotations

import unicodedata
import warnings
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ld3m_min.data.assembly import Parts, hold_out, labelled, tenth
from ld3m_min.data.images import SUFFIXES, ClassFolder, is_clutter, list_images
from ld3m_min.errors import InputError
from ld3m_min.io.text import shown

FOLDER = "image folder"  # begins the source of what is read here, for records
HELD_OUT = ("val", "val_folders", "validation", "valid")  # names of the folder beside train/


class Listed(NamedTuple):
    """The files of a folder, by split.

    Attributes:
        parts: the files of the splits.
        classes: their names.
        source: how they are split, for records.
        counts: how many files each class folder holds from which some may be left out.
    """

    parts: Parts
    classes: tuple[str, ...]
    source: str
    counts: dict[Path, int]


def listed(root: Path, test_fraction: float, bad: dict[Path, str]) -> Listed:
    """The files of a folder of one's own, without those that can't be used.

    Files of a given folder to test on are never left out: what is measured would be another thing.

    Args:
        root: the folder.
        test_fraction: of each class, where no folder is given to test on.
        bad: files that can't be used, and why; those that are found here are added.

    Raises:
        InputError: see :func:`~ld3m_min.data.folders.load_folder`.
    """
    if is_split(root / "train"):
        listings = _split_listings(root, bad)
        classes = tuple(c.name for c in listings[0])
        _check_classes(root, classes)
        parts = [labelled(listing) for listing in listings]
        if len(parts) == 2:
            cut = hold_out(parts[0], tenth, classes)
            parts = [cut.rest, cut.held, parts[1]]
        counts = _counts(listings[0], bad)
        return Listed(Parts(*parts), classes, f"{FOLDER}, split by its own folders", counts)
    listing = _without(list_images(root, left_out=bad), bad)
    classes = tuple(_spelt(c.name) for c in listing)
    _check_classes(root, classes)
    test = hold_out(
        labelled(listing), lambda n: max(1, round(test_fraction * n)), classes, pieces=3
    )
    validation = hold_out(test.rest, tenth, classes)
    split = Parts(validation.rest, validation.held, test.held)
    return Listed(split, classes, f"{FOLDER}, a part held out", _counts(listing, bad))


def _check_classes(root: Path, classes: Sequence[str]) -> None:
    """InputError where there is nothing to tell apart."""
    if len(classes) < 2:
        raise InputError(
            f"{root.name!r} holds one class alone, {shown(classes[0])!r}, and there is nothing to "
            "tell it from; add a folder for a second class, or give the folder that holds them all"
        )


def _without(listing: Sequence[ClassFolder], bad: Mapping[Path, str]) -> list[ClassFolder]:
    """The classes without files that can't be used."""
    return [ClassFolder(c.name, tuple(f for f in c.files if f not in bad)) for c in listing]


def _counts(listing: Sequence[ClassFolder], bad: Mapping[Path, str]) -> dict[Path, int]:
    """How many files each class folder holds, those that can't be used among them."""
    files = {f for c in listing for f in c.files} | bad.keys()
    return dict(Counter(f.parent for f in files))


def _split_listings(root: Path, bad: dict[Path, str]) -> list[list[ClassFolder]]:
    """The classes of train/ and of the one or two folders beside it, in one order.

    Args:
        root: the folder of these.
        bad: files of train/ that are left out, and why; those that are found here are added.

    Returns:
        Those of train/, of the validation folder where there is a test folder too, and of the
        folder to test on.

    Raises:
        InputError: no such folder beside train/, or too many, or other classes in it.
    """
    given = [n for n in HELD_OUT if is_split(root / n)]
    held = given + ["test"] * is_split(root / "test")
    if len(given) > 1 or not held:
        raise InputError(
            f"{root.name!r} holds train/ and {', '.join(held) or 'no val/ or test/'}; expected "
            "val/, test/ or both"
        )
    _say_passed_over(root, {"train", *held})
    listings = [
        sorted(
            (ClassFolder(_spelt(c.name), c.files) for c in listing),
            key=lambda c: c.name,
        )
        for listing in (
            _without(list_images(root / "train", left_out=bad), bad),
            *(list_images(root / n) for n in held),
        )
    ]
    classes = {c.name for c in listings[0]}
    for n, listing in zip(held, listings[1:], strict=True):
        if odd := sorted(classes ^ {c.name for c in listing}):
            raise InputError(
                f"train and {n} hold different classes: {', '.join(odd[:5])}; give both the same"
            )
    return listings


def _say_passed_over(root: Path, read: Container[str]) -> None:
    """Warn of what lies beside the splits and is not read.

    Args:
        root: the folder of the splits.
        read: their names.
    """
    beside = sorted(p for p in root.iterdir() if p.name not in read and not is_clutter(p))
    unread = [p for p in beside if is_split(p) or p.suffix.lower() in SUFFIXES]
    if unread:
        named = ", ".join(shown(p.name) + "/" * p.is_dir() for p in unread[:5])
        warnings.warn(f"beside the splits of {root.name!r} are not read: {named}", stacklevel=2)


def is_split(folder: Path) -> bool:
    """Whether a folder called train, val or test is a split, which holds class folders.

    One of pictures is a class of that name.
    """
    return folder.is_dir() and any(p.is_dir() and not is_clutter(p) for p in folder.iterdir())


def _spelt(name: str) -> str:
    """A class name in one spelling.

    Accents are composed, as Linux and Windows write them and a Mac's file system does not.
    """
    return unicodedata.normalize("NFC", name)
