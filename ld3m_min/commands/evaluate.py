"""`python -m ld3m_min evaluate`: see :func:`ld3m_min.evaluate.cross_architecture.evaluate`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import tyro

from ld3m_min.commands.command import Call, Command
from ld3m_min.commands.options import LongOptions, begin
from ld3m_min.config import ARCHITECTURES, EvalConfig
from ld3m_min.data.listing import FOLDER
from ld3m_min.data.loading import load_data
from ld3m_min.data.subsets import SUBSETS
from ld3m_min.errors import InputError
from ld3m_min.evaluate.cross_architecture import evaluate
from ld3m_min.io.paths import resolved
from ld3m_min.io.text import counted
from ld3m_min.presets import PRESETS, eval_preset
from ld3m_min.set_files import check_place
from ld3m_min.synthetic import SyntheticSet

ABOUT = """Train networks on the set in FOLDER and print their accuracy on real images.

With `--out`, each training is kept there: stopped, the evaluation goes on when started again with
the same words.
"""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(LongOptions):
    """Of the run.

    Attributes:
        folder: of the distilled set, as `distil` wrote it.
        dataset: real images to test on: "digits", "letters", a subset of ImageNet such as
            "imagenette", or a folder with one subfolder of images per class. By default the data
            that the set was made of, where it has one of these names.
        architectures: networks to train.
        seed: of every draw.
        data_path: folder of the images of a subset of ImageNet; without it, the variable LD3M_DATA
            of the environment.
        data_split: of a subset of ImageNet into images to learn from and to test on: the "paper"
            takes ImageNet's, "fastai" that of fastai's own release.
        out: folder to keep finished trainings in, outside of the set's own.
        to_card: write the accuracies into the set's recipe and card, for those who are given it.
    """

    folder: tyro.conf.Positional[Path]
    dataset: str | None = None
    architectures: tuple[str, ...] = ARCHITECTURES
    seed: int = 0
    data_path: Path | None = None
    data_split: Literal["paper", "fastai"] | None = None
    out: Path | None = None
    to_card: bool = False


@lru_cache(1)  # its images per class are asked for before the set itself
def _set(folder: Path) -> SyntheticSet:
    return SyntheticSet.load(folder)


def base(name: str, given: Mapping[str, Any], options: EvaluateOptions | None) -> EvalConfig:
    """The preset, for the images per class of the set, and for those whose storage it takes."""
    if options is None:
        return eval_preset(name)
    made = _set(options.folder)
    per_class = len(made.labels) / len(made.classes)
    return eval_preset(name, ipc=made.config.ipc, per_class=per_class)


def _check_places(options: EvaluateOptions) -> None:
    """Refuse, before anything is trained, what would be refused at the end.

    Args:
        options: of the run.

    Raises:
        InputError: trainings would be kept in the set's folder, which a set replaces as a whole, or
            the set can't be written again where it is.
    """
    out, folder = options.out, resolved(options.folder)
    if out is not None and resolved(out).is_relative_to(folder):
        raise InputError(
            f"--out {out} lies in the set's own folder, which holds a set alone; give a place "
            "outside of it"
        )
    if options.to_card:
        check_place(options.folder)


def _dataset(options: EvaluateOptions, synthetic: SyntheticSet) -> str:
    """What the set is tested on.

    Raises:
        InputError: nothing was said, and the set is of a folder that only its maker knows.
    """
    if options.dataset is not None:
        return options.dataset
    name, made_of = synthetic.config.dataset, synthetic.recipe.get("data") or {}
    # a folder of one's own may be called as a data set is
    own = str(made_of.get("source", "")).startswith(FOLDER)
    if name in ("digits", "letters", *SUBSETS) and not own:
        return name
    raise InputError(
        f"the set was made of images called {name!r}, and only their folder says where they are; "
        "give it: --dataset FOLDER"
    )


def run(call: Call[EvaluateOptions, EvalConfig]) -> None:
    """Evaluate, and print a line for each architecture and one for all that did not distil."""
    config, options = call.config, call.options
    begin(options.device, options.max_seconds)
    _check_places(options)
    synthetic = _set(options.folder)
    data = load_data(
        _dataset(options, synthetic),
        path=options.data_path,
        split=options.data_split,
        size=synthetic.images().shape[-1],
    ).to(options.device)
    result = evaluate(
        synthetic,
        data,
        options.architectures,
        config=config,
        seed=options.seed,
        progress=True,
        out=options.out,
    )
    for a in result.accuracies:
        low, high = (100 * x for x in result.confidence_interval(a))
        interval = "no interval" if math.isnan(low) else f"95 % interval {low:.1f} to {high:.1f}"
        print(f"{a:10s} {100 * result.mean(a):5.1f} %   {interval}")
    repeats = counted(len(result.values()), "repeat")
    if result.distiller in result.accuracies and len(result.accuracies) == 1:
        print(f"({config.split} split, {repeats}; no unseen network is among them)")
    else:
        print(f"{'unseen':10s} {100 * result.mean():5.1f} %   ({config.split} split, {repeats})")
    if options.to_card:
        noted = synthetic.with_evaluation(result.accuracies, data=data.name, split=result.split)
        noted.save(options.folder)


COMMAND = Command(
    "evaluate",
    ABOUT,
    EvaluateOptions,
    EvalConfig,
    {name: p.about for name, p in PRESETS.items()},
    "cpu",
    base,
    run,
    positional=True,
)
