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
from ld3m_min.io.disk import StrPath, _remove, flush, fsync, hold, sweep, why


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
    return _old(folder) if not folder.exists() and _old(folder).exists() else folder


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
        temporary.mkdir(parents=True)
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
    place.mkdir(parents=True)
    try:
        handle = _held(place)
        yield place
    finally:
        _remove(place)
        if handle is not None:
            os.close(handle)


def _held(folder: Path) -> int | None:
    """Descriptor of a folder that no other process sweeps while it is open; None on Windows."""
    if sys.platform == "win32":
        return None
    handle = os.open(folder, os.O_RDONLY)
    hold(handle)
    return handle


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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
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
