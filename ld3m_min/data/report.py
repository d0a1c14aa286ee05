"""What was found while a folder was read: what was left out, and why, and what looks odd."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ld3m_min.errors import InputError
from ld3m_min.io.text import shown

SHARE = 0.05  # of a class's files that may be left out: more is a mistake of another kind
FIRST = 10  # that a message names


class Unusable(InputError):
    """Image files that can't be used.

    Attributes:
        files: why, of each.
        remember: notes them in the cache, for who goes on without them.
    """

    def __init__(self, message: str, files: Mapping[Path, str]) -> None:
        super().__init__(message)
        self.files = dict(files)
        self.remember: Callable[[], None] = _nothing


def _nothing() -> None:
    """Without a cache, nothing is noted."""


@dataclass(frozen=True)
class LeftOut:
    """A file that was not used.

    Attributes:
        file: class folder and name.
        reason: why.
    """

    file: str
    reason: str


@dataclass(frozen=True)
class DataReport:
    """What was found while a folder was read.

    Attributes:
        used: how many images there are.
        left_out: the files of class folders that are none of them.
        notes: what looks odd, a sentence each.
    """

    used: int
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it in words; "" where there is nothing to say."""
        parts = []
        if self.left_out:
            lines = [f"{x.file}: {x.reason}" for x in self.left_out]
            head = f"{len(lines)} file(s) are left out, {self.used} images are used:"
            parts.append(named(lines, head))
        return "\n".join([*parts, *self.notes])


def named(items: Sequence[str], head: str) -> str:
    """A message about files, the first ten of them by name.

    Args:
        items: a line each.
        head: what is said of them, with its colon.
    """
    more = f"\n  and {len(items) - FIRST} more" if len(items) > FIRST else ""
    return head + "".join(f"\n  {shown(line)}" for line in items[:FIRST]) + more


def left_out(files: Mapping[Path, str]) -> tuple[LeftOut, ...]:
    """Files that were left out, in the order of their names.

    Args:
        files: why, of each.
    """
    return tuple(
        LeftOut(shown(f"{file.parent.name}/{file.name}"), why)
        for file, why in sorted(files.items(), key=lambda item: str(item[0]))
    )


def is_safe(bad: Mapping[Path, str], counts: Mapping[Path, int]) -> bool:
    """Whether files may be left out: few of each class, so that nothing else is wrong.

    Args:
        bad: the files that would be left out.
        counts: of each class folder from which files may be left out, how many it holds in all.
    """
    each: dict[Path, int] = {}
    for file in bad:
        each[file.parent] = each.get(file.parent, 0) + 1
    return all(n <= SHARE * counts.get(folder, 0) for folder, n in each.items())


def compared(
    names: Sequence[str], labels: Sequence[int], pixels: Sequence[bytes], classes: Sequence[str]
) -> tuple[str, ...]:
    """What is odd about images that are the same: in two classes, or a whole class of them.

    Args:
        names: class folder and file of each image.
        labels: its class.
        pixels: a digest of what it shows.
        classes: their names.

    Returns:
        A sentence for each oddity.

    Raises:
        InputError: all images are the same.
    """
    if len(names) > 1 and len(set(pixels)) == 1:
        raise InputError(
            f"all {len(names)} images show the same picture, e.g. {shown(names[0])} and "
            f"{shown(names[1])}; look whether the files were copied or written wrongly"
        )
    first: dict[bytes, int] = {}
    twice, notes = [], []
    for i, key in enumerate(pixels):
        j = first.setdefault(key, i)
        if labels[i] != labels[j]:
            twice.append(f"{shown(names[j])} is {shown(names[i])}")
    if twice:
        notes.append(
            f"{len(twice)} image(s) are in two classes, e.g. {twice[0]}: no network can be right "
            "about both; keep each in the class that it shows"
        )
    for label, name in enumerate(classes):
        own = [p for p, k in zip(pixels, labels, strict=True) if k == label]
        if len(own) > 1 and len(set(own)) == 1:
            notes.append(
                f"all {len(own)} images of class {shown(name)!r} show the same picture; look "
                "whether its files were copied or written wrongly"
            )
    return tuple(notes)
