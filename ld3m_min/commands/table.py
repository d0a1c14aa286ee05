"""`python -m ld3m_min table`: see :mod:`ld3m_min.experiments.grids` and `tables`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ld3m_min.commands.options import begin
from ld3m_min.commands.plain import PlainCommand
from ld3m_min.errors import InputError
from ld3m_min.experiments import costs, grids, running, sweep, tables
from ld3m_min.experiments import records as results

ABOUT = """Print a grid's table from its records, list what is missing, or run it (`--run`).

`--forecast` says what the missing records will cost. Many of them at a time are made by Snakemake,
from the `Snakefile` of the project.

After `--max-seconds` a run saves and leaves with exit code 75; the same command goes on.
"""


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Of the run.

    Attributes:
        grid: name of a grid; by default that of the digits, and with `--missing` and `--forecast`
            all of them. Of several, separated by spaces or as a pattern ("evidence*"), tables and
            forecast are printed.
        missing: list what has no record, with the commands that make it.
        forecast: say what the missing records will cost: jobs, hours, disk and memory.
        tflops: of a forecast: 10^12 operations a second that a GPU keeps up.
        run: make what has no record.
        only: of a run: the cell of that name alone.
        device: "cpu", "cuda", "cuda:1" or "mps".
        max_seconds: seconds after which a run stops, with what is done saved and exit code 75.
        records: folder of the records; by default that of the project.
    """

    grid: str | None = None
    missing: bool = False
    forecast: bool = False
    tflops: float = costs.GPU_TFLOPS
    run: bool = False
    only: str = ""
    device: str = "cpu"
    max_seconds: float | None = None
    records: Path | None = None


def run(options: TableOptions) -> None:
    """Print the table, or what is missing."""
    begin(options.device, options.max_seconds)
    records = options.records or grids.records_folder(options.grid)
    if options.missing:
        wanted = sweep.chosen(options.grid or sweep.PAPER)
        print("\n".join(grids.commands(wanted, records)) or "nothing is missing")
        return
    if options.forecast:
        if not 0 < options.tflops < math.inf:
            raise InputError(f"--tflops must be a number above 0, not {options.tflops}")
        asked = sweep.sweep(options.grid or sweep.PAPER, records)
        print(costs.forecast_text(asked, costs.Costs(tflops=options.tflops)))
        return
    grid = options.grid or "digits"
    if options.run:
        running.run_grid(grid, only=options.only, records=records, device=options.device)
    for name in sweep.chosen(grid):
        _print(name, records)


def _print(grid: str, records: Path) -> None:
    """Print the table of a grid.

    Args:
        grid: its name.
        records: folder of the records.
    """
    absent, cells = grids.missing(grid, records), grids.grid(grid)
    frame = tables.table(
        [r for r in results.load_records(records) if grids.Cell(**r["cell"]) in cells],
        cells[0].dataset,
        cells[0].preset,
    )
    print(frame.to_string() if len(frame) else "no records yet")
    if absent:
        print(
            f"{len(absent)} of {len(cells)} cells are missing; `table --missing` lists them with "
            "their commands"
        )


COMMAND = PlainCommand("table", ABOUT, TableOptions, run)
