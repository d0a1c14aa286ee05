"""Pictures of a prior while it is trained: what it makes of held-out images, and what it draws.

They change nothing of the training: draws have their own seeds, and the averaged weights are lent
to the networks for the time of a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ld3m_min.io.pictures import save_strip
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.quality import sample_prior
from ld3m_min.prior.real_images import RealImages

SHOWN = 10  # classes in a picture
STEPS = 20  # of the chain that draws a sample


@dataclass(frozen=True)
class Look:
    """What is done at some steps of a training, with the averaged weights in the networks.

    Attributes:
        every: steps from one to the next; the last step has one too.
        show: is given the number of steps that are done.
    """

    every: int
    show: Callable[[int], None]

    def due(self, step: int, steps: int) -> bool:
        """Whether it is time, after `step` of `steps` steps."""
        return step % self.every == 0 or step == steps


def reconstructions(
    prior: LatentDiffusionPrior, data: RealImages, folder: Path, every: int
) -> Look:
    """`folder`/autoencoder-NNNNNN.png: a held-out image of each class above what it becomes.

    Args:
        prior: in training.
        data: its validation images are shown.
        folder: of the pictures.
        every: steps from one to the next.
    """
    classes = range(min(SHOWN, len(data.classes)))
    labels = data.validation.labels.cpu()
    first = torch.stack([(labels == k).int().argmax() for k in classes])
    real = data.validation.take(first).to(prior.device)

    def show(step: int) -> None:
        rows = torch.cat([real, prior.decode(prior.encode(real))])
        save_strip(rows, folder / f"autoencoder-{step:06d}.png", columns=len(real))

    return Look(every, show)


def samples(prior: LatentDiffusionPrior, size: int, folder: Path, every: int, seed: int) -> Look:
    """`folder`/step-NNNNNN.png: two samples of each class, always from the same noise.

    Args:
        prior: in training.
        size: side of the images, pixels.
        folder: of the pictures.
        every: steps from one to the next.
        seed: of the noise.
    """
    shown = min(SHOWN, prior.class_count)
    labels = torch.arange(shown).repeat(2)

    def show(step: int) -> None:
        drawn = sample_prior(prior, labels, size, steps=STEPS, seed=seed, batch=10)
        save_strip(drawn, folder / f"step-{step:06d}.png", columns=shown)

    return Look(every, show)
