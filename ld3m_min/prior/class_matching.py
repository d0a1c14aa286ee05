"""Which of a prior's classes each class of the data is: what c starts from (section 3.2).

Classes are matched by what the user says of them, by name, by ImageNet id, or, where nothing else
is known, by position. Those of a prior that is conditioned on text are prompts.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import nn

from ld3m_min.errors import InputError
from ld3m_min.prior.class_map import NO_MAP, ClassMap


@runtime_checkable
class NamedClasses(Protocol):
    """A data set, as far as its classes go."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in label order."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Their ImageNet ids, in label order; empty where they have none."""


@runtime_checkable
class EmbeddedClasses(Protocol):
    """A prior, as far as its classes go."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the embedding; empty where they are not known."""

    @property
    def has_null(self) -> bool:
        """Whether the embedding's last row is the null class."""

    @property
    def class_embedding(self) -> nn.Embedding | None:
        """A row for each class; None for an unconditional prior."""


@dataclass(frozen=True)
class ClassMatching:
    """The row of the prior's class embedding that each class of the data starts from.

    Attributes:
        rows: one row a class, in label order.
        by: "map", "prompt", "name", "id" or "position".
        names: of the data's classes.
        known: what the prior calls those rows, () if it has no names; of a prior that is
            conditioned on text the prompts.
        said: what the user said of them.
    """

    rows: tuple[int, ...]
    by: str
    names: tuple[str, ...]
    known: tuple[str, ...] = ()
    said: Mapping[str, object] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, object]:
        """What a recipe says of it."""
        prompts = {"prompts": list(self.known)} if self.by == "prompt" else {}
        return {"by": self.by, "rows": list(self.rows), **prompts, **self.said}

    @property
    def worth_saying(self) -> bool:
        """Whether it is other than row by row in the order of the data."""
        return self.by in ("map", "prompt") or self.rows != tuple(range(len(self.rows)))

    def table(self) -> str:
        """Lines "class -> row of the prior"."""
        known = self.known or [""] * len(self.rows)
        lines = [
            f"  {n!r} -> {r}" + (f" ({k!r})" if k else "")
            for n, r, k in zip(self.names, self.rows, known, strict=True)
        ]
        return f"classes of the data and of the prior, matched by {self.by}:\n" + "\n".join(lines)


def match_classes(
    prior: EmbeddedClasses, data: NamedClasses, said: ClassMap = NO_MAP
) -> ClassMatching:
    """Find the classes of a data set among those of a prior.

    Names are compared without regard to case, `_` and `-`, and spelling of accents; a name such as
    "tench, Tinca tinca" answers to each of its parts. A prior without names, of which the data's
    ImageNet ids are rows, is matched by them. Failing that, classes are matched by position, with
    a warning. An entry of the user's comes before all of that.

    Args:
        prior: one with classes.
        data: the data set.
        said: entries of the user's; what has none is matched by name or by id.

    Raises:
        InputError: some names are known to the prior and others not, a name fits two classes, or
            the prior has too few; an entry that fits nothing, or a class without one.
    """
    table = prior.class_embedding
    assert table is not None, "an unconditional prior has no classes to match"
    rows = table.num_embeddings - prior.has_null
    names, known = tuple(data.classes), tuple(prior.classes)
    said.check(names)
    prompts: tuple[str, ...] = getattr(prior, "prompts", ())
    if prompts and known == names:
        return _by_prompt(names, prompts, said)
    if said.prompt is not None:
        raise InputError(
            "a prompt was given, but the prior is not conditioned on text; leave --prompt out"
        )
    if said.entries:
        return _by_map(names, known, rows, data.ids, said)
    found = _by_name(names, known)
    if found is not None:
        return ClassMatching(found, "name", names, tuple(known[r] for r in found))
    if data.ids and rows > max(data.ids):
        called = tuple(known[i] for i in data.ids) if known else ()
        return ClassMatching(tuple(data.ids), "id", names, called)
    if rows < len(names):
        raise InputError(
            f"the data has {len(names)} classes, the prior only {rows}, and none by their names; "
            "take a prior of these classes, or space 'autoencoder', which needs none"
        )
    if known:
        warnings.warn(
            f"the prior knows other classes ({', '.join(known[:3])}, ...) than the data "
            f"({', '.join(names[:3])}, ...); they are matched by position, and c starts from what "
            "is not theirs",
            stacklevel=4,
        )
    else:
        warnings.warn(
            "the prior doesn't say which classes it knows; those of the data are matched by "
            f"position: {names[0]!r} is taken for its class 0, and so on",
            stacklevel=4,
        )
    return ClassMatching(tuple(range(len(names))), "position", names, known[: len(names)])


def _by_name(names: Sequence[str], known: Sequence[str]) -> tuple[int, ...] | None:
    """Rows by name; None where no name is known.

    Args:
        names: of the data's classes.
        known: of the prior's, in the order of its rows.

    Raises:
        InputError: some names are known and others not, or a name fits two classes.
    """
    found = rows_by_name(names, known)
    if not any(found.values()):
        return None
    if absent := [n for n, hits in found.items() if not hits]:
        raise InputError(
            f"the prior knows some of the data's classes, but not {', '.join(absent[:5])}; it "
            f"knows {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}. Say which of its "
            "classes they are with --class-map, name them alike, leave them out, or take another "
            "prior"
        )
    if twice := [n for n, hits in found.items() if len(hits) > 1]:
        raise InputError(
            f"{twice[0]!r} is the name of several classes of the prior (rows "
            f"{sorted(found[twice[0]])}); give the class its full name, or its row by --class-map"
        )
    rows = tuple(next(iter(found[n])) for n in names)
    if len(set(rows)) < len(rows):
        raise InputError(
            "two classes of the data are one and the same class of the prior; give each its full "
            "name"
        )
    return rows


def rows_by_name(names: Sequence[str], known: Sequence[str]) -> dict[str, set[int]]:
    """The rows of a prior that answer to each name: none, one, or several.

    Args:
        names: to look for.
        known: of the prior's classes, in the order of its rows.
    """
    table: dict[str, set[int]] = {}
    for row, name in enumerate(known):
        for alias in {_plain(name), *(_plain(part) for part in name.split(","))}:
            table.setdefault(alias, set()).add(row)
    exact = {_plain(name): {row} for row, name in enumerate(known)}
    return {n: exact.get(_plain(n)) or table.get(_plain(n), set()) for n in names}


def _by_map(
    names: tuple[str, ...],
    known: tuple[str, ...],
    rows: int,
    ids: Sequence[int],
    said: ClassMap,
) -> ClassMatching:
    """Rows by the user's entries; what has none by name, or by ImageNet id.

    Two classes of the data may have one row: c is learned for each image.

    Args:
        names: of the data's classes.
        known: of the prior's, () where it has no names.
        rows: how many classes the prior has.
        ids: ImageNet ids of the data's classes; empty where they have none.
        said: the entries.

    Raises:
        InputError: an entry that is no class of the prior, or a class without an entry.
    """
    found = {n: hits for n, hits in rows_by_name(names, known).items() if len(hits) == 1}
    if not known and ids and rows > max(ids):
        found = {n: {i} for n, i in zip(names, ids, strict=True)}
    found |= {n: {resolved_row(n, value, known, rows)} for n, value in said.entries.items()}
    if absent := [n for n in names if n not in found]:
        raise InputError(
            f"the class map has no entry for {', '.join(map(repr, absent[:5]))}, and the prior "
            "knows no such name; add a line for each"
        )
    chosen = tuple(next(iter(found[n])) for n in names)
    called = tuple(known[r] for r in chosen) if known else ()
    return ClassMatching(chosen, "map", names, called, said.record)


def resolved_row(name: str, value: str, known: Sequence[str], rows: int) -> int:
    """The row of an entry of a class map: a name of the prior's, or else a number.

    Args:
        name: of the data's class.
        value: of its entry.
        known: names of the prior's classes, in the order of its rows; empty where it has none.
        rows: how many classes it has.

    Raises:
        InputError: it is neither, or several.
    """
    hits = rows_by_name([value], known)[value]
    if len(hits) == 1:
        return next(iter(hits))
    if hits:
        raise InputError(
            f"the class map's {value!r} for {name!r} is the name of several classes of the prior; "
            f"give one of its rows, {', '.join(map(str, sorted(hits)))}"
        )
    if value.isdecimal() and int(value) < rows:
        return int(value)
    some = f"names such as {', '.join(map(repr, known[:5]))} and " if known else ""
    raise InputError(
        f"the class map's {value!r} for {name!r} is no class of the prior; it has {some}rows 0 to "
        f"{rows - 1}"
    )


def _by_prompt(names: tuple[str, ...], prompts: tuple[str, ...], said: ClassMap) -> ClassMatching:
    """The prompts of a prior that is conditioned on text, made when it was loaded.

    Raises:
        InputError: it was loaded with others than the user says.
    """
    for name, prompt in zip(names, prompts, strict=True):
        if said.entries.get(name, prompt) != prompt:
            raise InputError(
                f"the prior was loaded with the prompt {prompt!r} for {name!r}, not "
                f"{said.entries[name]!r}; load it with the same class map"
            )
    return ClassMatching(tuple(range(len(names))), "prompt", names, prompts, said.record)


def _plain(name: str) -> str:
    """A name without regard to case, `_` and `-`, and spelling of accents."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return " ".join(folded.replace("_", " ").replace("-", " ").split())
