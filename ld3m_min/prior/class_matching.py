"""Which of a prior's classes each class of the data is: what c starts from (section 3.2).

Classes are matched by name, by ImageNet id, or, where nothing else is known, by position.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from ld3m_min.errors import InputError


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
        by: "name", "id" or "position".
        names: of the data's classes.
        known: what the prior calls those rows, () if it has no names.
    """

    rows: tuple[int, ...]
    by: str
    names: tuple[str, ...]
    known: tuple[str, ...] = ()

    @property
    def record(self) -> dict[str, object]:
        """What a recipe says of it."""
        return {"by": self.by, "rows": list(self.rows)}

    def table(self) -> str:
        """Lines "class -> row of the prior"."""
        known = self.known or [""] * len(self.rows)
        lines = [
            f"  {n!r} -> {r}" + (f" ({k!r})" if k else "")
            for n, r, k in zip(self.names, self.rows, known, strict=True)
        ]
        return f"classes of the data and of the prior, matched by {self.by}:\n" + "\n".join(lines)


def match_classes(prior: EmbeddedClasses, data: NamedClasses) -> ClassMatching:
    """Find the classes of a data set among those of a prior.

    Names are compared without regard to case, `_` and `-`, and spelling of accents; a name such as
    "tench, Tinca tinca" answers to each of its parts. A prior without names, of which the data's
    ImageNet ids are rows, is matched by them. Failing that, classes are matched by position, with
    a warning.

    Args:
        prior: one with classes.
        data: the data set.

    Raises:
        InputError: some names are known to the prior and others not, a name fits two classes, or
            the prior has too few.
    """
    table = prior.class_embedding
    assert table is not None, "an unconditional prior has no classes to match"
    rows = table.num_embeddings - prior.has_null
    names, known = tuple(data.classes), tuple(prior.classes)
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
    table: dict[str, set[int]] = {}
    for row, name in enumerate(known):
        for alias in {_plain(name), *(_plain(part) for part in name.split(","))}:
            table.setdefault(alias, set()).add(row)
    exact = {_plain(name): {row} for row, name in enumerate(known)}
    found = {n: exact.get(_plain(n)) or table.get(_plain(n), set()) for n in names}
    if not any(found.values()):
        return None
    if absent := [n for n, hits in found.items() if not hits]:
        raise InputError(
            f"the prior knows some of the data's classes, but not {', '.join(absent[:5])}; it "
            f"knows {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}. Name the classes "
            "alike, leave those out, or take another prior"
        )
    if twice := [n for n, hits in found.items() if len(hits) > 1]:
        rows_of = sorted(table[_plain(twice[0])])
        raise InputError(
            f"{twice[0]!r} is the name of several classes of the prior (rows {rows_of}); give the "
            "class its full name"
        )
    rows = tuple(next(iter(found[n])) for n in names)
    if len(set(rows)) < len(rows):
        raise InputError(
            "two classes of the data are one and the same class of the prior; give each its full "
            "name"
        )
    return rows


def _plain(name: str) -> str:
    """A name without regard to case, `_` and `-`, and spelling of accents."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return " ".join(folded.replace("_", " ").replace("-", " ").split())
