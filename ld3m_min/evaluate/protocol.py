"""One training of one network on a synthetic set, and its accuracy (section 4.1).

In the plainest form: one network, one step after the other. :mod:`ld3m_min.evaluate.jobs` trains
several at a time, on the same draws.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ld3m_min.augment import DSA
from ld3m_min.config import EvalConfig
from ld3m_min.data.dataset import ImageDataset
from ld3m_min.training import batch_sizes


def lr_factor(epoch: int, epochs: int) -> float:
    """Learning rate of an epoch as a fraction of the base: warm-up over half of them, then cosine.

    The public code's schedulers keep the factor at 1 for two epochs and end above 0; this is their
    closed form.

    Args:
        epoch: from 0.
        epochs: of the whole training.
    """
    half = epochs // 2
    if epoch <= half:
        return 1e-7 + (1 - 1e-7) * epoch / half if half else 1.0
    return (1 + math.cos(math.pi * (epoch - half - 1) / half)) / 2


def ema_decay(update: int, beta: float = 0.995) -> float:
    """Weight of the old average at an update: min(beta, 1 - 1 / (1 + update)); the first copies.

    Args:
        update: from 0.
        beta: the most that it may be.
    """
    return min(beta, 1 - 1 / (1 + update))


def train_network(
    network: nn.Module,
    images: Float[Tensor, "B ..."],
    labels: Int[Tensor, " B"] | Float[Tensor, "B K"],
    config: EvalConfig,
    lr: float,
    generator: Generator,
) -> nn.Module:
    """Train a network in place, and leave the averaged weights in it.

    Args:
        network: freshly drawn.
        images: normalised.
        labels: of the images: class numbers, or probabilities of the classes.
        config: epochs, batch, augmentation, optimiser.
        lr: base learning rate.
        generator: of the batches and of the augmentation.
    """
    sgd = torch.optim.SGD(
        network.parameters(), lr=lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    dsa, average = DSA(config.dsa), [p.detach().clone() for p in network.parameters()]
    sizes = batch_sizes(len(images), config.batch)
    network.train()
    for epoch in range(config.epochs):
        sgd.param_groups[0]["lr"] = lr * lr_factor(epoch, config.epochs)
        for index in torch.randperm(len(images), generator=generator).split(sizes):
            index = index.to(images.device)
            loss = F.cross_entropy(network(dsa(images[index], generator)), labels[index])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        with torch.no_grad():
            new = 1 - ema_decay(epoch, config.ema)
            torch._foreach_lerp_(average, list(network.parameters()), new)
    with torch.no_grad():
        for p, a in zip(network.parameters(), average, strict=True):
            p.copy_(a)
    return network


@torch.no_grad()
def accuracy(
    network: nn.Module,
    held: ImageDataset,
    normalise: Callable[[Tensor], Tensor],
    batch: int = 256,
) -> float:
    """Fraction of real images that a network labels rightly, in [0, 1].

    NaN, with a warning, for a network whose outputs are not finite: its training diverged, and what
    it says is no answer.

    Args:
        network: trained.
        held: the images; one batch at a time becomes float.
        normalise: as the training images were.
        batch: images at a time.
    """
    network.eval()
    right = torch.zeros((), dtype=torch.long, device=held.labels.device)
    finite = torch.ones((), dtype=torch.bool, device=held.labels.device)
    for index in torch.arange(len(held)).split(batch):
        logits = network(normalise(held.take(index)))
        finite &= logits.isfinite().all()
        right += (logits.argmax(1) == held.labels[index.to(held.labels.device)]).sum()
    if not finite:
        warnings.warn(
            f"a training of {type(network).__name__} diverged: its outputs are not finite, so its "
            "accuracy is NaN; lower its learning rate in the protocol's lr",
            RuntimeWarning,
            stacklevel=2,
        )
        return math.nan
    return right.item() / len(held)
