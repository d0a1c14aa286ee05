"""Train the prior that everything else keeps frozen: its autoencoder, then its noise predictor.

Sections 2.2 and 4.1. Only training images are seen. Both stages write checkpoints and go on from
them; every draw is counted (:func:`ld3m_min.io.seeds.seeded`), so that a resumed training is the
training that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.io.digests import digest
from ld3m_min.io.lock import locked
from ld3m_min.io.progress import bar
from ld3m_min.io.seeds import seeded
from ld3m_min.io.stop import REASONS, stoppable
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.autoencoder_training import autoencoder_loss, decoder_loss, decoder_parts
from ld3m_min.prior.class_map import NO_MAP, ClassMap
from ld3m_min.prior.classifier import train_classifier
from ld3m_min.prior.fit import Look, Loss, fit
from ld3m_min.prior.kept import keep_tensors, kept_tensors
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.noising import laid, noised_batch
from ld3m_min.prior.progress_pictures import reconstructions, samples
from ld3m_min.prior.real_images import RealImages
from ld3m_min.prior.start import started

_APART = (  # fields that change no weight
    "name", "checkpoint_every", "checkpoint_seconds", "classifier", "gpu", "about", "snapshots",
)  # fmt: skip
_DECODER = ("decoder_steps", "decoder_lr", "seen_by")  # fields that the decoder alone depends on
_LATER = (  # fields that the autoencoder does not depend on
    "unet_widths", "unet_layers", "attention", "condition_width", "unet_steps", "unet_batch",
    "unet_lr", "label_dropout", "latents", "min_snr",
)  # fmt: skip


def train_prior(
    config: PriorConfig,
    data: RealImages,
    out: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    start: LatentDiffusionPrior | None = None,
    progress: bool = True,
    pictures: int = 0,
    class_map: ClassMap = NO_MAP,
    begun: Callable[[], None] | None = None,
) -> LatentDiffusionPrior:
    """Train both stages, writing checkpoints below `out`.

    Asked to stop (SIGTERM, Ctrl-C, a deadline), it saves and leaves; called again it goes on as if
    it had never stopped: on the CPU bit for bit, on a GPU as far as the GPU's own sums repeat.

    Args:
        config: architecture and training.
        data: its training split alone is used.
        out: the folder of the checkpoints.
        device: where it is trained.
        dtype: of the forward passes: torch.bfloat16 runs them under autocast, with float32 weights,
            gradients and averages; torch.float32 does not. None takes bfloat16 on a GPU and float32
            elsewhere. On a CPU bfloat16 also compiles the denoiser for long trainings (verified,
            see `fit.compiled`), takes attention as plain products, and flushes denormal numbers to
            zero: twice as fast where the processor multiplies bfloat16, else slower.
        start: a prior to go on from: its encoder is kept as it is, its decoder too unless
            `config.decoder_steps` says otherwise, and its denoiser trained
            `config.unet_steps` further, with a rate that rises and falls anew. An autoencoder alone
            gets a denoiser; other classes a new embedding (:mod:`ld3m_min.prior.start`). None
            trains both from nothing.
        progress: show bars.
        pictures: how many to write of each stage, below `out`/samples: held-out images above their
            reconstructions, and samples.
        class_map: which classes of `start` those of the data are, where the names don't tell.
        begun: called once nobody else works in `out` and no checkpoint there is of another
            training. None does nothing.

    Returns:
        The finished prior: averaged weights, float32.

    Raises:
        InputError: `start` has another architecture, or does not fit the images; or the checkpoints
            in `out` are of another training.
        Busy: another process works in `out`.
        NotFinite: a loss is not finite.
        Interrupted: it was asked to stop; everything done so far is in the checkpoint.
    """
    out, device = Path(out), torch.device(device)
    on_gpu = device.type == "cuda"
    dtype = dtype or (torch.bfloat16 if on_gpu else torch.float32)
    first = started(config, data.classes, start, class_map)
    prior = first.prior.to(device)
    assert prior.denoiser is not None, "it was built with one"
    for network in (prior.autoencoder, prior.denoiser):
        laid(network)
    # uint8: all of ImageNette is 0.6 GB
    images, labels = data.train.images.to(device), data.train.labels.to(device)
    shared: dict[str, Any] = {
        "ema": config.ema,
        "device": device,
        "dtype": dtype,
        "progress": progress,
    }

    def checkpoints(stage: str) -> Checkpointer:
        known = _identity(config, dtype, stage, data.train.digest)
        known |= {} if start is None else {"start": start.digest}
        known |= {"class_map": class_map.record} if class_map else {}
        every, seconds = config.checkpoint_every, config.checkpoint_seconds
        return Checkpointer(out / stage, known, every=every, seconds=seconds)

    with locked(out):
        if begun is not None:
            stages = ["autoencoder"] * (start is None) + ["decoder"] * bool(config.decoder_steps)
            for stage in (*stages, "unet"):
                checkpoints(stage).load()  # refuses those of another training
            begun()
        if start is None:
            kept, vae = checkpoints("autoencoder"), {"vae": prior.autoencoder}
            loss = autoencoder_loss(prior, images, config)
            look: Look | None = None
            if pictures:
                every = -(-config.vae_steps // pictures)
                look = reconstructions(prior, data, out / "samples", every)
            fit(vae, loss, kept, steps=config.vae_steps, lr=config.vae_lr, look=look, **shared)
        if config.decoder_steps:
            _fit_decoder(prior, data, images, config, out, checkpoints("decoder"), shared)
        scale = prior.scale if first.keeps_scale else None
        of = data.train.digest
        latents, labels = _latents(prior, images, labels, config, out, of, progress, scale)
        loss = denoiser_loss(prior, latents, labels, config)
        kept = checkpoints("unet")
        modules = {"unet": prior.denoiser, "class_embedding": _table(prior)}
        shared["snapshots"], look = config.snapshots, None
        if pictures:
            every = -(-config.unet_steps // pictures)
            look = samples(prior, config.size, out / "samples", every, config.seed)
        fit(modules, loss, kept, steps=config.unet_steps, lr=config.unet_lr, look=look, **shared)
    for module in prior.modules:
        module.requires_grad_(False).eval()
    return prior


def _fit_decoder(
    prior: LatentDiffusionPrior,
    data: RealImages,
    images: UInt8[Tensor, "N 3 H W"],
    config: PriorConfig,
    out: Path,
    kept: Checkpointer,
    shared: dict[str, Any],
) -> None:
    """Train the decoder alone, by what a classifier of its own sees, which is kept in `out`."""
    assert config.seen_by is not None, "the configuration has one"
    options = {"folder": out, "device": shared["device"], "progress": shared["progress"]}
    seen_by = train_classifier(data, config.seen_by, **options)
    loss = decoder_loss(prior, data, images, seen_by, config)
    parts, steps = decoder_parts(prior), config.decoder_steps
    fit(parts, loss, kept, steps=steps, lr=config.decoder_lr, **shared)


def _table(prior: LatentDiffusionPrior) -> nn.Embedding:
    """The class embedding, which a prior that is trained here always has."""
    assert prior.class_embedding is not None
    return prior.class_embedding


def denoiser_loss(
    prior: LatentDiffusionPrior,
    latents: Float[Tensor, "N c h w"],
    labels: Int[Tensor, " N"],
    config: PriorConfig,
) -> Loss:
    """Squared error of the predicted noise of a batch, by the number of the step.

    Args:
        prior: whose denoiser is trained.
        latents: to draw from, on its device.
        labels: of the latents.
        config: of the training.
    """
    table = _table(prior)

    def loss(step: int) -> Tensor:
        g = seeded(config.seed, "unet batch", step)
        batch = noised_batch(
            prior, latents, labels, config.unet_batch, g, label_dropout=config.label_dropout
        )
        c = table(batch.given)[:, None]
        predicted = prior.predict_noise(laid(batch.z), batch.t, c).float()
        error = (predicted - batch.noise).square()
        if config.min_snr is None:
            return error.mean()
        snr = batch.gamma / (1 - batch.gamma)
        return (snr.clamp(max=config.min_snr) / snr * error).mean()

    return loss


@torch.no_grad()
def _latents(
    prior: LatentDiffusionPrior,
    images: UInt8[Tensor, "N 3 H W"],
    labels: Int[Tensor, " N"],
    config: PriorConfig,
    out: Path,
    content: str,
    progress: bool,
    scale: float | None = None,
) -> tuple[Float[Tensor, "M c h w"], Int[Tensor, " M"]]:
    """Latents of the training images and their labels, their scale brought to 1, or to `scale`.

    The factor becomes the prior's; a unit scale is what the noise schedule assumes. A choice of
    `config.latents` is for slow machines: it is made once and kept in `out`, with a digest of all
    that it depends on. All of them take seconds on a GPU, where they are made anew at each start.

    Args:
        prior: whose autoencoder encodes.
        images: of the training split.
        labels: of the images.
        config: of the training.
        out: the folder of the training.
        content: digest of the training split.
        progress: show a bar.
        scale: that the latents keep; None brings it to 1.
    """
    if config.latents is not None:
        each, g = math.ceil(config.latents / len(prior.classes)), seeded(config.seed, "latents")
        places = [torch.nonzero(labels.cpu() == k).flatten() for k in range(len(prior.classes))]
        chosen = torch.cat([p[torch.randperm(len(p), generator=g)[:each]] for p in places])
        images, labels = (x[chosen.to(x.device)] for x in (images, labels))
    if config.latents is None:
        latents = encoded(prior, images, flip=config.flip, batch=256, progress=progress)
    else:
        file, of = out / "latents.safetensors", _latents_identity(prior, config, content)
        if (found := kept_tensors(file, of)) is not None:
            latents = found["latents"].to(images.device)
        else:
            latents = encoded(prior, images, flip=config.flip, batch=32, progress=progress)
            latents = latents.contiguous()  # as it will be read
            keep_tensors(file, {"latents": latents}, of)
    labels = labels.repeat(1 + config.flip)
    if scale is not None:
        return latents, labels
    factor = 1 / latents.std().item()
    prior.scale *= factor
    prior.autoencoder.register_to_config(scaling_factor=prior.scale)
    return latents * factor, labels


def _latents_identity(prior: LatentDiffusionPrior, config: PriorConfig, content: str) -> str:
    """What latents depend on that are kept: images, autoencoder, and how the images are chosen."""
    weights = prior.autoencoder.state_dict()
    names = sorted(weights)
    choice = [config.latents, config.seed, config.flip, prior.scale, content]
    return digest(*(weights[k] for k in names), names, choice)


def encoded(
    prior: LatentDiffusionPrior,
    images: UInt8[Tensor, "N 3 H W"],
    *,
    flip: bool,
    batch: int,
    progress: bool,
) -> Float[Tensor, "M c h w"]:
    """Latents of images and, behind them, of their mirror images.

    Args:
        prior: whose autoencoder encodes.
        images: bytes.
        flip: whether the mirror images are encoded.
        batch: images at a time.
        progress: show a bar.

    Raises:
        Interrupted: it was asked to stop.
    """
    parts = []
    with stoppable() as stop:
        for mirrored in (False, True)[: 1 + flip]:
            for part in bar(images.split(batch), desc="latents", show=progress):
                x = part.float() / 255
                parts.append(prior.encode(x.flip(3) if mirrored else x))
                # a deadline may wait: else little time would never do
                if stop.reason and REASONS[stop.reason] != 75:
                    stop.leave("the latents are to be made again; what was done before is saved")
    return torch.cat(parts)


def _identity(config: PriorConfig, dtype: torch.dtype, stage: str, content: str) -> dict[str, Any]:
    """What two trainings must share for one to go on from the other's checkpoint.

    Not when it saves, nor who classifies its samples. An autoencoder serves any denoiser.
    """
    apart = (*_APART, *(() if stage == "unet" else _LATER))
    apart += () if stage == "decoder" else _DECODER
    values = {k: v for k, v in asdict(config).items() if k not in apart}
    return values | {"dtype": str(dtype), "content": content}
