"""Real data by name or path: section 4.1 of the paper and its table 5.

Every data set becomes a :class:`~ld3m_min.data.splits.DataSplits`: three
:class:`~ld3m_min.data.dataset.ImageDataset` (train, validation, test), whose images are decoded
once, kept as uint8 tensors and drawn from by class. The test split is for the final figure alone:
whatever is chosen (a learning rate, a checkpoint) is chosen on the validation split, which is cut
from the training images.
"""

from __future__ import annotations

import os
from pathlib import Path

from ld3m_min.data.digits import load_digits
from ld3m_min.data.folders import load_folder, load_subset
from ld3m_min.data.letters import load_letters
from ld3m_min.data.splits import DataSplits
from ld3m_min.data.subsets import SUBSETS
from ld3m_min.errors import InputError
from ld3m_min.io.disk import StrPath
from ld3m_min.io.paths import expanded, folder_text, resolved
from ld3m_min.io.values import converted, within


def load_data(
    name_or_path: StrPath = "digits",
    *,
    path: StrPath | None = None,
    size: object = None,
    split: str | None = None,
    name: str | None = None,
    cache: StrPath | bool = True,
    progress: bool = True,
    workers: int | None = None,
) -> DataSplits:
    """A data set: "digits", "letters", one of the paper's ImageNet subsets, or a path of images.

    `LD3M_DATA` in the environment is the folder of a subset's images, or one in which paths that
    don't exist here are looked up. A name that a record holds gives the same data again:
    "imagenette-fastai" is split="fastai".

    Args:
        name_or_path: which; text that is a name, such as "digits", is that data set, and
            "./digits" or a `Path` the folder.
        path: where a subset's images lie, see :func:`~ld3m_min.data.folders.load_subset`.
        size: side of the square images in pixels, a whole number; None takes 32 for digits and
            letters, and 128 for image files.
        split: "paper" (None) or "fastai", for subsets alone.
        name: what records call an image folder; None takes the folder's name.
        cache: True keeps decoded images in the cache's folder, a path in that folder, False in
            memory.
        progress: whether a bar is drawn while images are decoded.
        workers: threads that decode; None for one per core, at most 8.

    Returns:
        The data in three splits.

    Raises:
        FileNotFoundError: no such name or folder.
        InputError: an argument that doesn't apply, or images that cannot be read.

    Example:
        >>> from ld3m_min import load_data
        >>> data = load_data("digits")
        >>> len(data.train), len(data.validation), len(data.test)
        (1000, 297, 500)
        >>> data.size, data.classes
        (32, ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9'))
    """
    # a Path is never a name
    given = (
        folder_text(name_or_path) if isinstance(name_or_path, os.PathLike) else str(name_or_path)
    )
    if not given.strip():
        raise InputError(
            "an empty name is no data set; give 'digits', 'letters', a subset of ImageNet, or the "
            "path of a folder"
        )
    side = None
    if size is not None:
        side = converted(int, size, "size")
        within(side, ">= 1", "size")
    key = given.lower().removesuffix("-fastai")
    if key in SUBSETS:
        if key != given.lower():
            if split not in (None, "fastai"):
                raise InputError(
                    f"{given!r} is split='fastai' by its name, not {split!r}; give one of the two"
                )
            split = "fastai"
        return load_subset(
            key,
            path,
            split=split or "paper",
            size=side or 128,
            cache=cache,
            progress=progress,
            workers=workers,
        )
    if split is not None or path is not None:
        raise InputError(
            f"path= and split= belong to the ImageNet subsets ({', '.join(SUBSETS)}), not to "
            f"{given!r}"
        )
    if given == "digits":
        return load_digits(side or 32)
    if given == "letters":
        return load_letters(side or 32)
    return load_folder(
        _existing(given),
        size=side or 128,
        name=name,
        cache=cache,
        progress=progress,
        workers=workers,
    )


def _existing(given: str) -> Path:
    """The path of that name, here or in `LD3M_DATA`."""
    folder, home = expanded(given), os.environ.get("LD3M_DATA")
    if not folder.exists() and home:
        folder = Path(home) if Path(home).name == str(folder) else Path(home) / folder
    if not folder.exists():
        raise FileNotFoundError(
            f"no data set called {given!r} and no folder of that name; use 'digits', "
            f"'letters', {', '.join(SUBSETS)}, or the path of a folder with one subfolder per class"
        )
    return folder


def check_outside(out: StrPath | None, data: DataSplits | Path) -> None:
    """Refuse to write among the images that are read: the next reading would find the output there.

    Args:
        out: where something will be written; None for nowhere.
        data: the data, or the folder of one that is not read yet.

    Raises:
        InputError: `out` is the data's folder or in it, or in the home of a user that there isn't.
    """
    root = data if isinstance(data, Path) else data.root
    if out is not None and root is not None and resolved(expanded(out)).is_relative_to(root):
        raise InputError(
            f"{out} lies in the data's own folder, where the next reading would take it for "
            "images; give a place outside of it"
        )
