"""One thing that was looked at, told so that it may be shown to others."""

from __future__ import annotations

import getpass
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ld3m_min.io.text import shown

Status = Literal["fine", "advice", "broken"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        says: what was found.
        status: "fine"; "advice" where something could be better; "broken" where nothing will run.
        todo: what to do; "" where it is fine.

    Example:
        >>> from ld3m_min.doctor import Check
        >>> check = Check("memory", "1.2 GiB free", "advice", "close other programs")
        >>> check.status, check.todo
        ('advice', 'close other programs')
    """

    name: str
    says: str
    status: Status = "fine"
    todo: str = ""


def private(text: object) -> str:
    """A path or another text, without the home and the name of the user.

    Args:
        text: anything; `str` makes it text.
    """
    said = str(text)
    with suppress(RuntimeError):  # a user without a home
        home = str(Path.home())
        if len(home) > 1 and (said == home or home + os.sep in said):
            said = said.replace(home, "~")
    with suppress(Exception):  # a user without a name, as in some containers
        parts = said.split(os.sep)
        said = os.sep.join("USER" if part == getpass.getuser() else part for part in parts)
    return shown(said)


def gib(count: float) -> str:
    """Bytes in words."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
