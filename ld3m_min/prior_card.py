"""What a trained prior is delivered with: its model card, its record, a grid of its samples."""
from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from .files import in_card
from .prior_quality import measure_images, measure_prior, train_judge
from .storage import read_json, write_bytes, write_json


def finish_prior(config, data, prior, out, *, records, device="cpu"):
    """Measure a trained prior and write `out`/model, its card and its record; returns the quality.

    Photographs: weights are kept in bfloat16, and what is measured is what is kept; a grid of samples stands beside the record.
    """
    from .results import environment, files_of
    from .viz import save_strip

    out, records = Path(out), Path(records)
    name = f"prior-{config.name}-seed{config.seed}"
    record = {"schema": 1, "prior": config.name, "config": asdict(config), "seconds": round(_seconds(out)),
              "environment": environment(device), "files": files_of(data)}
    if config.judge is None:
        quality = measure_prior(prior, data)
        prior.save_pretrained(out / "model")
        write_card(out / "model", config, data, prior, quality)
    else:
        prior.to(dtype=torch.bfloat16).save_pretrained(out / "model")
        prior.to(dtype=torch.float32)
        judge = train_judge(data, config.judge, folder=out, device=device)
        quality, samples = measure_images(prior, data, judge, config.judge, seed=config.seed)
        write_image_card(out / "model", config, data, prior, quality, record)
        rows = samples.unflatten(0, (len(data.classes), -1))[:, :8].transpose(0, 1).flatten(0, 1)  # a column per class
        records.mkdir(parents=True, exist_ok=True)
        save_strip(rows, records / f"{name}.png", columns=len(data.classes))
    write_json(records / f"{name}.json", record | {"quality": asdict(quality)})
    return quality


def _seconds(out):
    """How long both stages trained, over all resumptions, from their last checkpoints."""
    last = [max((out / stage).glob("step-*")) / "manifest.json" for stage in ("autoencoder", "unet")]
    return sum(read_json(f)["notes"]["seconds"] for f in last)


def write_card(folder, config, data, prior, quality):
    """Model card of a trained prior: what it was trained on, its measured quality, its limits."""
    millions = sum(p.numel() for m in prior.modules for p in m.parameters()) / 1e6
    splits = {s: len(data.split(s)) for s in ("train", "validation", "test")}
    text = f"""---
tags: [latent-diffusion, dataset-distillation]
---
# Prior `{config.name}`: a class-conditional latent diffusion model of {in_card(data.source or data.name)}

- **Architecture**: `{type(prior.autoencoder).__name__}` (factor {prior.factor}, {prior.latent_channels} channels) and
  `{type(prior.denoiser).__name__}` with cross-attention to an embedding of {len(data.classes)} classes and a null class;
  {millions:.2f} M parameters. 1,000 steps, scaled-linear betas, noise prediction.
- **Trained on** the training split alone: {splits["train"]} images of {config.size} px (validation {splits["validation"]}
  and test {splits["test"]} were not seen), {config.vae_steps} + {config.unet_steps} steps, seed {config.seed}.
- **Made by** `python -m ld3m_min train-prior --preset {config.name}`.

| measured on held-out test images | |
| --- | --- |
| reconstruction, PSNR | {quality.psnr:.1f} dB ({quality.held_out} images) |
| class-conditional samples recognised ({quality.samples}, 50 steps, guidance 3) | {100 * quality.recognised:.1f} % |
| the same classifier on real images | {100 * quality.classifier_accuracy:.1f} % |
| diversity within a class, relative to real images | {quality.diversity:.2f} |
| distance to the nearest training image, relative to held-out images | {quality.novelty:.2f} |

The classifier is a support vector machine on pixels, trained on the real training images: it shares nothing with the
prior. **Limits**: it knows nothing but this data set; it is made to be distilled through, not to be sampled from.
"""
    write_bytes(Path(folder) / "README.md", text.encode())


def write_image_card(folder, config, data, prior, quality, record):
    """Model card of a prior of photographs: training data, split, licence of the images, quality, limits.

    Args:
        record: what `finish_prior` measured besides: "seconds", "environment", "files".
    """
    millions = sum(p.numel() for m in prior.modules for p in m.parameters()) / 1e6
    judge, percent = config.judge, lambda v: f"{100 * v:.1f} %"
    crops = f", crops of {config.crop} px" if config.crop else ""
    some = f" on the latents of {config.latents} images" if config.latents else ""
    drawn = f"{quality.samples} samples ({judge.steps} steps, guidance {judge.guidance_scale:g})"
    both = f"{percent(quality.judge_accuracy)} / {percent(quality.reconstructed_accuracy)}"
    files = f" The files were {record['files']}: not ImageNet's own, but a copy made square before." if record["files"] else ""
    text = f"""---
license: other
tags: [latent-diffusion, dataset-distillation]
---
# Prior `{config.name}`: a class-conditional latent diffusion model of ImageNette, {config.size} px

{config.about[0].upper() + config.about[1:]}.

- **Architecture**: `{type(prior.autoencoder).__name__}` (factor {prior.factor}, {prior.latent_channels} channels) and
  `{type(prior.denoiser).__name__}` with cross-attention to an embedding of {len(data.classes)} classes and a null class;
  {millions:.2f} M parameters, kept in bfloat16. 1,000 steps, scaled-linear betas, noise prediction.
- **Trained on** the {len(data.train):,} training images of the paper's split ({data.source}); {len(data.validation)} held-out
  training images and the {len(data.test)} official validation images were not seen.{files}
- **Training**: autoencoder {config.vae_steps:,} steps of {config.vae_batch} images{crops},
  denoiser {config.unet_steps:,} steps of {config.unet_batch}{some};
  seed {config.seed}; {record["seconds"] / 60:.0f} minutes on {record["environment"]["device"]}. No weights from elsewhere.
- **Made by** `python -m ld3m_min train-prior --preset {config.name}`.
- **Licence**: the images are ImageNet's, for non-commercial research and education; use these weights likewise.

| measured on {quality.held_out} held-out training images, {drawn} | |
| --- | --- |
| reconstruction, PSNR / SSIM | {quality.psnr:.1f} dB / {quality.ssim:.3f} |
| judge: accuracy on real images / on their reconstructions | {both} |
| judge: same answer for image and reconstruction | {percent(quality.agreement)} |
| distance image to reconstruction in the judge's features, over that of two images | {quality.feature_distance:.2f} |
| class-conditional samples recognised by the judge (chance {percent(1 / len(data.classes))}) | {percent(quality.recognised)} |
| diversity within a class in the judge's features, over that of real images | {quality.diversity:.2f} |

The judge is a {judge.network} at {judge.size} px, trained for {judge.epochs} epochs on the same real training images; it is no
better than its own accuracy. **Limits**: this prior knows ten classes and nothing else; it is made to be distilled through.
"""
    write_bytes(Path(folder) / "README.md", text.encode())
