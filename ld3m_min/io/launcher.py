"""Which of several processes this one is, as `torchrun` and `accelerate launch` say it."""

from __future__ import annotations

import os


def started() -> int:
    """How many processes the launcher has started; 1 without a launcher.

    A launcher also says where they meet; a variable alone, as some clusters set it, is none.
    """
    there = {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return max(1, _number("WORLD_SIZE", 1)) if there else 1


def number() -> int:
    """Which of them this one is, from 0 on: the first one writes and speaks for all."""
    return _number("RANK", 0) if started() > 1 else 0


def number_on_machine() -> int:
    """Which of them this one is among those of its machine: the number of its GPU."""
    return _number("LOCAL_RANK", 0)


def _number(variable: str, otherwise: int) -> int:
    """What a variable of the environment says; what is no number is no launcher's."""
    said = os.environ.get(variable, "")
    return int(said) if said.isdecimal() else otherwise
