"""Architecture and training of the priors that are made here: their configuration, their presets, their untrained networks."""
from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from .errors import InputError
from .image_losses import LOSSES
from .prior import LatentDiffusionPrior, ldm_scheduler
from .prior_quality import JudgeConfig
from .storage import seeded
from .values import checked


@dataclass(frozen=True)
class PriorConfig:
    """Architecture and training of a prior.

    Attributes:
        vae_widths, vae_layers: channels and residual blocks per level; f = 2 ** (levels - 1).
        unet_widths, unet_layers, attention: channels, blocks per level, which levels attend to the conditioning.
        condition_width: D. label_dropout: how often the class is replaced by the null class.
        kl_weight: of the autoencoder's Kullback-Leibler term; ema: decay of the averaged weights that are kept.
        loss: of the autoencoder, a name of `image_losses.LOSSES`. crop: it is trained on random crops of so many pixels
            (it is convolutional, so it works at `size`); None for whole images. flip: mirror half of the images.
        latents: the denoiser is trained on the latents of so many training images, a class as often as another; None
            for all of them (with `flip`, and of their mirror images).
        min_snr: weigh the denoiser's loss by min(SNR, this) / SNR of the time step (Hang et al., 2023), which spends less on
            steps that are nearly clean; None weighs all alike. snapshots: steps of the denoiser after which its averaged
            weights are kept as well.
        checkpoint_every, checkpoint_seconds: steps, and seconds, after which a checkpoint is due, whichever comes first.
        judge: how its images are judged; None for the support vector machine of the digits. gpu: whether the steps are
            meant for one. about: what the model card says of it.
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
    loss: str = "mse"
    crop: int | None = None
    flip: bool = False
    latents: int | None = None
    min_snr: float | None = None
    snapshots: tuple[int, ...] = ()
    checkpoint_every: int = 500
    checkpoint_seconds: float = 60.0
    judge: JudgeConfig | None = None
    gpu: bool = False
    about: str = ""
    seed: int = 0

    def __post_init__(self):
        checked(self, loss=tuple(LOSSES), size=">= 1", crop=">= 1", vae_steps=">= 1", unet_steps=">= 1", vae_batch=">= 1", vae_lr="> 0",
                unet_batch=">= 1", unet_lr="> 0", kl_weight=">= 0", label_dropout="in [0, 1)", ema="in [0, 1)", latents=">= 1",
                min_snr="> 0", snapshots=">= 1", checkpoint_every=">= 1", checkpoint_seconds="> 0")
        factor = 2 ** (len(self.vae_widths) - 1)
        for name, side in (("size", self.size), ("crop", self.crop or self.size)):
            if side % factor or side > self.size:
                raise InputError(f"{name} {side} must be a multiple of the autoencoder's factor {factor}, at most {self.size}")


_NETTE = PriorConfig(  # 2,000 s on one H200, by an estimate: see the page on training a prior
    "imagenette-128", dataset="imagenette", size=128, vae_widths=(24, 48, 96), vae_layers=1, unet_widths=(48, 96, 160),
    unet_layers=1, attention=(False, True, True), condition_width=128, vae_steps=20_000, unet_steps=50_000, vae_batch=64,
    unet_batch=256, vae_lr=1e-3, unet_lr=5e-4, kl_weight=1e-6, loss="sharp", flip=True, ema=0.9995, checkpoint_every=5000,
    gpu=True, judge=JudgeConfig(), about="trained from scratch on ImageNette alone",
)
PRIOR_PRESETS = {
    "digits": PriorConfig("digits"),
    "smoke": PriorConfig("smoke", vae_widths=(8, 8, 8), unet_widths=(16, 16), condition_width=16, vae_steps=4,
                         unet_steps=4, vae_batch=8, unet_batch=8, checkpoint_every=2),
    "imagenette-128": _NETTE,
    "imagenette-64": PriorConfig(  # about ten hours of one thread, in bfloat16 where the processor has it
        "imagenette-64", dataset="imagenette", size=64, vae_widths=(32, 64, 64), latent_channels=4, unet_widths=(64, 128, 192),
        attention=(False, True, True), condition_width=128, vae_steps=10_000, unet_steps=50_000, vae_batch=16, unet_batch=64,
        vae_lr=1e-3, unet_lr=5e-4, kl_weight=1e-6, loss="sharp", flip=True, ema=0.999, min_snr=5.0,
        snapshots=(1000, 5000, 20_000), checkpoint_every=500, checkpoint_seconds=300.0,
        judge=JudgeConfig(network="ConvNet", width=64, size=64, epochs=20, per_class=20),
        about="trained from scratch on ImageNette alone, on one thread of a CPU"),
    "imagenette-64-smoke": PriorConfig(
        "imagenette-64-smoke", dataset="imagenette", size=64, vae_widths=(8, 8, 8), latent_channels=4, unet_widths=(8, 16, 16),
        attention=(False, True, True), condition_width=16, vae_steps=2, unet_steps=2, vae_batch=2, unet_batch=2, kl_weight=1e-6,
        loss="sharp", flip=True, latents=20, min_snr=5.0, snapshots=(1,), checkpoint_every=1,
        judge=JudgeConfig(network="ConvNet", width=8, size=64, epochs=1, held_out=20, per_class=2, steps=2, images=40),
        about="for a test: it draws nothing"),
    "imagenette-128-cpu": replace(
        _NETTE, name="imagenette-128-cpu", vae_steps=500, unet_steps=300, vae_batch=8, unet_batch=8, crop=64, vae_lr=2e-3,
        unet_lr=1e-3, ema=0.98, latents=640, checkpoint_every=100, gpu=False,
        judge=JudgeConfig(network="ConvNet", width=32, size=64, epochs=5, images=5000, held_out=200, per_class=4, steps=10),
        about="the architecture of `imagenette-128`, trained for about half an hour on one thread of a busy CPU: its "
              "reconstructions are soft and its samples poor; it shows that everything runs, and stands in for the prior "
              "that a GPU makes"),
    "imagenette-128-smoke": replace(
        _NETTE, name="imagenette-128-smoke", vae_steps=2, unet_steps=2, vae_batch=2, unet_batch=2, crop=32, latents=10,
        checkpoint_every=1, gpu=False,
        judge=JudgeConfig(network="ConvNet", width=8, size=32, epochs=1, held_out=20, per_class=2, steps=2, images=40)),
}


def prior_preset(name, **overrides):
    """The named :class:`PriorConfig` with some values changed; an unknown name or field is an error."""
    if name not in PRIOR_PRESETS:
        raise InputError(f"unknown prior preset {name!r}; choose {', '.join(PRIOR_PRESETS)}")
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
