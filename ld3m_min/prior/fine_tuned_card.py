"""What a fine-tuned prior is delivered with: model card, record, and how long it was trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from ld3m_min.io.disk import StrPath
from ld3m_min.io.environment import environment, files_of
from ld3m_min.io.files import write_bytes, write_json
from ld3m_min.io.text import in_card
from ld3m_min.prior.classifier import train_classifier
from ld3m_min.prior.fine_tuning_config import FineTuneConfig
from ld3m_min.prior.minimax import FineTuned
from ld3m_min.prior.place import whole_prior
from ld3m_min.prior.quality import ImageQuality, PriorQuality, measure_images, measure_prior
from ld3m_min.prior.real_images import RealImages
from ld3m_min.prior.training_log import TrainingLog


def finish_fine_tuning(
    config: FineTuneConfig,
    data: RealImages,
    tuned: FineTuned,
    out: StrPath,
    *,
    records: StrPath,
    start: StrPath | None = None,
    device: str | torch.device = "cpu",
) -> PriorQuality | ImageQuality:
    """Measure a fine-tuned prior, and write its record, then its weights with their card.

    The weights and what lies beside them are written as a whole: a prior that is there has been
    measured.

    Args:
        config: of the fine-tuning.
        data: what it was fine-tuned on.
        tuned: what came of it.
        out: the folder of the fine-tuning; the prior is written into `out`/model.
        records: folder of the record.
        start: folder of the prior that it started from, for how long that one was trained.
        device: where the prior is.

    Returns:
        What was measured.
    """
    out, records, prior = Path(out), Path(records), tuned.prior
    training = TrainingLog.of(start) + TrainingLog.read(out)
    quality: PriorQuality | ImageQuality
    if config.classifier is None:
        quality = measure_prior(prior, data)
    else:
        classifier = train_classifier(data, config.classifier, folder=out, device=device)
        quality = measure_images(
            prior, data, classifier, config.classifier, seed=config.seed
        ).quality
    record = {
        "schema": 1,
        "prior": config.name,
        "config": asdict(config),
        "seconds": round(TrainingLog.read(out).seconds),
        "training": asdict(training),
        "environment": environment(device),
        "files": files_of(data),
        "trained": tuned.trained,
        "codes": tuned.codes,
        "criteria": {"before": tuned.before, "after": tuned.after},
        "history": tuned.history,
        "quality": asdict(quality),
    }
    write_json(records / f"prior-{config.name}-seed{config.seed}.json", record)
    with whole_prior(out / "model") as model:
        training.save(model)
        write_bytes(model / "README.md", card(config, data, tuned, quality).encode())
        prior.save_pretrained(model)
    return quality


def card(
    config: FineTuneConfig,
    data: RealImages,
    tuned: FineTuned,
    quality: PriorQuality | ImageQuality,
) -> str:
    """The model card of a fine-tuned prior: what was done to it, and what that changed.

    Args:
        config: of the fine-tuning.
        data: what it was fine-tuned on.
        tuned: what came of it.
        quality: of the prior.
    """
    names = {
        "representativeness": "1 - least cosine to remembered real latents",
        "diversity": "greatest cosine to earlier predictions",
        "cosine": "mean cosine to earlier predictions",
        "noise": "noise loss",
    }
    rows = "\n".join(
        f"| {text} | {tuned.before[name]:.4f} | {tuned.after[name]:.4f} |"
        for name, text in names.items()
    )
    kept = "real latents" if tuned.codes is None else "the codes that a distillation learned"
    how = (
        f"By Minimax's criteria (arXiv 2311.15529), with the weights {config.representativeness:g} "
        f"and {config.diversity:g} and memories of {kept} and of earlier predictions, "
        f"{config.memory} a class"
        if config.criteria
        else "The control of Minimax's criteria (arXiv 2311.15529): the same training without them"
    )
    diversity = "not to be measured" if quality.diversity is None else f"{quality.diversity:.2f}"
    return f"""---
tags: [latent-diffusion, dataset-distillation]
---
# Prior `{config.name}`: `{in_card(config.prior)}`, fine-tuned

{how}.

- **Trained on** the {len(data.train):,} training images of {in_card(data.source or data.name)}, \
{config.steps:,} steps of {config.batch}, rate {config.lr:g}, averages of decay {config.ema:g}, \
seed {config.seed}.
- **Trained weights**: {tuned.trained:,} numbers: biases, normalisations, class embedding, and \
factors of the attentions, folded into their matrices.
- **Made by** `python -m ld3m_min fine-tune {config.name}`\
{"" if tuned.codes is None else " with `--codes`"}.

| of predicted clean latents | before | after |
| --- | --- | --- |
{rows}

Class-conditional samples recognised: {100 * quality.recognised:.1f} % of {quality.samples}; \
diversity within a class, relative to real images: {diversity}.
"""
