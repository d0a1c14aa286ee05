"""How good a prior is, on images it has not seen: the figures of its model card (section 4.1).

Digits are recognised by a support vector machine on pixels (:func:`measure_prior`). Photographs
need a network: `train_classifier` trains one on the same real training images, and
:func:`measure_images` asks it about reconstructions and samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.io.seeds import seeded
from ld3m_min.networks import Network
from ld3m_min.prior.classifier import ClassifierConfig, some_of_each
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.losses import ssim
from ld3m_min.prior.real_images import RealImages
from ld3m_min.prior.sample_quality import ask, features_of, measure_by_pixels, share, within
from ld3m_min.residual import NO_RESIDUAL
from ld3m_min.sampler import SamplerConfig, generate

FIT_PSNR = 26.0  # dB from which on a reconstruction of photographs keeps what tells them apart
FEW = 20  # images, below which a share of them says little


@dataclass(frozen=True)
class PriorQuality:
    """What the model card of a prior of digits prints.

    Attributes:
        psnr: mean peak signal-to-noise ratio of decode(encode(x)) on held-out images, dB.
        recognised: fraction of class-conditional samples that the classifier takes for their class.
        classifier_accuracy: of the same classifier on held-out real images.
        diversity: mean distance between samples of one class over that between real images of one
            class.
        novelty: mean distance of a sample to its nearest training image, over that of held-out
            images.
        samples: how many were drawn.
        held_out: how many real images were reconstructed.
    """

    psnr: float
    recognised: float
    classifier_accuracy: float
    diversity: float
    novelty: float
    samples: int
    held_out: int


@dataclass(frozen=True)
class ImageQuality:
    """What the model card of a prior of photographs prints.

    All of it is measured on held-out training images, never on the test split.

    Attributes:
        psnr: of decode(encode(x)) against x, dB.
        ssim: of decode(encode(x)) against x, in [0, 1].
        classifier_accuracy: of the classifier on the held-out real images.
        reconstructed_accuracy: of the classifier on their reconstructions.
        agreement: how often the classifier says of the reconstruction what it says of the image.
        feature_distance: mean distance of an image to its reconstruction in the classifier's
            features, over that of two images.
        recognised: fraction of class-conditional samples that the classifier takes for their class.
        recognised_unguided: of samples drawn without guidance.
        diversity: mean distance between samples of a class in the classifier's features, over that
            of real images of a class; None where no class has two held-out images that differ.
        novelty: mean distance of a sample to its nearest training image in the classifier's
            features, over that of held-out images; a copy has 0. None where the held-out images are
            training images themselves.
        samples: how many were drawn, with guidance and without.
        held_out: how many real images were reconstructed.
    """

    psnr: float
    ssim: float
    classifier_accuracy: float
    reconstructed_accuracy: float
    agreement: float
    feature_distance: float
    recognised: float
    recognised_unguided: float
    diversity: float | None
    novelty: float | None
    samples: int
    held_out: int

    @property
    def memorised(self) -> str:
        """Whether the samples are training images, in words.

        An image that is new to the prior is as far from the training images as a held-out one: 1.
        The digits' prior has 0.87, since guidance draws samples towards what is typical.
        """
        if self.novelty is None:
            return "whether training images are memorised cannot be told: held-out ones repeat them"
        if self.novelty < 0.4:
            return "memorised: samples are training images, or nearly"
        if self.novelty < 0.7:
            return "partly memorised: samples lie nearer to training images than new photographs do"
        return "not memorised: samples are about as far from training images as new photographs are"

    def doubts(self, classes: int) -> tuple[str, ...]:
        """Why the classifier's figures may say little, in words; nothing where they may be trusted.

        Args:
            classes: how many it tells apart.
        """
        chance, found = 1 / classes, []
        if self.classifier_accuracy < (1 + chance) / 2:  # nearer to chance than to all
            found.append(
                f"the classifier is right in {self.classifier_accuracy:.0%} of real images (chance "
                f"{chance:.0%}), too weak to judge samples"
            )
        if self.held_out < FEW:
            found.append(
                f"only {self.held_out} held-out images were looked at: every share of them is rough"
            )
        if self.samples < FEW:
            found.append(f"only {self.samples} samples were drawn: their shares are rough as well")
        if self.diversity is None:
            found.append("diversity cannot be measured: no class has two different held-out images")
        return tuple(found)

    @property
    def shortcomings(self) -> tuple[str, ...]:
        """What a prior that distils well should reach and this one does not, in words."""
        real = self.classifier_accuracy
        bars = (
            (self.psnr, FIT_PSNR, "reconstruction of {:.1f} dB, wanted {:.1f}"),
            (self.ssim, 0.8, "reconstruction with SSIM {:.3f}, wanted {:.2f}"),
            (
                self.reconstructed_accuracy,
                0.95 * real,
                "reconstructions recognised at {:.1%}, wanted {:.1%}",
            ),
            (
                self.recognised_unguided,
                0.75 * real,
                "samples without guidance recognised at {:.1%}, wanted {:.1%}",
            ),
            (
                self.recognised,
                min(1.15 * real, 1.0),
                "samples with guidance recognised at {:.1%}, wanted {:.1%}",
            ),
            (self.diversity, 0.7, "diversity of {:.2f} of real images, wanted {:.2f}"),
        )
        return tuple(
            text.format(value, bar)
            for value, bar, text in bars
            if value is not None and value < bar
        )


@dataclass(frozen=True)
class MeasuredImages:
    """A prior of photographs, measured.

    Attributes:
        quality: the figures.
        samples: the images that were drawn, in [0, 1], in order of their classes, on the CPU.
        unguided: drawn without guidance, from the same noise.
        nearest: the training image nearest to each of the samples, in the classifier's features.
        held: a held-out image of each class, and its reconstruction.
    """

    quality: ImageQuality
    samples: Float[Tensor, "B 3 H W"]
    unguided: Float[Tensor, "B 3 H W"]
    nearest: Float[Tensor, "B 3 H W"]
    held: Float[Tensor, "2 K 3 H W"]


@torch.no_grad()
def measure_prior(
    prior: LatentDiffusionPrior,
    data: RealImages,
    *,
    per_class: int = 50,
    steps: int = 50,
    guidance_scale: float = 3.0,
    seed: int = 0,
) -> PriorQuality:
    """Quality of a prior on the data's held-out test split.

    The classifier is a support vector machine on pixels (scikit-learn), trained on real training
    images: it shares nothing with the prior.

    Args:
        prior: class-conditional.
        data: the classes of the prior, in its order.
        per_class: samples of each class.
        steps: T, with which they are drawn.
        guidance_scale: with which they are drawn.
        seed: of their noise.
    """
    held = data.test.float().to(prior.device)
    again = torch.cat([prior.decode(prior.encode(b)) for b in held.split(256)])
    labels = torch.arange(len(data.classes)).repeat_interleave(per_class)
    samples = sample_prior(
        prior, labels, data.size, steps=steps, guidance_scale=guidance_scale, seed=seed
    )
    found = measure_by_pixels(samples, labels, data)
    return PriorQuality(
        psnr=_psnr(again, held),
        recognised=found.recognised,
        classifier_accuracy=found.classifier_accuracy,
        diversity=found.diversity,
        novelty=found.novelty,
        samples=len(samples),
        held_out=len(held),
    )


@torch.no_grad()
def measure_images(
    prior: LatentDiffusionPrior,
    data: RealImages,
    classifier: Network,
    config: ClassifierConfig,
    *,
    seed: int = 0,
) -> MeasuredImages:
    """Quality of a prior of photographs on validation images.

    Args:
        prior: class-conditional.
        data: the classes of the prior, in its order.
        classifier: the network of :func:`~ld3m_min.prior.classifier.train_classifier`.
        config: what it was trained by.
        seed: of the samples' noise.
    """
    device = prior.device
    index = some_of_each(data.validation, min(config.held_out, len(data.validation)))
    held, truth = data.validation.take(index).cpu(), data.validation.labels.cpu()[index]
    again = torch.cat([prior.decode(prior.encode(b.to(device))).cpu() for b in held.split(25)])
    labels = torch.arange(len(data.classes)).repeat_interleave(config.per_class)
    samples, unguided = (
        sample_prior(
            prior,
            labels,
            data.size,
            steps=config.steps,
            guidance_scale=scale,
            seed=seed,
            batch=20 if device.type == "cpu" else 250,
        ).cpu()
        for scale in (config.guidance_scale, 1.0)
    )
    real, rebuilt, made, plain = (
        ask(classifier, x, data, config.size, device) for x in (held, again, samples, unguided)
    )
    trained = features_of(classifier, data.train, data, config.size, device)
    gaps = torch.cdist(made.features, trained).min(1)
    moved = (real.features - rebuilt.features).norm(dim=1).mean()
    diversity = _ratio(within(made.features, labels), within(real.features, truth))
    novelty = _ratio(gaps.values.mean(), torch.cdist(real.features, trained).amin(1).mean())
    quality = ImageQuality(
        psnr=_psnr(again, held),
        ssim=round(ssim(again, held).mean().item(), 4),
        classifier_accuracy=share(real.labels == truth),
        reconstructed_accuracy=share(rebuilt.labels == truth),
        agreement=share(rebuilt.labels == real.labels),
        feature_distance=round((moved / _any_two(real.features).clamp(min=1e-12)).item(), 4),
        recognised=share(made.labels == labels),
        recognised_unguided=share(plain.labels == labels),
        diversity=diversity,
        novelty=novelty,
        samples=len(samples),
        held_out=len(held),
    )
    # the first of each class; of a class that has none, the first of all
    first = torch.stack([(truth == k).int().argmax() for k in range(len(data.classes))])
    return MeasuredImages(
        quality,
        samples,
        unguided,
        data.train.take(gaps.indices).cpu(),
        torch.stack([held[first], again[first]]),
    )


@torch.no_grad()
def sample_prior(
    prior: LatentDiffusionPrior,
    labels: Int[Tensor, " B"],
    size: int,
    *,
    steps: int = 50,
    guidance_scale: float = 3.0,
    seed: int = 0,
    batch: int = 250,
) -> Float[Tensor, "B 3 {size} {size}"]:
    """Ordinary class-conditional samples in [0, 1], from pure noise and without a residual.

    Args:
        prior: class-conditional.
        labels: the class of each image.
        size: side of the images, pixels.
        steps: T of section 3.1.
        guidance_scale: of the guidance.
        seed: of the noise.
        batch: images at a time.
    """
    side = size // prior.factor
    config = SamplerConfig(steps=steps, guidance_scale=guidance_scale, residual=NO_RESIDUAL)
    noise = torch.randn(
        (len(labels), prior.latent_channels, side, side), generator=seeded(seed, "prior samples")
    )
    out = []
    for y, e in zip(labels.split(batch), noise.to(prior.device).split(batch), strict=True):
        out.append(generate(prior, torch.zeros_like(e), prior.class_conditioning(y), e, config))
    return torch.cat(out)


def _ratio(x: Float[Tensor, ""], y: Float[Tensor, ""]) -> float | None:
    """One distance over another; None where one of them is of nothing."""
    found = (x / y).item()
    return round(found, 3) if math.isfinite(found) else None


def decibels(x: Float[Tensor, "B 3 H W"], y: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
    """Peak signal-to-noise ratio of each pair of images, dB; 100 where they are equal.

    Args:
        x: in [0, 1].
        y: in [0, 1].
    """
    return -10 * torch.log10((x - y).square().mean((1, 2, 3)).clamp(min=1e-10))


def _psnr(x: Float[Tensor, "B 3 H W"], y: Float[Tensor, "B 3 H W"]) -> float:
    """Mean peak signal-to-noise ratio of images in [0, 1], dB."""
    return round(decibels(x, y).mean().item(), 2)


def _any_two(features: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Mean distance of two images."""
    return torch.cdist(features, features)[~torch.eye(len(features), dtype=torch.bool)].mean()
