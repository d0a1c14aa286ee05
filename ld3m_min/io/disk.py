"""Bringing files to the disk, locking them, and clearing what a killed writer left."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path

from filelock import lock_descriptor

StrPath = str | os.PathLike[str]
ABANDONED = 3600.0  # seconds after which half-written litter is nobody's, where nothing is locked

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
                    if _left(handle):
                        _remove(Path(folder) / name)
                finally:
                    os.close(handle)


@contextmanager
def new_file(path: StrPath) -> Iterator[BufferedWriter]:
    """A new file beside a place, which takes the place when the block ends well.

    No other process sweeps it meanwhile: it is locked from its first moment to the rename.

    Args:
        path: the place; its folder has to exist.

    Yields:
        The open file.

    Raises:
        OSError: it cannot be written; the old content is still there.
    """
    path = Path(path)
    temporary, file = _open_new(path)
    try:
        with file:
            yield file
            file.flush()
            fsync(file.fileno())
            if sys.platform != "win32":  # where an open file cannot be renamed, nor removed
                os.replace(temporary, path)
        if sys.platform == "win32":
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _open_new(path: Path) -> tuple[Path, BufferedWriter]:
    """A file beside `path` that this process holds, and its name, which says that it may go."""
    while True:
        temporary = path.with_name(f".tmp-{uuid.uuid4().hex}-{path.name}")
        file = open(temporary, "wb")  # noqa: SIM115  # the caller closes it
        if hold(file.fileno()) and is_at(file.fileno(), temporary):
            return temporary, file
        file.close()  # a sweep of another process was quicker than our lock


def is_at(handle: int, path: StrPath) -> bool:
    """Whether an open file or folder is the one at a place.

    Args:
        handle: its descriptor.
        path: the place.
    """
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:
        return False


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


def _left(handle: int) -> bool:
    """Whether nobody writes to what is open any more."""
    if sys.platform == "win32":
        return True  # an open file cannot be removed there
    try:
        free = try_lock(handle)
    except OSError:
        return False
    # where the file system has no locks, only its age tells
    return time.time() - os.fstat(handle).st_mtime > ABANDONED if free is None else free


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        with suppress(OSError):
            place.unlink(missing_ok=True)
