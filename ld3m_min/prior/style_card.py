"""What a trained style-based generator is delivered with: card, record, samples (2.3)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.io.disk import StrPath
from ld3m_min.io.environment import environment, files_of
from ld3m_min.io.files import write_bytes, write_json
from ld3m_min.io.text import in_card
from ld3m_min.prior.card import save_samples
from ld3m_min.prior.classifier import train_classifier
from ld3m_min.prior.image_card import percent
from ld3m_min.prior.place import whole_prior
from ld3m_min.prior.real_images import RealImages
from ld3m_min.prior.style_config import StyleConfig
from ld3m_min.prior.style_gan import StyleGenerator
from ld3m_min.prior.style_quality import INVERSION_STEPS, StyleQuality, measure_style

_ABOUT = {  # of each objective: what it is called, and what limits it
    "gan": (
        "a style-based generator, trained as a generative adversarial network",
        "it knows nothing but this data set; it is made to be distilled through.",
    ),
    "vae": (
        "a style decoder, trained as a variational autoencoder",
        "it is no adversarial network, and what it draws is blurred; it is made to be distilled "
        "through.",
    ),
}


def finish_style(
    config: StyleConfig,
    data: RealImages,
    generator: StyleGenerator,
    out: StrPath,
    *,
    records: StrPath,
    device: str | torch.device = "cpu",
) -> StyleQuality:
    """Measure a trained generator, and write its record, then its weights with their card.

    Weights and card are written as a whole: a generator that is there has been measured.

    Args:
        config: architecture and training.
        data: what it was trained on.
        generator: trained.
        out: the folder of its training; the generator is written into `out`/model.
        records: folder of the record. A sheet of samples stands beside it.
        device: where the generator is.

    Returns:
        What was measured.
    """
    out, records = Path(out), Path(records)
    found = Checkpointer(out / config.objective, None).load()
    seconds = 0 if found is None else round(found.notes["seconds"])
    asked, classifier = config.classifier, None
    if asked is not None:
        classifier = train_classifier(data, asked, folder=out, device=device)
    per_class = 50 if asked is None else asked.per_class
    measured = measure_style(
        generator, data, classifier=classifier, config=asked, per_class=per_class, seed=config.seed
    )
    name = f"prior-{config.name}-seed{config.seed}"
    records.mkdir(parents=True, exist_ok=True)
    save_samples(measured.samples, records / f"{name}.png", len(data.classes))
    record = {
        "schema": 1,
        "prior": config.name,
        "kind": config.kind,
        "config": asdict(config),
        "seconds": seconds,
        "environment": environment(device),
        "files": files_of(data),
        "quality": asdict(measured.quality),
    }
    write_json(records / f"{name}.json", record)
    with whole_prior(out / "model") as model:
        write_style_card(model, config, data, generator, measured.quality)
        generator.save_pretrained(model)
    return measured.quality


def write_style_card(
    folder: StrPath,
    config: StyleConfig,
    data: RealImages,
    generator: StyleGenerator,
    quality: StyleQuality,
) -> None:
    """Model card of a generator: what it was trained on, its measured quality, its limits.

    Args:
        folder: the generator's.
        config: architecture and training.
        data: what it was trained on.
        generator: trained.
        quality: of the generator.
    """
    called, limits = _ABOUT[config.objective]
    millions = sum(p.numel() for p in generator.parameters()) / 1e6
    judge = "a support vector machine on pixels"
    if config.classifier is not None:
        judge = f"a {config.classifier.network} at {config.classifier.size} px"
    inversions = ", ".join(f"{k} {v:.1f} dB" for k, v in quality.inversion.items())
    text = f"""---
tags: [{config.kind}, dataset-distillation]
---
# Prior `{config.name}`: {called}, of {in_card(data.source or data.name)}

- **Architecture**: {generator.num_layers} layers of modulated convolutions from 4 to \
{generator.size} px, no noise inputs,
  codes of {config.w_width} numbers, {len(data.classes)} classes; {millions:.2f} M parameters.
- **Trained on** the training split alone: {len(data.train)} images of {config.size} px \
(validation {len(data.validation)}
  and test {len(data.test)} were not seen), {config.steps} steps of {config.batch} images, seed \
{config.seed}. No weights from elsewhere.
- **Made by** `python -m ld3m_min train-prior {config.name}`.

| measured on held-out images | |
| --- | --- |
| class-conditional samples recognised ({quality.samples}) | {percent(quality.recognised)} |
| the same classifier on real images | {percent(quality.classifier_accuracy)} |
| diversity within a class, relative to real images | {quality.diversity:.2f} |
| distance to the nearest training image, relative to held-out images | {quality.novelty:.2f} |
| inversion by {INVERSION_STEPS} steps, PSNR ({quality.inverted} images) | {inversions} |

The classifier is {judge}, trained on the real training images: it shares nothing with the
prior. **Limits**: {limits}
"""
    write_bytes(Path(folder) / "README.md", text.encode())
