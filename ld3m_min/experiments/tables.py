"""Tables of accuracies from records, and the paper's own tables as printed (section 4.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ld3m_min.experiments.cells import Cell
from ld3m_min.experiments.places import RECORDS, RUNS
from ld3m_min.experiments.records import as_result
from ld3m_min.storage import Storage
from ld3m_min.synthetic import SyntheticSet
from ld3m_min.systems import SYSTEMS, listed

PAPER = RECORDS.parent / "paper"
NONE = "–"  # in a table, where there is nothing to say
BYTES = ("images a class", "bytes a class", "kept as", "shared bytes")


def markdown(
    header: Sequence[object], rows: Iterable[Sequence[object]], align: str = "", rest: str = "r"
) -> str:
    """A table as pages have it.

    Args:
        header: of the columns.
        rows: as many values each.
        align: "l" or "r" for the first columns.
        rest: for the others.
    """
    rule = ["---:" if a == "r" else ":---" for a in align.ljust(len(header), rest)]
    lines = (header, rule, *rows)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def table(
    records: Iterable[Mapping[str, Any]], dataset: str = "digits", preset: str = "cpu"
) -> pd.DataFrame:
    """Accuracies in per cent and bytes, one row a cell.

    The four unseen networks' mean stands first, with its 95 % interval, then each network. Then
    what the set takes: images a class; bytes a class, the way that needs fewest; which way that is;
    and the bytes that it needs besides, once for all classes. Older records don't say.

    Args:
        records: of cells.
        dataset: only its cells are shown.
        preset: only its cells are shown.

    Returns:
        Indexed by (IPC, algorithm, space); empty where no record matches.
    """
    chosen = [
        r for r in records if r["cell"]["dataset"] == dataset and r["cell"]["preset"] == preset
    ]
    frame = pd.DataFrame([_row(r) for r in sorted(chosen, key=_order)])
    return frame.set_index(["IPC", "algorithm", "space"]).round(1) if len(frame) else frame


def _order(record: Mapping[str, Any]) -> tuple[int, bool, str, int]:
    """Where a record stands in a table: the random baseline first, then as the paper's rows."""
    cell = record["cell"]
    space = list(SYSTEMS).index(cell["space"])
    return cell["ipc"], cell["algorithm"] != "none", cell["algorithm"], space


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as a row of a table."""
    result, cell = as_result(record), record["cell"]
    low, high = result.confidence_interval()
    variant = cell.get("variant")
    row = {
        "IPC": cell["ipc"],
        "algorithm": cell["algorithm"].replace("none", NONE),
        "space": SYSTEMS[cell["space"]].label + (f", {variant}" if variant else ""),
        "unseen": 100 * result.mean(),
        # one repeat has no interval
        "95 % interval": f"{100 * low:.1f} to {100 * high:.1f}" if low == low else NONE,
    }
    return row | {a: 100 * result.mean(a) for a in result.accuracies} | _bytes(record)


def _bytes(record: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a record's bytes."""
    if record.get("bytes") is None:
        return dict.fromkeys(BYTES, NONE)
    storage = Storage(**record["bytes"])
    kept = storage.smallest
    values = (f"{storage.images_per_class:g}", round(kept.per_class), kept.form, kept.shared)
    return dict(zip(BYTES, values, strict=True))


def systems() -> pd.DataFrame:
    """Everything that makes a set, in the order of the tables.

    Returns:
        Text, a row for each system: its name and label, the section of the paper that speaks of it,
        how a set is made, what is learned, what a set has to hold, and what it costs to make.
    """
    return pd.DataFrame(listed())


def comparisons(
    records: Iterable[Mapping[str, Any]],
    baseline: str = "random",
    dataset: str = "digits",
    preset: str = "cpu",
) -> pd.DataFrame:
    """LD3M by the public code against a baseline, cell by cell.

    With the baseline "random", repeats differ in the images drawn, too. With any other, both are
    single sets.

    Args:
        records: of cells.
        baseline: a name of `systems.SYSTEMS`.
        dataset: only its cells are compared.
        preset: only its cells are compared.

    Returns:
        A row for each pair: the difference of the unseen networks' means in points, and the p value
        of Welch's test.
    """
    from scipy import stats

    learned = SYSTEMS[baseline].how == "learned"
    chosen = {
        (c["space"], c["algorithm"], c["ipc"]): as_result(r).values()
        for r in records
        if (c := r["cell"])["dataset"] == dataset and c["preset"] == preset and not c.get("variant")
    }
    rows = []
    for (space, algorithm, ipc), values in sorted(chosen.items()):
        other = chosen.get((baseline, algorithm if learned else "none", ipc))
        if space != "ld3m-code" or other is None:
            continue
        p = stats.ttest_ind(values, other, equal_var=False).pvalue
        difference = 100 * float(np.mean(values) - np.mean(other))
        rows.append({"IPC": ipc, "algorithm": algorithm, "difference": difference, "p": float(p)})
    return pd.DataFrame(rows)


def paper_table(number: int, folder: str | Path = PAPER) -> pd.DataFrame:
    """A table of the paper as printed, in long form.

    Args:
        number: 1 to 5.
        folder: of the tables.

    Raises:
        FileNotFoundError: there is no such table.
    """
    file = Path(folder) / f"table{number}.csv"
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist; the paper has tables 1 to 5")
    return pd.read_csv(file)


def cell_set(cell: Cell, runs: str | Path = RUNS) -> SyntheticSet:
    """The distilled set of a cell that was run on this machine.

    Args:
        cell: of a grid.
        runs: the folder of the runs.

    Raises:
        FileNotFoundError: it was not run here.
    """
    return SyntheticSet.load(Path(runs) / cell.name / "set")
