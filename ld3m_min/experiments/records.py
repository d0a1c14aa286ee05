"""Records of cells, read: section 4.2.

One JSON file a run, in `book/_data/records/`. A table is a function of these files. What is missing
is a query, and each missing cell names the command that makes it. The paper's own numbers are in
`book/_data/paper/`, as printed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ld3m_min.evaluate.cross_architecture import EvalResult
from ld3m_min.experiments.places import RECORDS
from ld3m_min.io.files import read_json


def load_records(folder: str | Path = RECORDS) -> list[dict[str, Any]]:
    """All records of cells in a folder, sorted by name; an empty list where there are none.

    Args:
        folder: files of other kinds are passed over.
    """
    records = [read_json(f) for f in sorted(Path(folder).glob("*.json"))]
    return [r for r in records if isinstance(r, dict) and "cell" in r]


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
