"""Codes that a distillation through a style-based generator starts from (section 2.3).

Mapped noise, a class's mean code, or the codes of real images. A generator has no encoder, so the
last are found by optimisation, which takes hundreds of passes where LD3M's encoder takes one.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.errors import InputError
from ld3m_min.io.seeds import seeded
from ld3m_min.prior.style_gan import StyleGenerator

LARGEST = 10.0  # of a feature, where learning starts from it


@dataclass(frozen=True)
class Inversion:
    """Codes that were found for real images.

    Attributes:
        w: codes of all layers; with features, those before them are where they started.
        features: after `layer` layers; None in W+.
        psnr: of each image that the codes give against the real one, dB.
        seconds: that it took.
    """

    w: Float[Tensor, "B num_ws D"]
    features: Tensor | None
    psnr: Float[Tensor, " B"]
    seconds: float


@torch.no_grad()
def mapped_noise(
    generator: StyleGenerator, labels: Int[Tensor, " B"], seed: int, *purpose: object
) -> Float[Tensor, "B num_ws D"]:
    """Codes of one draw of noise for each image.

    Args:
        generator: that maps.
        labels: of the images; not looked at where the generator has no classes.
        seed: of the draws.
        purpose: what else they belong to.
    """
    n = generator.z_width
    draws = (seeded(seed, "style noise", i, *purpose) for i in range(len(labels)))
    z = torch.stack([torch.randn(n, generator=g) for g in draws])
    return generator.map(
        z.to(generator.device, generator.dtype), labels if generator.class_count else None
    ).contiguous()


@torch.no_grad()
def mean_codes(
    generator: StyleGenerator, labels: Int[Tensor, " B"], samples: int, seed: int
) -> Float[Tensor, "B num_ws D"]:
    """The mean code of each image's class, over noises of its own, as GLaD takes it.

    Images of a class begin nearly alike, and with few samples a little less so.

    Args:
        generator: that maps.
        labels: of the images; without classes all images take the mean over noise.
        samples: noises for each image.
        seed: of the draws.
    """
    means = []
    for i, label in enumerate(labels.tolist()):
        z = torch.randn(samples, generator.z_width, generator=seeded(seed, "style mean", i))
        of = torch.full((samples,), label) if generator.class_count else None
        means.append(generator.map(z.to(generator.device, generator.dtype), of).mean(0))
    return torch.stack(means)


@torch.no_grad()
def first_features(generator: StyleGenerator, w: Float[Tensor, "B num_ws D"], layer: int) -> Tensor:
    """Features after a layer, fit to be learned from: finite, and clipped once to [-10, 10].

    Args:
        generator: that makes them.
        w: codes.
        layer: which, n.
    """
    x = generator.features(w, layer)
    x = torch.nan_to_num(x, nan=0.0, posinf=LARGEST / 2, neginf=-LARGEST / 2)
    return x.clamp(-LARGEST, LARGEST).contiguous()


def invert(
    generator: StyleGenerator,
    images: Float[Tensor, "B 3 H W"],
    labels: Int[Tensor, " B"],
    *,
    layer: int = 0,
    steps: int = 300,
    lr: float = 0.05,
    samples: int = 1000,
    seed: int = 0,
) -> Inversion:
    """Codes whose images are nearest to real ones, by Adam on the squared distance.

    It starts from the class's mean code. The images are independent of one another.

    Args:
        generator: frozen.
        images: in [0, 1], of the generator's size.
        labels: of the images.
        layer: n: features after it and the later codes are found; 0 finds the codes of all layers.
        steps: of the optimisation.
        lr: its highest rate, which falls to zero.
        samples: noises of the mean code.
        seed: of these noises.

    Raises:
        InputError: there is no such layer, or the images have another size.
    """
    check_size(generator, images.shape[-1])
    start = time.perf_counter()
    w = mean_codes(generator, labels, samples, seed)
    first, features = generator.synthesis.first_w(layer), None
    later = w[:, first:].clone().requires_grad_()
    learned = [later]
    if layer:
        features = first_features(generator, w, layer).requires_grad_()
        learned.append(features)
    target, adam = 2 * images.to(w) - 1, torch.optim.Adam(learned, lr=lr, betas=(0.9, 0.99))

    def made() -> Float[Tensor, "B 3 H W"]:
        return generator.output(torch.cat([w[:, :first], later], 1), features=features, layer=layer)

    with torch.enable_grad():
        for step in range(steps):
            adam.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
            adam.zero_grad()
            # summed over the images: each is found as if it were alone
            (made() - target).square().mean((1, 2, 3)).sum().backward()
            adam.step()
    with torch.no_grad():
        error = ((made().clamp(-1, 1) - target) / 2).square().mean((1, 2, 3))
    return Inversion(
        torch.cat([w[:, :first], later.detach()], 1),
        None if features is None else features.detach(),
        -10 * error.clamp_min(1e-12).log10(),
        time.perf_counter() - start,
    )


def check_size(generator: StyleGenerator, size: int) -> None:
    """Refuse images of another size than the generator's.

    Args:
        generator: that makes images.
        size: of the images asked for, pixels.

    Raises:
        InputError: they differ.
    """
    if generator.size != size:
        raise InputError(
            f"the generator makes images of {generator.size} px, not {size}; take images of that "
            "size, or another generator"
        )
