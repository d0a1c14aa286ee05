"""The folder of a prior, replaced as a whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ld3m_min.io.disk import StrPath
from ld3m_min.io.files import current_version, replace_folder
from ld3m_min.io.paths import resolved

# what a prior is read from, in the folders of its parts
PARTS = ("vae", "unet", "transformer", "scheduler", "class_embedding", "generator")
NETWORK_FILES = ("config.json", "scheduler_config.json", "model.safetensors")
INDEX, WEIGHTS = "model_index.json", "diffusion_pytorch_model"
NOTES = ("training.json", "trained_on.json")  # of the prior that was trained there


@contextmanager
def whole_prior(folder: StrPath) -> Iterator[Path]:
    """Give a folder to write a prior into; when the block ends well, it takes the earlier's place.

    A kill or a full disk leaves the earlier prior or this one. What else lies in the folder stays,
    but for the notes on the earlier one's training. A folder that can't be replaced is written in
    place, and holds no prior until the end.

    Args:
        folder: the place of the prior.

    Yields:
        The folder to write into.

    Raises:
        OSError: it cannot be written; the earlier prior is still there.
    """
    place = resolved(folder)
    if _stays(place):
        (place / INDEX).unlink(missing_ok=True)
        yield place
        return
    with replace_folder(place) as empty:
        yield empty
        earlier = current_version(place)
        if earlier.is_dir():
            _keep_others(earlier, empty)


def _stays(place: Path) -> bool:
    """Whether a folder can't be replaced: it is worked in, mounted, or its parent is read-only."""
    return place.is_dir() and (
        Path.cwd().is_relative_to(place)
        or os.path.ismount(place)
        or not os.access(place.parent, os.W_OK)
    )


def _keep_others(earlier: Path, made: Path) -> None:
    """Take over from an earlier folder what is no part of a prior, and what nothing has replaced.

    Args:
        earlier: stays as it is.
        made: the folder that takes its place.
    """

    def link(source: str, target: str) -> None:
        if os.path.lexists(target):
            return
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:  # a disk without such links
            shutil.copy2(source, target, follow_symlinks=False)

    def ours(folder: str, names: list[str]) -> list[str]:
        inside = Path(folder)
        new = made / inside.relative_to(earlier)
        # a link has been replaced by what was written; what it leads to stays as it is
        gone = {n for n in names if (inside / n).is_symlink() and os.path.lexists(new / n)}
        if inside == earlier:
            gone |= {INDEX, *NOTES}
        elif inside.parent == earlier and inside.name in PARTS:
            gone |= {n for n in names if n in NETWORK_FILES or n.startswith(WEIGHTS)}
        return [n for n in names if n in gone]

    shutil.copytree(
        earlier, made, symlinks=True, ignore=ours, copy_function=link, dirs_exist_ok=True
    )


def has_index(folder: StrPath) -> bool:
    """Whether a folder, or its copy from before a kill, holds a prior that may be loaded.

    Args:
        folder: the place of a prior.
    """
    return (current_version(resolved(folder)) / INDEX).exists()
