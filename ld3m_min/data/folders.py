"""Image folders as data sets: any folder of classes, and the trees of ImageNet and its subsets.

Which file belongs to which class and split is decided here, and in :mod:`ld3m_min.data.listing`;
:mod:`ld3m_min.data.assembly` holds files out and reads them.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ld3m_min.data.archives import is_archive, unpack
from ld3m_min.data.assembly import Labelled, Parts, Reading, assemble, hold_out, labelled, tenth
from ld3m_min.data.cache import cache_folder
from ld3m_min.data.images import list_images
from ld3m_min.data.listing import HELD_OUT, listed
from ld3m_min.data.report import Unusable, is_safe
from ld3m_min.data.splits import DataSplits
from ld3m_min.data.subsets import Subset, subset
from ld3m_min.errors import InputError
from ld3m_min.io.disk import StrPath
from ld3m_min.io.paths import expanded

OFFICIAL = "ILSVRC2012_val_"  # begins the names of ImageNet's validation images, in every copy
OFFICIAL_COUNT = 50  # of them in each class


def load_folder(
    path: StrPath,
    *,
    size: int = 128,
    name: str | None = None,
    test_fraction: float = 0.2,
    cache: StrPath | bool = True,
    progress: bool = True,
    workers: int | None = None,
) -> DataSplits:
    """Any folder of images, one subfolder a class; or train/ with val/ or test/ or both of such.

    Files that can't be used are named, all of them. Where they are few, at most one in twenty of a
    class, they are left out, which is said and is in the data's `report`; those of a folder that is
    given to test on never are.

    A zip or tar of such a folder does as well; it is unpacked once, see
    :mod:`ld3m_min.data.archives`.

    Images are decoded once, turned upright, brought to RGB, their short side resized to `size`
    (antialiased bicubic) and the centre cropped. With train/ and one other folder, that one is the
    test split; with all three each is what it says. Without any, `test_fraction` of each class is
    held out. A validation split that isn't given is cut from the training images: a tenth of each
    class, at least 1 image.

    Args:
        path: the folder, zip or tar.
        size: side of the images, pixels.
        name: what records call the data; None takes the folder's name.
        test_fraction: of each class, in (0, 1).
        cache: True keeps the decoded images in a memory-mapped file of
            :func:`~ld3m_min.data.cache.cache_folder`; a path names another folder; False keeps them
            in memory.
        progress: whether a bar is drawn.
        workers: threads that decode; None for one per core, at most 8.

    Returns:
        The three splits.

    Raises:
        FileNotFoundError: no such folder, or no class in it.
        InputError: a class without images or with too few for the splits, files that are no images,
            or images that cannot be read: all of them are named in one message.
    """
    root = folder_of(path)
    reading = Reading(size, cache, progress, workers)
    bad: dict[Path, str] = {}
    while True:
        found = listed(root, test_fraction, bad)
        try:
            return assemble(
                name or root.name,
                found.parts,
                found.classes,
                reading,
                source=found.source,
                root=root,
                bad=bad,
            )
        except Unusable as error:
            if not error.files.keys() - bad.keys() or not is_safe(bad | error.files, found.counts):
                raise
            error.remember()
            bad |= error.files  # and all is decoded once more, without them


def load_subset(
    name: str,
    path: StrPath | None = None,
    *,
    split: str = "paper",
    size: int = 128,
    cache: StrPath | bool = True,
    progress: bool = True,
    workers: int | None = None,
) -> DataSplits:
    """One of the paper's ten ImageNet subsets, its classes in the paper's label order.

    Args:
        name: "imagenette", "imagenet-a", ...: see :mod:`ld3m_min.data.subsets`.
        path: a folder with train/ and val/ whose class folders are named by wnid: all of ImageNet
            (other classes are not looked at), only the subset, or what fastai publishes; or one
            folder of class folders. None takes `LD3M_DATA` from the environment. The tree may also
            lie in a subfolder called `name`.
        split: "paper" tests on ImageNet's official validation images, known by their names
            `ILSVRC2012_val_*` wherever they lie, 50 a class; "fastai" tests on val/ of fastai's own
            partition of ImageNette and ImageWoof.
        size: side of the images, pixels.
        cache: as for :func:`load_folder`, which also says how the validation split is cut.
        progress: whether a bar is drawn.
        workers: threads that decode; None for one per core, at most 8.

    Returns:
        The three splits.

    Raises:
        FileNotFoundError: no path given, nothing there, or a class is missing; names it.
        InputError: as for :func:`load_folder`; an image that is there twice; a split that the tree
            doesn't have.
    """
    chosen = subset(name)
    if split not in ("paper", "fastai"):
        raise InputError(f"unknown split {split!r} of {chosen.name}; choose paper or fastai")
    if split == "fastai" and chosen.name not in ("imagenette", "imagewoof"):
        raise InputError(
            f"fastai made no split of {chosen.name}, only of imagenette and imagewoof; take "
            "split='paper'"
        )
    root = _subset_root(chosen, path)
    tops = [root / n for n in ("train", *HELD_OUT) if (root / n).is_dir()] or [root]
    parts = [labelled(list_images(top, only=chosen.wnids)) for top in tops]
    everything = [x for part in parts for x in part]
    counts = Counter(x.key for x in everything)
    if twice := [key for key, n in counts.items() if n > 1]:
        raise InputError(
            f"{len(twice)} image(s) of {chosen.name} are there twice, e.g. {twice[0]}; keep one of "
            "each"
        )
    if split == "paper":
        train = [x for x in everything if not _is_official(x)]
        test = [x for x in everything if _is_official(x)]
        _check_official(chosen, test)
    elif len(parts) == 2 and not all(_is_official(x) for x in parts[1]):
        train, test = parts
    else:
        raise InputError(
            f"{root.name!r} is not fastai's partition, whose val/ holds training images too; take "
            "split='paper'"
        )
    cut = hold_out(train, tenth, chosen.classes)
    return assemble(
        chosen.name if split == "paper" else f"{chosen.name}-fastai",
        Parts(cut.rest, cut.held, test),
        chosen.classes,
        Reading(size, cache, progress, workers),
        source=f"{chosen.title} of ImageNet, {split} split",
        root=root,
        ids=chosen.ids,
    )


def folder_of(path: StrPath) -> Path:
    """The folder of a path, unpacked where it is an archive."""
    root = expanded(path)
    if is_archive(root):
        return unpack(root, cache_folder() / "archives").resolve()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise FileNotFoundError(
            f"image folder {str(root)!r} {what}; give the folder, or the "
            "zip or tar, that holds one subfolder per class"
        )
    return root.resolve()


def _subset_root(chosen: Subset, path: StrPath | None) -> Path:
    """Where the class folders, or train/ and val/ of them, are."""
    path = path or os.environ.get("LD3M_DATA")
    if not path:
        raise FileNotFoundError(
            f"{chosen.name} needs its images: give path=, or set LD3M_DATA, to a folder with "
            "train/ and val/ of class folders named by wnid (all of ImageNet, or the subset)"
        )
    base = folder_of(path)
    for root in (base, base / chosen.name):
        if any((root / top / wnid).is_dir() for top in ("train", ".") for wnid in chosen.wnids):
            return root
    first = ", ".join(
        f"{w} ({c})" for w, c in zip(chosen.wnids[:2], chosen.classes[:2], strict=True)
    )
    raise FileNotFoundError(
        f"{str(base)!r} holds no class of {chosen.name}: no folder {first}, ... is there, in "
        f"train/ or in {chosen.name}/; give the folder that holds them"
    )


def _is_official(x: Labelled) -> bool:
    return x.file.name.startswith(OFFICIAL)


def _check_official(chosen: Subset, test: Sequence[Labelled]) -> None:
    """InputError where a class has no official validation image, a warning where not 50."""
    counts = Counter(x.label for x in test)
    if absent := [
        f"{w} ({c})"
        for i, (w, c) in enumerate(zip(chosen.wnids, chosen.classes, strict=True))
        if not counts[i]
    ]:
        raise InputError(
            f"no official validation image ({OFFICIAL}*) of {', '.join(absent)}; the paper's split "
            "tests on those: add ImageNet's val/, or read the folder by its path with a split of "
            "its own"
        )
    if odd := [f"{chosen.wnids[i]}: {n}" for i, n in sorted(counts.items()) if n != OFFICIAL_COUNT]:
        warnings.warn(
            f"{chosen.name}: not {OFFICIAL_COUNT} official validation images of each class "
            f"({', '.join(odd)}); numbers of this split do not compare with the paper's",
            stacklevel=4,
        )
