"""Members of a zip or a tar, one after the other, before anything of them is written.

`zipfile` and `tarfile` read them: they find damage by checksums, and give no more bytes of a member
than it declares. What they put right in silence when they extract (absolute names, "..") is refused
by :mod:`ld3m_min.data.archives`.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Protocol, runtime_checkable

from ld3m_min.data.images import SUFFIXES as IMAGES
from ld3m_min.errors import InputError
from ld3m_min.io.text import shown

DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    UnicodeDecodeError,
    MemoryError,
)
PICTURES = (  # first bytes
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"RIFF",
    b"BM",
    b"II*\0",
    b"MM\0*",
    *(b"P%d" % i for i in range(1, 8)),
)


@runtime_checkable
class _Readable(Protocol):
    """What `zipfile` and `tarfile` give of a member's content."""

    def read(self, n: int = -1, /) -> bytes:
        """The next bytes, at most `n` of them, or all."""


@dataclass(frozen=True)
class Member:
    """One file or folder of an archive.

    Attributes:
        name: its path as the archive says it.
        size: bytes that it declares to unpack to; 0 for a folder.
        is_folder: whether it is a folder.
        odd: why it is refused whatever its path; "" where it isn't.
        copy: writes its content to a place, given the folder of all and the place in it.
    """

    name: str
    size: int
    is_folder: bool
    odd: str
    copy: Callable[[Path, Path], None]


@contextmanager
def members(archive: Path) -> Iterator[Iterator[Member]]:
    """Open an archive and go through its members.

    Args:
        archive: a zip where the name ends so, else a tar.

    Yields:
        The members, read as they are asked for: what follows a bomb is never read.

    Raises:
        DAMAGED: one of these exceptions, where it is no such archive, or a damaged one.
        InputError: a member that is called a picture is none.
    """
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            yield _zip_members(opened)
    else:
        with tarfile.open(archive) as tar:
            yield _tar_members(tar)


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        kind = (info.external_attr >> 16) & 0o170000
        plain = kind in (0, 0o100000, 0o040000)
        odd = "encrypted" if info.flag_bits & 1 else "" if plain else "a link or device"
        yield Member(
            info.orig_filename.split("\0")[0] or info.filename,
            info.file_size,
            info.is_dir(),
            odd,
            _zip_copy(archive, info),
        )


def _zip_copy(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[Path, Path], None]:
    def copy(root: Path, place: Path) -> None:
        # reads no more than it declared, and its checksum
        with archive.open(info) as source, place.open("wb") as file:
            _copy(source, file, place)

    return copy


def _tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    with _damage():
        for info in archive:
            odd = "" if info.isreg() or info.isdir() else "a link or device"
            size = info.size if info.isreg() else 0
            yield Member(info.name, size, info.isdir(), odd, _tar_copy(archive, info))
        _check_end(archive)


def _tar_copy(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[Path, Path], None]:
    def copy(root: Path, place: Path) -> None:
        tarfile.data_filter(info, str(root))
        with _damage():
            source = archive.extractfile(info)
            assert source is not None  # it is a file
            with source, place.open("wb") as file:
                _copy(source, file, place)

    return copy


def _check_end(archive: tarfile.TarFile) -> None:
    """A tar ends in blocks of zeros; without them it was cut.

    What follows is read for the checksum of its compression.
    """
    stream = archive.fileobj
    assert stream is not None  # it is open
    stream.seek(archive.offset)
    if len(stream.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends early, so files may be missing")
    for _ in range(2**10):  # of a mebibyte: nobody pads an archive with more
        if not stream.read(2**20):
            return
    raise tarfile.ReadError("more than a gigabyte follows its end")


@contextmanager
def _damage() -> Iterator[None]:
    """Damaged bytes in gzip and bz2 are an OSError without a number, which one of the disk has."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise tarfile.ReadError(f"damaged: {error}") from error
        raise


def _copy(source: _Readable, file: BufferedWriter, place: Path) -> None:
    """Copy a member.

    A large one that begins like no picture, though it is called one, is left before the rest is
    written.
    """
    first = source.read(2**20)
    if len(first) == 2**20 and place.suffix.lower() in IMAGES and not first.startswith(PICTURES):
        raise InputError(
            f"{shown(place.name)} in the archive is called a picture and is none; "
            "nothing of it was unpacked"
        )
    file.write(first)
    shutil.copyfileobj(source, file, 2**20)
