"""The sizes of a prior for a folder of one's own images: from the images, the time, the machine.

Widths, levels and batches follow the side of the images; how wide, their number and the time; how
many steps, the time alone, at the speeds that a probe of some seconds has measured on this machine
(:mod:`ld3m_min.planner.training_speed`). Nothing here looks at an image.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ld3m_min.errors import InputError
from ld3m_min.io.values import within
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
# of which a larger network, or larger images, must still be able to take so many steps
ENOUGH = (2000, 5000)  # autoencoder, denoiser
LEAST = (300, 1000)  # below which reconstructions are mush, samples noise
FULL = (20_000, 50_000)  # beyond which the priors of this book are not trained
FEW_IMAGES = (500, 5000)  # below which networks stay small, or not large: they would memorise
PICTURES = 12  # of each stage, at most


@dataclass(frozen=True)
class Networks:
    """Widths of both networks, channel by channel."""

    vae: tuple[int, ...]
    unet: tuple[int, ...]


@dataclass(frozen=True)
class Frame:
    """What a side of images asks of a prior.

    Attributes:
        latent_channels: c.
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


@dataclass(frozen=True)
class Speeds:
    """What a probe has measured of a configuration on this machine.

    Attributes:
        autoencoder: seconds of a training step; 0 where it isn't trained.
        denoiser: seconds of a training step.
        encoding: seconds of an image's latent.
        drawing: seconds of one step of the chain of one sample, with guidance.
        classifier: seconds of a training step.
        peak_bytes: largest memory of a step: weights, their averages and moments, activations.
        autoencoder_weights: how many numbers.
        denoiser_weights: how many numbers.
    """

    autoencoder: float
    denoiser: float
    encoding: float
    drawing: float
    classifier: float
    peak_bytes: int
    autoencoder_weights: int
    denoiser_weights: int


@dataclass(frozen=True)
class Images:
    """As much of a data set as sizes depend on.

    Attributes:
        trained_on: images in the training split.
        classes: how many.
    """

    trained_on: int
    classes: int


@dataclass(frozen=True)
class Times:
    """How the time of a plan is spent, seconds.

    Attributes:
        autoencoder: its training.
        latents: encoding all training images once.
        denoiser: its training.
        pictures: on the way.
        classifier: its training.
        samples: that are measured.
    """

    autoencoder: float
    latents: float
    denoiser: float
    pictures: float
    classifier: float
    samples: float

    @property
    def total(self) -> float:
        """All of it."""
        parts = (self.autoencoder, self.latents, self.denoiser)
        return sum(parts) + self.pictures + self.classifier + self.samples


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


def with_steps(
    config: PriorConfig,
    speeds: Speeds,
    images: Images,
    hours: float,
    given: Collection[str] = (),
) -> PriorConfig:
    """A configuration whose training and measurement take so many hours at these speeds.

    The autoencoder has a third of the training, the denoiser the rest; classifier and samples at
    most a sixth of all.

    Args:
        config: its steps are chosen.
        speeds: of this configuration on this machine.
        images: of the data.
        hours: for all of it.
        given: fields whose values stay as they are.

    Raises:
        InputError: not a step can be taken.
    """
    seconds = checked_hours(hours) * 3600
    config = replace(config, vae_steps=config.vae_steps if "vae_steps" in given else 1)
    if "classifier" not in given:
        config = replace(config, classifier=_classifier(config, speeds, images, seconds))
    spent = times(config, speeds, images, seconds)
    rest = seconds - spent.latents - spent.pictures - spent.classifier - spent.samples
    vae, unet = 0, config.unet_steps
    if "vae_steps" in given:
        vae = config.vae_steps
    elif speeds.autoencoder:
        vae = min(FULL[0], int(rest * 0.35 / speeds.autoencoder))
    if "unet_steps" not in given:
        unet = min(FULL[1], int((rest - vae * speeds.autoencoder) / speeds.denoiser))
    if unet < 1 or (speeds.autoencoder and vae < 1):
        raise InputError(
            f"in {hours:g} hours not a step can be trained here; give at least --hours "
            f"{_shown(hours_for(LEAST, speeds))}"
        )
    steps = min(vae or unet, unet)
    # the averages look back over a tenth of the shorter training
    ema = round(min(0.9995, max(0.9, 1 - 10 / steps)), 5)
    every = max(50, min(1000, steps // 10))
    return replace(config, vae_steps=max(1, vae), unet_steps=unet, ema=ema, checkpoint_every=every)


def checked_hours(hours: float) -> float:
    """The hours that were given.

    Args:
        hours: for all of it.

    Raises:
        InputError: not a number above 0.
    """
    if not math.isfinite(hours):
        raise InputError(f"--hours must be a number above 0, not {hours}")
    within(hours, "> 0", "--hours")
    return hours


def _classifier(
    config: PriorConfig, speeds: Speeds, images: Images, seconds: float
) -> ClassifierConfig:
    """The classifier and what it is shown, in at most a sixth of the time."""
    asked = config.classifier or ClassifierConfig()
    steps = math.ceil(images.trained_on / asked.batch)
    wanted = min(200, max(10, math.ceil(1500 / steps)))
    allowed = int(0.08 * seconds / (speeds.classifier * steps))
    each = min(20, max(2, 200 // images.classes))
    one = 1.5 * speeds.drawing * images.classes * each  # a step with guidance, and one without
    chain = min(50, max(10, int(0.08 * seconds / one)))
    if one * chain > 0.08 * seconds:
        each = max(2, int(0.08 * seconds * each / (one * chain)))
    return replace(
        asked, epochs=max(1, min(wanted, allowed)), per_class=each, steps=chain, held_out=200
    )


def pictures(speeds: Speeds, images: Images, seconds: float) -> int:
    """How many pictures of each stage there is time for: at most a twenty-fifth of it, at least 2.

    Args:
        speeds: of the configuration.
        images: of the data.
        seconds: of all.
    """
    one = 2 * min(10, images.classes) * 20 * speeds.drawing
    return max(2, min(PICTURES, int(0.04 * seconds / one)))


def times(config: PriorConfig, speeds: Speeds, images: Images, seconds: float) -> Times:
    """How long each part of a plan takes.

    Args:
        config: with its steps.
        speeds: of this configuration.
        images: of the data.
        seconds: that were given.
    """
    asked = config.classifier or ClassifierConfig()
    steps = math.ceil(images.trained_on / asked.batch)
    drawn = images.classes * asked.per_class * asked.steps
    shown = 2 * min(10, images.classes) * 20 * pictures(speeds, images, seconds)
    return Times(
        config.vae_steps * speeds.autoencoder,
        images.trained_on * (1 + config.flip) * speeds.encoding,
        config.unet_steps * speeds.denoiser,
        shown * speeds.drawing,
        asked.epochs * steps * speeds.classifier,
        1.5 * drawn * speeds.drawing,
    )


def is_enough(config: PriorConfig, speeds: Speeds, steps: tuple[int, int] = ENOUGH) -> bool:
    """Whether a configuration trains for so many steps.

    Args:
        config: with its steps.
        speeds: of this configuration.
        steps: of the autoencoder, where it is trained, and of the denoiser.
    """
    return config.unet_steps >= steps[1] and (
        not speeds.autoencoder or config.vae_steps >= steps[0]
    )


def hours_for(steps: tuple[int, int], speeds: Speeds) -> float:
    """Hours in which so many steps can be trained, measurement included.

    Args:
        steps: of the autoencoder, where it is trained, and of the denoiser.
        speeds: of the configuration.
    """
    vae = steps[0] * speeds.autoencoder
    return 1.3 * max(vae / 0.35, vae + steps[1] * speeds.denoiser) / 3600


def _shown(hours: float) -> str:
    """Hours rounded up to two digits."""
    digits = 10 ** (1 - math.floor(math.log10(hours)))
    return f"{math.ceil(hours * digits) / digits:g}"


def too_short(config: PriorConfig, speeds: Speeds) -> str | None:
    """Why so few steps train nothing useful; None where they may.

    Args:
        config: with its steps.
        speeds: of this configuration.
    """
    if is_enough(config, speeds, LEAST):
        return None
    vae = f"{config.vae_steps:,} steps of the autoencoder and " if speeds.autoencoder else ""
    return (
        f"{vae}{config.unet_steps:,} of the denoiser train nothing that could be "
        f"distilled through; give --hours {_shown(hours_for(LEAST, speeds))} or more (for a good "
        f"one about {_shown(hours_for(ENOUGH, speeds))}), or a smaller --size"
    )
