"""Learning rates, searched on held-out training images with a budget that is the same for all.

A rate decides an experiment as much as a method does. So every system gets as many tries, on a
scale that its own gradient sets, and a rate that is still the best at the edge of what was tried is
said to be so. The networks that look at a try are none of the unseen ones of the tables, and its
seeds are none of the records'.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ld3m_min.config import ALGORITHMS, VALIDATORS, DistilConfig, EvalConfig, own_settings
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.evaluate.cross_architecture import evaluate
from ld3m_min.experiments.cells import ABLATION, RAISED_Z, VARIANTS
from ld3m_min.experiments.places import RECORDS, RUNS, prior_path
from ld3m_min.experiments.records import add_entry, read_record
from ld3m_min.experts.buffer import ExpertBuffer
from ld3m_min.experts.train import experts_below
from ld3m_min.io.digests import digest
from ld3m_min.io.environment import environment
from ld3m_min.io.progress import bar
from ld3m_min.io.stop import stoppable
from ld3m_min.io.values import within
from ld3m_min.presets import eval_preset, preset
from ld3m_min.prior.loading import AnyPrior, load_prior
from ld3m_min.run import distil
from ld3m_min.spaces.build import SPACES
from ld3m_min.systems import LEARNED

FACTOR = 3.0  # between a rate and the next
TRIES = 5  # rates that every system gets at least
MOST = 9  # and at most, if the best one stays at an edge
FIRST_STEP = 0.01  # of what is learned, by which the first step at the middle rate moves it
FIRST_SEED = 1000  # of the distillations that are tried; records have seeds below
TriedT = TypeVar("TriedT")
Rates = Mapping[tuple[str, str], Sequence[float]]  # by (algorithm, system)
PAIRS = (
    *((algorithm, system) for algorithm in ALGORITHMS for system in LEARNED),
    # what is compared with its system in table 4 needs a rate of its own as much
    *(("DM", f"{name}:{variant}") for name in ("ld3m-paper", "ld3m-code") for variant in ABLATION),
    ("DM", f"ld3m-paper:{RAISED_Z}"),
)


@dataclass(frozen=True)
class Try:
    """One rate to try, with one seed.

    Attributes:
        system: a learned one of `systems.SYSTEMS`, or "system:variant".
        config: of its distillation.
        protocol: of its evaluation, on the validation split.
        content: digests of the images that it is trained and evaluated on.
    """

    system: str
    config: DistilConfig
    protocol: EvalConfig
    content: dict[str, str]

    @property
    def key(self) -> str:
        """A digest of all that its result depends on, but for the prior's weights."""
        lr = {a: self.protocol.lr.get(a, self.protocol.lr["default"]) for a in VALIDATORS}
        return digest([own_settings(self.config), asdict(self.protocol) | {"lr": lr}, self.content])


@dataclass(frozen=True)
class Search:
    """A search under way.

    Attributes:
        name: of the preset.
        data: on the device.
        file: the record.
        tried: what the record holds; it grows.
        runs: where experts are kept, and checkpoints of tries.
        repeats: trainings of each network on a set.
        seeds: distillations of each rate.
        iterations: of a try; None takes the preset's.
        device: where the work is done.
        progress: show bars.
    """

    name: str
    data: DataSplits
    file: Path
    tried: list[dict[str, Any]]
    runs: Path
    repeats: int
    seeds: int
    iterations: int | None
    device: str
    progress: bool

    def config(self, algorithm: str, system: str) -> DistilConfig:
        """What is tried, at the preset's rate.

        Args:
            algorithm: of the distillation.
            system: a learned one of `systems.SYSTEMS`, or "system:variant".
        """
        space, _, variant = system.partition(":")
        config = preset(self.name, algorithm=algorithm, space=space, dataset=self.data.name)
        config = replace(VARIANTS[variant](config), seed=FIRST_SEED)
        return config if self.iterations is None else replace(config, iterations=self.iterations)

    def prior(self, config: DistilConfig) -> AnyPrior | None:
        """The prior of a configuration; None where it needs none.

        Args:
            config: of a distillation.

        Raises:
            InputError: the record has tries with another prior of that name.
        """
        if not SPACES[config.space].needs_prior:
            return None
        path = prior_path(config.prior)
        prior = load_prior(path, device=self.device)
        same = (self.config(t["algorithm"], t["space"]).prior == config.prior for t in self.tried)
        known = {t["prior"] for t, is_it in zip(self.tried, same, strict=True) if is_it}
        if known - {None, prior.networks_digest}:
            raise InputError(
                f"{self.file} holds tries with another prior of the name {config.prior!r}; move it "
                "away, and search again"
            )
        return prior

    def experts(self, config: DistilConfig) -> ExpertBuffer | None:
        """The experts of a configuration, trained where they are missing; None without MTT.

        Args:
            config: of a distillation.
        """
        return experts_below(
            self.runs, config, self.data, device=self.device, progress=self.progress
        )

    def middle(self, config: DistilConfig, prior: AnyPrior | None) -> int:
        """The power of `FACTOR` nearest to the rate whose first step moves the codes a little.

        Args:
            config: of a distillation, at any rate.
            prior: for the spaces that need one.

        Returns:
            The exponent.

        Raises:
            InputError: the gradient is zero or not finite.
        """
        one = replace(config, iterations=1, lr=1e-12)
        made = distil(
            one, data=self.data, prior=prior, experts=self.experts(one), device=self.device,
            progress=False,
        )  # fmt: skip
        # of the codes: MTT learns its student's rate besides
        learned = {k: v for k, v in made.state.items() if f"grad_{k}" in made.history[0]}
        gradient = math.hypot(*(made.history[0][f"grad_{k}"] for k in learned))
        codes = math.hypot(*(float(v.norm()) for v in learned.values()))
        if not (math.isfinite(gradient) and gradient > 0):
            raise InputError(
                f"the first gradient of {config.algorithm} in the space {config.space!r} has norm "
                f"{gradient:g}, so no rate can be searched for"
            )
        return round(math.log(FIRST_STEP * codes / gradient, FACTOR))

    def score(self, one: Try, prior: AnyPrior | None) -> float:
        """Accuracy of a try, read from the record or measured and written to it.

        Args:
            one: what is tried.
            prior: for the spaces that need one.

        Raises:
            Interrupted: it was asked to stop.
        """
        found = next((t for t in self.tried if t["key"] == one.key), None)
        if found is None:
            with stoppable() as stop:
                if stop.reason:
                    stop.leave(f"{len(self.tried)} tries are in the record")
            found = self._run(one, prior)
            head = {"schema": 1, "tune": self.name, "dataset": self.data.name}
            head |= {"split": "validation", "environment": environment(self.device)}
            self.tried[:] = add_entry(self.file, head, "tries", found)
        return _score(found)

    def _run(self, one: Try, prior: AnyPrior | None) -> dict[str, Any]:
        """Distil and evaluate; what the record says of it."""
        config, began, accuracies = one.config, time.monotonic(), None
        folder = self.runs / self.file.stem / one.key[:16]
        try:
            made = distil(
                config, data=self.data, prior=prior, out=folder, experts=self.experts(config),
                device=self.device, progress=False,
            )  # fmt: skip
            found = evaluate(
                made, self.data, VALIDATORS, config=one.protocol, seed=FIRST_SEED,
                out=folder / "evaluation",
            )  # fmt: skip
            accuracies = {
                a: [None if math.isnan(x) else x for x in v] for a, v in found.accuracies.items()
            }
        except FloatingPointError:  # diverged: recorded as such
            pass
        return {
            "key": one.key,
            "prior": None if prior is None else prior.networks_digest,
            "algorithm": config.algorithm,
            "space": one.system,
            "lr": config.lr,
            "seed": config.seed,
            "accuracies": accuracies,
            "iterations": config.iterations,
            "evaluation_lr": one.protocol.lr,
            "seconds": round(time.monotonic() - began, 1),
        }

    def best(
        self, algorithm: str, system: str, rates: Sequence[float] | None = None
    ) -> float | None:
        """The best rate of a system; None where it diverged at every one.

        Args:
            algorithm: of the distillation.
            system: a learned one of `systems.SYSTEMS`, or "system:variant".
            rates: these and no others are tried; None climbs.
        """
        config = self.config(algorithm, system)
        prior = self.prior(config)
        images = SPACES[config.space].per_class(config, prior)
        protocol = eval_preset(
            self.name, ipc=config.ipc, per_class=images, split="validation", repeats=self.repeats
        )
        content = {"train": self.data.train.digest, "validation": self.data.validation.digest}

        def score(lr: float) -> float:
            seeds = range(FIRST_SEED, FIRST_SEED + self.seeds)
            tries = [
                Try(system, replace(config, lr=lr, seed=seed), protocol, content) for seed in seeds
            ]
            return sum(self.score(one, prior) for one in tries) / len(tries)

        if rates is not None:
            return highest({lr: score(lr) for lr in rates})
        power = climb(lambda k: score(FACTOR**k), self.middle(config, prior))
        return None if power is None else FACTOR**power


def search(
    name: str,
    data: DataSplits,
    *,
    records: str | Path = RECORDS,
    runs: str | Path = RUNS,
    rates: Rates | None = None,
    seeds: int = 1,
    repeats: int = 1,
    iterations: int | None = None,
    only: str = "",
    device: str = "cpu",
    progress: bool = True,
) -> dict[tuple[str, str], float]:
    """Try rates under a preset, until the best of each system has a worse one on both sides.

    Each try is distilled as the preset says and evaluated on the validation split by `VALIDATORS`.
    The record `tune-<data>-<preset>.json` grows try by try, and a try keeps its checkpoints below
    `runs`: a stopped search goes on.

    Args:
        name: of the preset.
        data: its training and validation images are used.
        records: where the record is.
        runs: where tries keep their checkpoints.
        rates: these and no others; None for powers of three around the scale of the gradient.
        seeds: distillations of each rate.
        repeats: trainings of each network on each of them.
        iterations: of a try; None takes the preset's.
        only: "DM-pixel" for one algorithm and system; "" for all.
        device: where the work is done.
        progress: show bars.

    Returns:
        The best rate by (algorithm, system), without those that diverged at every one.

    Raises:
        InputError: `only` names nothing; there is no seed or repeat; the record is of another prior
            or of an earlier version; a gradient is zero or not finite.
        Interrupted: it was asked to stop; what was tried is in the record.
    """
    within(seeds, ">= 1", "seeds of a rate search")
    within(repeats, ">= 1", "repeats of a rate search")
    pairs = list(PAIRS if rates is None else rates)
    if only and only not in (known := ["-".join(p) for p in pairs]):
        raise InputError(f"nothing to search called {only!r}; choose {', '.join(known)}")
    file = Path(records) / f"tune-{data.name}-{name}.json"
    tried: list[dict[str, Any]] = []
    if file.exists():
        tried = read_record(file, "tries", "algorithm", "space", "lr", "accuracies")["tries"]
    if any("key" not in t for t in tried):
        raise InputError(
            f"{file} was made by a version that didn't note what a try depends on; move it away, "
            "and search again"
        )
    under_way = Search(
        name, data.to(device), file, tried, Path(runs), repeats, seeds, iterations, device,
        progress,
    )  # fmt: skip
    wanted = [p for p in pairs if only in ("", "-".join(p))]
    found = {
        pair: under_way.best(*pair, None if rates is None else rates[pair])
        for pair in bar(wanted, desc="systems", show=progress)
    }
    return {pair: lr for pair, lr in found.items() if lr is not None}


def climb(
    score: Callable[[int], float], middle: int, *, tries: int = TRIES, most: int = MOST
) -> int | None:
    """The power of `FACTOR` with the highest score, with lower ones on both sides of it.

    Three neighbours are tried first, then one after the other beyond the edge that is the better
    one. Where the best is still at an edge in the end, that is said.

    Args:
        score: of a number; -inf or NaN where there is none.
        middle: the number to start around.
        tries: how many are tried at least.
        most: how many at most, should the best stay at an edge.

    Returns:
        The number; None where none has a score, which is said too.
    """

    def number(k: int) -> float:
        return -math.inf if math.isnan(found := score(k)) else found

    scores = {k: number(k) for k in (middle, middle - 1, middle + 1)}
    while len(scores) < most:
        low, high = min(scores), max(scores)
        best = max(scores, key=lambda k: scores[k])
        if best not in (low, high) and len(scores) >= tries:
            break
        up = best == high or (best != low and scores[high] > scores[low])
        k = high + 1 if up else low - 1
        scores[k] = number(k)
    chosen = highest(scores)
    if chosen in (min(scores), max(scores)):
        warnings.warn(
            f"the best of {len(scores)} rates, {FACTOR:g}^{chosen}, is at the edge of those that "
            "were tried; a better one may lie beyond",
            stacklevel=2,
        )
    return chosen


def highest(scores: Mapping[TriedT, float]) -> TriedT | None:
    """What has the highest score; of equal ones, the first.

    Args:
        scores: of what was tried; -inf where it diverged.

    Returns:
        None where all of it did, which is said.
    """
    best = max(scores, key=lambda k: scores[k])
    if scores[best] > -math.inf:
        return best
    warnings.warn(f"each of {len(scores)} rates that were tried diverged", stacklevel=3)
    return None


def _score(tried: Mapping[str, Any]) -> float:
    """Mean accuracy over networks and trainings; minus infinity for a try that diverged."""
    if tried["accuracies"] is None:
        return -math.inf
    values: list[list[float | None]] = list(tried["accuracies"].values())
    numbers = [[x for x in v if x is not None and math.isfinite(x)] for v in values]
    if [*map(len, numbers)] != [*map(len, values)]:  # a training diverged
        return -math.inf
    return sum(sum(v) / len(v) for v in numbers) / len(numbers)


def best_rates(tried: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """The rate with the highest mean accuracy of networks and seeds, by (algorithm, system).

    Args:
        tried: entries of a record. A rate that diverged with some seed doesn't count, nor does a
            try that is shorter than another of its system.
    """
    entries = list(tried)
    longest: dict[tuple[str, str], int] = {}
    for t in entries:
        key = t["algorithm"], t["space"]
        longest[key] = max(longest.get(key, 0), t.get("iterations") or 0)
    scores: dict[tuple[str, str], dict[float, list[float]]] = {}
    for t in entries:
        if (t.get("iterations") or 0) < longest[t["algorithm"], t["space"]]:
            continue
        by_rate = scores.setdefault((t["algorithm"], t["space"]), {})
        by_rate.setdefault(t["lr"], []).append(_score(t))
    found = {}
    for key, by_rate in scores.items():
        means = {lr: sum(v) / len(v) for lr, v in by_rate.items()}
        lr = max(means, key=lambda rate: means[rate])
        if math.isfinite(means[lr]):
            found[key] = lr
    return found
