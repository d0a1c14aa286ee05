"""The values of a configuration: brought to their declared types once, or refused in a sentence.

A dataclass calls :func:`checked` in its `__post_init__`. Whatever way a value comes (a call,
`replace`, a record, a YAML file, a numpy grid), the configuration then holds plain Python values
that can be written as JSON and read back equal.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, overload

from ld3m_min.errors import InputError

T = TypeVar("T")


def checked(config: object, **bounds: str | tuple[object, ...]) -> None:
    """Bring every field of a frozen dataclass to its declared type, in place.

    Numbers of numpy and PyTorch become Python's, paths become text, lists tuples, and mappings the
    dataclass that is declared.

    Args:
        config: the dataclass.
        bounds: field -> text such as ">= 1", "> 0", "in [0, 1)", or a tuple of choices; None as a
            value is within every bound.

    Raises:
        InputError: a value of another type, not finite, or out of its bounds; names class, field
            and value.
    """
    assert dataclasses.is_dataclass(config)
    hints = hints_of(type(config))  # type: ignore[arg-type]  # mypy thinks it has no hash
    for f in dataclasses.fields(config):
        where = f"{type(config).__name__}.{f.name}"
        value = converted(hints[f.name], getattr(config, f.name), where)
        if f.name in bounds:
            within(value, bounds[f.name], where)
        object.__setattr__(config, f.name, value)


@cache  # a record of hundreds of cells asks for the same ones thousands of times
def hints_of(kind: type) -> Mapping[str, Any]:
    """The declared types of a dataclass's fields, which are Any to a type checker.

    `typing.get_type_hints` has none for a class that takes itself out of checks at run time by
    `__no_type_check__`, as a dataclass may whose fields are checked here.

    Args:
        kind: the dataclass.
    """
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        hints |= inspect.get_annotations(base, eval_str=True)
    return hints


def within(value: object, bound: str | tuple[object, ...], where: str) -> None:
    """Refuse a value that is not within its bound.

    Args:
        value: a number or text; each one in a tuple or in the values of a mapping; None is let
            pass.
        bound: as for :func:`checked`.
        where: what an error calls the value.

    Raises:
        InputError: it is not; names `where`, bound and value.
    """
    if value is None:
        return
    if isinstance(value, (tuple, dict)):
        for v in value.values() if isinstance(value, dict) else value:
            within(v, bound, where)
        return
    if isinstance(bound, tuple):
        if value not in bound:
            raise InputError(f"{where}={value!r} is unknown; choose {', '.join(map(str, bound))}")
        return
    assert isinstance(value, (int, float))  # as `converted` gives it
    relation, _, rest = bound.partition(" ")
    if relation == "in":
        low, high = (float(x) for x in rest[1:-1].split(","))
        fine = low <= value < high if rest.endswith(")") else low <= value <= high
    else:
        fine = value >= float(rest) if relation == ">=" else value > float(rest)
    if not fine:
        words = {">=": "at least", ">": "above", "in": "in"}[relation]
        raise InputError(f"{where} must be {words} {rest}, not {value!r}")


@overload
def converted(hint: type[T], value: object, where: str) -> T: ...
@overload
def converted(hint: Any, value: object, where: str) -> Any: ...
def converted(hint: Any, value: object, where: str) -> Any:
    """A value as the type `hint`.

    Args:
        hint: a class, a dataclass, `tuple[X, ...]`, `dict[K, V]`, `Literal[...]`, or one of these
            or None. Python has no type of such hints, hence Any.
        value: what is given.
        where: what an error calls the value.

    Returns:
        The value of that type.

    Raises:
        InputError: it is of another type; names `where` and the value.
        TypeError: the hint is a union of several types.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        if len(options) > 1:
            raise TypeError(f"{where}: a union of {len(options)} types has no one conversion")
        return converted(options[0], value, where)
    if origin is typing.Literal:
        choice = converted(type(args[0]), value, where)
        within(choice, args, where)
        return choice
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if isinstance(value, dict):
            return from_dict(hint, value, where)
    elif origin is tuple and isinstance(value, (tuple, list)):
        inner = args[0] if args else str
        return tuple(converted(inner, v, f"{where}[{i}]") for i, v in enumerate(value))
    elif origin is dict and isinstance(value, dict):
        return {
            converted(args[0], k, where): converted(args[1], v, f"{where}[{k!r}]")
            for k, v in value.items()
        }
    elif hint is dict and isinstance(value, dict):
        return value
    elif (plain := _plain(hint, value, where)) is not None:
        return plain
    name = str(hint) if origin else hint.__name__
    kind = {
        "int": "a whole number",
        "float": "a number",
        "str": "text",
        "bool": "true or false",
    }.get(name, name)
    raise InputError(f"{where} must be {kind}, not {value!r}")


def _plain(hint: object, value: object, where: str) -> str | bool | int | float | None:
    """A value as text, truth value or number, whichever `hint` is; None where it is no such."""
    plain = _scalar(value)
    if hint is str and isinstance(plain, (str, os.PathLike)):
        text: str = os.fspath(plain)
        # a path of one part stays a path, whatever ships under its name
        return text if isinstance(plain, str) or os.sep in text else os.path.join(".", text)
    if hint is bool and isinstance(plain, bool):
        return plain
    if hint is int and not isinstance(plain, bool) and isinstance(plain, numbers.Integral):
        return int(plain)
    if hint is float and (number := _float(plain)) is not None:
        if not math.isfinite(number):
            raise InputError(f"{where} must be finite, not {value!r}")
        return number
    return None


def _scalar(value: object) -> object:
    """A numpy or torch scalar as Python's; anything else as it is."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _float(value: object) -> float | None:
    """A real number, or text that is one (YAML reads 2e-2 as text); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def from_dict(kind: type[T], values: object, where: str = "config") -> T:
    """Nested mappings as a dataclass: the inverse of `dataclasses.asdict`.

    Args:
        kind: the dataclass; missing fields take its defaults.
        values: the mapping.
        where: what an error calls it.

    Returns:
        The dataclass.

    Raises:
        InputError: no mapping, a field that `kind` doesn't have, or a value that doesn't fit; names
            the field.
    """
    assert dataclasses.is_dataclass(kind)
    if not isinstance(values, dict):
        raise InputError(f"{where} must be a mapping, not {type(values).__name__}")
    names = [f.name for f in dataclasses.fields(kind)]
    if unknown := sorted(str(k) for k in values if k not in names):
        raise InputError(
            f"{where} has unknown field {', '.join(unknown)}; known are {', '.join(names)}"
        )
    hints = hints_of(kind)
    return kind(**{k: converted(hints[k], v, f"{where}.{k}") for k, v in values.items()})
