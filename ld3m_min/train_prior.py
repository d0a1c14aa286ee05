"""Train the prior that everything else keeps frozen: first the autoencoder, then the noise predictor on its latents.

Only training images are seen. Both stages write checkpoints and go on from them; every draw is counted
(`storage.seeded`), so that a resumed training is the training that was never interrupted.
"""
from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from .prior import LatentDiffusionPrior, ldm_scheduler
from .progress import bar
from .sampler import NO_RESIDUAL, SamplerConfig, generate
from .storage import load_checkpoint, locked, save_checkpoint, seeded


@dataclass(frozen=True)
class PriorConfig:
    """Architecture and training of a prior.

    Attributes:
        vae_widths, vae_layers: channels and residual blocks per level; f = 2 ** (levels - 1).
        unet_widths, unet_layers, attention: channels, blocks per level, which levels attend to the conditioning.
        condition_width: D. label_dropout: how often the class is replaced by the null class.
        kl_weight: of the autoencoder's Kullback-Leibler term; ema: decay of the averaged weights that are kept.
    """

    name: str
    dataset: str = "digits"
    size: int = 32
    vae_widths: tuple[int, ...] = (16, 32, 32)
    vae_layers: int = 1
    latent_channels: int = 3
    unet_widths: tuple[int, ...] = (32, 64)
    unet_layers: int = 1
    attention: tuple[bool, ...] = (True, True)
    condition_width: int = 32
    vae_steps: int = 1000
    unet_steps: int = 3000
    vae_batch: int = 64
    unet_batch: int = 64
    vae_lr: float = 2e-3
    unet_lr: float = 1e-3
    kl_weight: float = 1e-5
    label_dropout: float = 0.1
    ema: float = 0.995
    checkpoint_every: int = 500
    seed: int = 0


PRIOR_PRESETS = {
    "digits": PriorConfig("digits"),
    "smoke": PriorConfig("smoke", vae_widths=(8, 8, 8), unet_widths=(16, 16), condition_width=16, vae_steps=4,
                         unet_steps=4, vae_batch=8, unet_batch=8, checkpoint_every=2),
}


def prior_preset(name, **overrides):
    """The named :class:`PriorConfig` with some values changed; an unknown name or field is an error."""
    if name not in PRIOR_PRESETS:
        raise ValueError(f"unknown prior preset {name!r}; choose {', '.join(PRIOR_PRESETS)}")
    return replace(PRIOR_PRESETS[name], **overrides)


def _groups(widths):
    return math.gcd(*widths, 32) if math.gcd(*widths, 32) < min(widths) else min(widths) // 2


def build_prior(config, classes):
    """An untrained prior of the given architecture; weights drawn from the configuration's seed."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    levels = len(config.vae_widths)
    with torch.random.fork_rng(devices=[]):  # diffusers' constructors know no generator; the global state is put back
        torch.random.default_generator.set_state(seeded(config.seed, "prior weights").get_state())
        vae = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            latent_channels=config.latent_channels,
            block_out_channels=config.vae_widths,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=config.vae_layers,
            norm_num_groups=_groups(config.vae_widths),
            sample_size=config.size,
            scaling_factor=1.0,
        )
        kinds = ["CrossAttn" if a else "" for a in config.attention]
        unet = UNet2DConditionModel(
            sample_size=config.size // 2 ** (levels - 1),
            in_channels=config.latent_channels,
            out_channels=config.latent_channels,
            block_out_channels=config.unet_widths,
            layers_per_block=config.unet_layers,
            down_block_types=tuple(f"{k}DownBlock2D" for k in kinds),
            up_block_types=tuple(f"{k}UpBlock2D" for k in reversed(kinds)),
            cross_attention_dim=config.condition_width,
            attention_head_dim=8,
            norm_num_groups=_groups(config.unet_widths),
        )
        embedding = nn.Embedding(len(classes) + 1, config.condition_width)  # the last one is the null class
    return LatentDiffusionPrior(vae, unet, ldm_scheduler(), embedding, classes=classes)


def train_prior(config, data, out, *, device="cpu", progress=True, max_seconds=math.inf):
    """Train both stages, writing checkpoints below `out`; returns the finished prior (weights averaged).

    Args:
        data: :class:`~ld3m_min.data.DataSplits`; its training split alone is used.
        max_seconds: stop after this long with a checkpoint; the same command goes on from it.

    Raises:
        TimeoutError: `max_seconds` were up; everything done so far is in the checkpoint.
    """
    out, deadline = Path(out), time.monotonic() + max_seconds
    prior = build_prior(config, data.classes).to(device)
    images, labels = data.train.images.to(device), data.train.labels.to(device)
    vae = prior.autoencoder

    def vae_loss(step):
        g = seeded(config.seed, "autoencoder batch", step)
        x = images[torch.randint(len(images), (config.vae_batch,), generator=g).to(device)].float() / 255
        posterior = vae.encode(2 * x - 1).latent_dist
        eps = torch.randn(posterior.mean.shape, generator=g).to(device)
        y = vae.decode(posterior.mean + posterior.std * eps).sample
        return F.mse_loss(y, 2 * x - 1) + config.kl_weight * posterior.kl().mean()

    with locked(out):
        fit = dict(config=config, device=device, progress=progress, deadline=deadline)
        _fit({"vae": vae}, vae_loss, out / "autoencoder", steps=config.vae_steps, lr=config.vae_lr, **fit)
        with torch.no_grad():  # latents are made once; their scale becomes 1, as the schedule assumes
            latents = torch.cat([prior.encode(b.float() / 255) for b in images.split(256)])
        prior.scale = 1 / latents.std().item()
        vae.register_to_config(scaling_factor=prior.scale)
        latents = latents * prior.scale
        alpha_bar, null = prior.alpha_bar.float().to(device), len(data.classes)

        def unet_loss(step):
            g = seeded(config.seed, "unet batch", step)
            n = config.unet_batch
            index = torch.randint(len(latents), (n,), generator=g)
            t = torch.randint(prior.train_steps, (n,), generator=g)
            noise = torch.randn((n, *latents.shape[1:]), generator=g).to(device)
            drop = (torch.rand(n, generator=g) < config.label_dropout).to(device)
            label = labels[index.to(device)].masked_fill(drop, null)
            a = alpha_bar[t.to(device)].view(-1, 1, 1, 1)
            z_t = a.sqrt() * latents[index.to(device)] + (1 - a).sqrt() * noise
            c = prior.class_embedding(label)[:, None]
            return F.mse_loss(prior.predict_noise(z_t, t.to(device), c), noise)

        modules = {"unet": prior.denoiser, "class_embedding": prior.class_embedding}
        _fit(modules, unet_loss, out / "unet", steps=config.unet_steps, lr=config.unet_lr, **fit)
    for module in prior.modules:
        module.requires_grad_(False).eval()
    return prior


def _fit(modules, loss_of, folder, *, steps, lr, config, device, progress, deadline):
    """Adam with a cosine rate and averaged weights; leaves the averages in the modules."""
    params = {f"{m}.{k}": p for m, module in modules.items() for k, p in module.named_parameters()}
    for module in modules.values():
        module.requires_grad_(True).train()
    average = {k: p.detach().clone() for k, p in params.items()}
    adam = torch.optim.Adam(params.values(), lr=lr)
    start, name = 0, folder.name
    found = load_checkpoint(folder, config=asdict(config))
    if found:
        start = found.step
        with torch.no_grad():
            for k, p in params.items():
                p.copy_(found.tensors[f"weight.{k}"])
                average[k].copy_(found.tensors[f"average.{k}"])
                if start < steps:
                    slots = {s: found.tensors[f"{s}.{k}"].to(p.device) for s in ("exp_avg", "exp_avg_sq")}
                    adam.state[p] = slots | {"step": torch.tensor(float(start))}

    def save(step):
        tensors = {f"weight.{k}": p for k, p in params.items()} | {f"average.{k}": a for k, a in average.items()}
        for k, p in params.items():
            tensors |= {f"{s}.{k}": adam.state[p][s] for s in ("exp_avg", "exp_avg_sq")}
        save_checkpoint(folder, step, tensors, config=asdict(config))

    shown = bar(range(start, steps), initial=start, total=steps, desc=name, show=progress)
    for step in shown:
        for group in adam.param_groups:
            group["lr"] = lr * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2) * min(1, (step + 1) / 100)
        loss = loss_of(step)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss of the {name} is {loss.item()} at step {step}; lower its learning rate")
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params.values(), 1.0)
        adam.step()
        with torch.no_grad():
            decay = min(config.ema, (step + 1) / (step + 10))
            for k, p in params.items():
                average[k].lerp_(p, 1 - decay)
        if step % 20 == 0:
            shown.set_postfix(loss=f"{loss.item():.4f}")
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == steps:
            save(step + 1)
        elif time.monotonic() > deadline:
            save(step + 1)
            raise TimeoutError(f"stopped at step {step + 1} of {steps} of the {name}; run the same command to go on")
    with torch.no_grad():
        for k, p in params.items():
            p.copy_(average[k])
    for module in modules.values():
        module.requires_grad_(False).eval()


@dataclass(frozen=True)
class PriorQuality:
    """What the model card prints.

    Attributes:
        psnr: mean peak signal-to-noise ratio of decode(encode(x)) on held-out images, dB.
        recognised: fraction of class-conditional samples that the classifier takes for their class.
        classifier_accuracy: of the same classifier on held-out real images.
        diversity: mean distance between samples of one class over that between real images of one class.
        novelty: mean distance of a sample to its nearest training image, over that of held-out images.
    """

    psnr: float
    recognised: float
    classifier_accuracy: float
    diversity: float
    novelty: float
    samples: int
    held_out: int


@torch.no_grad()
def measure_prior(prior, data, *, per_class=50, steps=50, guidance_scale=3.0, seed=0):
    """Quality of a prior on the data's held-out test split; see :class:`PriorQuality`.

    The judge is a support vector machine on pixels (scikit-learn), trained on real training images: it shares nothing
    with the prior.
    """
    from sklearn.svm import SVC

    device = prior.device
    held = data.test.float().to(device)
    again = torch.cat([prior.decode(prior.encode(b)) for b in held.split(256)])
    psnr = (-10 * torch.log10((again - held).square().mean((1, 2, 3)))).mean().item()
    labels = torch.arange(len(data.classes)).repeat_interleave(per_class)
    samples = sample_prior(prior, labels, data.size, steps=steps, guidance_scale=guidance_scale, seed=seed).cpu()

    def flat(x):
        return F.avg_pool2d(x.float(), max(1, data.size // 16)).flatten(1)

    real, test = flat(data.train.float().cpu()), flat(held.cpu())
    judge = SVC(C=10.0).fit(real.numpy(), data.train.labels.cpu().numpy())
    made = flat(samples)
    same = data.test.labels.cpu()[:, None] == data.test.labels.cpu()[None]
    off = ~torch.eye(len(test), dtype=torch.bool)
    between = torch.cdist(made, made)
    own = (labels[:, None] == labels[None]) & ~torch.eye(len(made), dtype=torch.bool)
    return PriorQuality(
        psnr=round(psnr, 2),
        recognised=round(float((judge.predict(made.numpy()) == labels.numpy()).mean()), 4),
        classifier_accuracy=round(float((judge.predict(test.numpy()) == data.test.labels.cpu().numpy()).mean()), 4),
        diversity=round((between[own].mean() / torch.cdist(test, test)[same & off].mean()).item(), 3),
        novelty=round((torch.cdist(made, real).amin(1).mean() / torch.cdist(test, real).amin(1).mean()).item(), 3),
        samples=len(made),
        held_out=len(held),
    )


@torch.no_grad()
def sample_prior(prior, labels, size, *, steps=50, guidance_scale=3.0, seed=0, batch=250):
    """Ordinary class-conditional samples, from pure noise and without a residual: (B, 3, size, size) in [0, 1]."""
    side = size // prior.factor
    config = SamplerConfig(steps=steps, guidance_scale=guidance_scale, residual=NO_RESIDUAL)
    noise = torch.randn((len(labels), prior.latent_channels, side, side), generator=seeded(seed, "prior samples"))
    out = []
    for y, e in zip(labels.split(batch), noise.to(prior.device).split(batch), strict=True):
        out.append(generate(prior, torch.zeros_like(e), prior.class_conditioning(y), e, config))
    return torch.cat(out)


def write_card(folder, config, data, prior, quality):
    """Model card of a trained prior: what it was trained on, its measured quality, its limits."""
    from .storage import write_bytes

    millions = sum(p.numel() for m in prior.modules for p in m.parameters()) / 1e6
    splits = {s: len(data.split(s)) for s in ("train", "validation", "test")}
    text = f"""---
tags: [latent-diffusion, dataset-distillation]
---
# Prior `{config.name}`: a class-conditional latent diffusion model of {data.source or data.name}

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
