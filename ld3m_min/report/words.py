"""Numbers in words, as commands and pages have them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time as a person says it: "0.4 s", "35 s", "3 min 20 s", "2 h 5 min".

    Args:
        seconds: from 0 on.
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min" + (f" {rest} s" if rest and minutes < 10 else "")
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h" + (f" {minutes} min" if minutes and hours < 10 else "")


def size_of(count: float) -> str:
    """A number of bytes as a person says it: "512 bytes", "3.4 kB", "1.2 MB", "2.0 GB".

    Args:
        count: bytes.
    """
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} GB"


def percent(share: float) -> str:
    """A share with one decimal, in percent; "–" where it is no number."""
    return "–" if share != share else f"{100 * share:.1f}"
