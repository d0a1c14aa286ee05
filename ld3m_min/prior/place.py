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


@contextmanager
def whole_prior(folder: StrPath) -> Iterator[Path]:
    """Give a folder to write a prior into; when the block ends well, it takes the earlier's place.

    A kill or a full disk leaves the earlier prior or this one. What else lies in the folder stays.

    Args:
        folder: the place of the prior.

    Yields:
        The folder to write into.

    Raises:
        OSError: it cannot be written; the earlier prior is still there.
    """
    place = resolved(folder)
    with replace_folder(place) as empty:
        yield empty
        earlier = current_version(place)
        if earlier.is_dir():
            _keep_others(earlier, empty)


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
        if inside == earlier:
            return [n for n in names if n == "model_index.json"]
        if inside.parent != earlier or inside.name not in PARTS:
            return []
        return [n for n in names if n in NETWORK_FILES or n.startswith("diffusion_pytorch_model")]

    shutil.copytree(
        earlier, made, symlinks=True, ignore=ours, copy_function=link, dirs_exist_ok=True
    )


def has_index(folder: StrPath) -> bool:
    """Whether a folder, or its copy from before a kill, holds a prior that may be loaded.

    Args:
        folder: the place of a prior.
    """
    return (current_version(resolved(folder)) / "model_index.json").exists()
