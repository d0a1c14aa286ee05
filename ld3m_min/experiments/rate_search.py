"""A learning-rate search that never sees the test split: on held-out training images.

The paper gives one rate per algorithm, for its prior and its 5,000 iterations; at another size they
have to be found again. Every rate that was tried is recorded, with its cost.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ld3m_min.config import ALGORITHMS, SPACES, DistilConfig, EvalConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.evaluate import evaluate
from ld3m_min.experiments.grids import RECORDS, RUNS, prior_path
from ld3m_min.experts import experts_name, train_experts
from ld3m_min.io.digests import digest
from ld3m_min.io.environment import environment
from ld3m_min.io.files import read_json, write_json
from ld3m_min.io.progress import bar
from ld3m_min.io.stop import stoppable
from ld3m_min.presets import eval_preset, preset
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.run import distil
from ld3m_min.spaces.build import SPACES as SPACE_CLASSES

Rates = Mapping[tuple[str, str], Sequence[float]]  # by (algorithm, space)
RATES: Rates = {  # digits, preset "cpu": about three apart, around where each loss falls
    ("DC", "pixel"): (0.03, 0.1, 0.3),
    ("DC", "autoencoder"): (0.03, 0.1, 0.3),
    ("DC", "ld3m"): (0.03, 0.1, 0.3, 1.0),
    ("DM", "pixel"): (0.01, 0.03, 0.1),
    ("DM", "autoencoder"): (0.03, 0.1, 0.3),
    ("DM", "ld3m"): (0.03, 0.1, 0.3),
    ("MTT", "pixel"): (1.0, 3.0, 10.0, 30.0, 100.0),
    ("MTT", "autoencoder"): (3.0, 10.0, 30.0, 100.0),
    ("MTT", "ld3m"): (3.0, 10.0, 30.0, 100.0),
}
NETTE_RATES: Rates = {  # ImageNette, preset "nette": powers of ten around the paper's 1e-3, 1e-2
    # and 10, upwards, where the public code's defaults are (0.1, 1 and 1000)
    ("DC", "pixel"): (0.01, 0.1, 1.0),
    ("DC", "autoencoder"): (0.001, 0.01, 0.1, 1.0),
    ("DC", "ld3m"): (0.001, 0.01, 0.1, 1.0),
    ("DM", "pixel"): (0.01, 0.1, 1.0),
    ("DM", "autoencoder"): (0.01, 0.1, 1.0),
    ("DM", "ld3m"): (0.01, 0.1, 1.0),
    ("MTT", "pixel"): (10.0, 100.0, 1000.0),
    ("MTT", "autoencoder"): (10.0, 100.0, 1000.0),
    ("MTT", "ld3m"): (10.0, 100.0, 1000.0),
}
NETWORKS = ("ConvNet", "AlexNet", "VGG11")  # that a try is evaluated on


def rates_of(name: str) -> Rates:
    """The rates that a search under a preset tries.

    Args:
        name: of the preset.
    """
    return NETTE_RATES if name.startswith("nette") else RATES


@dataclass(frozen=True)
class Try:
    """One rate to try.

    Attributes:
        config: of its distillation.
        protocol: of its evaluation, on the validation split.
        content: digests of the images that it is trained and evaluated on.
    """

    config: DistilConfig
    protocol: EvalConfig
    content: dict[str, str]

    @property
    def key(self) -> str:
        """A digest of all that its result depends on, but for the prior's weights."""
        return digest([asdict(self.config), asdict(self.protocol), list(NETWORKS), self.content])

    def run(
        self,
        data: DataSplits,
        prior: LatentDiffusionPrior | None,
        runs: Path,
        folder: Path,
        *,
        device: str,
        progress: bool,
    ) -> dict[str, Any]:
        """Distil and evaluate; what the record says of it.

        Args:
            data: on the device.
            prior: for the spaces that need one.
            runs: where experts are kept.
            folder: where the try keeps its checkpoints.
            device: where the work is done.
            progress: show bars.
        """
        config, experts, began = self.config, None, time.monotonic()
        if config.algorithm == "MTT":
            place = runs / experts_name(config, data)
            experts = train_experts(config, data, place, device=device, progress=progress)
        accuracies = None
        try:
            made = distil(
                config, data=data, prior=prior, out=folder, experts=experts, device=device,
                progress=False,
            )  # fmt: skip
            found = evaluate(made, data, NETWORKS, config=self.protocol, out=folder / "evaluation")
            accuracies = {a: list(v) for a, v in found.accuracies.items()}
        except FloatingPointError:  # diverged: recorded as such
            pass
        return {
            "key": self.key,
            "prior": None if prior is None else prior.networks_digest,
            "algorithm": config.algorithm,
            "space": config.space,
            "lr": config.lr,
            "accuracies": accuracies,
            "iterations": config.iterations,
            "evaluation_lr": self.protocol.lr,
            "seconds": round(time.monotonic() - began, 1),
        }


def search(
    name: str,
    data: DataSplits,
    *,
    records: str | Path = RECORDS,
    runs: str | Path = RUNS,
    rates: Rates | None = None,
    repeats: int = 1,
    iterations: int | None = None,
    only: str = "",
    device: str = "cpu",
    progress: bool = True,
) -> dict[tuple[str, str], float]:
    """Try every rate under a preset.

    Each try is distilled as the preset says and evaluated on the validation split by `NETWORKS`,
    `repeats` times. The record `tune-<data>-<preset>.json` grows try by try, and a try keeps its
    checkpoints below `runs`: a stopped search goes on.

    Args:
        name: of the preset.
        data: its training and validation images are used.
        records: where the record is.
        runs: where tries keep their checkpoints.
        rates: to be tried; None for those of :func:`rates_of`.
        repeats: trainings of each network.
        iterations: of a try; None takes the preset's.
        only: "DM-ld3m" for one algorithm and space; "" for all.
        device: where the work is done.
        progress: show bars.

    Returns:
        The best rate by (algorithm, space).

    Raises:
        InputError: `only` names nothing; the record is of another prior or of an earlier version.
        Interrupted: it was asked to stop; what was tried is in the record.
    """
    rates = rates_of(name) if rates is None else rates
    if only and only not in (known := [f"{a}-{s}" for a, s in rates]):
        raise InputError(f"nothing to search called {only!r}; choose {', '.join(known)}")
    file, runs = Path(records) / f"tune-{data.name}-{name}.json", Path(runs)
    tried: list[dict[str, Any]] = read_json(file)["tries"] if file.exists() else []
    if any("key" not in t for t in tried):
        raise InputError(
            f"{file} was made by a version that didn't note what a try depends on; move it away, "
            "and search again"
        )
    done = {t["key"] for t in tried}
    todo = [t for t in _tries(name, data, rates, only, repeats, iterations) if t.key not in done]
    data, prior = data.to(device), None
    for one in bar(todo, desc="tries", show=progress):
        with stoppable() as stop:
            if stop.reason:
                stop.leave(f"{len(tried)} tries are in the record")
        needed = SPACE_CLASSES[one.config.space].needs_prior
        if needed and prior is None:
            prior = _prior(one.config.prior, tried, file, device)
        tried.append(
            one.run(
                data, prior if needed else None, runs,
                runs / f"tune-{data.name}-{name}" / one.key[:16], device=device, progress=progress,
            )
        )  # fmt: skip
        record = {"schema": 1, "tune": name, "dataset": data.name, "split": "validation"}
        write_json(file, record | {"tries": tried, "environment": environment(device)})
    return best_rates(tried)


def _tries(
    name: str, data: DataSplits, rates: Rates, only: str, repeats: int, iterations: int | None
) -> list[Try]:
    """The tries of a search, in the order of the tables."""
    content = {"train": data.train.digest, "validation": data.validation.digest}
    protocol = eval_preset(name, split="validation", repeats=repeats)
    tries = []
    for algorithm in ALGORITHMS:
        for space in SPACES:
            if only not in ("", f"{algorithm}-{space}"):
                continue
            for lr in rates.get((algorithm, space), ()):
                config = preset(name, algorithm=algorithm, space=space, lr=lr, dataset=data.name)
                if iterations is not None:
                    config = replace(config, iterations=iterations)
                tries.append(Try(config, protocol, content))
    return tries


def _prior(
    name: str, tried: Iterable[dict[str, Any]], file: Path, device: str
) -> LatentDiffusionPrior:
    """The prior of a search; InputError where the record has tries with another one."""
    prior = LatentDiffusionPrior.from_pretrained(prior_path(name), device=device)
    if {t["prior"] for t in tried if t["prior"]} - {prior.networks_digest}:
        raise InputError(
            f"{file} holds tries with another prior of the name {name!r}; move it away, and search "
            "again"
        )
    return prior


def best_rates(tried: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """The rate with the highest mean accuracy of all networks, by (algorithm, space).

    Args:
        tried: entries of a record; those that diverged don't count.
    """
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for t in tried:
        if t["accuracies"] is None:
            continue
        score = sum(sum(v) / len(v) for v in t["accuracies"].values()) / len(t["accuracies"])
        key = (t["algorithm"], t["space"])
        if key not in best or score > best[key][0]:
            best[key] = (score, t["lr"])
    return {key: lr for key, (_, lr) in best.items()}
