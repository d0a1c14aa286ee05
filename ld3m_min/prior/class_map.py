"""What the user says of the data's classes in a prior: a file, and the prompt around a name.

Classes that a prior knows by name need no entry (:mod:`ld3m_min.prior.class_matching`). The others
are given by `--class-map FILE`: the prior's name or row for each, or a whole prompt where the prior
is conditioned on text.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ld3m_min.errors import InputError
from ld3m_min.io.disk import StrPath
from ld3m_min.io.paths import expanded
from ld3m_min.io.text import yaml_of

PROMPT = "a photo of a {}"
SUFFIXES = (".yaml", ".yml", ".json", ".csv", ".tsv")


@dataclass(frozen=True)
class ClassMap:
    """What stands for the data's classes in a prior, as the user says it.

    Attributes:
        entries: class of the data -> name or row of the prior's class, or the prompt of it.
        prompt: the text around a name, for a prior that is conditioned on text; None takes
            `PROMPT`.
    """

    entries: Mapping[str, str] = field(default_factory=dict)
    prompt: str | None = None

    @classmethod
    def read(cls, file: StrPath | None, prompt: str | None = None) -> ClassMap:
        """The map of a file.

        Args:
            file: YAML or JSON, `class: name or row`; or CSV or TSV with a line "class,name" for
                each, with or without a line of headings "class,prior". None for no entries.
            prompt: as the attribute.

        Raises:
            FileNotFoundError: there is no such file.
            InputError: it holds something else, or a class twice.
        """
        if file is None:
            return cls({}, prompt)
        path = expanded(file)
        if not path.is_file():
            raise FileNotFoundError(f"no class map {path}; give a YAML, JSON or CSV file")
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"{path.name} is no class map by its name; end it with {', '.join(SUFFIXES)}"
            )
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{path.name} is not UTF-8 text; save it as such") from None
        rows = _table(text, path) if path.suffix.lower() in (".csv", ".tsv") else _pairs(text, path)
        return cls(_entries(rows, path), prompt)

    @property
    def record(self) -> dict[str, object]:
        """What a run's identity and a recipe say of it; empty where nothing was said."""
        said: dict[str, object] = (
            {"map": dict(sorted(self.entries.items()))} if self.entries else {}
        )
        return said | ({"prompt": self.prompt} if self.prompt is not None else {})

    def __bool__(self) -> bool:
        return bool(self.record)

    def check(self, classes: Sequence[str]) -> None:
        """Refuse entries for classes that the data don't have.

        Args:
            classes: of the data.

        Raises:
            InputError: there are such.
        """
        if odd := [name for name in self.entries if name not in classes]:
            known = ", ".join(map(repr, classes[:8])) + (", ..." if len(classes) > 8 else "")
            raise InputError(
                f"the class map has {', '.join(map(repr, odd[:5]))}, which the data don't; their "
                f"classes are {known}"
            )


def _pairs(text: str, path: Path) -> list[tuple[str, str]]:
    """Pairs of a YAML or JSON mapping, as they are written: `no`, `1` and `2.0` stay text.

    Raises:
        InputError: it is no YAML, or no mapping of plain values.
    """
    node = yaml_of(text, path.name, lambda text: yaml.compose(text, Loader=yaml.SafeLoader))
    if not isinstance(node, yaml.MappingNode):
        raise InputError(
            f"{path.name} is no mapping; write a line 'class: name of the prior' for each class"
        )
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            raise InputError(
                f"{path.name}, line {key.start_mark.line + 1}: a class has one name or row, not a "
                "list or mapping; leave one of them"
            )
    return [(key.value, value.value) for key, value in node.value]


def _table(text: str, path: Path) -> list[tuple[str, str]]:
    """Pairs of a table of two columns.

    Raises:
        InputError: a line has more or fewer.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(row)]
    if rows and [cell.strip().lower() for cell in rows[0]] == ["class", "prior"]:
        rows = rows[1:]
    if odd := [row for row in rows if len(row) != 2]:
        raise InputError(
            f"{path.name}: {delimiter.join(odd[0])!r} has {len(odd[0])} columns; a class map has "
            "two, the data's class and the prior's"
        )
    return [(row[0].strip(), row[1].strip()) for row in rows]


def _entries(rows: Sequence[tuple[str, str]], path: Path) -> dict[str, str]:
    """The entries of a file.

    Raises:
        InputError: none, an empty one, or a class twice.
    """
    if not rows:
        raise InputError(
            f"{path.name} holds no entry; write a line for each class, or leave it out"
        )
    if empty := [
        name for name, value in rows if not value.strip() or value.strip() in ("~", "null")
    ]:
        raise InputError(
            f"{path.name}: class {empty[0]!r} has no value; give the prior's name or row"
        )
    if twice := [name for name, n in Counter(name for name, _ in rows).items() if n > 1]:
        raise InputError(f"{path.name} has the class {twice[0]!r} twice; leave one of the two")
    return dict(rows)


NO_MAP = ClassMap()
