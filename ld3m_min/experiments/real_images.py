"""What real images are worth: accuracy after training on n of each class, and on all of them.

A distilled set is judged between two ends: as many real images drawn at random, and the whole
training split, the ceiling. In between the curve says how many real images a set is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from ld3m_min.config import ARCHITECTURES, EvalConfig
from ld3m_min.coresets import select
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.evaluate.cross_architecture import EvalResult, Trainable, evaluate
from ld3m_min.experiments.places import RECORDS, RUNS
from ld3m_min.experiments.records import add_entry, read_record
from ld3m_min.experiments.resampling import checked_seeds
from ld3m_min.io.digests import digest
from ld3m_min.io.environment import environment
from ld3m_min.io.progress import bar
from ld3m_min.io.stop import stoppable
from ld3m_min.io.values import within
from ld3m_min.presets import eval_preset, for_larger_sets

COUNTS = (1, 2, 3, 5, 10, 20, 50, 100, 0)  # real images of each class; 0 is all of them


@dataclass(frozen=True)
class WholeSplit:
    """The training split as a set, for :func:`~ld3m_min.evaluate.cross_architecture.evaluate`.

    Attributes:
        data: whose training split is meant.
    """

    data: DataSplits

    @property
    def labels(self) -> Int[Tensor, " B"]:
        """Class numbers."""
        return self.data.train.labels

    def images(self) -> Float[Tensor, "B 3 H W"]:
        """In [0, 1]."""
        return self.data.train.float()


def measure(
    name: str,
    data: DataSplits,
    *,
    counts: Sequence[int] = COUNTS,
    seeds: int = 3,
    records: str | Path = RECORDS,
    runs: str | Path = RUNS,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """Train the tables' networks on random real images, and on all of them.

    The record `real-<data>-<preset>.json` grows set by set, and a set keeps its trainings below
    `runs`: stopped, the same call goes on. Each seed draws other images and gets one training of
    each network; of all images there is one set, with a training for each seed.

    Args:
        name: of the preset, whose evaluation is meant.
        data: its training split is trained on, its test split read.
        counts: real images of each class; 0 for all.
        seeds: how many sets of each count.
        records: where the record is.
        runs: where trainings are kept.
        device: where the work is done.
        progress: show a bar.

    Returns:
        The record.

    Raises:
        InputError: no seed; a count below 0; the record is of other images or another evaluation.
        Interrupted: it was asked to stop; what was measured is in the record.
    """
    file = Path(records) / f"real-{data.name}-{name}.json"
    base, data = eval_preset(name), data.to(device)
    content = {"train": data.train.digest, "test": data.test.digest}

    def protocol_of(n: int) -> EvalConfig:
        images = n * len(data.classes) or len(data.train)
        return replace(for_larger_sets(base, images / len(data.classes)), repeats=1)

    def key_of(n: int, seed: int) -> str:
        return digest([n, seed, asdict(protocol_of(n)), content])

    within(seeds, ">= 1", "seeds of real images")
    within(tuple(counts), ">= 0", "counts of real images")
    points: list[dict[str, Any]] = []
    if file.exists():
        points = read_record(file, "points", "key", "per_class", "seed", "accuracies")["points"]
    if any(p["key"] != key_of(p["per_class"], p["seed"]) for p in points):
        raise InputError(
            f"{file} holds points of other images or of another evaluation; move it away, and "
            "measure again"
        )
    record: dict[str, Any] = {"schema": 1, "real": name, "dataset": data.name}
    record |= {"classes": list(data.classes), "evaluation": asdict(base)}
    record |= {"environment": environment(device)}
    wanted = [(n, seed) for n in counts for seed in range(seeds)]
    for n, seed in bar(wanted, desc="real images", show=progress):
        protocol, key = protocol_of(n), key_of(n, seed)
        if key in [p["key"] for p in points]:
            continue
        with stoppable() as stop:
            if stop.reason:
                stop.leave(f"{len(points)} sets are measured")
        chosen: Trainable = WholeSplit(data) if n == 0 else select(data, n, "random", seed=seed)
        found = evaluate(
            chosen,
            data,
            ARCHITECTURES,
            config=protocol,
            seed=seed,
            out=Path(runs) / file.stem / key[:16],
            progress=progress,
        )
        accuracies = {a: v[0] if math.isfinite(v[0]) else None for a, v in found.accuracies.items()}
        point = {"key": key, "per_class": n, "images": len(chosen.labels), "seed": seed}
        point |= {"epochs": protocol.epochs, "accuracies": accuracies}
        points = add_entry(file, record, "points", point)
    return record | {"points": points}


def worth(record: Mapping[str, Any], accuracy: float) -> float:
    """How many random real images of each class give an accuracy, by the curve of a record.

    Between two counts the accuracy is taken to rise with the logarithm of the count.

    Args:
        record: of :func:`measure`.
        accuracy: mean of the unseen networks, a fraction.

    Returns:
        A number of images, not a whole one; NaN below the curve, infinity above it.

    Raises:
        InputError: the record has fewer than two counts.
    """
    counts, values = _measured(record)
    n = _read_off(counts, [v.mean() for v in values], accuracy)
    return n or math.nan


def accuracy_at(record: Mapping[str, Any], n: float) -> float:
    """The accuracy that so many random real images of each class give, by the curve of a record.

    Args:
        record: of :func:`measure`.
        n: images of each class, between the least and the largest count; not a whole number where
            it is read off bytes.

    Raises:
        InputError: the record has fewer than two counts, or n lies outside of them.
    """
    counts, values = _measured(record)
    within(n, f"in [{counts[0]}, {counts[-1]}]", "images of each class")
    return float(np.interp(math.log(n), np.log(counts), [v.mean() for v in values]))


def worth_interval(
    record: Mapping[str, Any],
    accuracies: Float[NDArray[np.float64], "S R"],
    rng: Generator,
    *,
    level: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Interval of :func:`worth`, with the luck of the distillations and that of the real images.

    Each mean, of the system over its seeds and of each count over its draws, is drawn from what n
    values say of a mean (Student's t around it, with n - 1 degrees), and the worth read off anew.
    So few draws make it wide. A count with a single draw is taken as it is.

    Args:
        record: of :func:`measure`.
        accuracies: of a system, seeds x trainings, means of the unseen networks.
        rng: made from a seed.
        level: of confidence.
        resamples: how many.

    Returns:
        Its ends; 0 stands for below the curve, infinity for above it.

    Raises:
        InputError: the record has fewer than two counts; there is one seed, which says nothing of
            how others would do.
    """
    counts, values = _measured(record)
    seeds = accuracies.mean(1)
    checked_seeds(len(seeds), level)
    points = np.stack([_possible_means(v, rng, resamples) for v in values], axis=1)
    reached = _possible_means(seeds, rng, resamples)
    found = [_read_off(counts, *both) for both in zip(points, reached, strict=True)]
    tail = (1 - level) / 2
    # the nearest of them, since infinity cannot be averaged
    low, high = np.quantile(found, (tail, 1 - tail), method="nearest")
    return float(low), float(high)


def _possible_means(values: NDArray[np.float64], rng: Generator, size: int) -> NDArray[np.float64]:
    """Draws of the mean that values have been measured of, by Student's t; of one value, itself."""
    n, middle = len(values), float(values.mean())
    if n < 2:
        return np.full(size, middle)
    drawn: NDArray[np.float64] = rng.standard_t(n - 1, size)
    return middle + drawn * float(values.std(ddof=1)) / math.sqrt(n)


def _measured(record: Mapping[str, Any]) -> tuple[list[int], list[NDArray[np.float64]]]:
    """The counts of a record, all images left out, and the accuracies of each one's draws."""
    known = curve(record)
    counts = sorted(n for n in known if n > 0)
    if len(counts) < 2:
        raise InputError("the record of real images has fewer than two counts; measure more")
    return counts, [known[n].values() for n in counts]


def _read_off(
    counts: Sequence[int], means: Sequence[float] | NDArray[np.float64], accuracy: float
) -> float:
    """The least count at which a curve reaches an accuracy; 0 below it, infinity above it."""
    risen = np.maximum.accumulate(means)  # it can only rise
    i = int(np.searchsorted(risen, accuracy))  # the first point that reaches it
    if i == len(counts):
        return math.inf
    if accuracy == risen[i]:
        return float(counts[i])
    if i == 0:
        return 0.0
    between = slice(i - 1, i + 1)
    return float(np.exp(np.interp(accuracy, risen[between], np.log(counts[between]))))


def curve(record: Mapping[str, Any]) -> dict[int, EvalResult]:
    """The accuracies of a record, by real images per class; 0 is all of them.

    Args:
        record: of :func:`measure`. A training that diverged counts as chance.
    """
    found: dict[int, EvalResult] = {}
    chance = 1 / len(record["classes"])
    for n in dict.fromkeys(p["per_class"] for p in record["points"]):
        points = [p for p in record["points"] if p["per_class"] == n]
        values = {
            a: tuple(chance if p["accuracies"][a] is None else p["accuracies"][a] for p in points)
            for a in points[0]["accuracies"]
        }
        found[n] = EvalResult(values, "test")
    return found


def ceiling(record: Mapping[str, Any]) -> EvalResult:
    """Accuracies after training on all real images.

    Args:
        record: of :func:`measure`.

    Raises:
        InputError: it was not measured.
    """
    known = curve(record)
    if 0 not in known:
        raise InputError("training on all real images is not in the record; measure count 0")
    return known[0]
