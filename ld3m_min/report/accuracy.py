"""What a folder's distilled set is worth: networks trained on it, on real images, on all of them.

The three are trained by one protocol and tested on the same images, which were held out before
anything was learned.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ld3m_min.config import EvalConfig
from ld3m_min.coresets import select
from ld3m_min.data.splits import DataSplits
from ld3m_min.evaluate.cross_architecture import EvalResult, Trainable, evaluate
from ld3m_min.experiments.real_images import WholeSplit
from ld3m_min.io.digests import digest
from ld3m_min.planner.machine import SHARE, device_bytes
from ld3m_min.presets import for_larger_sets
from ld3m_min.report.words import duration
from ld3m_min.synthetic import SyntheticSet

# the first one distils by default; the others are small, and take no part in it
NETWORKS: tuple[str, ...] = ("ConvNet", "VGG11", "MLP")
DISTILLED, RANDOM, ALL = "distilled", "random", "all"


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95 % interval, in [0, 1]; NaN where there is none."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Judged:
    """Accuracies of the networks, in [0, 1].

    Attributes:
        results: DISTILLED, RANDOM or ALL -> accuracies; a training that diverged is NaN. Without
            ALL where all images would not have fitted into memory.
        images: of each of these, how many images were trained on.
        tested: images that they were tested on.
        fewest: of them in a class.
        largest: share of the largest class among them: what guessing it gives.
        repeats: trainings of each network on each.
    """

    results: Mapping[str, EvalResult]
    images: Mapping[str, int]
    tested: int
    fewest: int
    largest: float
    repeats: int

    @property
    def trainings(self) -> int:
        """How many networks were trained in all."""
        return sum(len(v) for r in self.results.values() for v in r.accuracies.values())

    @property
    def uncertain(self) -> float:
        """Half of the 95 % interval that the number of test images alone gives an accuracy of 1/2.

        It is Wilson's, in [0, 1].
        """
        z = 1.96
        return z * math.sqrt(self.tested / 4 + z * z / 4) / (self.tested + z * z)

    def unseen(self, which: str) -> Interval:
        """The networks that did not distil, together.

        Args:
            which: DISTILLED, RANDOM or ALL.
        """
        return _interval(self.results[which], None)

    def of(self, which: str, network: str) -> Interval:
        """One network.

        Args:
            which: DISTILLED, RANDOM or ALL.
            network: its architecture.
        """
        return _interval(self.results[which], network)

    def gain(self) -> Interval:
        """By how much networks do better on the distilled set than on random images (Welch)."""
        from scipy import stats

        a, b = (self.results[which].values() for which in (DISTILLED, RANDOM))
        mean = float(a.mean() - b.mean())
        if len(a) < 2 or not _spread(a, b):
            return Interval(mean, math.nan, math.nan)
        with warnings.catch_warnings():  # of trainings that are alike to the last digit
            warnings.simplefilter("ignore", RuntimeWarning)
            found = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
        return Interval(mean, max(-1.0, float(found.low)), min(1.0, float(found.high)))

    @property
    def record(self) -> dict[str, Any]:
        """The accuracies of every training, JSON-able; None for one that diverged."""
        return {
            "split": self.results[DISTILLED].split,
            "tested": self.tested,
            "images": dict(self.images),
            "accuracies": {
                which: {
                    network: [None if math.isnan(v) else float(v) for v in values]
                    for network, values in result.accuracies.items()
                }
                for which, result in self.results.items()
            },
        }


def _interval(result: EvalResult, network: str | None) -> Interval:
    low, high = result.confidence_interval(network)
    return Interval(result.mean(network), low, high)


def _spread(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether two samples are finite and not all of them alike."""
    both = np.concatenate([a, b])
    return bool(np.isfinite(both).all()) and bool(both.std() > 0)


def judge(
    made: SyntheticSet,
    data: DataSplits,
    base: EvalConfig,
    folder: Path,
    *,
    seed: int = 0,
    progress: bool = True,
    stage: Callable[[str], None] = lambda what: None,
) -> Judged:
    """Train networks on a distilled set, on random real images, and on all of them; test them.

    Every training is kept in `folder` as it finishes: stopped, the same call goes on. Each draw of
    random images is trained on once by each network; the distilled set, and all images, once for
    each repeat. All images are left out where they would not fit into memory.

    Args:
        made: the distilled set.
        data: of the folder, on the device to train on; tested on is its test split.
        base: the protocol for one image of a class.
        folder: of the trainings.
        seed: of networks, trainings and draws.
        progress: show a bar.
        stage: told what is trained on now.

    Raises:
        InputError: a class has fewer training images than the set.
        Interrupted: it was asked to stop; what is finished is kept.
    """
    few, classes, repeats = len(made.labels), len(data.classes), base.repeats
    pace: list[float] = []  # seconds of an epoch's image, of all trainings of the first set

    def trained(chosen: Trainable, what: str, images: int, seed: int, times: int) -> EvalResult:
        protocol = replace(for_larger_sets(base, images / classes), repeats=times)
        seen = images * protocol.epochs
        about = f", about {duration(pace[0] * seen)}" if pace and times == repeats else ""
        stage(f"the networks are trained on {what}{about}")
        of = [data.train.digest] if isinstance(chosen, WholeSplit) else [chosen.images()]
        place = folder / digest(*of, asdict(protocol), seed, data.test.digest)[:16]
        began, anew = time.monotonic(), not place.exists()
        result = evaluate(
            chosen, data, NETWORKS, config=protocol, seed=seed, out=place, progress=progress
        )
        if anew and images == few and times == repeats:
            pace.append((time.monotonic() - began) / seen)
        return result

    found = {DISTILLED: trained(made, f"the {few} distilled images", few, seed, repeats)}
    draws = []
    for i in range(1, repeats + 1):
        what = f"{few} random real images (draw {i} of {repeats})"
        drawn = select(data, made.ipc, "random", seed=seed + i)
        draws.append(trained(drawn, what, few, seed + i, 1))
    joint = {a: tuple(d.accuracies[a][0] for d in draws) for a in NETWORKS}
    found[RANDOM] = replace(draws[0], accuracies=joint)
    every = len(data.train)
    if 2 * 4 * data.train.images.numel() < SHARE * device_bytes(data.train.images.device):
        whole = WholeSplit(data)
        found[ALL] = trained(whole, f"all {every:,} training images", every, seed, repeats)
    return _judged(found, made, data, repeats)


def _judged(
    found: dict[str, EvalResult], made: SyntheticSet, data: DataSplits, repeats: int
) -> Judged:
    each = data.test.labels.bincount(minlength=len(data.classes))
    images = dict.fromkeys(found, len(made.labels)) | {ALL: len(data.train)}
    distiller = found[DISTILLED].distiller  # of all three, so that the unseen are the same
    return Judged(
        {k: replace(r, distiller=distiller) for k, r in found.items()},
        images,
        len(data.test),
        int(each.min()),
        float(each.max()) / len(data.test),
        repeats,
    )
