"""How good a style-based generator is: its samples, and how near it comes to real images (2.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.io.seeds import seeded
from ld3m_min.networks import Network
from ld3m_min.prior.classifier import ClassifierConfig, some_of_each
from ld3m_min.prior.real_images import RealImages
from ld3m_min.prior.sample_quality import measure_by_network, measure_by_pixels
from ld3m_min.prior.style_codes import invert
from ld3m_min.prior.style_gan import StyleGenerator

INVERSION_STEPS = 300
LAYERS = (0, 1, 3, 5)  # whose inversion is measured, where there are as many; 0 is W+


@dataclass(frozen=True)
class StyleQuality:
    """What the model card of a style-based generator prints.

    Attributes:
        recognised: fraction of samples that the classifier takes for their class.
        classifier_accuracy: of the same classifier on held-out real images.
        diversity: mean distance between samples of one class over that between real images of one
            class.
        novelty: mean distance of a sample to its nearest training image, over that of held-out
            images.
        samples: how many were drawn.
        inversion: mean peak signal-to-noise ratio of held-out images that were inverted by
            `INVERSION_STEPS` steps of Adam, dB, by space: "W+", "F1", ...
        inversion_seconds: that one image took on average, by space.
        inverted: how many images.
    """

    recognised: float
    classifier_accuracy: float
    diversity: float
    novelty: float
    samples: int
    inversion: dict[str, float]
    inversion_seconds: dict[str, float]
    inverted: int


@dataclass(frozen=True)
class MeasuredStyle:
    """A generator, measured.

    Attributes:
        quality: the figures.
        samples: that were drawn, in order of their classes, in [0, 1], on the CPU.
    """

    quality: StyleQuality
    samples: Float[Tensor, "B 3 H W"]


def measure_style(
    generator: StyleGenerator,
    data: RealImages,
    *,
    classifier: Network | None = None,
    config: ClassifierConfig | None = None,
    per_class: int = 50,
    inverted: int = 2,
    seed: int = 0,
) -> MeasuredStyle:
    """Quality of a generator on held-out images.

    Args:
        generator: of the data's classes, in its order.
        data: real images.
        classifier: a network, and then what is held out are validation images; None for a support
            vector machine on pixels and the test images, as of the digits.
        config: what the network was trained by.
        per_class: samples of each class.
        inverted: held-out images of each class that are inverted.
        seed: of the noise.
    """
    labels = torch.arange(len(data.classes)).repeat_interleave(per_class)
    samples = sample_style(generator, labels, seed)
    if classifier is None or config is None:
        found, held = measure_by_pixels(samples, labels, data), data.test
    else:
        held = data.validation
        index = some_of_each(held, min(config.held_out, len(held)))
        found = measure_by_network(samples, labels, data, classifier, config.size, index)
    index = some_of_each(held, inverted * len(data.classes))
    images, truth = held.take(index).to(generator.device), held.labels.cpu()[index.cpu()]
    psnr, seconds = {}, {}
    for layer in (n for n in LAYERS if n <= generator.num_layers):
        name = f"F{layer}" if layer else "W+"
        codes = invert(generator, images, truth, layer=layer, steps=INVERSION_STEPS, seed=seed)
        psnr[name] = round(codes.psnr.mean().item(), 2)
        seconds[name] = round(codes.seconds / len(images), 3)
    quality = StyleQuality(
        recognised=found.recognised,
        classifier_accuracy=found.classifier_accuracy,
        diversity=found.diversity,
        novelty=found.novelty,
        samples=len(samples),
        inversion=psnr,
        inversion_seconds=seconds,
        inverted=len(images),
    )
    return MeasuredStyle(quality, samples)


@torch.no_grad()
def sample_style(
    generator: StyleGenerator, labels: Int[Tensor, " B"], seed: int = 0, batch: int = 100
) -> Float[Tensor, "B 3 H W"]:
    """Samples of classes, in [0, 1], on the CPU.

    Args:
        generator: draws them.
        labels: the class of each.
        seed: of the noise.
        batch: images at a time.
    """
    noise = torch.randn(
        (len(labels), generator.z_width), generator=seeded(seed, "style samples")
    ).to(generator.device, generator.dtype)
    pairs = zip(noise.split(batch), labels.split(batch), strict=True)
    return torch.cat([generator.synthesize(generator.map(z, y)).cpu() for z, y in pairs])
