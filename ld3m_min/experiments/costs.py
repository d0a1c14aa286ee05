"""What a sweep will cost: hours, memory and disk of its jobs, before any of them starts.

Where a cell of the same kind has a record, its seconds are taken. All else is counted
(:mod:`ld3m_min.experiments.operations`) and turned into seconds by the speed that the records show
for work of the same part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Literal

from ld3m_min.experiments import operations
from ld3m_min.experiments.cells import Cell
from ld3m_min.experiments.operations import Operations
from ld3m_min.experiments.places import RECORDS
from ld3m_min.experiments.records import load_records, read_record
from ld3m_min.experiments.sweep import Job, Sweep
from ld3m_min.prior.presets import FINE_TUNE_PRESETS, PRIOR_PRESETS
from ld3m_min.prior.style_config import STYLE_PRESETS
from ld3m_min.prior.training_log import TrainingLog

PROCESS = 700 * 2**20  # bytes of a process that has PyTorch and the digits in it
RECORD = 60_000  # bytes of a record with its pictures, where a folder has none to measure
SLOW = 10e9  # operations a second, of a part that no record has timed
HOST = 8 * 2**30  # bytes beside a GPU: the data, and the process
GPU_TFLOPS = 5.0  # an assumption: no record of a GPU says better
PRIOR_COPIES = 8  # of its weights in the folder of its training: checkpoints, averages, the model
RUN_COPIES = 8  # of what is learned, in the folder of a cell's run

Part = Literal["distil", "evaluate", "prior"]


@dataclass(frozen=True)
class Cost:
    """Of one job.

    Attributes:
        seconds: on one thread, or on the GPU that its command names.
        memory: of the machine, bytes; counted without recomputation.
        disk: bytes that are kept, its run included.
        measured: whether a job of the same kind was timed.
    """

    seconds: float
    memory: int
    disk: int
    measured: bool


@dataclass(frozen=True)
class Row:
    """Of the forecast of a sweep.

    Attributes:
        what: the jobs.
        jobs: how many.
        hours: of all, one after the other.
        longest: hours of the longest one.
        disk: bytes.
        memory: bytes of the largest job.
        measured: how many have a record of their kind.
    """

    what: str
    jobs: int
    hours: float
    longest: float
    disk: int
    memory: int
    measured: int


class Costs:
    """Costs of jobs, from the records of a folder.

    Args:
        folder: of the records.
        tflops: of a GPU: 10^12 operations a second that it keeps up in these jobs.
    """

    def __init__(self, folder: str | Path = RECORDS, *, tflops: float = GPU_TFLOPS) -> None:
        self.folder, self.tflops = Path(folder), tflops
        self._records = load_records(self.folder)

    def of(self, job: Job) -> Cost:
        """The cost of one job.

        Args:
            job: of a sweep.
        """
        if job.cell is None:
            return self._prior(job.name.removeprefix("prior-"), job.on_gpu)
        if job.kind == "experts":
            found = operations.experts(job.cell)
            seconds = self._seconds(found, "evaluate", job.on_gpu)
            memory = HOST if job.on_gpu else PROCESS + found.peak
            return Cost(seconds, memory, 4 * found.numbers, measured=False)
        return self._cell(job.cell, job.on_gpu)

    def _cell(self, cell: Cell, on_gpu: bool) -> Cost:
        """Of a cell without its experts."""
        learned = operations.distillation(cell)
        disk = self._record_bytes + 4 * RUN_COPIES * learned.numbers
        if same := self._like.get(_kind(cell), []):
            seconds = median(r["seconds"]["distil"] + r["seconds"]["evaluate"] for r in same)
            return Cost(seconds, max(r["peak_memory_bytes"] for r in same), disk, measured=True)
        judged = operations.evaluation(cell)
        seconds = self._seconds(learned, "distil", on_gpu)
        seconds += self._seconds(judged, "evaluate", on_gpu)
        memory = HOST if on_gpu else PROCESS + max(learned.peak, judged.peak)
        return Cost(seconds, memory, disk, measured=False)

    def _prior(self, name: str, on_gpu: bool) -> Cost:
        """Of a prior by the name of its preset."""
        found = operations.prior(name)
        disk, memory = 4 * PRIOR_COPIES * found.numbers, PROCESS + found.peak
        file = self.folder / f"prior-{name}-seed0.json"
        if file.exists():
            return Cost(
                float(read_record(file, "seconds", kind=(int, float))["seconds"]),
                memory,
                disk,
                measured=True,
            )
        if on_gpu:
            return Cost(self._seconds(found, "prior", on_gpu), HOST, disk, measured=False)
        # larger images are trained in other ways: priors of the same size say more
        timed = self._prior_speeds
        alike = [speed for other, speed in timed.items() if _side(other) == _side(name)]
        speed = median(alike) if alike else self.speeds["prior"]
        return Cost(found.flops / speed, memory, disk, measured=False)

    def _seconds(self, found: Operations, part: Part, on_gpu: bool) -> float:
        return found.flops / (1e12 * self.tflops if on_gpu else self.speeds[part])

    @cached_property
    def speeds(self) -> Mapping[Part, float]:
        """Operations a second that the records on a CPU show, part by part."""
        seen: dict[Part, list[float]] = {"distil": [], "evaluate": [], "prior": []}
        for same in self._like.values():
            cell = Cell(**same[0]["cell"])
            if not same[0]["environment"]["device"].startswith("CPU"):
                continue
            for part, count in (
                ("distil", operations.distillation),
                ("evaluate", operations.evaluation),
            ):
                took = median(r["seconds"][part] for r in same)
                if took > 1 and (done := count(cell).flops):
                    seen["distil" if part == "distil" else "evaluate"].append(done / took)
        seen["prior"] = list(self._prior_speeds.values())
        return {part: median(found) if found else SLOW for part, found in seen.items()}

    @cached_property
    def _prior_speeds(self) -> dict[str, float]:
        """Operations a second of the priors that have a record."""
        found, kept = {}, self.folder.parent / "priors"
        for name in (*PRIOR_PRESETS, *STYLE_PRESETS, *FINE_TUNE_PRESETS):
            file = self.folder / f"prior-{name}-seed0.json"
            if not file.exists():
                continue
            took = read_record(file, "seconds", kind=(int, float))["seconds"]
            # an autoencoder that is kept apart isn't counted among the operations
            took -= TrainingLog.of(kept / f"{name}-autoencoder").seconds
            if took > 0:
                found[name] = operations.prior(name).flops / took
        return found

    @cached_property
    def _like(self) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
        """Records of cells by what they have in common but for the seed."""
        found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for record in self._records:
            found.setdefault(_kind(Cell(**record["cell"])), []).append(record)
        return found

    @cached_property
    def _record_bytes(self) -> int:
        names = [Cell(**r["cell"]).name for r in self._records]
        sizes = [f.stat().st_size for n in names for f in self.folder.glob(f"{n}[.-]*")]
        return sum(sizes) // len(names) if names else RECORD


def _kind(cell: Cell) -> tuple[Any, ...]:
    """All of a cell but its seed."""
    plain = replace(cell, seed=0)
    return tuple(getattr(plain, f.name) for f in fields(plain))


def _side(prior: str) -> int:
    """Side of the images of a prior, by the name of its preset, pixels."""
    known = PRIOR_PRESETS.get(prior) or STYLE_PRESETS.get(prior)
    return (known or FINE_TUNE_PRESETS[prior]).size


def rows(sweep: Sweep, costs: Costs) -> list[Row]:
    """The forecast of a sweep: priors, experts, each grid, and all of it.

    Args:
        sweep: what is missing.
        costs: of jobs.
    """
    parts: dict[str, list[Cost]] = {what: [] for what in ("priors", "experts", *sweep.grids)}
    for job in sweep.jobs:
        what = {"prior": "priors", "experts": "experts"}.get(job.kind, job.grid)
        parts[what].append(costs.of(job))
    found = [_row(what, given) for what, given in parts.items() if given]
    return [*found, _row("all", [cost for given in parts.values() for cost in given])]


def _row(what: str, given: Iterable[Cost]) -> Row:
    each = list(given)
    hours = [cost.seconds / 3600 for cost in each]
    return Row(
        what,
        len(each),
        sum(hours),
        max(hours, default=0.0),
        sum(cost.disk for cost in each),
        max((cost.memory for cost in each), default=0),
        sum(cost.measured for cost in each),
    )


def forecast_text(sweep: Sweep, costs: Costs) -> str:
    """The forecast of a sweep as a table, with what its hours rest on.

    Args:
        sweep: what is missing.
        costs: of jobs.
    """
    cells = sum(job.kind == "cell" for job in sweep.jobs)
    found = rows(sweep, costs)
    lines = [f"{sweep.cells - cells} of {sweep.cells} records are there; what is missing:"]
    lines.append(f"{'':22s} {'jobs':>6s} {'hours':>8s} {'longest':>8s} {'disk MB':>8s} {'GiB':>6s}")
    lines += [
        f"{r.what:22s} {r.jobs:6d} {r.hours:8.1f} {r.longest:8.1f} {r.disk / 1e6:8.0f} "
        f"{r.memory / 2**30:6.1f}"
        for r in found
    ]
    total = found[-1]
    lines.append(
        f"hours of one thread a job, to be divided by the workers; GiB: memory of the largest job. "
        f"{total.measured} jobs as in records of their kind, {total.jobs - total.measured} counted"
    )
    if graphics := sum(job.on_gpu for job in sweep.jobs):
        lines.append(
            f"{graphics} of them need a GPU, for which {costs.tflops:g} TFLOP/s are assumed "
            "(--tflops)"
        )
    return "\n".join(lines)
