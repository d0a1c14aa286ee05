"""Files and folders that are whole or not there: atomic writes, replaced folders, one process at a time."""
from __future__ import annotations

import errno
import hashlib
import html
import json
import os
import re
import shutil
import stat
import sys
import uuid
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import Busy, InputError

_LITTER = re.compile(r"\.tmp-[0-9a-f]{32}(-.*)?")  # what a kill in the midst of a write leaves
_NOT_SUPPORTED = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # of locks and fsync
_ADVICE = {
    errno.ENOSPC: "free some space", errno.EDQUOT: "free some of the quota", errno.EROFS: "the disk can only be read",
    errno.EACCES: "it may not be written to", errno.EPERM: "it may not be written to", errno.ENOENT: "the folder has vanished",
    errno.EIO: "the disk is failing", errno.ELOOP: "it is a link; remove it",
}


def flush(path):
    """Bring a file or folder to the disk; folders cannot be opened on some systems, where the rename suffices."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        fsync(handle)
    finally:
        os.close(handle)


def fsync(handle):
    """fsync, where the file system has it: some network and user-space ones refuse, and have no other way to be asked."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def why(error):
    """An OSError in words, with what can be done about it."""
    root = error.__cause__ if error.errno is None and isinstance(error.__cause__, OSError) else error
    advice = _ADVICE.get(root.errno)
    return f"{root.strerror or root}" + (f" ({advice})" if advice else "")


def write_bytes(path, data):
    """Write a file beside its place, flush it, rename it: a reader sees the old content or the new, never a part.

    Raises:
        OSError: it cannot be written; the old content is still there.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        with open(temporary, "wb") as file:
            hold(file.fileno())
            file.write(data)
            file.flush()
            fsync(file.fileno())
        os.replace(temporary, path)
        flush(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(f"cannot write {path.name} in {path.parent}: {why(error)}; nothing was changed") from error


def sweep(folder):
    """Remove what killed writers left half-written in `folder`: what has our name for it, and no process holds."""
    with suppress(OSError), os.scandir(folder) as entries:
        for name in [e.name for e in entries if _LITTER.fullmatch(e.name)]:
            with suppress(OSError):
                handle = os.open(Path(folder) / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
                try:
                    if hold(handle):
                        _remove(Path(folder) / name)
                finally:
                    os.close(handle)


def hold(handle):
    """Lock an open file or folder as long as it stays open, for :func:`sweep` of other processes; False where it is held."""
    if sys.platform == "win32":
        return True  # an open file cannot be removed there
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NOT_SUPPORTED
    return True


def _remove(place):
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        with suppress(OSError):
            place.unlink(missing_ok=True)


def _old(folder):
    return folder.with_name(f".{folder.name}.being-replaced-by-ld3m")


def standing(folder):
    """Where a folder written by :func:`replace_folder` is: `folder`, or its old copy after a kill between two renames."""
    folder = Path(folder)
    return _old(folder) if not folder.exists() and _old(folder).exists() else folder


@contextmanager
def replace_folder(folder):
    """Give a new empty folder; when the block ends well, it takes the place of `folder` as a whole.

    A kill leaves the old one or the new one; between the two renames the old one lies beside it under another name, where
    :func:`standing` finds it and the next write puts it back.

    Raises:
        OSError: it cannot be written; the old folder is still there.
    """
    folder = Path(folder).absolute()
    temporary, handle = folder.with_name(f".tmp-{uuid.uuid4().hex}-{folder.name}"), None
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is {'a link' if folder.is_symlink() else 'a file'}, no folder of ours, and stays as it is; "
                         "move it, or give another place")
    try:
        sweep(folder.parent)
        temporary.mkdir(parents=True)
        if sys.platform != "win32":
            handle = os.open(temporary, os.O_RDONLY)
            hold(handle)
        yield temporary
        for place in sorted(temporary.rglob("*")):
            flush(place)
        flush(temporary)
        if standing(folder) != folder:
            os.replace(_old(folder), folder)
        _remove(_old(folder))
        if folder.exists():
            os.replace(folder, _old(folder))
        os.replace(temporary, folder)
        flush(folder.parent)
        _remove(_old(folder))
    except OSError as error:
        if standing(folder) != folder:
            with suppress(OSError):
                os.replace(_old(folder), folder)
        raise OSError(f"cannot write {folder.name} in {folder.parent}: {why(error)}; nothing was changed") from error
    finally:
        _remove(temporary)
        if handle is not None:
            os.close(handle)


def shown(text):
    """Text from elsewhere, such as a file's name, as it may be shown on a terminal: control characters are escaped."""
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in
                   str(text).encode(errors="backslashreplace").decode())


@contextmanager
def scratch_folder(parent):
    """A folder below `parent` for the time of the block; one that a kill leaves is swept as other litter is."""
    place, handle = Path(parent) / f".tmp-{uuid.uuid4().hex}-scratch", None
    place.mkdir(parents=True)
    try:
        if sys.platform != "win32":
            handle = os.open(place, os.O_RDONLY)
            hold(handle)
        yield place
    finally:
        _remove(place)
        if handle is not None:
            os.close(handle)


def in_card(text):
    """Text from elsewhere as it may stand in a card: nothing of it is markup, and it stays on its line."""
    return re.sub(r"([\\`*_\[\]#|])", r"\\\1", html.escape(shown(text), quote=False))


def write_json(path, value):
    """Atomically write `value` as readable JSON."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def read_json(path):
    """The JSON object in a file.

    Raises:
        FileNotFoundError, ValueError: no such file; not JSON. Both name the file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no ordinary file; a pipe or device would be waited for without end")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); it is damaged or not one of our files") from None


def signature(mapping):
    """SHA-256 of a JSON-able mapping, without its entry "checksum": what a manifest says of itself."""
    rest = {k: v for k, v in mapping.items() if k != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def signed(mapping):
    """The mapping as JSON gives it back, with its :func:`signature` as "checksum"."""
    plain = json.loads(json.dumps(mapping))
    return plain | {"checksum": signature(plain)}


class Lock:
    """The hold on a folder that :func:`locked` gives."""

    def __init__(self, folder, file):
        self._folder, self._file = folder, file

    def check(self):
        """OSError where the folder is no longer the one that was locked: deleted, moved, or its disk unmounted."""
        try:
            same = os.path.samestat(os.stat(self._folder / ".lock"), os.fstat(self._file.fileno()))
        except OSError:
            same = False
        if not same:
            raise OSError(f"{self._folder} has vanished while the run was at work (deleted, moved, or its disk unmounted); "
                          "nothing was written in its place. Bring it back, and the same command goes on from there")


@contextmanager
def locked(folder):
    """Hold `folder` for this process, giving a :class:`Lock`; a second one is refused. The lock goes when the process does.

    What an earlier process left half-written is removed.

    Raises:
        RuntimeError: another process holds it. OSError: it cannot be made or written to.
    """
    folder = Path(folder).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # never through a link, never emptied: a file of that name may be somebody's
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError("its .lock is no ordinary file")
        file = os.fdopen(handle, "r+")
    except OSError as error:
        raise OSError(f"cannot work in {folder}: {why(error)}; make it writable, or use another folder") from error
    with file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise Busy(f"another process works in {folder}; wait for it, or use another folder") from None
            warnings.warn(f"the file system of {folder} has no locks; see to it yourself that no other process works there",
                          stacklevel=4)
        sweep(folder)
        yield Lock(folder, file)
