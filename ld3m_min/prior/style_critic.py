"""What a style-based generator is trained against: a critic, and an encoder (section 2.3).

The critic tells real images from generated ones, given their class. The encoder is the other half
of an autoencoder whose decoder is the generator. Neither is kept. What the critic sees is augmented
in ways that keep the class, real and generated images alike, since a thousand images are few enough
to be remembered (Karras et al., 2020b).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ld3m_min.augment import Operation, brightness, crop, cutout, rotate, scale
from ld3m_min.prior.style_layers import Convolution, Linear, activated


class Trunk(nn.Module):
    """Convolutions from an image down to 4 x 4 features: two at each resolution, then a mean.

    Args:
        widths: channels at 4, 8, 16, ... pixels, as of the generator.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.first = Convolution(3, widths[-1], side=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(Convolution(i, i), Convolution(i, o), nn.AvgPool2d(2))
            for i, o in itertools.pairwise(reversed(widths))
        )

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C 4 4"]:
        """Features of images in [-1, 1]."""
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x


class Critic(nn.Module):
    """The discriminator, a projection of its features on the class (Miyato and Koyama, 2018).

    It also sees how much the images of its batch differ, as one more channel, so that a generator
    that draws the same image again and again is found out (Karras et al., 2018).

    Args:
        widths: as of :class:`Trunk`.
        classes: how many; 0 asks for no class.
    """

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.trunk, n = Trunk(widths), widths[0]
        self.last = Convolution(n + 1, n)
        self.hidden, self.out = Linear(16 * n, n), Linear(n, 1)
        self.classes = nn.Embedding(classes, n) if classes else None
        self._scale = n**-0.5

    def forward(
        self, x: Float[Tensor, "B 3 H W"], labels: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, " B"]:
        """How real images look: positive for real.

        Args:
            x: images in [-1, 1].
            labels: their classes; None without classes.
        """
        x = self.trunk(x)
        deviation = (x.var(0, correction=0) + 1e-8).sqrt().mean()
        x = self.last(torch.cat([x, deviation.expand(len(x), 1, 4, 4)], 1))
        x = activated(self.hidden(x.flatten(1)))
        out: Tensor = self.out(x)[:, 0]
        if self.classes is not None:
            out = out + (self.classes(labels) * x).sum(1) * self._scale
        return out


@dataclass(frozen=True)
class Posterior:
    """The normal distribution of an image's noise z.

    Attributes:
        mean: of each number.
        log_variance: of each number.
    """

    mean: Float[Tensor, "B z"]
    log_variance: Float[Tensor, "B z"]

    def sample(self, noise: Float[Tensor, "B z"]) -> Float[Tensor, "B z"]:
        """A draw, made of normal noise."""
        return self.mean + (self.log_variance / 2).exp() * noise

    def kl(self) -> Float[Tensor, " B"]:
        """Its Kullback-Leibler distance from the standard normal distribution, in nats."""
        v = self.log_variance
        return (self.mean.square() + v.exp() - 1 - v).sum(1) / 2


class Encoder(nn.Module):
    """From an image to the noise that it may have been made of.

    Args:
        widths: as of :class:`Trunk`.
        classes: how many; 0 is told none.
        z_width: of the noise.
    """

    def __init__(self, widths: Sequence[int], classes: int, z_width: int) -> None:
        super().__init__()
        self.trunk, n = Trunk(widths), widths[0]
        self.hidden = Linear(16 * n, n)
        self.classes = nn.Embedding(classes, n) if classes else None
        self.out = Linear(n, 2 * z_width)

    def forward(
        self, x: Float[Tensor, "B 3 H W"], labels: Int[Tensor, " B"] | None = None
    ) -> Posterior:
        """The posterior of images.

        Args:
            x: images in [-1, 1].
            labels: their classes; None without classes.
        """
        x = self.hidden(self.trunk(x).flatten(1))
        if self.classes is not None:
            x = x + self.classes(labels)
        mean, log_variance = self.out(activated(x)).chunk(2, 1)
        return Posterior(mean, log_variance.clamp(-10, 5))


def augmented(
    x: Float[Tensor, "B 3 H W"], share: float, generator: torch.Generator
) -> Float[Tensor, "B 3 H W"]:
    """Images moved, scaled, turned, made brighter or darker, and cut into, each with a chance.

    Nothing is mirrored or turned far: the class stays. Where an operation keeps to itself in a
    share of the images, the generator does not learn to draw what it does (Karras et al., 2020b).
    The operations are those of :mod:`ld3m_min.augment`, with smaller draws: shifts by an eighth of
    the side, scales from 0.9 to 1.1, 10 degrees, a fifth of brightness, a hole of half the side.

    Args:
        x: images in [0, 1]; what comes from outside is black.
        share: of the images that an operation changes.
        generator: of the draws, on the CPU.
    """
    n, side = len(x), x.shape[-1]

    def between(low: float, high: float) -> Float[Tensor, " n"]:
        return (low + (high - low) * torch.rand(n, generator=generator)).to(x)

    def places(low: int, high: int) -> Int[Tensor, " n"]:
        return torch.randint(low, high + 1, (n,), generator=generator).to(x.device)

    eighth = side // 8
    scales = [(s - 1 / 1.2) / (1.2 - 1 / 1.2) for s in (0.9, 1.1)]  # as `scale` draws them
    steps: list[tuple[Operation, list[Tensor]]] = [
        (scale, [between(*scales), between(*scales)]),
        (rotate, [between(1 / 6, 5 / 6)]),  # of 30 degrees about 0
        (crop, [places(-eighth, eighth), places(-eighth, eighth)]),
        (brightness, [between(0.3, 0.7)]),
        (cutout, [places(0, side - 1), places(0, side - 1)]),
    ]
    for operation, draw in steps:
        chosen = (torch.rand(n, generator=generator) < share).view(-1, 1, 1, 1).to(x.device)
        x = torch.where(chosen, operation(x, draw), x)
    return x


def critic_loss(real: Float[Tensor, " B"], fake: Float[Tensor, " B"]) -> Float[Tensor, ""]:
    """Logistic loss of the critic: real images are to be positive, generated ones negative."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Float[Tensor, " B"]) -> Float[Tensor, ""]:
    """The generator's, which does not saturate (Goodfellow et al., 2014)."""
    return F.softplus(-fake).mean()


def gradient_penalty(critic: nn.Module, x: Tensor, labels: Tensor | None) -> Float[Tensor, ""]:
    """R1 of real images: the squared norm of the critic's gradient (Mescheder et al., 2018).

    Args:
        critic: in training.
        x: real images (B, 3, H, W) in [-1, 1], as the critic sees them.
        labels: their classes; None without classes.
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x, labels).sum(), x, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()
