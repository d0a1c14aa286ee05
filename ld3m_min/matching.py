"""Which of a prior's classes each class of the data is: by name, by ImageNet id, or, where nothing else is known, by position."""
from __future__ import annotations

import unicodedata
import warnings
from dataclasses import dataclass

from .errors import InputError


@dataclass(frozen=True)
class ClassMatching:
    """The row of the prior's class embedding that each class of the data starts from.

    Attributes:
        rows: one row a class, in label order. by: "name", "id" or "position".
        names: of the data's classes. known: what the prior calls those rows, () if it has no names.
    """

    rows: tuple[int, ...]
    by: str
    names: tuple[str, ...]
    known: tuple[str, ...] = ()

    @property
    def record(self):
        """What a recipe says of it."""
        return {"by": self.by, "rows": list(self.rows)}

    def table(self):
        """Lines "class -> row of the prior"."""
        known = self.known or [""] * len(self.rows)
        lines = [f"  {n!r} -> {r}" + (f" ({k!r})" if k else "") for n, r, k in zip(self.names, self.rows, known, strict=True)]
        return f"classes of the data and of the prior, matched by {self.by}:\n" + "\n".join(lines)


def match_classes(prior, data):
    """The :class:`ClassMatching` of a prior with classes and a data set.

    Names are compared without regard to case, `_` and `-`, and spelling of accents; a name such as "tench, Tinca tinca"
    answers to each of its parts. A prior without names, of which the data's ImageNet ids are rows, is matched by them.

    Raises:
        InputError: some names are known to the prior and others not, a name fits two classes, or the prior has too few.
    """
    rows = prior.class_embedding.num_embeddings - prior.has_null
    names, known = tuple(data.classes), tuple(prior.classes)
    found = _by_name(names, known)
    if found is not None:
        return ClassMatching(found, "name", names, tuple(known[r] for r in found))
    if data.ids and rows > max(data.ids):
        return ClassMatching(tuple(data.ids), "id", names, tuple(known[i] for i in data.ids) if known else ())
    if rows < len(names):
        raise InputError(f"the data has {len(names)} classes, the prior only {rows}, and none by their names; take a prior of "
                         "these classes, or space 'autoencoder', which needs none")
    position = tuple(range(len(names)))
    if known:
        warnings.warn(f"the prior knows other classes ({', '.join(known[:3])}, ...) than the data ({', '.join(names[:3])}, ...); "
                      "they are matched by position, and c starts from what is not theirs", stacklevel=4)
    else:
        warnings.warn("the prior doesn't say which classes it knows; those of the data are matched by position: "
                      f"{names[0]!r} is taken for its class 0, and so on", stacklevel=4)
    return ClassMatching(position, "position", names, known[: len(names)])


def _by_name(names, known):
    """Rows by name; None where no name is known."""
    table = {}
    for row, name in enumerate(known):
        for alias in {_plain(name), *(_plain(part) for part in name.split(","))}:
            table.setdefault(alias, set()).add(row)
    exact = {_plain(name): {row} for row, name in enumerate(known)}
    hits = [exact.get(_plain(n)) or table.get(_plain(n)) for n in names]
    if not any(hits):
        return None
    absent = [n for n, h in zip(names, hits, strict=True) if not h]
    if absent:
        raise InputError(f"the prior knows some of the data's classes, but not {', '.join(absent[:5])}; it knows "
                         f"{', '.join(known[:8])}{', ...' if len(known) > 8 else ''}. Name the classes alike, leave those out, "
                         "or take another prior")
    if twice := [n for n, h in zip(names, hits, strict=True) if len(h) > 1]:
        raise InputError(f"{twice[0]!r} is the name of several classes of the prior (rows {sorted(table[_plain(twice[0])])}); "
                         "give the class its full name")
    rows = tuple(next(iter(h)) for h in hits)
    if len(set(rows)) < len(rows):
        raise InputError("two classes of the data are one and the same class of the prior; give each its full name")
    return rows


def _plain(name):
    return " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").replace("-", " ").split())
