"""The grids of section 4.2: their cells, which are missing, and the commands of their records.

"digits" is the first test of the claim on a laptop; "evidence" has every system on digits, in
several distillations, and the grids after it vary one thing each.
"photos" is the paper's column of table 1 at 64 px, made on two CPU cores; the grids after it vary
one thing each: what is learned (table 4), time steps (figures 4 and 5), the training of the prior,
ten images per class. "imagenette" is the paper's column at 128 px, for a GPU, followed by the same
variations, random priors (table 3), and 256 px. These have a twin "...-smoke" of two
iterations, which shows on a CPU that its commands run, and measures nothing; "smoke" is that for
the digits.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ld3m_min.errors import InputError
from ld3m_min.experiments.cells import (
    ABLATION,
    DIFFERENT,
    LONGER,
    PRIOR_STEPS,
    RAISED_Z,
    RANDOM_PRIORS,
    SEEDLESS,
    SLOWER,
    SOFT_LABELS,
    Cell,
)
from ld3m_min.experiments.places import (
    PROJECT,
    RECORDS,
    RUNS,
    has_prior,
    prior_folder,
    prior_path,
)
from ld3m_min.experiments.questions import ASKED, ELSEWHERE, SEEDS
from ld3m_min.io.files import read_json
from ld3m_min.prior.presets import FINE_TUNE_PRESETS, PRIOR_PRESETS
from ld3m_min.prior.style_config import STYLE_PRESETS
from ld3m_min.spaces.build import SPACES
from ld3m_min.systems import LEARNED, SYSTEMS

# with what a cell is, and where things lie, for those who look for them here
__all__ = [
    "GRIDS",
    "MEASURED",
    "ON_GPU",
    "RECORDS",
    "RUNS",
    "Cell",
    "command_of",
    "commands",
    "grid",
    "has_prior",
    "missing",
    "prior_command",
    "prior_folder",
    "prior_path",
    "records_folder",
    "with_its_start",
]

# of the priors at 64 px, so that only the denoiser is left to train
AUTOENCODER = "book/_data/priors/imagenette-64-autoencoder"
# of the speed page, by name; they lie beside the package in a checkout
BENCHMARKS = PROJECT / "benchmarks" / "commands.json"
ON_GPU = " --device cuda --max-seconds 540"  # with a time limit, to be repeated until it is done


def _grid(dataset: str, preset: str, ipc1: Iterable[str], ipc10: Iterable[str] = ()) -> list[Cell]:
    """Algorithms in three spaces, with the random baseline of each number of images.

    Args:
        dataset: of the cells.
        preset: of the cells.
        ipc1: algorithms with one image per class.
        ipc10: algorithms with ten.
    """
    cells = []
    for ipc, algorithms in ((1, list(ipc1)), (10, list(ipc10))):
        if ipc == 1 or algorithms:
            cells.append(Cell(dataset, preset, "random", "none", ipc))
        for algorithm in algorithms:
            for space in ("pixel", "autoencoder", "ld3m-code"):
                cells.append(Cell(dataset, preset, space, algorithm, ipc))
    return cells


def _evidence() -> dict[str, list[Cell]]:
    """The grids of the digits, in the order in which they are to be made.

    Every system with one image per class, the primary comparisons first; then what is learned
    (table 4), time steps (figures 4 and 5), priors (table 3), the differences between paper and
    public code, more iterations and another rate, a teacher's labels, and ten images per class.
    Eight seeds where a question was asked beforehand, else six; systems that know no seed have one
    cell.
    """

    def cells(
        space: str, algorithm: str = "none", ipc: int = 1, variant: str = "", seeds: int = 0
    ) -> list[Cell]:
        first = Cell("digits", "evidence", space, algorithm, ipc, variant=variant)
        seeds = seeds or (SEEDS if first in ASKED else ELSEWHERE)
        return [replace(first, seed=seed) for seed in range(1 if space in SEEDLESS else seeds)]

    def by_seed(*parts: list[Cell]) -> list[Cell]:
        return sorted((cell for part in parts for cell in part), key=lambda cell: cell.seed)

    both = ("ld3m-paper", "ld3m-code")
    primary = ("autoencoder", *both)
    learned = [(name, algorithm) for algorithm in ("DM", "DC", "MTT") for name in LEARNED]
    given = [name for name, system in SYSTEMS.items() if system.how != "learned"]
    first = by_seed(*(cells(name, "DM") for name in primary))
    rest = [cells(name) for name in given]
    rest += [cells(*pair) for pair in learned if pair not in [(name, "DM") for name in primary]]
    priors = [*RANDOM_PRIORS, "other-prior", "minimax-prior", "control-prior"]
    ten = by_seed(
        cells("random", ipc=10),
        *(cells(name, "DM", 10) for name in ("pixel", *primary)),
    )
    return {
        "evidence": first + by_seed(*rest),
        "evidence-ablation": by_seed(
            *(cells(name, "DM", variant=variant) for name in both for variant in ABLATION),
            cells("ld3m-paper", "DM", variant=RAISED_Z),
        ),
        "evidence-steps": by_seed(
            *(cells("ld3m-paper", "DM", variant=f"T{n}") for n in (5, 20, 40, 80))
        ),
        "evidence-priors": by_seed(
            *(cells(name, "DM", variant=v) for name in both for v in priors)
        ),
        "evidence-differences": by_seed(
            *(
                cells("ld3m-code", "MTT" if "mtt" in v else "DM", variant=v, seeds=5)
                for v in DIFFERENT
            )
        ),
        "evidence-longer": by_seed(
            *(cells(name, "DM", variant=LONGER) for name in ("pixel", *primary)),
            # the next rate of its search did nearly as well
            cells("ld3m-paper", "DM", variant=SLOWER),
        ),
        "evidence-labels": by_seed(
            cells("random", variant=SOFT_LABELS),
            *(cells(name, "DM", variant=SOFT_LABELS) for name in ("pixel", *primary)),
        ),
        "evidence-ipc10": ten,
    }


def _photos(preset: str, end: str = "") -> dict[str, list[Cell]]:
    """The grids of photographs at 64 px, in the order in which they are to be made.

    Seed by seed, so that a column that is not finished still compares all systems.

    Args:
        preset: of the cells.
        end: of the grids' names.
    """
    seeds = range(3)

    def cells(
        space: str, algorithms: Iterable[str] = ("none",), ipc: int = 1, variant: str = ""
    ) -> list[Cell]:
        return [
            Cell("imagenette", preset, space, algorithm, ipc, seed, variant)
            for algorithm in algorithms
            for seed in ((0,) if space in SEEDLESS else seeds)
        ]

    def by_seed(cells: Iterable[Cell]) -> list[Cell]:
        return sorted(cells, key=lambda cell: cell.seed)

    compared = ("pixel", "autoencoder", "ld3m-paper", "ld3m-code")
    given = ("random", "k-means", "initial", "initial-code", "sampled")
    column = [cell for name in given for cell in cells(name)]
    for algorithm in ("DM", "DC", "MTT"):
        column += [cell for name in compared for cell in cells(name, (algorithm,))]
    priors = [
        cell
        for variant in PRIOR_STEPS
        for name, algorithms in (("sampled", ("none",)), ("ld3m-paper", ("DM",)))
        for cell in cells(name, algorithms, variant=variant)
    ]
    ten = [cell for name in compared for cell in cells(name, ("DM",), 10)]
    return {
        f"photos{end}": by_seed(column),
        f"photos-ablation{end}": by_seed(
            cell for variant in ABLATION for cell in cells("ld3m-paper", ("DM",), variant=variant)
        ),
        f"photos-steps{end}": by_seed(
            cell for n in (5, 20, 40) for cell in cells("ld3m-paper", ("DM",), variant=f"T{n}")
        ),
        f"photos-priors{end}": by_seed(priors),
        f"photos-ipc10{end}": by_seed([*cells("random", ipc=10), *ten]),
    }


def _nette(preset: str, end: str = "") -> dict[str, list[Cell]]:
    """The grids of ImageNette at 128 px, in the order in which they are to be made.

    Args:
        preset: of the cells.
        end: of the grids' names.
    """

    def random(ipc: int = 1, variant: str = "") -> Cell:
        return Cell("imagenette", preset, "random", "none", ipc, variant=variant)

    def ld3m(algorithm: str, variant: str = "", ipc: int = 1) -> Cell:
        return Cell("imagenette", preset, "ld3m-paper", algorithm, ipc, variant=variant)

    column = []
    for cell in _grid("imagenette", preset, ("DM", "DC", "MTT")):
        column += [ld3m(cell.algorithm), cell] if cell.space == "ld3m-code" else [cell]
    return {
        f"imagenette{end}": column,
        f"imagenette-steps{end}": [ld3m("MTT", f"T{n}") for n in (5, 20, 40, 80)],
        f"imagenette-ablation{end}": [ld3m("MTT", v) for v in ("no-residual", "c-only")],
        f"imagenette-priors{end}": [ld3m(a, "random-prior") for a in ("DM", "MTT")],
        f"imagenette-ipc10{end}": [random(10), *(ld3m(a, ipc=10) for a in ("DM", "DC"))],
        f"imagenette-256{end}": [random(variant="256px"), ld3m("DC", "256px")],
    }


GRIDS = {
    "digits": _grid("digits", "cpu", ("DC", "DM", "MTT"), ("DM",)),
    # of other seeds than those of the evidence, to know how much the seeds vary
    "pilot": [
        Cell("digits", "evidence", name, "DM", 1, seed)
        for seed in range(900, 906)
        for name in ("autoencoder", "ld3m-paper", "ld3m-code")
    ],
    **_evidence(),
    **_photos("photos"),
    **_nette("nette"),
    # a cell of every system, and of every algorithm with LD3M
    "smoke": [
        *(
            Cell("digits", "smoke", name, "DM" if system.how == "learned" else "none", 1)
            for name, system in SYSTEMS.items()
        ),
        *(Cell("digits", "smoke", "ld3m-code", algorithm, 1) for algorithm in ("DC", "MTT")),
    ],
    **_photos("photos-smoke", "-smoke"),
    **_nette("nette-smoke", "-smoke"),
}
# what `table --missing` lists, in this order
MEASURED = tuple(g for g in GRIDS if "smoke" not in g and g != "pilot")


def grid(name: str = "digits") -> list[Cell]:
    """The cells of a grid.

    Args:
        name: "digits" is the test of the claim.

    Raises:
        InputError: there is no such grid; lists the names.

    Example:
        >>> from ld3m_min.experiments.grids import grid
        >>> [cell.name for cell in grid("digits")][:2]
        ['digits-cpu-random-none-ipc1', 'digits-cpu-pixel-DC-ipc1']
    """
    if name not in GRIDS:
        raise InputError(f"unknown grid {name!r}; choose {', '.join(GRIDS)}")
    return GRIDS[name]


def missing(name: str = "digits", folder: str | Path = RECORDS) -> list[Cell]:
    """The cells of a grid that have no record yet, in the order they are to be made.

    Args:
        name: of the grid.
        folder: of the records.

    Raises:
        InputError: there is no such grid.

    Example:
        >>> from tempfile import mkdtemp
        >>> from ld3m_min.experiments.grids import grid, missing
        >>> len(grid("digits")), len(missing("digits", mkdtemp()))
        (14, 14)
    """
    return [cell for cell in grid(name) if not (Path(folder) / f"{cell.name}.json").exists()]


def records_folder(grid: str | None) -> Path:
    """Where the records of a grid belong: those of the pilot apart, so that no result counts them.

    Args:
        grid: its name; None for one of the others.

    Example:
        >>> from ld3m_min.experiments.grids import records_folder
        >>> [records_folder(grid).name for grid in ("digits", "pilot", None)]
        ['records', 'pilot', 'records']
    """
    return RECORDS / "pilot" if grid == "pilot" else RECORDS


def elsewhere(folder: str | Path, usual: Path = RECORDS) -> str:
    """The option of a command for records that belong in another folder than usual; "" there.

    Args:
        folder: of the records.
        usual: where they are by default.
    """
    return "" if Path(folder) == usual else f" --records {shlex.quote(os.fspath(folder))}"


def command_of(cell: Cell) -> str:
    """The command that makes a cell's record.

    With a time limit it is to be repeated until its exit code is 0.

    Args:
        cell: of any grid.

    Example:
        >>> from ld3m_min.experiments.grids import Cell, command_of
        >>> command_of(Cell("digits", "cpu", "pixel", "DM", ipc=1))
        'python -m ld3m_min table --run --only digits-cpu-pixel-DM-ipc1'
    """
    where = next((g for g, cells in GRIDS.items() if cell in cells), "digits")
    named = "" if where == "digits" else f"--grid {where} "
    gpu = ON_GPU if cell.preset == "nette" else ""
    return f"python -m ld3m_min table {named}--run --only {cell.name}{gpu}"


def commands(names: Iterable[str] = MEASURED, folder: str | Path = RECORDS) -> list[str]:
    """Lines "name:  command" of everything that is missing, in the order of their making.

    A prior comes before the first grid that needs it, the benchmarks after the paper's column.

    Args:
        names: of grids.
        folder: of the records.

    Raises:
        InputError: there is no such grid.

    Example:
        >>> from tempfile import mkdtemp
        >>> from ld3m_min.experiments.grids import commands
        >>> lines = commands(["digits"], mkdtemp())
        >>> [line.partition(":")[0] for line in lines[:2]]
        ['digits-cpu-random-none-ipc1', 'digits-cpu-pixel-DC-ipc1']
    """
    lines: list[str] = []
    asked: set[str] = set()
    for name, cells in ((n, missing(n, folder)) for n in names):
        needed = [c.config().prior for c in cells if SPACES[c.system.space].needs_prior]
        own = elsewhere(folder, records_folder(name))
        for prior in (p for named in dict.fromkeys(needed) for p in with_its_start(named)):
            if prior not in asked and not has_prior(prior):
                lines.append(f"prior {prior}:  {prior_command(prior)}{own}")
            asked.add(prior)
        lines += [f"{c.name}:  {command_of(c)}{own}" for c in cells]
        if name == "imagenette":
            lines += _benchmarks(Path(folder))
    return lines


def with_its_start(prior: str) -> list[str]:
    """Those of a prior and of what it is fine-tuned from that a preset makes, in that order.

    Args:
        prior: name in a configuration.

    Example:
        >>> from ld3m_min.experiments.grids import with_its_start
        >>> with_its_start("minimax-digits"), with_its_start("org/elsewhere")
        (['digits', 'minimax-digits'], [])
    """
    tuned = FINE_TUNE_PRESETS.get(prior)
    names = [prior] if tuned is None else [tuned.prior, prior]
    made_here = PRIOR_PRESETS.keys() | FINE_TUNE_PRESETS.keys() | STYLE_PRESETS.keys()
    return [name for name in names if name in made_here]


def prior_command(prior: str) -> str:
    """The command that makes a prior.

    Args:
        prior: name of a preset.

    Example:
        >>> from ld3m_min.experiments.grids import prior_command
        >>> prior_command("style-digits")
        'python -m ld3m_min train-prior --preset style-digits'
        >>> prior_command("minimax-digits")
        'python -m ld3m_min fine-tune minimax-digits'
    """
    if prior in FINE_TUNE_PRESETS:
        return f"python -m ld3m_min fine-tune {prior}"
    limit = ON_GPU if prior in PRIOR_PRESETS and PRIOR_PRESETS[prior].gpu else ""
    start = f" --start {AUTOENCODER}" if prior.startswith("imagenette-64") else ""
    return f"python -m ld3m_min train-prior --preset {prior}{start}{limit}"


def _benchmarks(folder: Path) -> list[str]:
    """Lines of the measurements of speed and memory that have no record in a folder.

    An installed package has no benchmarks, and no lines.
    """
    if not BENCHMARKS.is_file():
        return []
    known = read_json(BENCHMARKS).items()
    return [
        f"bench-{name}:  {command}"
        for name, command in known
        if not (folder / f"bench-{name}.json").exists()
    ]
