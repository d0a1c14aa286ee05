"""What makes a latent space good for distillation, measured on digits.

    python tools/measure_compression.py

Four small autoencoders, alike but for one thing: compression by 2, 4 or 8 in each direction, and
the weight of the Kullback-Leibler term at 4. Each is trained for the same steps on the training
images; then DM distils through it, and networks are trained on the result. Written to
book/_data/records/compression-digits.json, one entry an autoencoder; a stopped run goes on with the
next entry.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from ld3m_min.data import load_data
from ld3m_min.evaluate import evaluate
from ld3m_min.experiments.places import RECORDS, RUNS
from ld3m_min.io.environment import environment
from ld3m_min.io.files import read_json, write_json
from ld3m_min.io.seeds import seeded
from ld3m_min.presets import eval_preset, preset
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.losses import ssim
from ld3m_min.prior.train import train_prior
from ld3m_min.run import distil, random_real

STEPS, REPEATS, NETWORKS = 150, 3, ("ConvNet", "AlexNet", "VGG11")
WIDTHS = {2: (16, 32), 4: (16, 32, 32), 8: (16, 32, 32, 32)}
# (factor, weight of the Kullback-Leibler term)
POINTS = [(2, 1e-5), (4, 1e-5), (8, 1e-5), (4, 1e-3)]


def config_of(factor, kl, steps=STEPS):
    """The autoencoder of one point; its denoiser is not trained."""
    return PriorConfig(
        f"digits-f{factor}-kl{kl:g}",
        vae_widths=WIDTHS[factor],
        kl_weight=kl,
        vae_steps=steps,
        vae_batch=32,
        unet_steps=0,
        unet_widths=(16, 16),
        condition_width=16,
        ema=0.98,
    )


@torch.no_grad()
def qualities(prior, data, push=0.3):
    """Reconstruction and smoothness of an autoencoder.

    `pushed` is what noise of `push` standard deviations in the latent does to the picture.
    `between` is the distance from the decoded middle of two latents of one class to the nearest
    real training image of any class, over that of a held-out image: near 1, the middle of two
    images is an image.
    """
    held = data.validation.float()
    z = prior.encode(held)
    again = prior.decode(z)
    noise = torch.randn(z.shape, generator=seeded(0, "push"))
    moved = prior.decode(z + push * noise)
    train = data.train.float().flatten(1)
    order = torch.argsort(data.validation.labels, stable=True)
    pairs = [
        (i, j)
        for i, j in zip(order[:-1].tolist(), order[1:].tolist(), strict=True)
        if data.validation.labels[i] == data.validation.labels[j]
    ]
    one, two = (torch.tensor(p) for p in zip(*pairs, strict=True))
    middle = prior.decode((z[one] + z[two]) / 2).flatten(1)
    far, usual = (torch.cdist(x, train).amin(1).mean() for x in (middle, held.flatten(1)))
    return {
        "numbers": z[0].numel(),
        "psnr": round(
            (-10 * torch.log10((again - held).square().mean((1, 2, 3)))).mean().item(), 2
        ),
        "ssim": round(ssim(again, held).mean().item(), 4),
        "pushed": round((moved - again).square().mean().sqrt().item(), 4),
        "between": round((far / usual).item(), 3),
    }


def accuracies_of(made, data, protocol):
    """Accuracies on the test images of networks trained on a set."""
    result = evaluate(made, data, NETWORKS, config=protocol)
    return {a: list(v) for a, v in result.accuracies.items()}


def main(records=RECORDS, runs=RUNS):
    file = Path(records) / "compression-digits.json"
    data, protocol = load_data("digits"), eval_preset("cpu", repeats=REPEATS)
    record = (
        read_json(file)
        if file.exists()
        else {
            "schema": 1,
            "what": "compression and smoothness of an autoencoder, digits",
            "random": None,
            "points": [],
        }
    )

    def keep():
        write_json(
            file,
            record | {"steps": STEPS, "evaluation": asdict(protocol), "environment": environment()},
        )

    if record["random"] is None:
        record["random"] = accuracies_of(random_real(preset("cpu"), data=data), data, protocol)
        keep()
    done = {(p["factor"], p["kl_weight"]) for p in record["points"]}
    for factor, kl in [p for p in POINTS if p not in done]:
        began, config = time.monotonic(), config_of(factor, kl)
        prior = train_prior(config, data, Path(runs) / config.name, progress=False)
        prior.source = str(Path(runs) / config.name)
        trained = time.monotonic()
        made = distil(
            preset("cpu", algorithm="DM", space="autoencoder"),
            data=data,
            prior=prior,
            progress=False,
        )
        record["points"].append(
            {
                "factor": factor,
                "kl_weight": kl,
                **qualities(prior, data),
                "accuracies": accuracies_of(made, data, protocol),
                "loss": [h["loss"] for h in made.history],
                "seconds": {
                    "train": round(trained - began, 1),
                    "distil": made.recipe["seconds"],
                    "all": round(time.monotonic() - began, 1),
                },
            }
        )
        keep()
        print(record["points"][-1] | {"loss": None}, flush=True)
    keep()


if __name__ == "__main__":
    sys.exit(main())
