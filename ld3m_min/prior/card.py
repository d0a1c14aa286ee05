"""What a trained prior is delivered with: model card, record, and a grid of its samples."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ld3m_min.io.disk import StrPath
from ld3m_min.io.environment import environment, files_of
from ld3m_min.io.files import current_version, write_bytes, write_json
from ld3m_min.io.paths import resolved
from ld3m_min.io.pictures import save_strip
from ld3m_min.io.text import in_card
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.classifier import train_classifier
from ld3m_min.prior.image_card import architecture_line, image_card, percent
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.place import whole_prior
from ld3m_min.prior.quality import ImageQuality, PriorQuality, measure_images, measure_prior
from ld3m_min.prior.real_images import RealImages
from ld3m_min.prior.training_log import TrainedOn, TrainingLog


def finish_prior(
    config: PriorConfig,
    data: RealImages,
    prior: LatentDiffusionPrior,
    out: StrPath,
    *,
    records: StrPath,
    start: StrPath | None = None,
    device: str | torch.device = "cpu",
    licence: str = "",
    made_by: str = "",
) -> PriorQuality | ImageQuality:
    """Measure a trained prior, and write its record, then its weights with their card, as a whole.

    So a prior that is there has been measured. Of a prior of photographs, weights
    are kept in bfloat16, and what is measured is what is kept.

    Args:
        config: architecture and training.
        data: what it was trained on.
        prior: trained.
        out: the folder of its training; the prior is written into `out`/model.
        records: folder of the record. Grids of samples of photographs, with guidance and without,
            stand beside it. A picture beside real images is kept in `out`: held-out ones, their
            reconstructions, samples, and the training images nearest to them.
        start: folder of the prior that the training went on from.
        device: where the prior is.
        licence: of the images, for the card; empty where it isn't known.
        made_by: the command, for the card; by default that of the preset.

    Returns:
        What was measured.
    """
    out, records = Path(out), Path(records)
    training = TrainingLog.of(start) + TrainingLog.read(out)
    name = f"prior-{config.name}-seed{config.seed}"
    record = {
        "schema": 1,
        "prior": config.name,
        "config": asdict(config),
        "seconds": round(training.seconds),
        "training": asdict(training),
        "environment": environment(device),
        "files": files_of(data) if data.ids else data.files,
    }
    if start is not None:
        record["start"] = called(start)
    quality: PriorQuality | ImageQuality
    if config.classifier is None:
        quality = measure_prior(prior, data)
    else:
        prior.to(dtype=torch.bfloat16)
        prior.to(dtype=torch.float32)
        asked = config.classifier
        classifier = train_classifier(data, asked, folder=out, device=device)
        measured = measure_images(prior, data, classifier, asked, seed=config.seed)
        quality = measured.quality
        records.mkdir(parents=True, exist_ok=True)
        classes = len(data.classes)
        save_samples(measured.samples, records / f"{name}.png", classes)
        save_samples(measured.unguided, records / f"{name}-unguided.png", classes)
        # real images may not be ours to publish: they stay with the training
        beside = torch.stack(
            [x.unflatten(0, (classes, -1))[:, 0] for x in (measured.samples, measured.nearest)]
        )
        rows = torch.cat([measured.held, beside]).flatten(0, 1)
        save_strip(rows, out / "beside-real-images.png", columns=classes)
    write_json(records / f"{name}.json", record | {"quality": asdict(quality)})
    with whole_prior(out / "model") as model:
        training.save(model)
        TrainedOn.of(data).save(model)
        if isinstance(quality, PriorQuality):
            write_card(model, config, data, prior, quality)
            prior.save_pretrained(model)
        else:
            text = image_card(
                config, asked, data, prior, quality, record, licence=licence, made_by=made_by
            )
            write_bytes(model / "README.md", text.encode())
            prior.to(dtype=torch.bfloat16).save_pretrained(model)
            prior.to(dtype=torch.float32)
    return quality


def called(prior: StrPath) -> str:
    """What a card calls another prior: its name, and no path of this machine.

    Args:
        prior: name, folder or hub id.
    """
    place = resolved(prior)
    if not current_version(place).is_dir():
        return str(prior)
    return place.parent.name if place.name == "model" else place.name


def save_samples(samples: Float[Tensor, "B 3 H W"], path: Path, classes: int) -> None:
    """A grid of at most eight samples of each class, a column for each.

    Args:
        samples: in [0, 1], as many of each class, class after class.
        path: the PNG file.
        classes: how many.
    """
    rows = samples.unflatten(0, (classes, -1))[:, :8].transpose(0, 1).flatten(0, 1)
    save_strip(rows, path, columns=classes)


def write_card(
    folder: StrPath,
    config: PriorConfig,
    data: RealImages,
    prior: LatentDiffusionPrior,
    quality: PriorQuality,
) -> None:
    """Model card of a trained prior: what it was trained on, its measured quality, its limits.

    Args:
        folder: the prior's.
        config: architecture and training.
        data: what it was trained on.
        prior: trained.
        quality: of the prior.
    """
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    n = {name: len(split) for name, split in splits.items()}
    text = f"""---
tags: [latent-diffusion, dataset-distillation]
---
# Prior `{config.name}`: a class-conditional latent diffusion model of \
{in_card(data.source or data.name)}

{architecture_line(prior, len(data.classes))}. \
1,000 steps, scaled-linear betas, noise prediction.
- **Trained on** the training split alone: {n["train"]} images of {config.size} px (validation \
{n["validation"]}
  and test {n["test"]} were not seen), {config.vae_steps} + {config.unet_steps} steps, seed \
{config.seed}.
- **Made by** `python -m ld3m_min train-prior --preset {config.name}`.

| measured on held-out test images | |
| --- | --- |
| reconstruction, PSNR | {quality.psnr:.1f} dB ({quality.held_out} images) |
| class-conditional samples recognised ({quality.samples}, 50 steps, guidance 3) | \
{percent(quality.recognised)} |
| the same classifier on real images | {percent(quality.classifier_accuracy)} |
| diversity within a class, relative to real images | {quality.diversity:.2f} |
| distance to the nearest training image, relative to held-out images | {quality.novelty:.2f} |

The classifier is a support vector machine on pixels, trained on the real training images: it \
shares nothing with the
prior. **Limits**: it knows nothing but this data set; it is made to be distilled through, not to \
be sampled from.
"""
    write_bytes(Path(folder) / "README.md", text.encode())
