"""An evaluation's trainings: groups of repeats, kept in a folder as they finish, and continued where they were stopped."""
from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from .augment import DSA
from .errors import InputError
from .networks import build_network
from .storage import config_difference, load_checkpoint, read_json, save_checkpoint, seeded, write_json
from .training import Group, Schedule, fast_layout, stacks

PROTOCOL = 2  # of the trainings' draws and arithmetic; a folder of another is refused
SAVE_EVERY = 20.0  # seconds between the checkpoints of one training


@dataclass(frozen=True)
class Job:
    """Repeats `first` to `last` of one architecture, trained in step with one another."""

    architecture: str
    first: int
    last: int

    @property
    def repeats(self):
        return range(self.first, self.last + 1)

    @property
    def name(self):
        return f"{self.architecture}-{self.first:03d}-{self.last:03d}"


def plan_jobs(architectures, repeats, together, device):
    """Groups of at most `together` repeats where an architecture is trained stacked on a device, else single repeats."""
    jobs = []
    for a in architectures:
        n = together if stacks(a, device) else 1
        jobs += [Job(a, i, min(i + n, repeats) - 1) for i in range(0, repeats, n)]
    return jobs


def describe(images, labels, data, config, seed):
    """What an evaluation's folder is for; another set, protocol, seed or data is refused."""
    digest = hashlib.sha256(images.detach().cpu().contiguous().numpy().tobytes())
    digest.update(labels.cpu().contiguous().numpy().tobytes())
    held = data.split(config.split)
    return {"protocol": PROTOCOL, "set": digest.hexdigest(), "seed": seed, "config": asdict(config),
            "data": {"content": held.digest, "size": data.size, "classes": list(data.classes), "tested": len(held),
                     "mean": list(data.mean), "std": list(data.std)},
            "device": images.device.type}  # a GPU's groups and rounding are others


class Folder:
    """The folder of one evaluation: `evaluation.json` says of what, `NAME.json` is a finished job, `training/` the rest."""

    def __init__(self, path, description):
        self.path, self.description = Path(path), description
        self.digest = hashlib.sha256(repr(sorted(description.items())).encode()).hexdigest()
        file = self.path / "evaluation.json"
        if file.exists():
            found = read_json(file)
            difference = config_difference(found, description) if isinstance(found, dict) else ["it is not a description"]
            if difference:
                raise InputError(f"{self.path} holds another evaluation; use another folder:\n  " + "\n  ".join(difference))
        else:
            write_json(file, description)

    def finished(self, job):
        """The accuracies of a job, or None. ValueError where its file is damaged, with the remedy."""
        file = self.path / f"{job.name}.json"
        if not file.exists():
            return None
        try:
            found = read_json(file)
            values = [float(v) for v in found["accuracies"]]
            whole = found["of"] == self.digest and found["check"] == _check(values) and len(values) == len(job.repeats)
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise InputError(f"{file} is damaged or of another evaluation; remove it and the job is trained again")
        return values

    def finish(self, job, values):
        """Keep a finished job; its checkpoints go."""
        write_json(self.path / f"{job.name}.json", {"of": self.digest, "accuracies": values, "check": _check(values)})
        shutil.rmtree(self.path / "training" / job.name, ignore_errors=True)

    def save(self, job, epoch, tensors):
        """A checkpoint of a job after so many epochs."""
        save_checkpoint(self.path / "training" / job.name, epoch, tensors, config=self.description)

    def load(self, job):
        """The newest whole checkpoint of a job, or None."""
        return load_checkpoint(self.path / "training" / job.name, config=self.description)


def _check(values):
    return hashlib.sha256(repr(values).encode()).hexdigest()


def build(job, data, config, seed, device):
    """A job's freshly drawn networks and the generator of each one's training."""
    networks = [build_network(job.architecture, classes=len(data.classes), size=data.size, width=config.width,
                              generator=seeded(seed, "evaluation network", job.architecture, r)).to(device)
                for r in job.repeats]
    return networks, [seeded(seed, "evaluation training", job.architecture, r) for r in job.repeats]


def train_networks(networks, images, labels, config, lr, generators, *, stacked=False, folder=None, job=None,
                   halted=lambda: False, save_every=SAVE_EVERY):
    """Train networks of one architecture in place, as `evaluate.train_network` trains one: the same draws, same schedule.

    Args:
        images: (B, 3, H, W), normalised. labels: (B,). generators: one for each network. stacked: see `training.Group`.
        folder, job: where checkpoints go, every `save_every` seconds and when halted; None keeps none.
        halted: asked after every epoch.

    Returns:
        The networks with their averaged weights; None where halted before the end.
    """
    from .evaluate import ema_decay, lr_factor

    group = Group(networks, momentum=config.momentum, weight_decay=config.weight_decay, stacked=stacked)
    schedule = Schedule(len(images), config.batch, images.shape[-1], DSA(config.dsa))
    average, start = [p.detach().clone() for p in group.params], 0
    found = folder.load(job) if folder else None
    if found:
        start = found.step
        group.load_state(found.tensors)
        for i, a in enumerate(average):
            a.copy_(found.tensors[f"average.{i}"])
        for i, g in enumerate(generators):
            g.set_state(found.tensors[f"draws.{i}"])

    def save(epoch):
        if folder:
            averages = {f"average.{i}": a for i, a in enumerate(average)}
            folder.save(job, epoch, group.state() | averages | {f"draws.{i}": g.get_state() for i, g in enumerate(generators)})

    saved = time.monotonic()
    for epoch in range(start, config.epochs):
        rate = lr * lr_factor(epoch, config.epochs)
        for index, draws in schedule.epoch(generators):
            index = index.to(images.device)
            group.step(schedule.augmented(images[index], draws), labels[index], rate)
        with torch.no_grad():
            torch._foreach_lerp_(average, group.params, 1 - ema_decay(epoch, config.ema))
        if epoch + 1 == config.epochs:
            break
        halt = halted()
        if halt or time.monotonic() - saved > save_every:
            save(epoch + 1)
            saved = time.monotonic()
        if halt:
            return None
    return group.write_back(average)


def run_job(job, images, labels, held, data, config, seed, *, folder=None, halted=lambda: False):
    """Train and test one job: accuracies, one for each repeat; None where halted."""
    from .evaluate import accuracy

    networks, generators = build(job, data, config, seed, images.device)
    lr = config.lr.get(job.architecture, config.lr["default"])
    trained = train_networks(fast_layout(networks, job.architecture), images, labels, config, lr, generators,
                             stacked=stacks(job.architecture, images.device), folder=folder, job=job, halted=halted)
    if trained is None:
        return None
    values = [accuracy(network, held, data.normalise) for network in trained]
    if folder:
        folder.finish(job, values)
    return values
