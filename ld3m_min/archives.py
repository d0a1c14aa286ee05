"""Archives of images, unpacked as what they are: files from elsewhere.

A zip or tar may name paths outside its folder, links, devices, two files that are one on another disk, or a few
kilobytes that unpack to a terabyte. Every member is judged before any is written, and the folder appears as a whole or
not at all.
"""
from __future__ import annotations

import gzip
import hashlib
import lzma
import shutil
import tarfile
import unicodedata
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import InputError
from .files import replace_folder, shown
from .images import SUFFIXES as IMAGES

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError,
           NotImplementedError, UnicodeDecodeError, MemoryError)
PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", *(b"P%d" % i for i in range(1, 8)))  # first bytes


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    Attributes:
        files: members. total: bytes of all. ratio: unpacked bytes per packed one, of all (images hardly shrink), looked at
            from `ratio_from` bytes on. member: bytes of one file. depth: folders in each other.
    """

    files: int = 2_000_000
    total: int = 256 * 2**30
    ratio: float = 100.0
    ratio_from: int = 64 * 2**20
    member: int = 2**28
    depth: int = 12


def is_archive(path):
    """Whether a path is a file whose name ends like that of an archive."""
    return str(path).lower().endswith(SUFFIXES) and Path(path).is_file()


def unpack(archive, into, *, limits=Limits()):
    """Unpack a zip or tar below `into`, once: a second call finds the folder.

    Args:
        into: folder of all unpacked archives; this one's lies below a name made of its checksum.

    Returns:
        The folder; where the archive holds one folder and nothing beside it, that one.

    Raises:
        ValueError: damaged, encrypted, too large, or a member that must not be written; names it. Nothing is left.
        OSError: no room.
    """
    archive = Path(archive)
    name = archive.name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    target = Path(into) / digest[:32] / (name or "images")
    if not target.exists():
        reader = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
        try:
            _write(archive, target, reader, limits)
        except DAMAGED as error:
            _refuse_damaged(archive, "", error)
    inside = [p for p in target.iterdir() if p.name != "__MACOSX"]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and not _is_class(inside[0]) else target


def _is_class(folder):
    return not any(p.is_dir() for p in folder.iterdir())


def _refuse_damaged(archive, member, error):
    where = f" at {shown(member)!r}" if member else ""
    raise InputError(f"{archive.name} is not an archive that can be read, or damaged{where}: {error or type(error).__name__}; "
                      "copy or download it again. Nothing of it was unpacked") from error


def _write(archive, target, reader, limits):
    packed, seen, total = archive.stat().st_size, {}, 0
    with reader(archive) as members, replace_folder(target) as new:
        room = shutil.disk_usage(new).free
        for count, (name, size, is_folder, odd, copy) in enumerate(members, 1):
            path = _path(archive, name, odd, limits)
            total += size
            if count > limits.files or total > limits.total or total > max(limits.ratio * packed, limits.ratio_from):
                raise InputError(f"{archive.name} would unpack to {count:,} files and {total:,} bytes or more, from {packed:,}; "
                                 "it is a mistake or a bomb. Unpack it yourself, if you trust it, and give the folder")
            if size > limits.member:
                raise InputError(f"{archive.name} holds {shown(name)!r} of {size:,} bytes, more than any picture has; nothing "
                                 "of it was unpacked")
            if total > room:
                raise OSError(f"{archive.name} unpacks to more than the {room:,} bytes that are free in {target.parent.parent}; "
                              "free some space, or name another folder in LD3M_CACHE")
            _no_collision(archive, path, is_folder, seen)
            place = new / path
            if is_folder:
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    copy(new, place)
                except DAMAGED as error:
                    _refuse_damaged(archive, name, error)


def _path(archive, name, odd, limits):
    """The member's path, relative and clean; ValueError says why not."""
    path = PurePosixPath(name)
    reason = odd
    if not reason and (path.is_absolute() or name.startswith(("/", "\\")) or name[1:2] == ":"):
        reason = "an absolute path"
    if not reason and ".." in path.parts:
        reason = "a path out of its folder"
    if not reason and ("\\" in name or any(unicodedata.category(ch) in ("Cc", "Cs") for ch in name)):
        reason = "a name with a backslash or control characters"
    if not reason and (len(path.parts) > limits.depth or any(len(p.encode()) > 200 for p in path.parts)):
        reason = "a path that is too deep or too long"
    if reason:
        raise InputError(f"{archive.name} holds {name!r}: {reason}; nothing of it was unpacked")
    return path


def _no_collision(archive, path, is_folder, seen):
    """Two members that are one file where case or accents make no difference, or a file that is also a folder."""
    parts = path.parts
    for i in range(1, len(parts) + 1):
        part = "/".join(parts[:i])
        key, folder = unicodedata.normalize("NFC", part).casefold(), is_folder or i < len(parts)
        known = seen.setdefault(key, (part, folder))
        if known != (part, folder):
            raise InputError(f"{archive.name} holds both {known[0]!r} and {part!r}, which are one on some disks; "
                             "nothing of it was unpacked")
    if not is_folder:
        if ("file", path) in seen:
            raise InputError(f"{archive.name} holds {path.as_posix()!r} twice; nothing of it was unpacked")
        seen["file", path] = True


@contextmanager
def _damage():
    """gzip and bz2 say of damaged bytes with an OSError that has no number; one of the disk has."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise tarfile.ReadError(f"damaged: {error}") from error
        raise


def _copy(source, file, place):
    """Copy a member; a large one that begins like no picture, though it is called one, is left before the rest is written."""
    first = source.read(2**20)
    if len(first) == 2**20 and place.suffix.lower() in IMAGES and not first.startswith(PICTURES):
        raise InputError(f"{shown(place.name)} in the archive is called a picture and is none; nothing of it was unpacked")
    file.write(first)
    shutil.copyfileobj(source, file, 2**20)


class _zip_members:
    """Members of a zip: (name, size, is a folder, what is odd about it, copy to a place)."""

    def __init__(self, archive):
        self._zip = zipfile.ZipFile(archive)

    def __enter__(self):
        return self._members()

    def __exit__(self, *error):
        self._zip.close()

    def _members(self):
        for info in self._zip.infolist():
            kind = (info.external_attr >> 16) & 0o170000
            odd = "encrypted" if info.flag_bits & 1 else "" if kind in (0, 0o100000, 0o040000) else "a link or device"
            yield info.orig_filename.split("\0")[0] or info.filename, info.file_size, info.is_dir(), odd, self._copy(info)

    def _copy(self, info):
        def copy(root, place):
            with self._zip.open(info) as source, place.open("wb") as file:  # reads no more than it declared, and its checksum
                _copy(source, file, place)
        return copy


class _tar_members:
    """Members of a tar, as :class:`_zip_members`; judged by the standard library's data filter as well."""

    def __init__(self, archive):
        self._tar = tarfile.open(archive)  # noqa: SIM115

    def __enter__(self):
        return self._members()

    def __exit__(self, *error):
        self._tar.close()

    def _members(self):
        for info in self._headers():
            odd = "" if info.isreg() or info.isdir() else "a link or device"
            yield info.name, info.size if info.isreg() else 0, info.isdir(), odd, self._copy(info)
        self._check_end()

    def _headers(self):
        """One header after the other: what follows a bomb is never read."""
        with _damage():
            yield from self._tar

    def _check_end(self):
        """A tar ends in blocks of zeros; without them it was cut. What follows is read for the checksum of its compression."""
        stream = self._tar.fileobj
        with _damage():
            stream.seek(self._tar.offset)
            if len(stream.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it ends early, so files may be missing")
            for _ in range(2**10):  # of a mebibyte: nobody pads an archive with more
                if not stream.read(2**20):
                    return
        raise tarfile.ReadError("more than a gigabyte follows its end")

    def _copy(self, info):
        def copy(root, place):
            tarfile.data_filter(info, str(root))
            with _damage(), self._tar.extractfile(info) as source, place.open("wb") as file:
                _copy(source, file, place)
        return copy
