"""Short and earlier spellings of the command line, each brought to the one that tyro knows.

They stand in records, notebooks and other people's scripts. Everything that the command line takes
besides the fields of its dataclasses is here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ld3m_min.errors import InputError

COMMANDS = {"tune": "rate-search"}
_PRECISION = {"--precision": "--plan.precision"}
OPTIONS = {  # of each command
    "distil": _PRECISION,
    "plan": {**_PRECISION, "--steps": "--sampler.steps"},
}
NAMED_PLANS = ("distil",)  # commands with `--plan auto`, which sets all of `--plan.*`


def command_of(words: Sequence[str]) -> str:
    """The command that a command line begins with; "" where there is none."""
    return COMMANDS.get(words[0], words[0]) if words else ""


def translated(command: str, words: Sequence[str]) -> list[str]:
    """The words after the command, with every name as tyro knows it.

    Args:
        command: one of `ld3m_min.commands.COMMANDS`.
        words: what follows it: `--preset NAME` for the preset in the first place, `--plan NAME` for
            the fields of a plan, and the names of `OPTIONS`.

    Raises:
        InputError: there is no plan of that name, or two presets.
    """
    preset: list[str] = []
    plan: list[str] = []
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name == "--preset" or (name == "--plan" and command in NAMED_PLANS):
            given = value if equals else next(rest, None)
            if given is None:
                others.append(name)  # tyro says what is wrong
            elif name == "--preset":
                preset = [given]
            else:
                plan = _fields_of_plan(given)
        else:
            others.append(OPTIONS.get(command, {}).get(name, name) + equals + value)
    if preset and others and not others[0].startswith("-") and command == "distil":
        raise InputError(
            f"{others[0]!r} stands in the place of the preset, and --preset {preset[0]} is a "
            f"second one; for a folder under a preset: distil {preset[0]} --dataset {others[0]}"
        )
    return preset + plan + others  # a single field of the plan comes after its name, and wins


def _fields_of_plan(name: str) -> list[str]:
    """A named memory plan as options."""
    from ld3m_min.backprop import AUTO, PLANS  # heavy: the list of commands does without it

    plans = {"auto": AUTO, **PLANS}
    if name not in plans:
        raise InputError(f"unknown plan {name!r}; choose {', '.join(plans)}")
    words = []
    for field, value in dataclasses.asdict(plans[name]).items():
        option = field.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--plan.{option}" if value else f"--plan.no-{option}")
        else:
            words.append(f"--plan.{option}={value}")
    return words
