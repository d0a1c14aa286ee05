"""Many runs by one command: the jobs that the grids still ask for, and what each waits for.

The `Snakefile` of the project is made of what :func:`sweep` gives, and so are forecasts
(:mod:`ld3m_min.experiments.costs`). A record that stands is no job: whatever becomes of times of
files or of the code, nothing can make it anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import Literal

from ld3m_min.config import DistilConfig
from ld3m_min.experiments import grids
from ld3m_min.experiments.cells import Cell
from ld3m_min.experiments.grids import GRIDS, MEASURED, ON_GPU, command_of
from ld3m_min.experiments.places import RECORDS, RUNS
from ld3m_min.prior.presets import FINE_TUNE_PRESETS
from ld3m_min.spaces.build import SPACES

DIGITS = ("digits", "evidence*")  # what a sweep makes where nothing else is asked for
PAPER = "paper"  # every grid that is measured
MARKS = RUNS / "sweep"  # logs, and what says that the experts of a sweep are there

Kind = Literal["prior", "experts", "cell"]


@dataclass(frozen=True)
class Job:
    """One command of a sweep.

    Attributes:
        name: of the cell, of the experts, or of the prior's folder.
        kind: of what it makes.
        stage: jobs of one stage may be made in any order; the stages stand in the order in which
            they are wanted.
        command: resumable; exit code 75 asks for the same command again.
        needs: names of the jobs that come before it.
        output: file that says that it is done, relative to the working directory or absolute.
        grid: that asks for it first.
        cell: that it makes, or the first that needs its experts; None of a prior.
    """

    name: str
    kind: Kind
    stage: str
    command: str
    needs: tuple[str, ...]
    output: Path
    grid: str
    cell: Cell | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether its command names a GPU."""
        return "--device cuda" in self.command


@dataclass(frozen=True)
class Stage:
    """Jobs of one kind that may be made in any order.

    Attributes:
        name: unique in its sweep.
        kind: of its jobs.
        jobs: at least one.
    """

    name: str
    kind: Kind
    jobs: tuple[Job, ...]

    @property
    def output(self) -> str:
        """Where its jobs' outputs are, with "{job}" in place of a name."""
        first = self.jobs[0]
        return str(first.output).replace(first.name, "{job}")

    @property
    def pattern(self) -> str:
        """Regular expression of its jobs' names."""
        return "|".join(re.escape(job.name) for job in self.jobs)


@dataclass(frozen=True)
class Sweep:
    """What some grids still ask for.

    Attributes:
        grids: their names.
        jobs: in the order in which they are wanted; what a job needs stands before it.
        cells: of the grids, those with a record included.
    """

    grids: tuple[str, ...]
    jobs: tuple[Job, ...]
    cells: int

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The jobs by stage, in the order of the first job of each."""
        found: dict[str, list[Job]] = {}
        for job in self.jobs:
            found.setdefault(job.stage, []).append(job)
        return tuple(Stage(name, jobs[0].kind, tuple(jobs)) for name, jobs in found.items())


def chosen(names: str | Iterable[str]) -> tuple[str, ...]:
    """Names of grids, in the order in which they are to be made.

    Args:
        names: of grids, patterns such as "evidence*" of those that are measured, or "paper" for all
            of these; one text may hold several, with spaces between them.

    Raises:
        InputError: nothing has such a name; lists the grids.
    """
    words = names.split() if isinstance(names, str) else list(names)
    wanted: set[str] = set()
    for word in words:
        known = MEASURED if word == PAPER else [g for g in MEASURED if fnmatchcase(g, word)]
        if not known:
            grids.grid(word)  # one that measures nothing has to be named; no other is let pass
        wanted.update(known or [word])
    return tuple(g for g in GRIDS if g in wanted)


def sweep(names: str | Iterable[str] = DIGITS, folder: str | Path = RECORDS) -> Sweep:
    """What some grids still ask for, priors and experts first.

    Experts are asked for wherever a cell that matches trajectories is missing: their command leaves
    those that are there as they are.

    Args:
        names: as of :func:`chosen`.
        folder: of the records.

    Raises:
        InputError: no such grid.
    """
    asked, found = chosen(names), dict[str, Job]()
    own = grids.elsewhere(folder)
    for name in asked:
        home = grids.records_folder(name) if Path(folder) == RECORDS else Path(folder)
        runs = groupby(grids.missing(name, home), key=lambda cell: cell.seed)
        for place, (_, cells) in enumerate(runs):
            stage, made = f"{name}_{place}".replace("-", "_"), list[Job]()
            for cell in cells:
                before = [*_priors(cell, own, name, stage), *_experts(cell, name, stage)]
                found |= {job.name: job for job in before if job.name not in found}
                made.append(
                    Job(
                        cell.name,
                        "cell",
                        stage,
                        command_of(cell) + own,
                        tuple(job.name for job in before),
                        home / f"{cell.name}.json",
                        name,
                        cell,
                    )
                )
            found |= {job.name: job for job in made}
    return Sweep(asked, tuple(found.values()), sum(len(GRIDS[name]) for name in asked))


def _priors(cell: Cell, own: str, grid: str, stage: str) -> list[Job]:
    """The priors that a cell needs and that are not there, what they start from first.

    Args:
        cell: of a grid.
        own: option for another folder of records.
        grid: of the cell.
        stage: of the cell.
    """
    if not SPACES[cell.system.space].needs_prior:
        return []
    jobs: list[Job] = []
    for prior in grids.with_its_start(cell.config().prior):
        if grids.has_prior(prior):
            continue
        folder = grids.prior_folder(prior)
        start = FINE_TUNE_PRESETS[prior].prior if prior in FINE_TUNE_PRESETS else ""
        needs = tuple(job.name for job in jobs if job.name == grids.prior_folder(start).name)
        command = grids.prior_command(prior) + own
        output = folder / "model" / "model_index.json"
        jobs.append(Job(folder.name, "prior", f"{stage}_priors", command, needs, output, grid))
    return jobs


def _experts(cell: Cell, grid: str, stage: str) -> list[Job]:
    """The experts that a cell needs; cells that can share them get the same.

    Args:
        cell: of a grid.
        grid: of the cell.
        stage: of the cell.
    """
    if cell.algorithm != "MTT":
        return []
    config: DistilConfig = cell.config()
    name = f"experts-{cell.dataset}-{cell.preset}-{config.size}px-seed{cell.seed}"
    command = (
        f"python -m ld3m_min experts {cell.preset} --dataset {cell.dataset} --size {config.size} "
        f"--seed {cell.seed}{ON_GPU if ON_GPU in command_of(cell) else ''}"
    )
    mark = MARKS / f"{name}.done"
    return [Job(name, "experts", f"{stage}_experts", command, (), mark, grid, cell)]
