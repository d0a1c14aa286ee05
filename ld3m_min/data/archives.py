"""Archives of images, unpacked as what they are: files from elsewhere.

A zip or tar may name paths outside its folder, links, devices, two files that are one on another
disk, or a few kilobytes that unpack to a terabyte. Every member is checked before it is written,
and the folder appears as a whole or not at all.

`tarfile.data_filter` and `zipfile` are asked as well, but do not suffice: both put names right in
silence (an absolute one, and ".." in a zip), the filter lets links through that stay inside, and
neither knows a limit or a name that comes twice.
"""

from __future__ import annotations

import hashlib
import ntpath
import shutil
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from ld3m_min.data.archive_members import DAMAGED, Member, members
from ld3m_min.data.images import is_clutter
from ld3m_min.errors import InputError
from ld3m_min.io.disk import StrPath
from ld3m_min.io.files import replace_folder
from ld3m_min.io.text import shown

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    Attributes:
        files: members.
        total: bytes of all.
        ratio: unpacked bytes per packed one, of all; images hardly shrink.
        ratio_from: bytes from which on the ratio is looked at.
        member: bytes of one file.
        depth: folders in each other.
    """

    files: int = 2_000_000
    total: int = 256 * 2**30
    ratio: float = 100.0
    ratio_from: int = 64 * 2**20
    member: int = 2**28
    depth: int = 12


LIMITS = Limits()


def is_archive(path: StrPath) -> bool:
    """Whether a path is a file whose name ends like that of an archive."""
    return str(path).lower().endswith(SUFFIXES) and Path(path).is_file()


def unpack(archive: StrPath, into: StrPath, *, limits: Limits = LIMITS) -> Path:
    """Unpack a zip or tar below `into`, once: a second call finds the folder.

    Args:
        archive: the file.
        into: folder of all unpacked archives; this one's lies below a name made of its checksum.
        limits: what it may unpack to.

    Returns:
        The folder; where the archive holds one folder and nothing beside it, that one.

    Raises:
        InputError: damaged, encrypted, too large, or a member that must not be written; names it.
            Nothing is left.
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
        try:
            _write(archive, target, limits)
        except DAMAGED as error:
            _refuse_damaged(archive, "", error)
    found = list(target.iterdir())
    # a hidden folder is meant where there is no other
    inside = [p for p in found if not is_clutter(p)] or [p for p in found if p.name != "__MACOSX"]
    alone = len(inside) == 1 and inside[0].is_dir() and not _is_class(inside[0])
    return inside[0] if alone else target


def _is_class(folder: Path) -> bool:
    return not any(p.is_dir() for p in folder.iterdir())


def _refuse_damaged(archive: Path, member: str, error: BaseException) -> NoReturn:
    where = f" at {shown(member)!r}" if member else ""
    raise InputError(
        f"{archive.name} is not an archive that can be read, or damaged{where}: "
        f"{error or type(error).__name__}; copy or download it again. Nothing of it was unpacked"
    ) from error


def _write(archive: Path, target: Path, limits: Limits) -> None:
    """Write all members to a folder that takes its place when they are whole."""
    seen: dict[str, tuple[str, bool]] = {}
    files: set[PurePosixPath] = set()
    total = 0
    with members(archive) as found, replace_folder(target) as folder:
        room = shutil.disk_usage(folder).free
        for count, member in enumerate(found, 1):
            path = _path(archive, member, limits)
            total += member.size
            _check_size(archive, member, count, total, limits)
            if total > room:
                raise OSError(
                    f"{archive.name} unpacks to more than the {room:,} bytes that are free in "
                    f"{target.parent.parent}; free some space, or name another folder in LD3M_CACHE"
                )
            _no_collision(archive, path, member.is_folder, seen, files)
            place = folder / path
            if member.is_folder:
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    member.copy(folder, place)
                except DAMAGED as error:
                    _refuse_damaged(archive, member.name, error)


def _check_size(archive: Path, member: Member, count: int, total: int, limits: Limits) -> None:
    """InputError where so many members, of so many bytes in total, are more than images are."""
    packed = archive.stat().st_size
    if (
        count > limits.files
        or total > limits.total
        or total > max(limits.ratio * packed, limits.ratio_from)
    ):
        raise InputError(
            f"{archive.name} would unpack to {count:,} files and {total:,} bytes or more, from "
            f"{packed:,}; it is a mistake or a bomb. Unpack it yourself, if you trust it, and give "
            "the folder"
        )
    if member.size > limits.member:
        raise InputError(
            f"{archive.name} holds {shown(member.name)!r} of {member.size:,} bytes, more than any "
            "picture has; nothing of it was unpacked"
        )


def _path(archive: Path, member: Member, limits: Limits) -> PurePosixPath:
    """The member's path, relative and clean; InputError says why not."""
    name = member.name
    path = PurePosixPath(name)
    reason = member.odd
    if not reason and (name.startswith(("/", "\\")) or ntpath.splitdrive(name)[0]):
        reason = "an absolute path"
    if not reason and ".." in path.parts:
        reason = "a path out of its folder"
    if not reason and (
        "\\" in name or any(unicodedata.category(ch) in ("Cc", "Cs") for ch in name)
    ):
        reason = "a name with a backslash or control characters"
    if not reason and (
        len(path.parts) > limits.depth or any(len(p.encode()) > 200 for p in path.parts)
    ):
        reason = "a path that is too deep or too long"
    if reason:
        raise InputError(f"{archive.name} holds {name!r}: {reason}; nothing of it was unpacked")
    return path


def _no_collision(
    archive: Path,
    path: PurePosixPath,
    is_folder: bool,
    seen: dict[str, tuple[str, bool]],
    files: set[PurePosixPath],
) -> None:
    """Refuse what is one with an earlier member.

    That is a path that is the same where case or accents make no difference, a file that is also a
    folder, and a file that comes twice.

    Args:
        archive: what an error names.
        path: of the member.
        is_folder: whether it is a folder.
        seen: spelling on such a disk -> path and whether it is a folder, of earlier members; this
            one is added.
        files: paths of earlier files; this one is added.

    Raises:
        InputError: it is one with an earlier member.
    """
    parts = path.parts
    for i in range(1, len(parts) + 1):
        part = "/".join(parts[:i])
        key, folder = unicodedata.normalize("NFC", part).casefold(), is_folder or i < len(parts)
        known = seen.setdefault(key, (part, folder))
        if known != (part, folder):
            raise InputError(
                f"{archive.name} holds both {known[0]!r} and {part!r}, which are one on some "
                "disks; nothing of it was unpacked"
            )
    if not is_folder:
        if path in files:
            raise InputError(
                f"{archive.name} holds {path.as_posix()!r} twice; nothing of it was unpacked"
            )
        files.add(path)
