"""How many steps of a prior's training fit into some hours, at the speeds of this machine.

The speeds are measured by a probe of some seconds (:mod:`ld3m_min.planner.training_speed`).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from ld3m_min.errors import InputError
from ld3m_min.io.values import within
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.classifier import ClassifierConfig

# of which a larger network, or larger images, must still be able to take so many steps
ENOUGH = (2000, 5000)  # autoencoder, denoiser
LEAST = (300, 1000)  # below which reconstructions are mush, samples noise
FULL = (20_000, 50_000)  # beyond which the priors of this book are not trained
PICTURES = 12  # of each stage, at most


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
    found = _parted(config, speeds, images, checked_hours(hours) * 3600, given)
    vae, unet = found.vae_steps, found.unet_steps
    if unet < 1 or (speeds.autoencoder and vae < 1):
        raise InputError(
            f"in {hours:g} hours not a step can be trained here; give at least --hours "
            f"{_shown(hours_for(LEAST, config, speeds, images))}"
        )
    steps = min(vae, unet) if speeds.autoencoder else unet
    return replace(
        config,
        classifier=found.classifier,
        vae_steps=max(1, vae),
        unet_steps=unet,
        # the averages look back over a tenth of the shorter training
        ema=round(min(0.9995, max(0.9, 1 - 10 / steps)), 5),
        checkpoint_every=max(50, min(1000, steps // 10)),
    )


@dataclass(frozen=True)
class _Parted:
    """Steps that fit into some time: none of them may be possible."""

    vae_steps: int
    unet_steps: int
    classifier: ClassifierConfig | None


def _parted(
    config: PriorConfig,
    speeds: Speeds,
    images: Images,
    seconds: float,
    given: Collection[str],
) -> _Parted:
    """The parts of the time; arguments are those of :func:`with_steps`, but for the seconds."""
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
    if speeds.autoencoder and "vae_steps" not in given:  # what a full denoiser leaves
        vae = max(vae, min(FULL[0], int((rest - unet * speeds.denoiser) / speeds.autoencoder)))
    return _Parted(vae, unet, config.classifier)


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


def hours_for(steps: tuple[int, int], config: PriorConfig, speeds: Speeds, images: Images) -> float:
    """Hours in which so many steps can be trained, measurement included.

    Args:
        steps: of the autoencoder, where it is trained, and of the denoiser.
        config: any steps.
        speeds: of the configuration.
        images: of the data.
    """
    vae = steps[0] * speeds.autoencoder
    latents = images.trained_on * (1 + config.flip) * speeds.encoding
    hours = (max(vae / 0.35, vae + steps[1] * speeds.denoiser) + latents) / 3600
    while not _enough_in(hours, steps, config, speeds, images):
        hours *= 1.1
    return hours


def _enough_in(
    hours: float, steps: tuple[int, int], config: PriorConfig, speeds: Speeds, images: Images
) -> bool:
    """Whether some hours allow so many steps."""
    part = _parted(config, speeds, images, hours * 3600, ())
    return part.unet_steps >= steps[1] and (not speeds.autoencoder or part.vae_steps >= steps[0])


def _shown(hours: float) -> str:
    """Hours rounded up to two digits."""
    digits = 10 ** (1 - math.floor(math.log10(hours)))
    return f"{math.ceil(hours * digits) / digits:g}"


def too_short(config: PriorConfig, speeds: Speeds, images: Images) -> str | None:
    """Why so few steps train nothing useful; None where they may.

    Args:
        config: with its steps.
        speeds: of this configuration.
        images: of the data.
    """
    if is_enough(config, speeds, LEAST):
        return None
    vae = f"{config.vae_steps:,} steps of the autoencoder and " if speeds.autoencoder else ""
    steps = f"{config.unet_steps:,}" + (" steps" if not vae else "")
    least, good = (_shown(hours_for(s, config, speeds, images)) for s in (LEAST, ENOUGH))
    return (
        f"{vae}{steps} of the denoiser train nothing that could be distilled "
        f"through; give --hours {least} or more (for a good one about {good}), or a smaller --size"
    )
