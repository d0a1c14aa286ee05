"""Text from elsewhere, shown safely."""

from __future__ import annotations

import html
import re


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


def in_card(text: object) -> str:
    """Text from elsewhere as it may stand in a card: nothing of it is markup, on one line.

    Args:
        text: anything; `str` makes it text.

    Returns:
        Markdown that shows the text as it is.
    """
    return re.sub(r"([\\`*_\[\]#|])", r"\\\1", html.escape(shown(text), quote=False))
