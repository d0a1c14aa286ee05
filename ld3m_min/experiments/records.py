"""Records of cells, read: section 4.2.

One JSON file a run, in `book/_data/records/`. A table is a function of these files. What is missing
is a query, and each missing cell names the command that makes it. The paper's own numbers are in
`book/_data/paper/`, as printed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from ld3m_min.errors import InputError
from ld3m_min.evaluate.cross_architecture import EvalResult
from ld3m_min.experiments.cells import Cell
from ld3m_min.experiments.places import RECORDS
from ld3m_min.io.files import read_json, write_json
from ld3m_min.io.lock import waiting
from ld3m_min.io.values import from_dict


def load_records(folder: str | Path = RECORDS) -> list[dict[str, Any]]:
    """All records of cells in a folder, sorted by name; an empty list where there are none.

    Args:
        folder: files of other kinds are passed over.

    Raises:
        InputError: a file is not JSON, or its cell is none of this version's.
    """
    found = []
    for file in sorted(Path(folder).glob("*.json")):
        record = read_json(file)
        if isinstance(record, dict) and "cell" in record:
            read_cell(record["cell"], file)
            found.append(record)
    return found


def read_cell(value: object, file: str | Path) -> Cell:
    """The cell that a record is of.

    Args:
        value: what the record says.
        file: the record, for the message.

    Raises:
        InputError: it is no cell of this version.
    """
    try:
        return from_dict(Cell, value, "cell")
    except (InputError, TypeError) as error:  # TypeError: it lacks a field
        raise InputError(
            f"{file} is no record of a cell: {error}; it is another file, or of an earlier "
            "version; move it away"
        ) from error


def read_record(
    file: str | Path, name: str, *fields: str, kind: type | tuple[type, ...] = list
) -> dict[str, Any]:
    """A record of this package's, such as :func:`add_entry` writes.

    Args:
        file: the record.
        name: what is read from it.
        fields: that each entry of a list has.
        kind: what stands under that name.

    Raises:
        FileNotFoundError: no such file.
        InputError: it is another file, or one of a version that wrote other things.
    """
    found = read_json(file)
    held = found.get(name) if isinstance(found, dict) else None
    fits = isinstance(held, kind)
    if isinstance(held, list):
        fits &= all(isinstance(entry, dict) and entry.keys() >= {*fields} for entry in held)
    if not fits:
        raise InputError(
            f"{file} is no record with the {name} that are read here; it is another file, or of an "
            "earlier version; move it away, and measure again"
        )
    return dict(found)


def add_entry(
    file: str | Path,
    head: Mapping[str, Any],
    name: str,
    entry: Mapping[str, Any],
    *,
    key: Callable[[Mapping[str, Any]], object] = itemgetter("key"),
) -> list[dict[str, Any]]:
    """Add an entry to the list of a record that grows, where other processes may write to it, too.

    Args:
        file: the record; it need not exist.
        head: what the record has besides the list.
        name: of the list.
        entry: where one of its key is there, that one stays.
        key: what tells entries apart.

    Returns:
        The entries, with those that others have added meanwhile.

    Raises:
        InputError: the file is another record.
    """
    file = Path(file)
    with waiting(file.parent):
        entries: list[dict[str, Any]] = read_record(file, name)[name] if file.exists() else []
        if key(entry) not in map(key, entries):
            entries.append(dict(entry))
        write_json(file, dict(head) | {name: entries})
    return entries


def as_result(record: Mapping[str, Any]) -> EvalResult:
    """The accuracies of a record, as :func:`ld3m_min.evaluate.cross_architecture.evaluate` gave
    them.

    Args:
        record: of a cell.
    """
    accuracies = {
        k: tuple(math.nan if x is None else x for x in v) for k, v in record["accuracies"].items()
    }
    return EvalResult(accuracies, record["split"], record["config"]["network"]["name"])
