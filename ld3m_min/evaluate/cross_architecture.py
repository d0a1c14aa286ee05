"""Cross-architecture evaluation: train each network from scratch on the set, test it once.

Section 4.1. The networks are those of the paper; learning-rate schedule, averaging and augmentation
are the public code's. Nothing is chosen on what is tested: one training, one test, at the end.
:func:`evaluate` trains many networks at a time (:mod:`ld3m_min.evaluate.jobs`);
`protocol.train_network` is the same in its plainest form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Never, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ld3m_min.config import ARCHITECTURES, EvalConfig
from ld3m_min.data.loading import check_outside
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.evaluate.jobs import Folder, Job, Trial, build, plan_jobs, run_job
from ld3m_min.evaluate.protocol import accuracy, train_network
from ld3m_min.io.lock import locked
from ld3m_min.io.modes import ordinary_modes
from ld3m_min.io.paths import expanded
from ld3m_min.io.progress import Bar, bar
from ld3m_min.io.seeds import seeded
from ld3m_min.io.stop import stoppable
from ld3m_min.io.threads import side_by_side
from ld3m_min.networks import NETWORKS, build_network
from ld3m_min.set_files import check_soft_labels
from ld3m_min.training import group_size

# architectures by the time that a training takes
_LONGEST = ("ResNet18", "ResNet10", "ViT", "AlexNet", "VGG11", "ConvNet", "MLP")


@runtime_checkable
class Trainable(Protocol):
    """What can be evaluated: a :class:`~ld3m_min.synthetic.SyntheticSet`, or anything like it."""

    @property
    def labels(self) -> Int[Tensor, " B"]:
        """Class numbers."""
        ...

    def images(self) -> Float[Tensor, "B 3 H W"]:
        """In [0, 1]."""
        ...


@dataclass(frozen=True)
class EvalResult:
    """Accuracies, in [0, 1].

    Attributes:
        accuracies: architecture -> one value per repeat.
        split: what they were measured on.
        distiller: the architecture that distilled; `unseen` are the others.

    Example:
        >>> from ld3m_min.evaluate import EvalResult
        >>> found = {"ConvNet": (0.75, 0.25), "ViT": (0.5, 0.25), "MLP": (1.0, 0.75)}
        >>> result = EvalResult(found, split="test")
        >>> result.unseen, result.values().tolist()
        (('ViT', 'MLP'), [0.75, 0.5])
    """

    accuracies: dict[str, tuple[float, ...]]
    split: str
    distiller: str = "ConvNet"

    @property
    def unseen(self) -> tuple[str, ...]:
        """The architectures that did not take part in the distillation."""
        return tuple(a for a in self.accuracies if a != self.distiller) or tuple(self.accuracies)

    def values(self, architecture: str | None = None) -> NDArray[np.float64]:
        """Accuracy per repeat.

        Args:
            architecture: a name; None for the mean of the unseen ones.
        """
        if architecture is not None:
            return np.array(self.accuracies[architecture])
        unseen: NDArray[np.float64] = np.mean([self.accuracies[a] for a in self.unseen], axis=0)
        return unseen

    def mean(self, architecture: str | None = None) -> float:
        """Mean over repeats.

        Args:
            architecture: as for :meth:`values`.

        Example:
            >>> from ld3m_min.evaluate import EvalResult
            >>> result = EvalResult({"ConvNet": (0.75, 0.25), "ViT": (0.5, 0.25)}, "test")
            >>> result.mean("ConvNet"), result.mean()  # of the unseen ones, here the ViT
            (0.5, 0.375)
        """
        return float(self.values(architecture).mean())

    def std(self, architecture: str | None = None) -> float:
        """Population standard deviation over repeats, as the public code prints.

        Args:
            architecture: as for :meth:`values`.

        Example:
            >>> from ld3m_min.evaluate import EvalResult
            >>> EvalResult({"ConvNet": (0.75, 0.25)}, "test").std("ConvNet")
            0.25
        """
        return float(self.values(architecture).std())

    def confidence_interval(
        self, architecture: str | None = None, level: float = 0.95
    ) -> tuple[float, float]:
        """Student's t interval of the mean over repeats, as far as it lies in [0, 1].

        Args:
            architecture: as for :meth:`values`.
            level: of confidence.

        Returns:
            Its ends; NaN for a single repeat.

        Example:
            >>> from ld3m_min.evaluate import EvalResult
            >>> result = EvalResult({"ConvNet": (0.5, 0.55, 0.45, 0.5)}, "test")
            >>> [round(end, 3) for end in result.confidence_interval("ConvNet")]
            [0.435, 0.565]
        """
        from scipy import stats

        v = self.values(architecture)
        if len(v) < 2:
            return float("nan"), float("nan")
        half = stats.t.ppf((1 + level) / 2, len(v) - 1) * v.std(ddof=1) / math.sqrt(len(v))
        low, high = np.clip([v.mean() - half, v.mean() + half], 0, 1)  # NaN stays NaN
        return float(low), float(high)


@ordinary_modes()
def evaluate(
    synthetic: Trainable,
    data: DataSplits,
    architectures: Sequence[str] = ARCHITECTURES,
    *,
    config: EvalConfig | None = None,
    seed: int = 0,
    progress: bool = False,
    out: str | Path | None = None,
    plain: bool = False,
    labels: Float[Tensor, "B K"] | None = None,
) -> EvalResult:
    """Train every architecture on the set, `config.repeats` times, and test each once.

    Repeats and architectures train side by side: on the CPU one in each of PyTorch's threads
    (`torch.get_num_threads()`, OMP_NUM_THREADS), a ViT's repeats stacked in one; on a GPU each
    architecture's repeats stacked, if the set is small enough. The result depends on (set,
    protocol, seed, architecture, repeat): the same call gives the same bits, and other numbers of
    repeats or threads the same up to rounding.

    Args:
        synthetic: the set.
        data: `config.split` of it is what they are tested on; its device is where they train.
        architectures: names of `networks.NETWORKS`.
        config: the protocol; None for the paper's.
        seed: of the networks and their trainings.
        progress: show a bar.
        out: a folder in which finished trainings are kept, and running ones every few seconds and
            when the process is asked to stop; the same call goes on from there, bit for bit. None
            keeps nothing.
        plain: train one after the other with `protocol.train_network` instead: the reference,
            slow; without `out`.
        labels: probabilities of the K classes to train on instead of the set's own labels, as of
            :func:`~ld3m_min.evaluate.teacher.teacher_labels`; None for those labels.

    Raises:
        InputError: unknown architecture; a set of other classes or size than the data; `labels`
            that are no probabilities of them; `out` holds another evaluation.
        Busy: another process works in `out`.
        Interrupted: asked to stop, see :mod:`ld3m_min.io.stop`.

    Example:
        >>> from ld3m_min import eval_preset, load_data, select
        >>> from ld3m_min.evaluate import evaluate
        >>> data, config = load_data("digits"), eval_preset("smoke", repeats=2)
        >>> chosen = select(data, ipc=1)
        >>> result = evaluate(chosen, data, ("ConvNet", "MLP"), config=config)
        >>> {name: len(values) for name, values in result.accuracies.items()}
        {'ConvNet': 2, 'MLP': 2}
    """
    config = config or EvalConfig()
    _check_architectures(architectures)
    if plain and out is not None:
        raise InputError("the plain loop keeps nothing: leave out=None, or plain=False")
    out = None if out is None else expanded(out)  # once, before it is checked
    check_outside(out, data)
    recipe = getattr(synthetic, "recipe", {})
    trial = _trial(synthetic, data, config, seed, recipe)
    if labels is not None:
        check_soft_labels(labels.cpu(), len(trial.labels), len(data.classes))
        trial = replace(trial, labels=labels.to(trial.labels.device))
    for a in architectures:  # one that cannot be built is found before any is trained
        generator = seeded(seed, "trial", a)
        n, size = len(data.classes), data.size
        build_network(a, classes=n, size=size, width=config.width, generator=generator)
    distiller = recipe.get("config", {}).get("network", {}).get("name", "ConvNet")
    total = len(architectures) * config.repeats
    with bar(total=total, desc="evaluate", show=progress) as shown:
        if plain:
            found = _plainly(trial, architectures, shown)
        else:
            found = _side_by_side(trial, architectures, out, shown)
    return EvalResult({a: tuple(found[a]) for a in architectures}, config.split, distiller)


def _check_architectures(architectures: Sequence[str]) -> None:
    if isinstance(architectures, str) or not architectures:
        raise InputError(
            f"architectures={architectures!r} names no networks; give a tuple of "
            f"{', '.join(NETWORKS)}"
        )
    if unknown := [a for a in architectures if a not in NETWORKS]:
        raise InputError(f"unknown architecture {', '.join(unknown)}; choose {', '.join(NETWORKS)}")


def _trial(
    synthetic: Trainable, data: DataSplits, config: EvalConfig, seed: int, recipe: dict[str, Any]
) -> Trial:
    """The set and the data, brought together; InputError where they don't belong to each other."""
    device = data.train.images.device
    images, labels = synthetic.images().detach().to(device), synthetic.labels.to(device)
    known = tuple(getattr(synthetic, "classes", data.classes))
    if known != tuple(data.classes) or int(labels.max()) >= len(data.classes):
        raise InputError(
            f"the set has {_said(known)}, the data {data.name!r} {_said(data.classes)}, or in "
            "another order; give the images that the set was made of, or others of its classes"
        )
    if images.shape[-1] != data.size:
        raise InputError(
            f"the set has images of {images.shape[-1]} px, the data of {data.size} px; load the "
            "data at the set's size"
        )
    kind = recipe.get("normalisation", {}).get("kind", "shared")
    images = data.with_normalisation(kind).normalise(images, synthetic=True)
    return Trial(images, labels, data, config, seed)


def _said(classes: Sequence[str]) -> str:
    """Classes in words: how many, and the first."""
    return f"{len(classes)} classes ({', '.join(classes[:5])}{', ...' * (len(classes) > 5)})"


def _plainly(
    trial: Trial, architectures: Sequence[str], shown: Bar[Never]
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    held = trial.data.split(trial.config.split)
    for job in plan_jobs(architectures, trial.config.repeats, 1, "cpu"):
        (network,), (generator,) = build(job, trial, trial.images.device)
        lr = trial.lr(job.architecture)
        train_network(network, trial.images, trial.labels, trial.config, lr, generator)
        value = accuracy(network, held, trial.data.normalise)
        found.setdefault(job.architecture, []).append(value)
        shown.update()
    return found


def _side_by_side(
    trial: Trial, architectures: Sequence[str], out: str | Path | None, shown: Bar[Never]
) -> dict[str, list[float]]:
    device, threads, repeats = trial.images.device, torch.get_num_threads(), trial.config.repeats
    batch, size = min(len(trial.images), trial.config.batch), trial.data.size
    together = group_size(repeats, batch, size)
    jobs = plan_jobs(dict.fromkeys(architectures), repeats, together, device)
    # long ones first, so that no thread is left with one at the end
    jobs.sort(key=lambda j: (_LONGEST.index(j.architecture), j.first))
    workers = 1 if device.type == "cuda" else min(threads, group_size(len(jobs), batch, size))
    with locked(out) if out is not None else nullcontext():
        folder = None if out is None else Folder(out, trial.description)
        done: dict[Job, list[float]] = {}
        if folder is not None:
            done = {j: v for j in jobs if (v := folder.finished(j)) is not None}
        shown.update(sum(len(j.repeats) for j in done))
        with stoppable() as stop:
            done |= side_by_side(
                lambda job, halted: run_job(job, trial, folder=folder, halted=halted),
                [j for j in jobs if j not in done],
                workers=workers,
                threads=max(1, threads // workers),
                stop=stop,
                finished=lambda job, values: shown.update(len(values)),
            )
            if len(done) < len(jobs):
                ready = f"{sum(len(j.repeats) for j in done)} of {len(architectures) * repeats}"
                stop.leave(
                    f"{ready} trainings are finished and saved, the running ones up to their last "
                    "epoch",
                    kept=folder is not None,
                )
            stop.leave_if_signalled("all trainings are finished and saved", kept=folder is not None)
    order = sorted(done, key=lambda j: j.first)
    return {a: [v for j in order if j.architecture == a for v in done[j]] for a in architectures}
