"""A command with neither preset nor configuration: its options are all that it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import tyro

from ld3m_min.commands.options import with_homes

OptionsT = TypeVar("OptionsT")


@dataclass(frozen=True)
class PlainCommand(Generic[OptionsT]):
    """One command of the command line.

    Attributes:
        name: as it is typed.
        about: its help.
        options: dataclass of its options.
        run: does the work.
    """

    name: str
    about: str
    options: type[OptionsT]
    run: Callable[[OptionsT], None]

    def parse(self, words: Sequence[str]) -> Callable[[], None]:
        """What the words after the command ask for, ready to be called.

        Raises:
            InputError: a path is in the home of a user that there isn't.
            SystemExit: help was asked for (code 0), or an option is unknown (code 2).
        """
        said = tyro.cli(
            self.options, args=words, prog=f"ld3m_min {self.name}", description=self.about
        )
        return partial(self.run, with_homes(said))
