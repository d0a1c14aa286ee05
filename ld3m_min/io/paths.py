"""Paths as they are typed: `~` brought to the folder that it stands for, words kept to folders."""

from __future__ import annotations

import os
from pathlib import Path

from ld3m_min.errors import InputError
from ld3m_min.io.disk import StrPath


def expanded(path: StrPath) -> Path:
    """A path whose leading `~` or `~user` is brought to the home folder that it stands for.

    Done twice, it is the same.

    Args:
        path: as it was given. As text, `./~` is a folder of that name.

    Returns:
        The path, as it may be checked and opened.

    Raises:
        InputError: there is no such user, or nobody knows a home of one's own.
    """
    given = os.fspath(path)
    home = os.path.expanduser(given)
    if given.startswith("~") and home == given:
        raise InputError(
            f"{given!r} begins with {Path(given).parts[0]}, for which no home folder is known; "
            "give the whole path in its place"
        )
    found = Path(home)
    # a Path has no ./ in front that would keep it from being expanded the next time
    return found.absolute() if str(found).startswith("~") else found


def resolved(path: StrPath) -> Path:
    """A path without links, to be compared with another.

    Args:
        path: as it was given; it need not exist.

    Raises:
        InputError: its links lead in a circle, or it can't be a path.
    """
    try:
        return Path(path).absolute().resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError before Python 3.13
        raise InputError(f"{path} can't be followed: {error}; give another path") from error


def folder_text(path: StrPath) -> str:
    """A folder as text that is nothing but a path: never the name of a data set or preset.

    Args:
        path: as it was given, such as "digits" for the folder `./digits`.

    Returns:
        The path, a bare word with `./` in front.

    Raises:
        InputError: as :func:`expanded`.
    """
    found = str(expanded(path))
    return os.path.join(os.curdir, found) if Path(found).name == found else found
