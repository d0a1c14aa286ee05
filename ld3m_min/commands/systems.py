"""`python -m ld3m_min systems`: see :mod:`ld3m_min.systems`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ld3m_min.commands.plain import PlainCommand
from ld3m_min.systems import listed

ABOUT = """List everything that makes a set, in the order of the tables.

What is "chosen" is made by `select --method NAME`. What is "learned" is made by `distil --space
NAME`. The name also stands in grids and records.
"""


@dataclass(frozen=True, kw_only=True)
class SystemsOptions:
    """Of the list.

    Attributes:
        markdown: print a table in Markdown.
    """

    markdown: bool = False


def run(options: SystemsOptions) -> None:
    """Print the list."""
    described = listed()
    rows = [list(described[0]), *(list(row.values()) for row in described)]
    print("\n".join(_markdown(rows) if options.markdown else _aligned(rows)))


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, the first row its header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "| :--- " * len(rows[0]) + "|", *lines[1:]]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (zip(row, widths, strict=True) for row in rows)
    return ["  ".join(f"{cell:{width}}" for cell, width in row).rstrip() for row in padded]


COMMAND = PlainCommand("systems", ABOUT, SystemsOptions, run)
