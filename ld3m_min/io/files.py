"""Files and folders that are whole or not there: atomic writes, replaced folders, JSON."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ld3m_min.errors import InputError
from ld3m_min.io.disk import StrPath, _remove, flush, hold, is_at, new_file, sweep, why


def write_bytes(path: StrPath, data: bytes) -> None:
    """Write a file beside its place, flush it, rename it.

    A reader sees the old content or the new, never a part.

    Args:
        path: the file; its folder is made where it doesn't exist.
        data: the whole content.

    Raises:
        OSError: it cannot be written; the old content is still there.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        with new_file(path) as file:
            file.write(data)
        flush(path.parent)
    except OSError as error:
        raise OSError(
            f"cannot write {path.name} in {path.parent}: {why(error)}; nothing was changed"
        ) from error


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.being-replaced-by-ld3m")


def current_version(folder: StrPath) -> Path:
    """Where the content of a folder is that :func:`replace_folder` writes.

    Args:
        folder: its place.

    Returns:
        That place, or the old copy beside it, after a kill between the two renames.
    """
    folder = Path(folder)
    # os.path says no of a name that is too long for the disk, where pathlib fails
    away = not os.path.exists(folder) and os.path.exists(_old(folder))
    return _old(folder) if away else folder


@contextmanager
def replace_folder(folder: StrPath) -> Iterator[Path]:
    """Give an empty folder; when the block ends well, it takes the place of `folder` as a whole.

    A kill leaves the old one or the new one. Between the two renames the old one lies beside its
    place under another name, where :func:`current_version` finds it; the next write puts it back.

    Args:
        folder: the place; it may not be a file or a link.

    Yields:
        The folder to write into.

    Raises:
        InputError: a file or a link is in the place.
        OSError: it cannot be written; the old folder is still there.
    """
    folder, handle = Path(folder).absolute(), None
    temporary = folder.with_name(f".tmp-{uuid.uuid4().hex}-{folder.name}")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(
            f"{folder} is {'a link' if folder.is_symlink() else 'a file'}, no folder of ours, and "
            "stays as it is; move it, or give another place"
        )
    try:
        sweep(folder.parent)
        handle = _held(temporary)
        yield temporary
        for place in sorted(temporary.rglob("*")):
            flush(place)
        flush(temporary)
        if current_version(folder) != folder:
            os.replace(_old(folder), folder)
        _remove(_old(folder))
        if folder.exists():
            os.replace(folder, _old(folder))
        os.replace(temporary, folder)
        flush(folder.parent)
        _remove(_old(folder))
    except OSError as error:
        if current_version(folder) != folder:
            with suppress(OSError):
                os.replace(_old(folder), folder)
        raise OSError(
            f"cannot write {folder.name} in {folder.parent}: {why(error)}; nothing was changed"
        ) from error
    finally:
        _remove(temporary)
        if handle is not None:
            os.close(handle)


@contextmanager
def scratch_folder(parent: StrPath) -> Iterator[Path]:
    """A folder for the time of the block; one that a kill leaves is swept as other litter is.

    Args:
        parent: where it lies.

    Yields:
        The empty folder.
    """
    place, handle = Path(parent) / f".tmp-{uuid.uuid4().hex}-scratch", None
    try:
        handle = _held(place)
        yield place
    finally:
        _remove(place)
        if handle is not None:
            os.close(handle)


def _held(folder: Path) -> int | None:
    """Make a folder that no other process sweeps while it is open.

    Returns:
        Its descriptor; None on Windows.
    """
    while True:
        folder.mkdir(parents=True)
        if sys.platform == "win32":
            return None
        with suppress(FileNotFoundError):  # a sweep of another process was quicker than our lock
            handle = os.open(folder, os.O_RDONLY)
            if hold(handle) and is_at(handle, folder):
                return handle
            os.close(handle)
        _remove(folder)


def write_json(path: StrPath, value: object) -> None:
    """Write `value` as readable JSON, as :func:`write_bytes` does.

    Args:
        path: the file.
        value: JSON-able.

    Raises:
        OSError: it cannot be written; the old content is still there.
    """
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def read_json(path: StrPath) -> Any:
    """What a JSON file holds; only the file says of which type it is.

    Args:
        path: the file.

    Returns:
        The value.

    Raises:
        FileNotFoundError: no such file; names it.
        InputError: no ordinary file, or not JSON; names it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise InputError(
            f"{path} is no ordinary file; a pipe or device would be waited for without end"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, too
        raise InputError(
            f"{path} is not valid JSON ({error}); it is damaged or not one of our files"
        ) from None


def signature(mapping: Mapping[str, object]) -> str:
    """SHA-256 of a JSON-able mapping without its entry "checksum", in 64 hex digits."""
    rest = {k: v for k, v in mapping.items() if k != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def signed(mapping: Mapping[str, object]) -> dict[str, Any]:
    """A mapping as JSON gives it back, with its :func:`signature` as "checksum"."""
    plain: dict[str, Any] = json.loads(json.dumps(mapping))
    return plain | {"checksum": signature(plain)}
