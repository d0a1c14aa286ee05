"""An evaluation's trainings: groups of repeats, kept as they finish, gone on with where stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ld3m_min.augment import DSA
from ld3m_min.config import EvalConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.evaluate.protocol import accuracy, ema_decay, lr_factor
from ld3m_min.io.checkpoints import Checkpointer, config_difference
from ld3m_min.io.files import read_json, write_json
from ld3m_min.io.seeds import seeded
from ld3m_min.networks import Network, build_network
from ld3m_min.training import Draws, Group, fast_layout, stacks

PROTOCOL = 3  # of the trainings' draws, arithmetic and files; a folder of another is refused
SAVE_EVERY = 20.0  # seconds between the checkpoints of one training


@dataclass(frozen=True)
class Trial:
    """What is trained on, how, and what it is tested on.

    Attributes:
        images: of the set, normalised, (B, 3, H, W).
        labels: of the set, (B,); or probabilities of the classes, (B, K).
        data: real images with their normalisation.
        config: the protocol.
        seed: of the networks and their trainings.
    """

    images: Float[Tensor, "B 3 H W"]
    labels: Int[Tensor, " B"] | Float[Tensor, "B K"]
    data: DataSplits
    config: EvalConfig
    seed: int

    @property
    def description(self) -> dict[str, Any]:
        """What an evaluation's folder is for; another set, protocol, seed or data is refused."""
        digest = hashlib.sha256(self.images.detach().cpu().contiguous().numpy().tobytes())
        digest.update(self.labels.cpu().contiguous().numpy().tobytes())
        data, held = self.data, self.data.split(self.config.split)
        return {
            "protocol": PROTOCOL,
            "set": digest.hexdigest(),
            "seed": self.seed,
            "config": asdict(self.config),
            "data": {
                "content": held.digest,
                "size": data.size,
                "classes": list(data.classes),
                "tested": len(held),
                "mean": list(data.mean),
                "std": list(data.std),
            },
            "device": self.images.device.type,  # a GPU's groups and rounding are others
        }

    def lr(self, architecture: str) -> float:
        """Base learning rate of an architecture.

        Args:
            architecture: a name of `networks.NETWORKS`.
        """
        return self.config.lr.get(architecture, self.config.lr["default"])


@dataclass(frozen=True)
class Job:
    """Repeats of one architecture, trained in step with one another.

    Attributes:
        architecture: a name of `networks.NETWORKS`.
        first: the first repeat.
        last: the last one.
    """

    architecture: str
    first: int
    last: int

    @property
    def repeats(self) -> range:
        """The numbers of the repeats."""
        return range(self.first, self.last + 1)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.architecture}-{self.first:03d}-{self.last:03d}"


def plan_jobs(
    architectures: Iterable[str], repeats: int, together: int, device: str | torch.device
) -> list[Job]:
    """Groups of repeats where an architecture is trained stacked on a device, else single ones.

    Args:
        architectures: names of `networks.NETWORKS`.
        repeats: of each.
        together: at most so many in one group.
        device: where they are trained.
    """
    jobs = []
    for a in architectures:
        n = together if stacks(a, device) else 1
        jobs += [Job(a, i, min(i + n, repeats) - 1) for i in range(0, repeats, n)]
    return jobs


class Folder:
    """The folder of one evaluation: `evaluation.json` says of what; each job has a folder below.

    Args:
        path: of the folder.
        description: what the evaluation is.

    Raises:
        InputError: the folder holds another evaluation.
    """

    def __init__(self, path: str | Path, description: dict[str, Any]) -> None:
        self.path, self.description = Path(path), description
        file = self.path / "evaluation.json"
        if not file.exists():
            write_json(file, description)
            return
        found = read_json(file)
        difference = ["it is not a description"]
        if isinstance(found, dict):
            difference = config_difference(found, description)
        if difference:
            raise InputError(
                f"{self.path} holds another evaluation; use another folder:\n  "
                + "\n  ".join(difference)
            )

    def checkpoints(self, job: Job) -> Checkpointer:
        """The checkpoints of a job; the last one, of a finished job, holds its accuracies alone.

        Args:
            job: of the evaluation.
        """
        return Checkpointer(self.path / job.name, self.description, seconds=SAVE_EVERY)

    def finished(self, job: Job) -> list[float] | None:
        """The accuracies of a job, one a repeat; None where it isn't finished.

        Args:
            job: of the evaluation.

        Raises:
            InputError: what is kept of it is damaged.
        """
        checkpoints = self.checkpoints(job)
        found = checkpoints.load()
        if found is None or "accuracies" not in found.notes:
            return None
        checkpoints.drop_older(found)
        return [float(v) for v in found.notes["accuracies"]]


def build(
    job: Job, trial: Trial, device: str | torch.device
) -> tuple[list[Network], list[Generator]]:
    """A job's freshly drawn networks, and the generator of each one's training.

    Args:
        job: which networks.
        trial: data, protocol and seed.
        device: where they are trained.
    """
    data, name = trial.data, job.architecture
    networks = [
        build_network(
            name,
            classes=len(data.classes),
            size=data.size,
            width=trial.config.width,
            generator=seeded(trial.seed, "evaluation network", name, r),
        ).to(device)
        for r in job.repeats
    ]
    return networks, [seeded(trial.seed, "evaluation training", name, r) for r in job.repeats]


def train_networks(
    networks: Sequence[Network],
    images: Float[Tensor, "B 3 H W"],
    labels: Int[Tensor, " B"] | Float[Tensor, "B K"],
    config: EvalConfig,
    lr: float,
    generators: Sequence[Generator],
    *,
    stacked: bool = False,
    checkpoints: Checkpointer | None = None,
    halted: Callable[[], bool] = lambda: False,
) -> list[Network] | None:
    """Train networks of one architecture in place, as `protocol.train_network` trains one.

    Draws and schedule are the same.

    Args:
        networks: freshly drawn.
        images: normalised.
        labels: of the images: class numbers, or probabilities of the classes.
        config: the protocol.
        lr: base learning rate.
        generators: one for each network.
        stacked: see `training.Group`.
        checkpoints: where the training is kept, now and then and when halted; None keeps nothing.
        halted: asked after every epoch.

    Returns:
        The networks with their averaged weights; None where halted before the end.
    """
    checkpoints = checkpoints or Checkpointer(None, None)
    group = Group(
        networks, momentum=config.momentum, weight_decay=config.weight_decay, stacked=stacked
    )
    draws = Draws(len(images), config.batch, images.shape[-1], DSA(config.dsa))
    average, start = [p.detach().clone() for p in group.params], 0
    if found := checkpoints.load():
        start = found.step
        group.load_state(found.tensors)
        for i, a in enumerate(average):
            a.copy_(found.tensors[f"average.{i}"])
        for i, g in enumerate(generators):
            g.set_state(found.tensors[f"draws.{i}"])
    for epoch in range(start, config.epochs):
        rate = lr * lr_factor(epoch, config.epochs)
        for index, drawn in draws.epoch(generators):
            index = index.to(images.device)
            group.step(draws.augmented(images[index], drawn), labels[index], rate)
        with torch.no_grad():
            torch._foreach_lerp_(average, group.params, 1 - ema_decay(epoch, config.ema))
        if epoch + 1 == config.epochs:
            break
        halt = halted()
        if checkpoints.due(epoch + 1, asked=halt):
            averages = {f"average.{i}": a for i, a in enumerate(average)}
            states = {f"draws.{i}": g.get_state() for i, g in enumerate(generators)}
            checkpoints.save(epoch + 1, group.state() | averages | states)
        if halt:
            return None
    return group.write_back(average)


def run_job(
    job: Job,
    trial: Trial,
    *,
    folder: Folder | None = None,
    halted: Callable[[], bool] = lambda: False,
) -> list[float] | None:
    """Train and test one job.

    Args:
        job: which networks.
        trial: what they are trained and tested on.
        folder: where it is kept; None keeps nothing.
        halted: asked after every epoch.

    Returns:
        Accuracies, one for each repeat; None where halted.
    """
    name, device = job.architecture, trial.images.device
    networks, generators = build(job, trial, device)
    checkpoints = None if folder is None else folder.checkpoints(job)
    trained = train_networks(
        fast_layout(networks, name),
        trial.images,
        trial.labels,
        trial.config,
        trial.lr(name),
        generators,
        stacked=stacks(name, device),
        checkpoints=checkpoints,
        halted=halted,
    )
    if trained is None:
        return None
    held = trial.data.split(trial.config.split)
    values = [accuracy(network, held, trial.data.normalise) for network in trained]
    if checkpoints is not None:
        checkpoints.save(trial.config.epochs, {}, {"accuracies": values}, only=True)
    return values
