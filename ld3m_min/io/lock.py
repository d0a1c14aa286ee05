"""One process at a time in a folder."""

from __future__ import annotations

import errno
import os
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ld3m_min.errors import Busy
from ld3m_min.io.disk import StrPath, is_at, sweep, try_lock, why


@dataclass(frozen=True)
class Lock:
    """The hold on a folder that :func:`locked` gives.

    Attributes:
        folder: what is held.
        handle: descriptor of the open file `.lock` in it, which carries the lock.
    """

    folder: Path
    handle: int

    def check(self) -> None:
        """Make sure that the folder is still the one that was locked.

        Raises:
            OSError: it was deleted, moved, or its disk was unmounted.
        """
        if not is_at(self.handle, self.folder / ".lock"):
            raise OSError(
                f"{self.folder} has vanished while the run was at work (deleted, moved, or its "
                "disk unmounted); nothing was written in its place. Bring it back, and the same "
                "command goes on from there"
            )


@contextmanager
def locked(folder: StrPath) -> Iterator[Lock]:
    """Hold `folder` for this process; a second one is refused. The lock goes when the process does.

    What an earlier process left half-written is removed. `filelock` does the locking. The file is
    opened here, because a `filelock.FileLock` takes a pipe for a lock file as well, and on Windows
    deletes the file in the end.

    Args:
        folder: made where it doesn't exist.

    Yields:
        The hold.

    Raises:
        Busy: another process holds it.
        OSError: it cannot be made or written to, or its `.lock` is a link or no ordinary file.
    """
    folder = Path(folder).absolute()
    handle = None
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = _open_file(folder / ".lock")
            free = try_lock(handle)
        except OSError as error:
            denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
            remedy = "make it writable, or use another folder" if denied else "use another folder"
            raise OSError(f"cannot work in {folder}: {why(error)}; {remedy}") from error
        if free is None:
            warnings.warn(
                f"the file system of {folder} has no locks; see to it yourself that no other "
                "process works there",
                stacklevel=4,
            )
        elif not free:
            raise Busy(f"another process works in {folder}; wait for it, or use another folder")
        sweep(folder)
        yield Lock(folder, handle)
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def waiting(folder: StrPath, seconds: float = 60.0) -> Iterator[Lock]:
    """Hold `folder` for a moment, as :func:`locked` does, after those who hold it now.

    Args:
        folder: made where it doesn't exist.
        seconds: to wait for at most.

    Yields:
        The hold.

    Raises:
        Busy, OSError: as for :func:`locked`, after the wait.
    """
    end = time.monotonic() + seconds
    with ExitStack() as held:
        while True:
            try:
                lock = held.enter_context(locked(folder))
                break
            except Busy:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        yield lock


def _open_file(file: Path) -> int:
    """Never through a link, never emptied: a file of that name may be somebody's."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("its .lock is no ordinary file")
    return handle
