"""Cross-architecture evaluation: section 4.1. Train each network from scratch on the synthetic set, test it once.

The networks are those of the paper; learning-rate schedule, averaging and augmentation are the public code's. Nothing
is chosen on what is tested: one training, one test, at the end. `train_network` is the protocol in its plainest form, one
network, one step after the other; `evaluate` trains many at a time, on the same draws (:mod:`ld3m_min.judging`).
"""
from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .augment import DSA
from .config import ARCHITECTURES, EvalConfig
from .data import check_outside
from .errors import InputError
from .judging import Folder, build, describe, plan_jobs, run_job
from .modes import ordinary_modes
from .networks import NETWORKS, build_network
from .progress import bar
from .signals import stoppable
from .storage import locked, seeded
from .training import group_size, side_by_side


@dataclass(frozen=True)
class EvalResult:
    """Accuracies, in [0, 1].

    Attributes:
        accuracies: architecture -> one value per repeat. split: what they were measured on.
        distiller: the architecture that distilled; `unseen` are the others.
    """

    accuracies: dict[str, tuple[float, ...]]
    split: str
    distiller: str = "ConvNet"

    @property
    def unseen(self):
        """The architectures that did not take part in the distillation."""
        return tuple(a for a in self.accuracies if a != self.distiller) or tuple(self.accuracies)

    def values(self, architecture=None):
        """Accuracy per repeat: of one architecture, or averaged over the unseen ones."""
        if architecture is not None:
            return np.array(self.accuracies[architecture])
        return np.mean([self.accuracies[a] for a in self.unseen], axis=0)

    def mean(self, architecture=None):
        return float(self.values(architecture).mean())

    def std(self, architecture=None):
        """Population standard deviation over repeats, as the public code prints."""
        return float(self.values(architecture).std())

    def confidence_interval(self, architecture=None, level=0.95):
        """Student's t interval of the mean over repeats: (low, high); (nan, nan) for a single repeat."""
        from scipy import stats

        v = self.values(architecture)
        if len(v) < 2:
            return float("nan"), float("nan")
        half = stats.t.ppf((1 + level) / 2, len(v) - 1) * v.std(ddof=1) / math.sqrt(len(v))
        return float(v.mean() - half), float(v.mean() + half)


def lr_factor(epoch, epochs):
    """Learning rate of an epoch as a fraction of the base: linear warm-up over half the epochs, then a cosine.

    The public code's schedulers keep the factor at 1 for two epochs and end above 0; this is their closed form.
    """
    half = epochs // 2
    if epoch <= half:
        return 1e-7 + (1 - 1e-7) * epoch / half if half else 1.0
    return (1 + math.cos(math.pi * (epoch - half - 1) / half)) / 2


def ema_decay(update, beta=0.995):
    """Weight of the old average at update 0, 1, 2, ...: min(beta, 1 - 1 / (1 + update)); the first one copies."""
    return min(beta, 1 - 1 / (1 + update))


def train_network(network, images, labels, config, lr, generator):
    """Train `network` in place on (B, 3, H, W) normalised images and leave the averaged weights in it."""
    sgd = torch.optim.SGD(network.parameters(), lr=lr, momentum=config.momentum, weight_decay=config.weight_decay)
    dsa, average = DSA(config.dsa), [p.detach().clone() for p in network.parameters()]
    network.train()
    for epoch in range(config.epochs):
        sgd.param_groups[0]["lr"] = lr * lr_factor(epoch, config.epochs)
        for index in torch.randperm(len(images), generator=generator).split(config.batch):
            index = index.to(images.device)
            loss = F.cross_entropy(network(dsa(images[index], generator)), labels[index])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, list(network.parameters()), 1 - ema_decay(epoch, config.ema))
    with torch.no_grad():
        for p, a in zip(network.parameters(), average, strict=True):
            p.copy_(a)
    return network


@torch.no_grad()
def accuracy(network, held, normalise, batch=256):
    """Fraction of an :class:`~ld3m_min.data.ImageDataset` that `network` labels rightly; one batch at a time is float.

    NaN, with a warning, for a network whose outputs are not finite: its training diverged, and what it says is no answer.
    """
    network.eval()
    right = torch.zeros((), dtype=torch.long, device=held.labels.device)
    finite = torch.ones((), dtype=torch.bool, device=held.labels.device)
    for index in torch.arange(len(held)).split(batch):
        logits = network(normalise(held.take(index)))
        finite &= logits.isfinite().all()
        right += (logits.argmax(1) == held.labels[index.to(held.labels.device)]).sum()
    if not finite:
        warnings.warn(f"a training of {type(network).__name__} diverged: its outputs are not finite, so its accuracy is NaN; "
                      "lower its learning rate in the protocol's lr", RuntimeWarning, stacklevel=2)
        return math.nan
    return right.item() / len(held)


@ordinary_modes()
def evaluate(synthetic, data, architectures=ARCHITECTURES, *, config=EvalConfig(), seed=0, progress=False, out=None,  # noqa: B008
             plain=False):
    """Train every architecture on the set, `config.repeats` times, and test each once.

    Repeats and architectures train side by side: on the CPU one in each of PyTorch's threads (`torch.get_num_threads()`,
    OMP_NUM_THREADS), a ViT's repeats stacked in one; on a GPU each architecture's repeats stacked, if the set is small
    enough. The result depends on (set, protocol, seed, architecture, repeat): the same call gives the same bits, and other
    numbers of repeats or threads the same up to rounding.

    Args:
        synthetic: a :class:`~ld3m_min.spaces.SyntheticSet` (anything with `.images()` and `.labels`).
        data: :class:`~ld3m_min.data.DataSplits`; `config.split` of it is what they are tested on.
        out: a folder in which finished trainings are kept, and running ones every few seconds and when the process is asked
            to stop; the same call goes on from there, bit for bit. None keeps nothing.
        plain: train one after the other with :func:`train_network` instead: the reference, slow; without `out`.

    Returns:
        :class:`EvalResult`.

    Raises:
        ValueError: unknown architecture; a set of other classes or size than the data; `out` holds another evaluation.
        RuntimeError: another process works in `out`.
        Interrupted: asked to stop, see :mod:`ld3m_min.signals`.
    """
    if isinstance(architectures, str) or not architectures:
        raise InputError(f"architectures={architectures!r} names no networks; give a tuple of {', '.join(NETWORKS)}")
    unknown = [a for a in architectures if a not in NETWORKS]
    if unknown:
        raise InputError(f"unknown architecture {', '.join(unknown)}; choose {', '.join(NETWORKS)}")
    if plain and out is not None:
        raise InputError("the plain loop keeps nothing: leave out=None, or plain=False")
    check_outside(out, data)
    device = data.train.images.device
    images, labels = synthetic.images().detach().to(device), synthetic.labels.to(device)
    if images.shape[-1] != data.size or int(labels.max()) >= len(data.classes):
        raise InputError(f"the set has {images.shape[-1]} px and labels up to {int(labels.max())}; "
                         f"the data has {data.size} px and {len(data.classes)} classes")
    recipe = getattr(synthetic, "recipe", {})
    kind = recipe.get("normalisation", {}).get("kind", "shared")
    known = tuple(getattr(synthetic, "classes", data.classes))
    if known != tuple(data.classes):
        raise InputError(f"the set has classes {', '.join(known[:5])}, ..., the data {', '.join(data.classes[:5])}, ...")
    for a in architectures:  # one that cannot be built is found before any is trained
        build_network(a, classes=len(data.classes), size=data.size, width=config.width, generator=seeded(seed, "trial", a))
    images, held = data.with_normalisation(kind).normalise(images, synthetic=True), data.split(config.split)
    distiller = recipe.get("config", {}).get("network", {}).get("name", "ConvNet")
    train = _plainly if plain else _side_by_side
    with bar(total=len(architectures) * config.repeats, desc="evaluate", show=progress) as shown:
        found = train(images, labels, held, data, architectures, config, seed, out, shown)
    return EvalResult({a: tuple(found[a]) for a in architectures}, config.split, distiller)


def _plainly(images, labels, held, data, architectures, config, seed, out, shown):
    found = {}
    for job in plan_jobs(architectures, config.repeats, 1, "cpu"):
        (network,), (generator,) = build(job, data, config, seed, images.device)
        lr = config.lr.get(job.architecture, config.lr["default"])
        train_network(network, images, labels, config, lr, generator)
        found.setdefault(job.architecture, []).append(accuracy(network, held, data.normalise))
        shown.update()
    return found


def _side_by_side(images, labels, held, data, architectures, config, seed, out, shown):
    device, threads = images.device, torch.get_num_threads()
    together = group_size(config.repeats, min(len(images), config.batch), data.size)
    jobs = plan_jobs(dict.fromkeys(architectures), config.repeats, together, device)
    # long ones first, so that no thread is left with one at the end
    jobs.sort(key=lambda j: (_LONGEST.index(j.architecture), j.first))
    fit = group_size(len(jobs), min(len(images), config.batch), data.size)
    workers = 1 if device.type == "cuda" else min(threads, fit)
    with locked(out) if out is not None else nullcontext():
        folder = None if out is None else Folder(out, describe(images, labels, data, config, seed))
        done = {} if folder is None else {j: v for j in jobs if (v := folder.finished(j)) is not None}
        shown.update(sum(len(j.repeats) for j in done))
        with stoppable() as stop:
            done |= side_by_side(
                lambda job, halted: run_job(job, images, labels, held, data, config, seed, folder=folder, halted=halted),
                [j for j in jobs if j not in done], workers=workers, threads=max(1, threads // workers), stop=stop,
                finished=lambda job, values: shown.update(len(values)))
            if len(done) < len(jobs):
                kept = sum(len(j.repeats) for j in done) if folder else 0
                stop.leave(f"{kept} of {len(architectures) * config.repeats} trainings are finished and saved"
                           + (", the running ones up to their last epoch" if folder else ", because no folder was given"))
    order = sorted(done, key=lambda j: j.first)
    return {a: [v for j in order if j.architecture == a for v in done[j]] for a in architectures}


_LONGEST = ("ResNet18", "ViT", "AlexNet", "VGG11", "ConvNet")
