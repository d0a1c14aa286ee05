"""The grids of section 4.2: which cells there are, what each distils, and the command that makes its record.

"digits" is the test of the claim on a laptop. "imagenette" is the paper's column of table 1; the grids after it vary one
thing each: time steps (figures 4 and 5), the ablation (table 4), random priors (table 3), ten images per class, 256 px.
Each of them has a twin "...-smoke" of two iterations, which shows on a CPU that its commands run, and measures nothing.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from .config import preset
from .errors import InputError
from .prior import SHIPPED, LatentDiffusionPrior
from .sampler import NO_RESIDUAL, PAPER_RESIDUAL
from .storage import seeded
from .values import checked

PROJECT = Path(__file__).resolve().parents[1]  # the checkout; an installed package has none
HOME = PROJECT if (PROJECT / "book" / "_data").is_dir() else Path()
RECORDS, RUNS = HOME / "book" / "_data" / "records", Path("runs")
SPACE_NAMES = {"random": "random real images", "pixel": "pixels", "autoencoder": "autoencoder latents", "ld3m": "LD3M (Z, c)"}
VARIANTS = {  # name -> what differs from the preset: a function of the configuration
    "": lambda c: c,
    **{f"T{n}": lambda c, n=n: replace(c, sampler=replace(c.sampler, steps=n)) for n in (5, 20, 40, 80)},
    "no-residual": lambda c: replace(c, sampler=replace(c.sampler, residual=NO_RESIDUAL)),
    "c-only": lambda c: replace(c, learn_z=False, sampler=replace(c.sampler, residual=NO_RESIDUAL)),
    "equation-6": lambda c: replace(c, sampler=replace(c.sampler, residual=PAPER_RESIDUAL)),
    "random-prior": lambda c: c,  # its denoiser is drawn anew, see `load_prior`
    "256px": lambda c: c,  # its size is asked of the preset, which knows what else changes there
}


@dataclass(frozen=True)
class Cell:
    """One entry of a grid.

    Attributes:
        dataset, preset, algorithm, ipc, seed: as in the configuration.
        space: as there, or "random", the baseline of random real images, for which `algorithm` is "none".
        variant: a name of `VARIANTS`; "" for none.
    """

    dataset: str
    preset: str
    space: str
    algorithm: str
    ipc: int
    seed: int = 0
    variant: str = ""

    def __post_init__(self):
        checked(self, ipc=">= 1", seed=">= 0")

    @property
    def name(self):
        """File name of its record and folder of its run."""
        ends = [self.variant] * bool(self.variant) + [f"seed{self.seed}"] * bool(self.seed)
        return "-".join((self.dataset, self.preset, self.space, self.algorithm, f"ipc{self.ipc}", *ends))

    @property
    def command(self):
        """The command that makes this cell's record; with a time limit, to be repeated until its exit code is 0."""
        where = next((g for g, cells in GRIDS.items() if self in cells), "digits")
        named = "" if where == "digits" else f"--grid {where} "
        gpu = " --device cuda --max-seconds 540" if self.preset == "nette" else ""
        return f"python -m ld3m_min table {named}--run --only {self.name}{gpu}"

    def config(self):
        """What is distilled in this cell: :class:`~ld3m_min.config.DistilConfig`."""
        given = {"dataset": self.dataset, "ipc": self.ipc, "seed": self.seed}
        if self.variant == "256px":
            given["size"] = 256
        if self.space == "random":
            return preset(self.preset, space="pixel", iterations=0, **given)
        return VARIANTS[self.variant](preset(self.preset, algorithm=self.algorithm, space=self.space, **given))

    def load_prior(self, device="cpu"):
        """The prior of this cell's configuration; None where the space needs none. A random one is drawn from its seed."""
        if self.space in ("random", "pixel"):
            return None
        found = LatentDiffusionPrior.from_pretrained(prior_path(self.config().prior), device=device)
        if self.variant == "random-prior":
            found = found.to("cpu").randomised("zero-output", seeded(self.seed, "random prior")).to(device)
        return found


def _grid(dataset, preset, ipc1, ipc10):
    cells = [Cell(dataset, preset, "random", "none", 1)]
    cells += [Cell(dataset, preset, s, a, 1) for a in ipc1 for s in ("pixel", "autoencoder", "ld3m")]
    if ipc10:
        cells.append(Cell(dataset, preset, "random", "none", 10))
    return cells + [Cell(dataset, preset, s, a, 10) for a in ipc10 for s in ("pixel", "autoencoder", "ld3m")]


def _nette(preset, end=""):
    """The grids of ImageNette, in the order in which they are to be made."""
    def ld3m(algorithm, variant="", ipc=1):
        return Cell("imagenette", preset, "ld3m", algorithm, ipc, variant=variant)

    return {
        f"imagenette{end}": _grid("imagenette", preset, ("DM", "DC", "MTT"), ()),
        f"imagenette-steps{end}": [ld3m("MTT", f"T{n}") for n in (5, 20, 40, 80)],
        f"imagenette-ablation{end}": [ld3m("MTT", v) for v in ("no-residual", "c-only", "equation-6")],
        f"imagenette-priors{end}": [ld3m(a, "random-prior") for a in ("DM", "MTT")],
        f"imagenette-ipc10{end}": [Cell("imagenette", preset, "random", "none", 10), *(ld3m(a, ipc=10) for a in ("DM", "DC"))],
        f"imagenette-256{end}": [Cell("imagenette", preset, "random", "none", 1, variant="256px"), ld3m("DC", "256px")],
    }


GRIDS = {
    "digits": _grid("digits", "cpu", ("DC", "DM", "MTT"), ("DM",)),
    **_nette("nette"),
    "smoke": [*_grid("digits", "smoke", ("DC", "DM", "MTT"), ()), Cell("digits", "smoke", "random", "none", 10)],
    **_nette("nette-smoke", "-smoke"),
}
MEASURED = tuple(g for g in GRIDS if "smoke" not in g)  # what `table --missing` lists, in this order


def grid(name="digits"):
    """The cells of a named grid; "digits" is the test of the claim. ValueError lists the names."""
    if name not in GRIDS:
        raise InputError(f"unknown grid {name!r}; choose {', '.join(GRIDS)}")
    return GRIDS[name]


def missing(name="digits", folder=RECORDS):
    """The cells of a grid that have no record yet, in the order they are to be made."""
    return [cell for cell in grid(name) if not (Path(folder) / f"{cell.name}.json").exists()]


def prior_folder(name, seed=0):
    """Where `train-prior` works on a preset, below the working directory."""
    return RUNS / (f"prior-{name}" + (f"-seed{seed}" if seed else ""))


def prior_path(name):
    """What `LatentDiffusionPrior.from_pretrained` is to be given for a configuration's prior: a name or a folder.

    A prior that is shipped comes first, then one that `train-prior` made here; any other name stays as it is.
    """
    own = prior_folder(name) / "model" if "/" not in str(name) else None
    if (SHIPPED / str(name) / "model_index.json").exists() or own is None or not (own / "model_index.json").exists():
        return name
    return own


def commands(names=MEASURED, folder=RECORDS):
    """Lines "name:  command" of everything that is missing, in order; a prior comes before the first grid that needs it."""
    from .train_prior import PRIOR_PRESETS

    lines, asked = [], set()
    for name, cells in ((n, missing(n, folder)) for n in names):
        needed = [c.config().prior for c in cells if c.space in ("autoencoder", "ld3m")]
        for prior in dict.fromkeys(p for p in needed if p in PRIOR_PRESETS and p not in asked):
            asked.add(prior)
            if not _is_there(prior_path(prior)):
                limit = " --device cuda --max-seconds 540" if PRIOR_PRESETS[prior].gpu else ""
                lines.append(f"prior {prior}:  python -m ld3m_min train-prior --preset {prior}{limit}")
        lines += [f"{c.name}:  {c.command}" for c in cells]
        if name == "imagenette":
            lines += _benchmarks(folder)
    return lines


def _benchmarks(folder):
    """Speed and memory that are not measured yet; the benchmarks lie beside the package in a clone, not in an installed one."""
    if find_spec("benchmarks") is None:
        return []
    from benchmarks.__main__ import missing as unmeasured

    return [f"bench-{name}:  {command}" for name, command in unmeasured(folder)]


def _is_there(path):
    """Whether a prior given by shipped name or by folder exists."""
    return ((SHIPPED / path if isinstance(path, str) else path) / "model_index.json").exists()
