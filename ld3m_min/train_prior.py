"""Train the prior that everything else keeps frozen: first the autoencoder, then the noise predictor on its latents.

Only training images are seen. Both stages write checkpoints and go on from them; every draw is counted
(`storage.seeded`), so that a resumed training is the training that was never interrupted.
"""
from __future__ import annotations

import math
import time
import warnings
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from .backprop import compile_part
from .errors import NotFinite
from .image_losses import LOSSES
from .prior_card import finish_prior, write_card, write_image_card  # noqa: F401
from .prior_config import PRIOR_PRESETS, PriorConfig, build_prior, prior_preset  # noqa: F401
from .prior_quality import PriorQuality, measure_images, measure_prior, sample_prior, train_judge  # noqa: F401
from .progress import bar
from .signals import REASONS, stoppable
from .storage import load_checkpoint, locked, save_checkpoint, seeded, to_bytes, write_bytes


def train_prior(config, data, out, *, device="cpu", dtype=None, progress=True):
    """Train both stages, writing checkpoints below `out`; returns the finished prior (weights averaged, float32).

    Asked to stop (`signals`: SIGTERM, Ctrl-C, a deadline), it saves and leaves; called again it goes on as if it had
    never stopped: on the CPU bit for bit, on a GPU as far as the GPU's own sums repeat.

    Args:
        data: :class:`~ld3m_min.data.DataSplits`; its training split alone is used.
        dtype: of the forward passes: torch.bfloat16 runs them under autocast, with float32 weights, gradients and
            averages; torch.float32 does not. None takes bfloat16 on a GPU and float32 elsewhere. On a CPU bfloat16 also
            compiles the denoiser for long trainings (verified, see :func:`compiled`), takes attention as plain products, and
            flushes denormal numbers to zero: twice as fast where the processor multiplies bfloat16, else slower.

    Raises:
        Interrupted: it was asked to stop; everything done so far is in the checkpoint.
    """
    out, device = Path(out), torch.device(device)
    on_gpu = device.type == "cuda"
    dtype = dtype or (torch.bfloat16 if on_gpu else torch.float32)
    prior = build_prior(config, data.classes).to(device)

    def laid(x):  # channels_last is what convolutions in bfloat16 are fast in; elsewhere any change alters the order of sums
        return x.to(memory_format=torch.channels_last) if on_gpu else x

    for network in (prior.autoencoder, prior.denoiser):
        laid(network)
    images, labels = data.train.images.to(device), data.train.labels.to(device)  # uint8: all of ImageNette is 0.6 GB
    vae, distance = prior.autoencoder, LOSSES[config.loss]
    content = data.train.digest

    def normal(shape, g):  # on a GPU drawn there: 10 ms a step of drawing and copying saved, other numbers than the CPU's
        if not on_gpu:
            return torch.randn(shape, generator=g)
        return torch.randn(shape, generator=torch.Generator(device).manual_seed(g.initial_seed()), device=device)

    def vae_loss(step):
        g = seeded(config.seed, "autoencoder batch", step)
        x = images[torch.randint(len(images), (config.vae_batch,), generator=g).to(device)]
        x = laid(_augmented(x, config, g).float() / 255)
        posterior = vae.encode(2 * x - 1).latent_dist
        y = vae.decode(posterior.mean + posterior.std * normal(posterior.mean.shape, g)).sample
        return distance(y.float(), 2 * x - 1) + config.kl_weight * posterior.kl().float().mean()

    with locked(out):
        fit = dict(config=config, device=device, dtype=dtype, progress=progress, content=content)
        _fit({"vae": vae}, vae_loss, out / "autoencoder", steps=config.vae_steps, lr=config.vae_lr, **fit)
        latents, labels = _latents(prior, images, labels, config, out, progress)
        alpha_bar, null = prior.alpha_bar.float().to(device), len(data.classes)

        def unet_loss(step):
            g = seeded(config.seed, "unet batch", step)
            n = config.unet_batch
            index = torch.randint(len(latents), (n,), generator=g)
            t = torch.randint(prior.train_steps, (n,), generator=g)
            noise = normal((n, *latents.shape[1:]), g)
            drop = (torch.rand(n, generator=g) < config.label_dropout).to(device)
            label = labels[index.to(device)].masked_fill(drop, null)
            a = alpha_bar[t.to(device)].view(-1, 1, 1, 1)
            z_t = a.sqrt() * latents[index.to(device)] + (1 - a).sqrt() * noise
            c = prior.class_embedding(label)[:, None]
            error = (prior.predict_noise(laid(z_t), t.to(device), c).float() - noise).square()
            if config.min_snr is None:
                return error.mean()
            snr = a / (1 - a)
            return (snr.clamp(max=config.min_snr) / snr * error).mean()

        modules = {"unet": prior.denoiser, "class_embedding": prior.class_embedding}
        _fit(modules, unet_loss, out / "unet", steps=config.unet_steps, lr=config.unet_lr, **fit)
    for module in prior.modules:
        module.requires_grad_(False).eval()
    return prior


def _augmented(x, config, generator):
    """A batch (B, 3, H, W), cropped at one random place and half of it mirrored, where the configuration says so."""
    if config.crop:
        row, column = torch.randint(config.size - config.crop + 1, (2,), generator=generator).tolist()
        x = x[..., row : row + config.crop, column : column + config.crop]
    if config.flip:
        x = torch.where((torch.rand(len(x), generator=generator) < 0.5).view(-1, 1, 1, 1).to(x.device), x.flip(3), x)
    return x


@torch.no_grad()
def _latents(prior, images, labels, config, out, progress):
    """Latents of the training images and their labels, their scale brought to 1; the factor becomes the prior's.

    The unit scale is what the noise schedule assumes. A choice of `config.latents` is for slow machines: it is made once and
    kept in `out`. All of them take seconds on a GPU, where they are made anew at each start.
    """
    if config.latents is not None:
        each = math.ceil(config.latents / len(prior.classes))
        g = seeded(config.seed, "latents")
        chosen = [p[torch.randperm(len(p), generator=g)[:each]] for p in
                  (torch.nonzero(labels.cpu() == k).flatten() for k in range(len(prior.classes)))]
        images, labels = (x[torch.cat(chosen).to(x.device)] for x in (images, labels))
    file = config.latents and out / "latents.safetensors"
    if file and file.exists():
        latents = load_file(file)["latents"].to(images.device)
    else:
        parts = []
        with stoppable() as stop:
            for mirrored in (False, True)[: 1 + config.flip]:
                for part in bar(images.split(32 if config.latents else 256), desc="latents", show=progress):
                    part = part.float() / 255
                    parts.append(prior.encode(part.flip(3) if mirrored else part))
                    if stop.reason and REASONS[stop.reason] != 75:  # a deadline may wait: else little time would never do
                        stop.leave("the autoencoder is done and saved, its latents are to be made again")
        latents = torch.cat(parts)
        if file:
            latents = latents.contiguous()  # as it will be read
            write_bytes(file, to_bytes({"latents": latents}))
    prior.scale = 1 / latents.std().item()
    prior.autoencoder.register_to_config(scaling_factor=prior.scale)
    return latents * prior.scale, labels.repeat(1 + config.flip)


_LATER = ("unet_widths", "unet_layers", "attention", "condition_width", "unet_steps", "unet_batch", "unet_lr", "label_dropout",
          "latents", "min_snr")  # fields that the autoencoder does not depend on


def _identity(config, dtype, stage, content):
    """What two trainings must share for one to go on from the other's checkpoint: not when it saves, nor who judges.

    An autoencoder serves any denoiser.
    """
    apart = ("name", "checkpoint_every", "checkpoint_seconds", "judge", "gpu", "about", "snapshots",
             *(_LATER if stage == "autoencoder" else ()))
    return {k: v for k, v in asdict(config).items() if k not in apart} | {"dtype": str(dtype), "content": content}


def _fit(modules, loss_of, folder, *, steps, lr, config, device, dtype, progress, content):
    """Adam with a cosine rate and averaged weights; leaves the averages in the modules."""
    params = {f"{m}.{k}": p for m, module in modules.items() for k, p in module.named_parameters()}
    for module in modules.values():
        module.requires_grad_(True).train()
    average = {k: p.detach().clone() for k, p in params.items()}
    fast = dtype == torch.bfloat16 and device.type == "cpu"
    adam = torch.optim.Adam(params.values(), lr=lr, fused=True if fast else None)
    start, name, identity = 0, folder.name, _identity(config, dtype, folder.name, content)
    found = load_checkpoint(folder, config=identity)
    before, began = 0.0, time.monotonic()
    if found:
        start, before = found.step, found.notes["seconds"]
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
        save_checkpoint(folder, step, tensors, config=identity, notes={"seconds": before + time.monotonic() - began})

    look = 1 if device.type == "cpu" else 50  # a look at the loss waits for the GPU
    weights, averages, saved = list(params.values()), list(average.values()), time.monotonic()
    shown = bar(range(start, steps), initial=start, total=steps, desc=name, show=progress)
    if fast and "unet" in modules and steps - start >= 2000:
        compiled(modules["unet"], weights, lambda: loss_of(start), dtype)
    with stoppable() as stop, _few_tokens(fast):
        for step in shown:
            for group in adam.param_groups:
                cosine = (1 + math.cos(math.pi * step / steps)) / 2
                group["lr"] = lr * (0.01 + 0.99 * cosine) * min(1, (step + 1) / 100)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = loss_of(step)
            due = (step + 1) % config.checkpoint_every == 0 or step + 1 == steps
            due = due or time.monotonic() - saved > config.checkpoint_seconds or stop.reason is not None
            if (due or step % look == 0) and not torch.isfinite(loss):
                raise NotFinite(f"loss of the {name} is {loss.item()} at step {step}; lower its learning rate")
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            adam.step()
            with torch.no_grad():
                torch._foreach_lerp_(averages, weights, 1 - min(config.ema, (step + 1) / (step + 10)))
            if name == "unet" and step + 1 in config.snapshots:
                write_bytes(folder.parent / "snapshots" / f"unet-{step + 1:06d}.safetensors", to_bytes(average))
            if step % 20 == 0:
                shown.set_postfix(loss=f"{loss.item():.4f}")
            if due:
                save(step + 1)
                saved = time.monotonic()
            if stop.reason:
                if not due:
                    save(step + 1)
                stop.leave(f"{step + 1:,} of {steps:,} steps of the {name} are saved")
    with torch.no_grad():
        for k, p in params.items():
            p.copy_(average[k])
    for module in modules.values():
        module.requires_grad_(False).eval()


@contextmanager
def _few_tokens(fast):
    """Attention as plain products, which are faster than the flash kernel's backward for few tokens, and no denormal numbers."""
    if not fast:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)


def compiled(denoiser, weights, loss_of, dtype):
    """Compile a denoiser in place for its training, if its loss and gradients are then what they were; returns whether.

    Args:
        weights: its parameters and all that is trained with it. loss_of: () -> the loss of one batch, the same at each call.
    """
    def measured():
        with _few_tokens(True), torch.autocast("cpu", dtype):
            loss = loss_of()
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        return torch.cat([loss.detach().view(1), *(g.flatten() for g in found if g is not None)])

    wanted, plain = measured(), denoiser.forward
    try:
        compile_part(denoiser, "forward", "default")
        error = float((measured() - wanted).norm() / wanted.norm())
        if error <= 0.05:  # two roundings to bfloat16 differ by about 0.01
            return True
        why = f"its gradient is off by {error:.0%}"
    except Exception as error:  # no compiler, no cache, an operation that it doesn't know
        why = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    denoiser.forward = plain
    warnings.warn(f"the denoiser is trained uncompiled: {why}", stacklevel=3)
    return False
