"""What was measured under one preset, as pages show it: section 4.2.

A page asks for a cell and gets a row of text, or nothing where it isn't measured yet. So a page is
written once, and fills as records come.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ld3m_min.config import ARCHITECTURES
from ld3m_min.experiments import grids, questions, real_images, statistics
from ld3m_min.experiments.cells import Cell
from ld3m_min.experiments.places import RECORDS
from ld3m_min.experiments.records import load_records, read_record
from ld3m_min.experiments.statistics import Paired, Runs
from ld3m_min.systems import SYSTEMS

NOT_YET = "not measured yet"
CHANCE = 0.1  # of ten classes: what a training that diverged counts as


@dataclass(frozen=True)
class Results:
    """The records of one preset on one data set.

    Attributes:
        dataset: of the cells.
        preset: of the cells.
        folder: of the records.
    """

    dataset: str
    preset: str
    folder: Path = RECORDS

    @cached_property
    def by_cell(self) -> dict[Cell, dict[str, Any]]:
        """Each record by its cell."""
        wanted = (self.dataset, self.preset)
        found = [(Cell(**r["cell"]), r) for r in load_records(self.folder)]
        return {c: r for c, r in found if (c.dataset, c.preset) == wanted}

    @cached_property
    def runs(self) -> dict[Cell, Runs]:
        """Accuracies of the networks that did not distil, by the cell with seed 0."""
        return statistics.from_records(self.by_cell.values(), diverged=CHANCE)

    @cached_property
    def every(self) -> dict[Cell, Runs]:
        """Accuracies of all networks, by the cell with seed 0."""
        records = self.by_cell.values()
        return statistics.from_records(records, networks=ARCHITECTURES, diverged=CHANCE)

    @cached_property
    def real(self) -> dict[str, Any] | None:
        """The record of random real images; None where there is none."""
        file = self.folder / f"real-{self.dataset}-{self.preset}.json"
        if not file.exists():
            return None
        return read_record(file, "points", "per_class", "accuracies")

    def cell(self, space: str, algorithm: str = "none", ipc: int = 1, variant: str = "") -> Cell:
        """A cell of these results, with seed 0.

        Args:
            space: a name of `systems.SYSTEMS`.
            algorithm: "none" for what is not learned.
            ipc: images per class.
            variant: a name of `grids.VARIANTS`.
        """
        return Cell(self.dataset, self.preset, space, algorithm, ipc, variant=variant)

    def of(self, cell: Cell) -> list[dict[str, Any]]:
        """The records of a cell, of all its seeds.

        Args:
            cell: of any seed.
        """
        return [r for c, r in self.by_cell.items() if replace(c, seed=0) == replace(cell, seed=0)]

    def row(self, cell: Cell) -> tuple[object, ...] | None:
        """Accuracy over seeds, as text: unseen networks, how many seeds, then each network.

        Args:
            cell: with seed 0.

        Returns:
            None where nothing is measured.
        """
        if cell not in self.runs:
            return None
        each = [statistics.as_printed(self.every[cell].only([a])) for a in ARCHITECTURES]
        mean = statistics.as_printed(self.runs[cell])
        return f"**{mean}**", len(self.runs[cell].seeds), *(f"{100 * p.mean:.1f}" for p in each)

    def worth(self, cell: Cell) -> str:
        """How many random real images of each class do as well, with a 95 % interval, as text.

        One set alone has no interval: it says nothing of how another would do.

        Args:
            cell: with seed 0.
        """
        if self.real is None or cell not in self.runs:
            return ""
        counts = [n for n in real_images.curve(self.real) if n]
        least, most, accuracies = min(counts), max(counts), self.runs[cell].trainings()
        n = real_images.worth(self.real, float(accuracies.mean()))

        def said(x: float) -> str:
            if math.isnan(x) or x < least:
                return f"< {least}"
            return f"> {most}" if x > most else f"{x:.1f}"

        if len(accuracies) < 2:
            return said(n)
        rng = np.random.default_rng(0)
        low, high = map(said, real_images.worth_interval(self.real, accuracies, rng))
        return said(n) if low == high else f"{said(n)} ({low} to {high})"

    def norm(self, cell: Cell, code: str = "Z") -> str:
        """Mean norm of a gradient over iterations and seeds, as text.

        Args:
            cell: with seed 0.
            code: "Z" or "c".
        """
        kept = [g for r in self.of(cell) for g in r.get(f"grad_{code}") or () if g is not None]
        return f"{np.mean(kept):.3g}" if kept else "–"

    def mean(self, cell: Cell, what: str) -> float:
        """A number of the records, as a mean over seeds; NaN where there is none.

        Args:
            cell: with seed 0.
            what: "seconds_per_iteration" or "peak_memory_bytes".
        """
        found = [r[what] for r in self.of(cell) if r.get(what)]
        return float(np.mean(found)) if found else math.nan

    def compare(self, ours: Cell, theirs: Cell) -> Paired | None:
        """One system minus another, by seed; None before two seeds of both are measured.

        Args:
            ours: with seed 0.
            theirs: with seed 0.
        """
        a, b = self.runs.get(ours), self.runs.get(theirs)
        if a is None or b is None or len({*a.seeds} & {*b.seeds}) < 2:
            return None
        return statistics.paired(a, b, np.random.default_rng(0))

    def gap(self, ours: Cell, theirs: Cell) -> str:
        """One system minus another, by seed, in points: "+1.2 (+0.3 to +2.1)".

        Args:
            ours: with seed 0.
            theirs: with seed 0.

        Returns:
            The mean with its 95 % interval; of a single seed that it is one; "–" before that.
        """
        if p := self.compare(ours, theirs):
            return p.points
        both = [r for c in (ours, theirs) if (r := self.runs.get(c)) is not None]
        shared = sorted(set.intersection(*({*r.seeds} for r in both))) if len(both) == 2 else []
        if not shared or both[0].networks != both[1].networks:
            return "–"
        a, b = (r.trainings(shared).mean() for r in both)
        return f"{100 * (a - b):+.1f} (one set each)"

    def answers(self) -> str:
        """The primary questions with what was measured of each, a Markdown list."""
        found = {q: self.compare(q.ours, q.theirs) for q in questions.PRIMARY.values()}
        return "\n".join(
            f"- {q.text} {f'{NOT_YET.capitalize()}.' if p is None else p}" for q, p in found.items()
        )

    def missing(self, *names: str) -> str:
        """A sentence on what grids lack, with the command that makes it; "" where nothing.

        Args:
            names: of the grids.
        """
        left = {n: len(grids.missing(n, self.folder)) for n in names}
        total, absent = sum(len(grids.grid(n)) for n in names), sum(left.values())
        if not absent:
            return ""
        todo = " ".join(n for n, count in left.items() if count)
        return f"{absent} of {total} cells are {NOT_YET}: `make tables GRIDS='{todo}'`."


def kinds(grid: str) -> list[Cell]:
    """The cells of a grid with seed 0, in its order.

    Args:
        grid: its name.
    """
    return list(dict.fromkeys(replace(c, seed=0) for c in grids.grid(grid)))


def label(cell: Cell, variants: Sequence[tuple[str, str]] = ()) -> str:
    """A system with its variant, in words.

    Args:
        cell: of any seed.
        variants: names of variants and the words for them.
    """
    words = dict(variants).get(cell.variant, cell.variant.replace("-", " "))
    return SYSTEMS[cell.space].label + (f", {words}" if words else "")
