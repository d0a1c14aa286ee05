"""The values of a configuration: brought to their declared types once, when it is constructed, or refused in a sentence.

A dataclass calls :func:`checked` in its `__post_init__`. Whatever door a value comes through (a call, `replace`, a record,
a YAML file, a numpy grid), the configuration then holds plain Python values that can be written as JSON and read back equal.
"""
from __future__ import annotations

import dataclasses
import math
import numbers
import os
import types
import typing

from .errors import InputError


def checked(config, **bounds):
    """Bring every field of a frozen dataclass to its declared type, in place.

    Numbers of numpy and PyTorch become Python's, paths text, lists tuples, mappings the dataclass that is declared.

    Args:
        bounds: field -> text such as ">= 1", "> 0", "in [0, 1)", or a tuple of choices; None values are let pass.

    Raises:
        InputError: a value of another type, not finite, or out of its bounds; names class, field and value.
    """
    hints = typing.get_type_hints(type(config))
    for f in dataclasses.fields(config):
        where = f"{type(config).__name__}.{f.name}"
        value = converted(hints[f.name], getattr(config, f.name), where)
        if f.name in bounds:
            within(value, bounds[f.name], where)
        object.__setattr__(config, f.name, value)


def within(value, bound, where):
    """InputError where a value, or one in a tuple or mapping, is not within its bound."""
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
    relation, _, rest = bound.partition(" ")
    if relation == "in":
        low, high = (float(x) for x in rest[1:-1].split(","))
        fine = low <= value < high if rest.endswith(")") else low <= value <= high
    else:
        fine = value >= float(rest) if relation == ">=" else value > float(rest)
    if not fine:
        words = {">=": "at least", ">": "above", "in": "in"}[relation]
        raise InputError(f"{where} must be {words} {rest}, not {value!r}")


def converted(hint, value, where):
    """`value` as the type `hint`; InputError names `where` it is of another."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        if len(options) > 1:
            raise TypeError(f"{where}: a union of {len(options)} types has no one conversion")
        return converted(options[0], value, where)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if isinstance(value, dict):
            return from_dict(hint, value, where)
    elif origin is tuple and isinstance(value, (tuple, list)):
        inner = args[0] if args else str
        return tuple(converted(inner, v, f"{where}[{i}]") for i, v in enumerate(value))
    elif origin is dict and isinstance(value, dict):
        return {converted(args[0], k, where): converted(args[1], v, f"{where}[{k!r}]") for k, v in value.items()}
    elif hint is dict and isinstance(value, dict):
        return value
    else:
        plain = _scalar(value)
        if hint is str and isinstance(plain, (str, os.PathLike)):
            text = os.fspath(plain)  # a path of one part stays a path, whatever ships under its name
            return text if isinstance(plain, str) or os.sep in text else os.path.join(".", text)
        if hint is bool and isinstance(plain, bool):
            return plain
        if hint is int and isinstance(plain, numbers.Integral) and not isinstance(plain, bool):
            return int(plain)
        if hint is float and (number := _float(plain)) is not None:
            if not math.isfinite(number):
                raise InputError(f"{where} must be finite, not {value!r}")
            return number
    name = str(hint) if origin else hint.__name__
    kind = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}.get(name, name)
    raise InputError(f"{where} must be {kind}, not {value!r}")


def _scalar(value):
    """A numpy or torch scalar as Python's; anything else as it is."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _float(value):
    """A real number, or text that is one (YAML reads 2e-2 as text); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def from_dict(kind, values, where="config"):
    """Nested mappings -> the dataclass `kind`, the inverse of `dataclasses.asdict`; missing fields take their defaults.

    Raises:
        InputError: no mapping, a field that `kind` doesn't have, or a value that doesn't fit; names the field.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where} must be a mapping, not {type(values).__name__}")
    names = [f.name for f in dataclasses.fields(kind)]
    if unknown := sorted(str(k) for k in values if k not in names):
        raise InputError(f"{where} has unknown field {', '.join(unknown)}; known are {', '.join(names)}")
    hints = typing.get_type_hints(kind)
    return kind(**{k: converted(hints[k], v, f"{where}.{k}") for k, v in values.items()})
