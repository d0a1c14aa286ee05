"""The fields of a dataclass as options: what was said, told apart from what was left out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypedDict, get_args

import tyro

from ld3m_min.config import nested_fields
from ld3m_min.io.values import hints_of


def said_type(kind: type, hint: str | None = None) -> Any:
    """The type of what a command line says of a dataclass: its fields, none of them required.

    tyro parses it to nested dicts that hold the fields that were given, and no others. Types and
    help are the dataclass's. A field that is a mapping has one option for each of the keys that its
    metadata lists under "keys".

    Args:
        kind: a dataclass.
        hint: what the help says after each field; None for the default.

    Returns:
        A TypedDict; to a type checker it is unknown, since it is made at run time.
    """
    hints, nested = hints_of(kind), nested_fields(kind)
    types: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in nested:
            types[field.name] = said_type(nested[field.name], hint)
        elif keys := field.metadata.get("keys"):
            each = _hinted(get_args(hints[field.name])[1], hint)
            types[field.name] = _typed_dict(field.name, dict.fromkeys(keys, each))
        else:
            types[field.name] = _hinted(hints[field.name], hint)
    made = _typed_dict(kind.__name__, types)
    made.__doc__ = re.sub(r":\w+:`~?[\w.]*?(\w+)`", r"`\1`", kind.__doc__ or "")  # for a terminal
    return made


def _hinted(kind: Any, hint: str | None) -> Any:
    return kind if hint is None else Annotated[kind, tyro.conf.arg(help_behavior_hint=hint)]


def _typed_dict(name: str, types: Mapping[str, Any]) -> Any:
    return TypedDict(name, types, total=False)  # type: ignore[operator]  # mypy knows no such types


def without_empty(said: Mapping[str, Any]) -> dict[str, Any]:
    """What was said without the groups of which nothing was said."""
    found = {}
    for name, value in said.items():
        if not isinstance(value, Mapping):
            found[name] = value
        elif inner := without_empty(value):
            found[name] = inner
    return found


def shown(fields: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The fields of a configuration as tyro takes them for defaults: without groups that are None.

    Args:
        fields: of the dataclass `kind`, as of :func:`ld3m_min.config.to_dict`.
        kind: a dataclass.
    """
    nested = nested_fields(kind)
    return {
        name: shown(value, nested[name]) if name in nested else value
        for name, value in fields.items()
        if name not in nested or value is not None
    }


def paths(kind: type, before: str = "") -> Iterator[tuple[type, str]]:
    """Every field of a dataclass at any depth: the dataclass that has it, and its dotted path."""
    nested = nested_fields(kind)
    for field in dataclasses.fields(kind):
        path = before + field.name
        if field.name in nested:
            yield from paths(nested[field.name], path + ".")
        else:
            yield kind, path


def option(path: str) -> str:
    """The option of a dotted path: "mtt.expert_lr" is `--mtt.expert-lr`."""
    return "--" + path.replace("_", "-")


def with_options(message: str, kind: type) -> str:
    """A message about the fields of a configuration, in the names of the command line.

    Args:
        message: names fields as `MTTConfig.lr`, `config.mtt.lr`, `mtt.lr`, or plainly where the
            name has an underscore and can be no other word.
        kind: the dataclass of the configuration.
    """
    for owner, path in paths(kind):
        name = path.rpartition(".")[2]
        names = [f"{owner.__name__}.{name}", f"config.{path}"]
        names += [path] * ("." in path) + [name] * ("_" in name)
        pattern = rf"(?<![\w.-])({'|'.join(map(re.escape, names))})(?![\w-])"
        message = re.sub(pattern, option(path), message)
    return message
