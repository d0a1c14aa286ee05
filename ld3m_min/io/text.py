"""Text from elsewhere, shown and read safely."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import yaml

from ld3m_min.errors import InputError


def shown(text: object) -> str:
    """Text from elsewhere, such as a file's name, as it may be shown on a terminal.

    Args:
        text: anything; `str` makes it text.

    Returns:
        The text, its control characters escaped.
    """
    return "".join(
        ch if ch.isprintable() else ch.encode("unicode_escape").decode()
        for ch in str(text).encode(errors="backslashreplace").decode()
    )


def counted(n: int, word: str) -> str:
    """How many there are, in words: "1 repeat", "1,000 repeats".

    Args:
        n: how many.
        word: for one of them, which takes an s.
    """
    return f"{n:,} {word}{'s' * (n != 1)}"


def in_card(text: object) -> str:
    """Text from elsewhere as it may stand in a card: nothing of it is markup, on one line.

    Args:
        text: anything; `str` makes it text.

    Returns:
        Markdown that shows the text as it is.
    """
    return re.sub(r"([\\`*_\[\]#|])", r"\\\1", html.escape(shown(text), quote=False))


def yaml_of(
    text: str | bytes, name: object, read: Callable[[str | bytes], Any] = yaml.safe_load
) -> Any:
    """What YAML holds; only the text says of which type it is.

    Args:
        text: to read; bytes are UTF-8, or begin with the mark of another encoding.
        name: of the file, for the message.
        read: of PyYAML.

    Raises:
        InputError: it is not YAML, or a value in it is not what it says; names the file.
    """
    try:
        return read(text)
    # a day that there isn't, a number without digits, lists in lists without end: each fails in
    # its own way
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} is not yaml: {said}; mend it, or write it anew") from error
