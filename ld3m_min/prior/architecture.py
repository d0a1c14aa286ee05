"""Priors that are made here: their configuration, and their untrained networks (section 4.1).

The paper takes a prior that is there. These are small ones of the same make: an autoencoder and a
class-conditional U-Net.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ld3m_min.errors import InputError
from ld3m_min.io.seeds import seeded
from ld3m_min.io.values import checked
from ld3m_min.prior.classifier import ClassifierConfig
from ld3m_min.prior.kinds import Autoencoder, Denoiser
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.losses import LOSSES
from ld3m_min.prior.schedule import ldm_scheduler

HEAD = 8  # channels of a head of the attention


@dataclass(frozen=True)
class PriorConfig:
    """Architecture and training of a prior.

    Attributes:
        name: of the configuration.
        dataset: what it is trained on, a name that `load_data` knows.
        size: side of the images, pixels.
        vae_widths: channels of the autoencoder's levels; its factor is 2 ** (levels - 1).
        vae_layers: residual blocks per level.
        latent_channels: how many, c.
        unet_widths: channels of the denoiser's levels.
        unet_layers: residual blocks per level.
        attention: which levels attend to the conditioning.
        condition_width: D, the width of the one token.
        vae_steps: of the autoencoder's training.
        unet_steps: of the denoiser's training.
        vae_batch: images a step.
        unet_batch: latents a step.
        vae_lr: the autoencoder's highest rate.
        unet_lr: the denoiser's highest rate.
        kl_weight: of the autoencoder's Kullback-Leibler term.
        decoder_steps: of a training of the decoder alone, after the autoencoder's own, by what
            `seen_by` sees beside the pixels. Latents, and a denoiser of them, stay as they are. 0
            leaves it out.
        decoder_lr: the highest rate of that.
        seen_by: a ConvNet of the training images, another than `classifier`; None where
            `decoder_steps` is 0.
        label_dropout: how often the class is replaced by the null class.
        ema: decay of the averaged weights, which are the ones that are kept.
        loss: of the autoencoder, a name in `ld3m_min.prior.losses.LOSSES`.
        crop: the autoencoder is trained on random crops of so many pixels. It is convolutional, so
            it works at `size`. None for whole images.
        flip: mirror half of the images.
        latents: the denoiser is trained on the latents of so many training images, a class as often
            as another; None for all of them. With `flip`, also of their mirror images.
        min_snr: weigh the denoiser's loss by min(SNR, this) / SNR of the time step (Hang et al.,
            2023), which spends less on steps that are nearly clean. None weighs all alike.
        snapshots: steps of the denoiser after which its averaged weights are kept as well.
        checkpoint_every: steps after which a checkpoint is due.
        checkpoint_seconds: seconds after which one is due, if they pass first.
        classifier: what its images are recognised by; None for the support vector machine of the
            digits.
        gpu: whether the steps are meant for one.
        about: what the model card says of it.
        seed: of all that is drawn.
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

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
    decoder_steps: int = 0
    decoder_lr: float = 5e-4
    seen_by: ClassifierConfig | None = None
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
    classifier: ClassifierConfig | None = None
    gpu: bool = False
    about: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        checked(
            self,
            loss=tuple(LOSSES),
            vae_widths=">= 2",
            vae_layers=">= 1",
            latent_channels=">= 1",
            unet_widths=">= 2",
            unet_layers=">= 1",
            condition_width=">= 1",
            size=">= 1",
            crop=">= 1",
            vae_steps=">= 1",
            unet_steps=">= 1",
            vae_batch=">= 1",
            vae_lr="> 0",
            unet_batch=">= 1",
            unet_lr="> 0",
            kl_weight=">= 0",
            decoder_steps=">= 0",
            decoder_lr="> 0",
            label_dropout="in [0, 1)",
            ema="in [0, 1)",
            latents=">= 1",
            min_snr="> 0",
            snapshots=">= 1",
            checkpoint_every=">= 1",
            checkpoint_seconds="> 0",
        )
        for name in ("vae_widths", "unet_widths"):
            if not getattr(self, name):
                raise InputError(f"{name} must have a number for each level, but is empty")
        if len(self.attention) != len(self.unet_widths):
            raise InputError(
                f"attention has {len(self.attention)} value(s) for the {len(self.unet_widths)} "
                "levels of unet_widths; give one for each"
            )
        for width, attends in zip(self.unet_widths, self.attention, strict=True):
            if attends and width % HEAD:
                raise InputError(
                    f"unet_widths: a level that attends has heads of {HEAD} channels, and {width} "
                    "is no multiple of that; take another width, or attention False there"
                )
        if self.decoder_steps and (self.seen_by is None or self.seen_by.network != "ConvNet"):
            raise InputError(
                "decoder_steps needs a ConvNet as seen_by, whose features the decoder is to keep"
            )
        if self.decoder_steps and self.seen_by == self.classifier:
            raise InputError(
                "seen_by is the classifier that measures the prior, and would praise what it has "
                "taught; take another width"
            )
        factor = 2 ** (len(self.vae_widths) - 1)
        for name, side in (("size", self.size), ("crop", self.crop or self.size)):
            if side % factor or side > self.size:
                raise InputError(
                    f"{name} {side} must be a multiple of the autoencoder's factor {factor}, at "
                    f"most {self.size}"
                )


def build_prior(config: PriorConfig, classes: Sequence[str]) -> LatentDiffusionPrior:
    """An untrained prior; its weights are drawn from the configuration's seed.

    Args:
        config: the architecture.
        classes: their names, in label order. The embedding has one more row, the null class.
    """
    with torch.random.fork_rng(devices=[]):  # diffusers' constructors know no generator
        torch.default_generator.set_state(seeded(config.seed, "prior weights").get_state())
        autoencoder, denoiser = _autoencoder(config), _denoiser(config)
        embedding = nn.Embedding(len(classes) + 1, config.condition_width)
    return LatentDiffusionPrior(autoencoder, denoiser, ldm_scheduler(), embedding, classes=classes)


def _autoencoder(config: PriorConfig) -> Autoencoder:
    from diffusers import AutoencoderKL

    levels = len(config.vae_widths)
    return AutoencoderKL(
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


def _denoiser(config: PriorConfig) -> Denoiser:
    from diffusers import UNet2DConditionModel

    kinds = ["CrossAttn" if a else "" for a in config.attention]
    return UNet2DConditionModel(
        sample_size=config.size // 2 ** (len(config.vae_widths) - 1),
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        block_out_channels=config.unet_widths,
        layers_per_block=config.unet_layers,
        down_block_types=tuple(f"{k}DownBlock2D" for k in kinds),
        up_block_types=tuple(f"{k}UpBlock2D" for k in reversed(kinds)),
        cross_attention_dim=config.condition_width,
        attention_head_dim=HEAD,
        norm_num_groups=_groups(config.unet_widths),
    )


def _groups(widths: Sequence[int]) -> int:
    """Groups of the normalisation: a divisor of all widths, with two channels a group at least."""
    common = math.gcd(*widths, 32)
    return common if common < min(widths) else min(widths) // 2
