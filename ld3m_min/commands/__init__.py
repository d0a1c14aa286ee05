"""The command line: `python -m ld3m_min COMMAND [PRESET] [OPTIONS]`.

A preset gives the configuration, and each of its fields, at any depth, is an option. The options,
their types, defaults and help come from the dataclasses. Each command has a module here, which is
imported when the command is asked for: the list of commands needs no library.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import tyro

from ld3m_min.commands.old_names import command_of
from ld3m_min.errors import InputError
from ld3m_min.io.extras import needed
from ld3m_min.io.launcher import started

COMMANDS = {
    "distil": "Distil a data set into a few images per class.",
    "evaluate": "Train networks on a distilled set, and test them on real images.",
    "select": "Choose real images as a set, or compress as many as fit into its bytes.",
    "systems": "List everything that makes a set.",
    "experts": "Train the expert trajectories that MTT needs.",
    "train-prior": "Train a prior, measure it, and write it with its model card.",
    "fine-tune": "Fine-tune a prior by Minimax's criteria, or without them as the control.",
    "rate-search": "Search the learning rates of a preset on held-out training images.",
    "real-images": "Train networks on n random real images of each class, and on all of them.",
    "table": "Print a grid's table from its records, list what is missing, or run it.",
    "export": "Write a set as others read it: image folder, WebDataset, Parquet, NumPy.",
    "push": "Upload a set to the Hugging Face Hub, privately unless said otherwise.",
    "doctor": "Say what this machine can do, and what is to be mended.",
    "plan": "Predict memory and time of one iteration under every plan.",
}


class _Parser(Protocol):
    def parse(self, words: Sequence[str]) -> Callable[[], None]:
        """What the words after the command ask for, ready to be called."""
        ...


def parsed(words: Sequence[str], imported: Callable[[], None] | None = None) -> Callable[[], None]:
    """What a command line asks for, ready to be called.

    Args:
        words: of the command line, without the program's name.
        imported: called when libraries are imported and before the words are read, which may mean
            work: an archive of images is unpacked to look at them. None does nothing.

    Raises:
        InputError: a value is empty, unknown or doesn't fit; names the option.
        SystemExit: help was asked for (code 0), or an option is unknown (code 2).
    """
    before = ["ld3m_min", *words]
    if empty := [b for b, word in itertools.pairwise(before) if not word.strip()]:
        raise InputError(
            f"an empty value was given after {empty[0]!r}; leave the option out for its default"
        )
    name = command_of(words)
    if name not in COMMANDS:
        _overview(words)
    if name != "distil" and started() > 1:
        raise InputError(
            f"{name} is work for one process, and {started()} were started; start it without "
            "torchrun or accelerate"
        )
    module = f"{__name__}.{name.replace('-', '_')}"
    parser: _Parser = needed(module, f"the command {name}").COMMAND
    if imported is not None:
        imported()
    return parser.parse(words[1:])


def run() -> None:
    """Do what `sys.argv` asks for; what goes wrong is the caller's to say (`__main__`)."""
    parsed(sys.argv[1:])()


def _overview(words: Sequence[str]) -> None:
    """List the commands where help is asked for, or say that there is no such command; leave."""

    def stub(about: str) -> Callable[[], None]:
        def command() -> None: ...

        command.__doc__ = about
        return command

    tyro.extras.subcommand_cli_from_dict(
        {name: stub(about) for name, about in COMMANDS.items()},
        prog="ld3m_min",
        description=(__doc__ or "").partition("\n")[0],
        args=words[:1],
    )
