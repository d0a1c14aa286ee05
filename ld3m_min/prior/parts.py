"""Whether the parts of a latent diffusion model fit together: sections 2.2 and 4.1.

`LatentDiffusionPrior` asks these before anything is computed. What does not fit is refused in a
sentence that says which part, and why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ld3m_min.errors import InputError
from ld3m_min.prior.conditioning import condition_width, label_embedders
from ld3m_min.prior.kinds import PREDICTIONS, Autoencoder, Denoiser
from ld3m_min.prior.schedule import Scheduler


@dataclass(frozen=True)
class GivenParts:
    """The parts of a prior as they were found somewhere; `LatentDiffusionPrior` checks them.

    Attributes:
        autoencoder: what should be an autoencoder.
        denoiser: what should be a denoiser; None for an autoencoder alone.
        scheduler: what should be the scheduler that the denoiser was trained with.
        class_embedding: what should be an embedding of the classes; None if unconditional.
        classes: names of the classes, if known.
        null: whether the embedding's last row is the null class.
        source: how the prior is found again; None where no file holds it.
        prompts: that the rows embed, of a pipeline that is conditioned on text.
    """

    autoencoder: object
    denoiser: object = None
    scheduler: object = None
    class_embedding: object = None
    classes: Iterable[object] = ()
    null: bool = True
    source: str | None = None
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class LatentStatistics:
    """What an autoencoder's latents are centred and divided by, beside their scale.

    Attributes:
        centre: mean of each channel.
        spread: deviation of each channel.
    """

    centre: Float[Tensor, "1 c 1 1"]
    spread: Float[Tensor, "1 c 1 1"]


def latent_scale(autoencoder: Autoencoder) -> float:
    """The factor that latents are multiplied by before the denoiser sees them.

    Raises:
        InputError: the autoencoder's configuration has no positive, finite factor.
    """
    scale = autoencoder.config.get("scaling_factor")
    if not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale <= 0:
        raise InputError(
            f"the autoencoder's scaling_factor is {scale}; latents need a positive factor: set it "
            "in the autoencoder's configuration (1.0 for the public VQ-f4)"
        )
    return float(scale)


def latent_statistics(autoencoder: Autoencoder, channels: int) -> LatentStatistics | None:
    """Centre and spread of an autoencoder's latents: shift_factor, or latents_mean and latents_std.

    Pipelines take (latent - centre) * scaling_factor / spread.

    Args:
        autoencoder: its configuration is read.
        channels: c, of its latents.

    Returns:
        The statistics; None where there is nothing but the factor.

    Raises:
        InputError: both are given, or values that cannot be used.
    """
    config = autoencoder.config
    shift, mean, std = (config.get(k) for k in ("shift_factor", "latents_mean", "latents_std"))
    if not shift and mean is None and std is None:
        return None
    if shift and not (mean is None and std is None):
        raise InputError(
            "the autoencoder has a shift_factor and latents_mean or latents_std; which one its "
            "denoiser was trained with is not to be known: leave one in its configuration"
        )
    if shift:
        centre = torch.full((channels,), float(shift))
    else:
        centre = torch.zeros(channels) if mean is None else torch.tensor(mean)
    spread = torch.ones(channels) if std is None else torch.tensor(std)
    if (
        centre.shape != (channels,)
        or spread.shape != (channels,)
        or not bool(centre.isfinite().all() and (spread > 0).all())
    ):
        raise InputError(
            "the autoencoder's shift_factor, latents_mean and latents_std must be finite numbers "
            f"for {channels} channels, deviations above 0; they are {shift}, {mean}, {std}"
        )
    return LatentStatistics(centre.float().view(1, -1, 1, 1), spread.float().view(1, -1, 1, 1))


def class_names(
    names: Iterable[object], class_embedding: nn.Embedding | None, has_null: bool
) -> tuple[str, ...]:
    """The names of a prior's classes, in the order of its class embedding.

    Args:
        names: what was given for them; empty where they are not known.
        class_embedding: (K + 1, L D), or (K, L D) without a null class; None if unconditional.
        has_null: whether the embedding's last row is the null class.

    Raises:
        InputError: names that are no text or the same, or more or fewer than rows.
    """
    given = tuple(names)
    known = tuple(n for n in given if isinstance(n, str))
    if len(known) < len(given) or len(set(known)) < len(known):
        raise InputError(
            f"class names must be text, each another, not {', '.join(map(repr, given[:5]))}"
        )
    if class_embedding is not None and known:
        rows = class_embedding.num_embeddings
        if len(known) != rows - has_null:
            has = f"{rows} rows, {'with' if has_null else 'without'} a null class"
            raise InputError(
                f"{len(known)} class names for a class embedding of {has}; they differ"
            )
    return known


def prediction_type(scheduler: Scheduler | None) -> str:
    """What a denoiser predicts: the noise, the velocity or the clean latent.

    Raises:
        InputError: no scheduler, or the sampler has no equation for what is predicted.
    """
    if scheduler is None:
        raise InputError("a denoiser needs the scheduler that it was trained with")
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise InputError(
            f"prediction type {prediction!r} is not supported; {', '.join(PREDICTIONS)} are"
        )
    return str(prediction)


def check_channels(denoiser: Denoiser, channels: int) -> None:
    """Whether a denoiser works on latents of so many channels.

    Raises:
        InputError: it takes or gives another number.
    """
    config = denoiser.config
    if config.in_channels != channels:
        raise InputError(
            f"the denoiser takes {config.in_channels} channels, but the autoencoder's latents have "
            f"{channels}; they do not belong together"
        )
    # twice as many are mean and variance, of which the mean is used
    if config.out_channels not in (None, channels, 2 * channels):
        raise InputError(
            f"the denoiser gives {config.out_channels} channels; {channels} or {2 * channels} are "
            "expected"
        )


def check_condition(denoiser: Denoiser, class_embedding: nn.Embedding | None) -> None:
    """Whether a denoiser takes the conditioning that there is, and nothing besides.

    Raises:
        InputError: it takes another one, two at once, or one of another width.
    """
    kind, blocks = type(denoiser).__name__, label_embedders(denoiser)
    others = ("addition_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")
    odd = next((k for k in others if denoiser.config.get(k)), None)
    if odd or (blocks and kind == "UNet2DConditionModel"):
        raise InputError(
            f"a U-Net with cross-attention and, beside it, {odd or 'class labels'} is not supported"
        )
    takes = kind == "UNet2DConditionModel" or bool(blocks)
    if takes != (class_embedding is not None):
        raise InputError(
            f"the {kind} takes {'a' if takes else 'no'} conditioning, but "
            f"{'none' if takes else 'one'} is given (class_embedding); they do not belong together"
        )
    width = condition_width(denoiser)
    if class_embedding is not None and class_embedding.embedding_dim % (width or 1):
        raise InputError(
            f"class embedding {tuple(class_embedding.weight.shape)} does not fit a {kind} of width "
            f"{width}"
        )
