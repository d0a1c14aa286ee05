"""What each difference between the paper and its public code does, one at a time.

All start from the public code's variant of LD3M as this book makes it, and change one thing. The
effect on accuracy is read from records, paired by the seed of the distillation. The effect on the
gradient is measured here, in the first iteration: same codes, same real images, same network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.experiments.cells import Cell
from ld3m_min.experiments.places import RUNS
from ld3m_min.experiments.records import add_entry, read_record
from ld3m_min.experts.train import experts_below
from ld3m_min.io.digests import digest
from ld3m_min.io.environment import environment
from ld3m_min.io.progress import bar
from ld3m_min.run import Progress, distil

SEEDS = 5  # distillations of each


@dataclass(frozen=True)
class Difference:
    """One thing that the paper and the public code do differently, or neither as this book.

    Attributes:
        text: what changes.
        changed: the cell with the change, with seed 0.
        base: the cell without it.
    """

    text: str
    changed: Cell
    base: Cell


def _cell(space: str, algorithm: str = "DM", variant: str = "") -> Cell:
    """A cell of the evidence, with seed 0.

    Args:
        space: the system.
        algorithm: that distils.
        variant: a name of `cells.VARIANTS`.
    """
    return Cell("digits", "evidence", space, algorithm, 1, variant=variant)


_DM, _MTT = _cell("ld3m-code"), _cell("ld3m-code", "MTT")
# what changes in the public code's variant of LD3M, by the name of the cell's variant
_ONE_THING = {
    "into-mean": "the residual goes into the mean instead of the clean latent",
    "noised-source": "$z_T$ is the residual's source instead of the latent code",
    "ancestral": "fresh noise at every step instead of none",
    "redrawn-noise": "forward noise drawn at every call instead of once",
    "two-normalisations": "synthetic images have a normalisation of their own",
    "random-prior": "a denoiser of zero output instead of a trained one",
}
DIFFERENCES = (
    Difference("equation (6) instead of the public code", _cell("ld3m-paper"), _DM),
    *(
        Difference(text, _cell("ld3m-code", variant=variant), _DM)
        for variant, text in _ONE_THING.items()
    ),
    Difference(
        "MTT's approximate gradient instead of the exact one",
        _cell("ld3m-code", "MTT", "approximate-mtt"),
        _MTT,
    ),
)


@dataclass(frozen=True)
class Change:
    """A gradient beside another.

    Attributes:
        cosine: of the angle between them; NaN where one is zero.
        length: of the one, as a multiple of the other's.
    """

    cosine: float
    length: float


def changed(gradient: Tensor, base: Tensor) -> Change:
    """How a gradient differs from another, over all images of the set.

    Args:
        gradient: with the difference.
        base: without.

    Raises:
        InputError: their shapes differ, or the base is zero.
    """
    if gradient.shape != base.shape:
        raise InputError(
            f"gradients of shapes {tuple(gradient.shape)} and {tuple(base.shape)} can't be compared"
        )
    a, b = gradient.double().flatten(), base.double().flatten()
    if not b.any():
        raise InputError("a gradient can't be compared with one that is zero")
    cosine = cosine_similarity(a, b, dim=0).item() if a.any() else float("nan")
    return Change(cosine, (a.norm() / b.norm()).item())


def first_gradient(
    cell: Cell, data: DataSplits, *, runs: str | Path = RUNS, progress: bool = True
) -> dict[str, Tensor]:
    """The gradients of a cell's codes in its first iteration, by name (equations 7 and 8).

    Args:
        cell: of a system that is learned; its seed is used.
        data: its training split is used.
        runs: where experts are kept.
        progress: show bars of what is trained.
    """
    config, found = cell.config(), dict[str, Tensor]()

    def keep(one: Progress) -> None:
        for name, p in one.space.parameters.items():
            assert p.grad is not None, "the iteration has just been"
            found[name] = p.grad.clone()

    distil(
        replace(config, iterations=1),
        data=data,
        prior=cell.load_prior(),
        experts=experts_below(runs, config, data, progress=progress),
        callback=keep,
        progress=False,
    )
    return found


def measure(
    file: str | Path,
    data: DataSplits,
    *,
    differences: Sequence[Difference] = DIFFERENCES,
    seeds: Iterable[int] = range(SEEDS),
    runs: str | Path = RUNS,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure the effects on the gradient that a record lacks; it is written after each of them.

    Args:
        file: the record; it need not exist.
        data: its training split is used.
        differences: that are measured.
        seeds: of the distillations.
        runs: where experts are kept.
        progress: show a bar.

    Returns:
        The record. Its "points" have the cell's `name` and `key`, and the `cosine` and `length` of
        each learned code.

    Raises:
        InputError: the record is of other settings or images.
    """
    head: dict[str, Any] = {"schema": 1, "what": "first gradients, changed against base"}
    head |= {"environment": environment("cpu")}
    points: list[dict[str, Any]] = []
    if Path(file).exists():
        points = read_record(file, "points", "name", "key")["points"]
    known = {p["name"]: p["key"] for p in points}
    bases: dict[Cell, dict[str, Tensor]] = {}
    cells = [
        (replace(d.changed, seed=seed), replace(d.base, seed=seed))
        for d in differences
        for seed in seeds
    ]
    for cell, base in bar(cells, desc="first gradients", show=progress):
        key = digest([asdict(cell.config()), asdict(base.config()), data.train.digest])
        if known.get(cell.name, key) != key:
            raise InputError(
                f"{file} holds {cell.name} with other settings or images; move it away, and "
                "measure again"
            )
        if cell.name in known:
            continue
        if base not in bases:  # several differences start from it
            bases[base] = first_gradient(base, data, runs=runs, progress=progress)
        first, other = first_gradient(cell, data, runs=runs, progress=progress), bases[base]
        point: dict[str, Any] = {"name": cell.name, "key": key}
        for code in first:
            change = changed(first[code], other[code])
            cosine = None if math.isnan(change.cosine) else change.cosine  # JSON has no NaN
            point[code] = {"cosine": cosine, "length": change.length}
        points = add_entry(file, head, "points", point)
    return head | {"points": points}


def gradient_means(file: str | Path) -> dict[tuple[str, str], Change]:
    """The effects of a record on the gradient, as means over seeds.

    Args:
        file: of :func:`measure`; where there is none, nothing is measured.

    Returns:
        By the name of the changed cell with seed 0, and the code: the mean cosine, and the
        geometric mean of the lengths.
    """
    if not Path(file).exists():
        return {}
    frame = pd.DataFrame(
        (re.sub(r"-seed\d+$", "", point["name"]), code, *point[code].values())
        for point in read_record(file, "points", "name", "Z", "c")["points"]
        for code in ("Z", "c")
    )
    with np.errstate(divide="ignore"):  # a length of 0 has the mean 0
        frame[3] = np.log(frame[3])
    means = frame.groupby([0, 1]).mean()
    return {key: Change(cosine, math.exp(length)) for key, cosine, length in means.itertuples()}
