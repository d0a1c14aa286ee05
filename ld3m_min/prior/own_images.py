"""The sizes of a prior for a folder of one's own images: from the images, the time, the machine.

Levels and batches follow the side of the images; widths, their number and the time; how many steps,
the time alone (:mod:`ld3m_min.prior.training_time`). Nothing here looks at an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ld3m_min.errors import InputError
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.classifier import ClassifierConfig

OWN = PriorConfig(  # what is not chosen from the images
    "own",
    size=64,
    vae_lr=1e-3,
    unet_lr=5e-4,
    kl_weight=1e-6,
    loss="sharp",
    flip=True,
    min_snr=5.0,
    checkpoint_seconds=120.0,
    classifier=ClassifierConfig(network="ConvNet", width=64, size=64),
    about="trained from scratch on a folder of images",
)
SIDES = (256, 128, 64, 32)
FEW_IMAGES = (500, 5000)  # below which networks stay small, or not large: they would memorise


@dataclass(frozen=True)
class Networks:
    """Widths of both networks, channel by channel."""

    vae: tuple[int, ...]
    unet: tuple[int, ...]


@dataclass(frozen=True)
class Frame:
    """What a side of images asks of a prior.

    Attributes:
        latent_channels: how many, c.
        vae_batch: images a step.
        unet_batch: latents a step.
        networks: from the smallest to the largest.
    """

    latent_channels: int
    vae_batch: int
    unet_batch: int
    networks: tuple[Networks, ...]


# a factor of 4 up to 128 px: with 8, an afternoon's autoencoder keeps too little of a photograph
FRAMES = {
    32: Frame(
        3,
        32,
        64,
        (
            Networks((16, 32, 32), (32, 64)),
            Networks((32, 64, 64), (64, 128)),
            Networks((48, 96, 96), (96, 192)),
        ),
    ),
    64: Frame(
        4,
        16,
        64,
        (
            Networks((16, 32, 32), (32, 64, 96)),
            Networks((32, 64, 64), (64, 128, 192)),
            Networks((48, 96, 96), (96, 192, 256)),
        ),
    ),
    128: Frame(
        4,
        8,
        32,
        (
            Networks((16, 32, 48), (32, 64, 96)),
            Networks((24, 48, 96), (48, 96, 160)),
            Networks((32, 64, 128), (96, 192, 256)),
        ),
    ),
    256: Frame(
        8,
        4,
        32,
        (
            Networks((16, 32, 48, 64), (32, 64, 96)),
            Networks((24, 48, 96, 96), (48, 96, 160)),
            Networks((32, 64, 128, 128), (96, 192, 256)),
        ),
    ),
}


def reached(short_sides: Sequence[int]) -> tuple[int, ...]:
    """The sides that most images reach, from the largest on; 32 if nothing else.

    Args:
        short_sides: of the images, pixels.
    """
    half = sorted(short_sides)[len(short_sides) // 2] if short_sides else 0
    return tuple(s for s in SIDES if s <= half) or (32,)


def check_side(size: int) -> None:
    """Refuse a side that the networks are not made for.

    Args:
        size: pixels.

    Raises:
        InputError: not a multiple of 16 from 32 to 256, or above 128 of 32.
    """
    if not 32 <= size <= 256 or size % 16:
        raise InputError(
            f"--size {size} is no side of a prior of one's own images; give a multiple of 16 from "
            "32 to 256, as 32, 64, 128 or 256"
        )


def sized(size: int, scale: int, name: str) -> PriorConfig:
    """The configuration of a side, at one of its three scales; its steps are still to be chosen.

    Args:
        size: side of the images, pixels.
        scale: 0 for the smallest networks, 1 or 2.
        name: of the configuration.

    Raises:
        InputError: no such side.
    """
    check_side(size)
    frame = FRAMES[max(s for s in FRAMES if s <= size)]
    networks = frame.networks[scale]
    levels = len(networks.unet)
    return replace(
        OWN,
        name=name,
        size=size,
        vae_widths=networks.vae,
        latent_channels=frame.latent_channels,
        unet_widths=networks.unet,
        attention=(True,) * 2 if levels == 2 else (False,) + (True,) * (levels - 1),
        condition_width=64 if scale == 0 else 128,
        vae_batch=frame.vae_batch,
        unet_batch=frame.unet_batch,
        classifier=ClassifierConfig(network="ConvNet", width=64, size=classifier_side(size)),
    )


def classifier_side(size: int) -> int:
    """The side of the classifier's images: those of the prior, averaged down to 64 or more.

    Args:
        size: side of the prior's images, pixels.
    """
    return next(size // d for d in (4, 2, 1) if d == 1 or (size // d >= 64 and size // d % 16 == 0))


def largest_scale(images: int) -> int:
    """The largest scale of networks that so many images can fill.

    Args:
        images: in the training split.
    """
    return sum(images >= few for few in FEW_IMAGES)
