"""Model card of a prior of photographs: on what it was trained, how good it is, its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ld3m_min.io.text import in_card
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.classifier import ClassifierConfig
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.quality import ImageQuality
from ld3m_min.prior.real_images import RealImages

IMAGENET = (
    "the images are ImageNet's, for non-commercial research and education; use these weights "
    "likewise"
)
UNSTATED = (
    "of the images: not stated. It is yours to state: what their owners allow, these weights may do"
)
LISTED = 100  # classes that a card lists one by one


def image_card(
    config: PriorConfig,
    asked: ClassifierConfig,
    data: RealImages,
    prior: LatentDiffusionPrior,
    quality: ImageQuality,
    record: Mapping[str, Any],
    *,
    licence: str = "",
    made_by: str = "",
) -> str:
    """Model card of a prior of photographs: data, licence of the images, quality, limits.

    Args:
        config: architecture and training.
        asked: the classifier, and what it was shown.
        data: what it was trained on.
        prior: trained.
        quality: of the prior.
        record: what `finish_prior` measured besides: "training", "seconds", "environment", "files".
        licence: of the images; empty for ImageNet's, or for one that isn't known.
        made_by: the command after `python -m ld3m_min`; by default that of the preset.
    """
    said = in_card(licence) if licence else IMAGENET if data.ids else UNSTATED
    about = config.about or "trained from scratch"
    command = "`python -m ld3m_min " + (made_by or f"train-prior --preset {config.name}") + "`"
    return f"""---
license: other
tags: [latent-diffusion, dataset-distillation]
---
# Prior `{in_card(config.name)}`: a class-conditional latent diffusion model of \
{in_card(_title(data))}, {config.size} px

{about[0].upper() + about[1:]}.

{architecture_line(prior, len(data.classes))}, kept in bfloat16. \
{prior.train_steps:,} steps of noise, {prior.prediction_type} prediction.
- **Trained on** the {len(data.train):,} training images of {in_card(_title(data))} \
({in_card(data.source)}); {len(data.validation):,} held-out
  training images and {len(data.test):,} test images were not seen.{_files(data, record)}
{_training(config, record)}
- **Made by** {command}.
- **Licence**: {said}.

{measured_table(asked, quality, len(data.classes))}

{verdict(quality, len(data.classes))}

The classifier is a {asked.network} at {asked.size} px, trained for {asked.epochs} epochs on the \
same real training images; it is no
better than its own accuracy. **Limits**: this prior knows {len(data.classes)} classes and nothing \
else; it is made to be distilled through.

{_classes(data)}
"""


def _title(data: RealImages) -> str:
    """What the data set is called: a subset of ImageNet by its title."""
    return data.source.partition(" of ImageNet")[0] if data.ids else data.name


def _files(data: RealImages, record: Mapping[str, Any]) -> str:
    """What is worth saying of the image files."""
    if not record["files"]:
        return ""
    if data.ids:
        return (
            f" The files were {record['files']}: not ImageNet's own, but a copy made square before."
        )
    return f" The first file is {in_card(record['files'])}."


def _classes(data: RealImages) -> str:
    """A table of the classes, and how many images of each there are."""
    splits = (data.train, data.validation, data.test)
    counts = [torch.bincount(s.labels.cpu(), minlength=len(data.classes)).tolist() for s in splits]
    rows = [
        f"| {in_card(name)} | {' | '.join(str(c[k]) for c in counts)} |"
        for k, name in enumerate(data.classes[:LISTED])
    ]
    more = len(data.classes) - LISTED
    rows += [f"| and {more} more | | | |"] if more > 0 else []
    head = "| class | training images | held out | test |\n| --- | --- | --- | --- |\n"
    return head + "\n".join(rows)


def architecture_line(prior: LatentDiffusionPrior, classes: int) -> str:
    """The networks of a prior, and how large they are, as a line of a card.

    Args:
        prior: any prior with a denoiser.
        classes: how many it has.
    """
    millions = sum(p.numel() for m in prior.modules for p in m.parameters()) / 1e6
    return f"""\
- **Architecture**: `{type(prior.autoencoder).__name__}` (factor {prior.factor}, \
{prior.latent_channels} channels) and
  `{type(prior.denoiser).__name__}` with cross-attention to an embedding of {classes} classes and \
a null class;
  {millions:.2f} M parameters"""


def _training(config: PriorConfig, record: Mapping[str, Any]) -> str:
    """How long a prior of photographs was trained, on what, and where."""
    crops = f", crops of {config.crop} px" if config.crop else ""
    log = record["training"]
    some = f" on the latents of {config.latents} images" if config.latents else ""
    start = record.get("start")
    weights = f"It went on from {in_card(start)}" if start else "No weights from elsewhere"
    alone = ""
    if (steps := log["decoder_steps"]) and (by := config.seen_by):
        alone = f"""
  its decoder alone {steps:,} more by the features of a {by.network} of width {by.width}, trained \
for {by.epochs} epochs on the same images,"""
    return f"""\
- **Training**: autoencoder {log["autoencoder_steps"]:,} steps of {config.vae_batch} images\
{crops},{alone}
  denoiser {log["denoiser_steps"]:,} steps of {config.unet_batch}{some};
  seed {config.seed}; {record["seconds"] / 60:.0f} minutes on {record["environment"]["device"]}. \
{weights}."""


def measured_table(asked: ClassifierConfig, quality: ImageQuality, classes: int) -> str:
    """The table of what was measured of a prior of photographs.

    Args:
        asked: the classifier, and what it was shown.
        quality: of the prior.
        classes: how many there are.
    """
    drawn = f"{quality.samples} samples ({asked.steps} steps, guidance {asked.guidance_scale:g})"
    accuracy = percent(quality.classifier_accuracy)
    return f"""\
| measured on {quality.held_out} held-out training images, {drawn} | |
| --- | --- |
| reconstruction, PSNR / SSIM | {quality.psnr:.1f} dB / {quality.ssim:.3f} |
| classifier (chance {percent(1 / classes)}): accuracy on real images / on their reconstructions | \
{accuracy} / {percent(quality.reconstructed_accuracy)} |
| classifier: same answer for image and reconstruction | {percent(quality.agreement)} |
| distance image to reconstruction in the classifier's features, over that of two images | \
{quality.feature_distance:.2f} |
| class-conditional samples recognised by the classifier (chance {percent(1 / classes)}) | \
{percent(quality.recognised)} |
| the same without guidance | {percent(quality.recognised_unguided)} |
| diversity within a class in the classifier's features, over that of real images | \
{_number(quality.diversity)} |
| distance to the nearest training image in the same features, over that of held-out images | \
{_number(quality.novelty)} |
| training images | {quality.memorised} |"""


def _number(value: float | None) -> str:
    return "not to be measured" if value is None else f"{value:.2f}"


def verdict(quality: ImageQuality, classes: int) -> str:
    """Whether a prior is fit to be distilled through, by its figures.

    Args:
        quality: of the prior.
        classes: how many it has.
    """
    doubts = quality.doubts(classes)
    beware = f" **Beware**: {'; '.join(doubts)}." if doubts else ""
    if quality.shortcomings:
        return f"**Lacking**: {'; '.join(quality.shortcomings)}.{beware}"
    if doubts:
        return f"**Fit for distillation, as far as can be told**.{beware}"
    return "**Fit for distillation**, by all of these figures."


def percent(share: float) -> str:
    """A share as a card prints it."""
    return f"{100 * share:.1f} %"
