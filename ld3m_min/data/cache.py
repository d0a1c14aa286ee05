"""Decoded images kept on the disk, so that a folder is read once."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from io import BufferedWriter
from pathlib import Path

import numpy as np
import PIL
import torch
from jaxtyping import UInt8
from torch import Tensor

from ld3m_min.data.images import _named, read_image
from ld3m_min.data.report import Unusable
from ld3m_min.io.digests import digest
from ld3m_min.io.disk import StrPath, new_file, sweep
from ld3m_min.io.files import read_json, write_json
from ld3m_min.io.memory import device_bytes
from ld3m_min.io.paths import expanded
from ld3m_min.io.progress import bar

DECODING = 2  # part of the cache's key: raise it when `read_image` gives other pixels than before


def cache_folder() -> Path:
    """Where decoded images are kept: `LD3M_CACHE`, else the user's cache folder.

    It may be deleted at any time.
    """
    if given := os.environ.get("LD3M_CACHE"):
        return expanded(given)
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # a user without a home, as in some containers
        home = Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
    return home / "ld3m_min"


@dataclass(frozen=True)
class _Source:
    """Image files, and how they are decoded.

    Attributes:
        files: the image files.
        size: side of the decoded images, pixels.
        name: what the progress bar and the file in the cache are called.
        progress: whether there is a bar.
        workers: threads that decode.
    """

    files: Sequence[Path]
    size: int
    name: str
    progress: bool
    workers: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the decoded images."""
        return (len(self.files), 3, self.size, self.size)

    def checksum(self) -> str:
        """Of the contents of all files, in order.

        Times and sizes of files can stay while a picture changes.
        """

        def content(file: Path) -> bytes:
            try:
                return hashlib.blake2b(file.read_bytes(), digest_size=16).digest()
            except OSError:  # named when it is decoded
                return b"unreadable"

        whole = hashlib.blake2b(f"{DECODING} {self.size}".encode(), digest_size=16)
        with ThreadPoolExecutor(self.workers) as pool:
            for part in pool.map(content, self.files):
                whole.update(part)
        return whole.hexdigest()

    def images(self) -> Iterator[UInt8[Tensor, "3 H H"]]:
        """The images in order; after the last, one error for all that failed."""

        def job(file: Path) -> Tensor | ValueError:
            try:
                return read_image(file, self.size)
            except ValueError as error:
                return error

        bad: dict[Path, str] = {}
        pool = ThreadPoolExecutor(self.workers)
        try:
            results = bar(
                pool.map(job, self.files),
                desc=f"decoding {self.name}",
                total=len(self.files),
                unit="image",
                show=self.progress,
            )
            for file, result in zip(self.files, results, strict=True):
                if isinstance(result, ValueError):
                    bad[file] = str(result).removeprefix(f"{file.parent.name}/{file.name}: ")
                elif not bad:  # after a failure only names are gathered
                    yield result
        finally:
            pool.shutdown(cancel_futures=True)
        if bad:
            raise Unusable(_named(_lines(bad), "cannot be used; repair or remove them"), bad)


def _lines(files: Mapping[Path, str]) -> list[str]:
    """A line for each file: its class folder and name, and why it can't be used."""
    return [f"{f.parent.name}/{f.name}: {why}" for f, why in files.items()]


def decode(
    files: Sequence[Path],
    size: int,
    *,
    cache: StrPath | None = None,
    name: str = "images",
    progress: bool = True,
    workers: int | None = None,
) -> UInt8[Tensor, "N 3 H H"]:
    """Read image files, each once.

    A file in the cache is named by size and checksum of the contents of the image files, so changed
    files are decoded anew. Its own checksum is at its end, and one that doesn't fit is made again.

    Args:
        files: the N image files.
        size: H, pixels.
        cache: folder of the memory-mapped copy, or None for memory alone.
        name: what the progress bar and the file in the cache are called.
        progress: whether there is a bar.
        workers: threads that decode; None for one per core, at most 8.

    Returns:
        The images. A tensor from the cache may be written to; the file stays as it is.

    Raises:
        Unusable: names every file that cannot be used.
        OSError: the cache has no room.
        MemoryError: without a cache, the memory has none.
    """
    source = _Source(files, size, name, progress, workers or min(8, os.cpu_count() or 1))
    if cache is not None and (kept := _kept(source, Path(cache))) is not None:
        return kept
    _check_memory(source)
    images = np.empty(source.shape, dtype=np.uint8)
    for i, image in enumerate(source.images()):
        images[i] = image.numpy()
    return torch.from_numpy(images)


def _kept(source: _Source, cache: Path) -> UInt8[Tensor, "N 3 H H"] | None:
    """The images from a file of the cache, made where it isn't there; None where none can be."""
    target = cache / f"{_safe(source.name)}-{source.size}px-{source.checksum()}.npy"
    if (images := _open_cached(target, source.shape)) is not None:
        return images
    known = target.with_suffix(".unusable.json")
    _refuse_known(known, source.files)
    need = int(np.prod(source.shape))
    try:
        with ExitStack() as opened:
            handle = _begin(target, need, opened)
            if handle is None:
                return None
            np.lib.format.write_array_header_1_0(
                handle, {"descr": "|u1", "fortran_order": False, "shape": source.shape}
            )
            try:
                for image in source.images():
                    handle.write(image.numpy().tobytes())
            except Unusable as error:
                error.remember = partial(_remember, known, source.files, error)
                raise
            handle.flush()
            handle.write(digest(torch.from_numpy(np.load(handle.name, mmap_mode="c"))).encode())
    except OSError as error:
        raise OSError(
            f"cannot keep {need / 2**20:.0f} MiB of decoded images in {target.parent}: "
            f"{error.strerror or error}; name another folder in LD3M_CACHE, or load with "
            "cache=False"
        ) from error
    return _open_cached(target, source.shape)


def _remember(known: Path, files: Sequence[Path], error: Unusable) -> None:
    """Note which files can't be used, so that the next reading need not decode all to find them.

    Files that can't even be opened are not noted: that may change while their content does not.
    """
    if all(os.access(f, os.R_OK) for f in error.files):
        positions = {f: i for i, f in enumerate(files)}
        found = {str(positions[f]): reason for f, reason in error.files.items()}
        with suppress(OSError):
            write_json(known, {"pillow": PIL.__version__, "files": found})


def _refuse_known(known: Path, files: Sequence[Path]) -> None:
    """Raise what was raised when these very files were decoded before, with this Pillow."""
    try:
        noted = read_json(known)
        if noted["pillow"] != PIL.__version__:
            return
        found = {files[int(i)]: str(reason) for i, reason in noted["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return
    if found:
        raise Unusable(_named(_lines(found), "cannot be used; repair or remove them"), found)


def _check_memory(source: _Source) -> None:
    """Refuse what the memory can't hold, before the first image is decoded."""
    need, free = int(np.prod(source.shape)), device_bytes("cpu")
    if need > free:
        raise MemoryError(
            f"{len(source.files):,} images of {source.size} px take {need / 2**30:.1f} GiB, and "
            f"{free / 2**30:.1f} GiB of memory are free; lower size, or let the cache keep them on "
            "a disk with room (LD3M_CACHE)"
        )


def _safe(name: str) -> str:
    """A data set's name as part of a file's: letters, digits, '-' and '_' stay."""
    return "".join(ch if ch.isalnum() or ch in "-_" else "_" for ch in name)[:80]


def _open_cached(target: Path, shape: tuple[int, ...]) -> UInt8[Tensor, "N 3 H H"] | None:
    """The images of a file of the cache; None where there is none, and with a warning a damaged."""
    if not target.exists():
        return None
    try:
        images = np.load(target, mmap_mode="c")
        if images.shape == shape and images.dtype == np.uint8:
            with target.open("rb") as file:
                file.seek(-32, os.SEEK_END)
                stated = file.read()
            if digest(torch.from_numpy(images)).encode() == stated:
                return torch.from_numpy(images)
    except (ValueError, OSError, EOFError):
        pass
    warnings.warn(f"{target.name} in the cache is damaged; decoding the images again", stacklevel=4)
    return None


def _begin(target: Path, need: int, opened: ExitStack) -> BufferedWriter | None:
    """A file that takes `target`'s place; None, with a warning, where none can be written.

    Args:
        target: in the cache.
        need: bytes.
        opened: closes the file, and puts it in its place.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        if shutil.disk_usage(target.parent).free < need + 2**20:
            raise OSError(f"{need / 2**20:.0f} MiB are needed, less is free")
        return opened.enter_context(new_file(target))
    except OSError as error:
        warnings.warn(
            f"no cache in {target.parent} ({error.strerror or error}): the images are kept in "
            "memory",
            stacklevel=4,
        )
        return None
