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

from ld3m_min.evaluate.cross_architecture import EvalResult
from ld3m_min.experiments.places import RECORDS
from ld3m_min.io.files import read_json, write_json
from ld3m_min.io.lock import waiting


def load_records(folder: str | Path = RECORDS) -> list[dict[str, Any]]:
    """All records of cells in a folder, sorted by name; an empty list where there are none.

    Args:
        folder: files of other kinds are passed over.
    """
    records = [read_json(f) for f in sorted(Path(folder).glob("*.json"))]
    return [r for r in records if isinstance(r, dict) and "cell" in r]


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
    """
    file = Path(file)
    with waiting(file.parent):
        entries: list[dict[str, Any]] = read_json(file)[name] if file.exists() else []
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
