"""How a set changes while it is distilled, and what it is worth on the way (figures 9 to 15).

One distillation of a system, as the first cell of a grid has it. Its images are kept after some
iterations, and networks are trained on the set as it was after fewer of them. This shows whether
the accuracy has stopped rising when the distillation ends. It is one distillation, so it has no
interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.config import ARCHITECTURES, DistilConfig, EvalConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.evaluate.cross_architecture import evaluate
from ld3m_min.experiments.records import add_entry, read_record
from ld3m_min.io.environment import environment
from ld3m_min.io.pictures import save_strip
from ld3m_min.prior.loading import AnyPrior
from ld3m_min.run import Progress, distil

FRAMES = (0, 1, 2, 3, 4, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 60)  # iterations that are shown
TRAINED_ON = (0, 4, 15, 30, 60)  # and those after which networks are trained on the set


@dataclass(frozen=True)
class Snapshot:
    """A set as it was after some iterations.

    Attributes:
        pixels: (B, 3, H, W) in [0, 1].
        labels: (B,).
    """

    pixels: Float[Tensor, "B 3 H W"]
    labels: Int[Tensor, " B"]

    def images(self) -> Float[Tensor, "B 3 H W"]:
        """The images."""
        return self.pixels


@dataclass(frozen=True)
class Growth:
    """A distillation, looked at on the way.

    Attributes:
        sets: by their number of iterations; 0 is what the distillation starts from.
        loss: of each iteration.
    """

    sets: dict[int, Snapshot]
    loss: list[float]


def grow(
    config: DistilConfig, data: DataSplits, prior: AnyPrior | None, after: Sequence[int]
) -> Growth:
    """Distil, and keep the set after some iterations.

    Args:
        config: of the distillation.
        data: that is distilled.
        prior: for the spaces that need one.
        after: how many iterations, in rising order.
    """
    start = distil(replace(config, iterations=0), data=data, prior=prior, progress=False)
    images = {0: start.images().detach().clone()} if 0 in after else {}

    def keep(progress: Progress) -> None:
        if (done := progress.iteration + 1) in after:
            with torch.no_grad():
                images[done] = progress.space.images().clone()

    made = distil(config, data=data, prior=prior, callback=keep, progress=False)
    sets = {n: Snapshot(x, made.labels) for n, x in images.items()}
    return Growth(sets, [step["loss"] for step in made.history])


def measure(
    file: str | Path,
    configs: dict[str, DistilConfig],
    data: DataSplits,
    prior: AnyPrior | None,
    protocol: EvalConfig,
    *,
    runs: str | Path,
    frames: Sequence[int] = FRAMES,
    trained_on: Sequence[int] = TRAINED_ON,
) -> list[dict[str, Any]]:
    """Measure the systems that the record lacks; a stopped one loses its distillation alone.

    Beside the record stands a picture for each system: a row for each of `frames`.

    Args:
        file: the record.
        configs: a distillation for each system.
        data: that is distilled, and whose held-out images are classified.
        prior: for the spaces that need one.
        protocol: of the evaluation.
        runs: folder where finished trainings are kept.
        frames: iterations whose images are kept.
        trained_on: iterations after which networks are trained.

    Returns:
        The record's entries: of each system its losses and, by iteration, the accuracies of the
        networks that took no part.
    """
    file = Path(file)
    entries: list[dict[str, Any]] = []
    if file.exists():
        entries = read_record(file, "systems", "system")["systems"]
    for system, config in configs.items():
        if any(e["system"] == system for e in entries):
            continue
        found = grow(config, data, prior, sorted({*frames, *trained_on}))
        unseen = [a for a in ARCHITECTURES if a != config.network.name]
        accuracies = {}
        for n in trained_on:
            out = Path(runs) / f"{system}-{n}"
            result = evaluate(found.sets[n], data, unseen, config=protocol, out=out)
            accuracies[str(n)] = {
                name: [None if math.isnan(x) else x for x in v]
                for name, v in result.accuracies.items()
            }
        shown = torch.cat([found.sets[n].pixels for n in frames])
        save_strip(shown, picture_of(file, system), columns=len(found.sets[frames[0]].labels))
        entry = {"system": system, "algorithm": config.algorithm, "seed": config.seed}
        entry |= {"loss": found.loss, "accuracies": accuracies}
        head = {"schema": 1, "frames": list(frames), "environment": environment("cpu")}
        entries = add_entry(file, head, "systems", entry, key=lambda e: e["system"])
    return entries


def accuracies_after(entry: Mapping[str, Any], chance: float) -> dict[int, float]:
    """Mean accuracy of a system's sets by the number of iterations.

    Args:
        entry: of :func:`measure`.
        chance: what a training that diverged counts as.
    """
    return {
        int(n): float(np.mean([chance if x is None else x for v in found.values() for x in v]))
        for n, found in entry["accuracies"].items()
    }


def picture_of(file: str | Path, system: str) -> Path:
    """Where the picture of a system lies, beside the record.

    Args:
        file: the record.
        system: a name of :mod:`ld3m_min.systems`.
    """
    return Path(file).with_name(f"{Path(file).stem}-{system}.png")
