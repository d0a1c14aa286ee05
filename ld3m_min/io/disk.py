"""Bringing files to the disk, locking them, and clearing what a killed writer left."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from filelock import lock_descriptor

StrPath = str | os.PathLike[str]

_LITTER = re.compile(r"\.tmp-[0-9a-f]{32}(-.*)?")  # what a kill in the midst of a write leaves
_NOT_SUPPORTED = {  # of locks and fsync
    errno.EINVAL,
    errno.ENOLCK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
}
_ADVICE: dict[int | None, str] = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of the quota",
    errno.EROFS: "the disk can only be read",
    errno.EACCES: "it may not be written to",
    errno.EPERM: "it may not be written to",
    errno.ENOENT: "the folder has vanished",
    errno.EIO: "the disk is failing",
    errno.ELOOP: "it is a link; remove it",
}


def flush(path: StrPath) -> None:
    """Bring a file or folder to the disk.

    Folders cannot be opened on some systems, where the rename suffices.

    Args:
        path: the file or folder.

    Raises:
        OSError: the disk refuses what was written.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        fsync(handle)
    finally:
        os.close(handle)


def fsync(handle: int) -> None:
    """`os.fsync`, where the file system has it.

    Some network and user-space ones refuse, and have no other way to be asked.

    Args:
        handle: descriptor of an open file or folder.

    Raises:
        OSError: the disk refuses what was written.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def why(error: OSError) -> str:
    """An OSError in words, with what can be done about it."""
    cause = error.__cause__
    root = cause if error.errno is None and isinstance(cause, OSError) else error
    advice = _ADVICE.get(root.errno)
    return f"{root.strerror or root}" + (f" ({advice})" if advice else "")


def sweep(folder: StrPath) -> None:
    """Remove what killed writers left half-written: what has our name for it, and no process holds.

    Args:
        folder: where it may lie; its subfolders are not looked into.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for name in [e.name for e in entries if _LITTER.fullmatch(e.name)]:
            with suppress(OSError):
                handle = os.open(
                    Path(folder) / name,
                    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0),
                )
                try:
                    if hold(handle):
                        _remove(Path(folder) / name)
                finally:
                    os.close(handle)


def try_lock(handle: int) -> bool | None:
    """Lock an open file or folder, without waiting, for as long as it stays open.

    Args:
        handle: its descriptor.

    Returns:
        Whether it is locked, False where another holds it; None where the file system has no locks.

    Raises:
        OSError: it cannot be locked for another reason.
    """
    try:
        return lock_descriptor(handle, blocking=False)
    except OSError as error:
        if error.errno in _NOT_SUPPORTED:
            return None
        raise


def hold(handle: int) -> bool:
    """Keep an open file or folder from the :func:`sweep` of other processes while it is open.

    Args:
        handle: its descriptor.

    Returns:
        False where another process holds it.
    """
    if sys.platform == "win32":
        return True  # an open file cannot be removed there
    try:
        return try_lock(handle) is not False
    except OSError:
        return False


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        with suppress(OSError):
            place.unlink(missing_ok=True)
