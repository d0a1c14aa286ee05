"""What a prior's training starts from: nothing, an autoencoder, or a whole prior (section 4.1).

An autoencoder is kept as it is and gets a denoiser. A whole prior is trained further. If its
classes are others, it gets a new class embedding: a class that it knows by name starts from its own
row, any other from that of no class.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ld3m_min.errors import InputError
from ld3m_min.prior.architecture import PriorConfig, build_prior
from ld3m_min.prior.class_map import NO_MAP, ClassMap
from ld3m_min.prior.class_matching import resolved_row, rows_by_name
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior


@dataclass(frozen=True)
class Started:
    """A prior to be trained.

    Attributes:
        prior: its networks, as they start.
        keeps_scale: whether the factor of its latents is the one that its denoiser knows, and not
            to be measured.
    """

    prior: LatentDiffusionPrior
    keeps_scale: bool = False


def started(
    config: PriorConfig,
    classes: Sequence[str],
    start: LatentDiffusionPrior | None = None,
    said: ClassMap = NO_MAP,
) -> Started:
    """The prior of a configuration, with what it takes over from another one.

    Args:
        config: its architecture is that of `start` in what is taken over, see :func:`like_start`.
        classes: of the data.
        start: a prior to go on from; None for random weights.
        said: which of its classes those of the data are, where the names don't tell.

    Raises:
        InputError: `start` has another architecture, or does not fit the images.
    """
    if start is None:
        return Started(build_prior(config, classes))
    check_start(start, config.size)
    whole = can_go_on(start)
    if start.denoiser is not None and not whole:
        warnings.warn(
            f"only the autoencoder of the prior to start from is kept: its "
            f"{type(start.denoiser).__name__} is not one that train-prior trains, a U-Net that "
            "predicts the noise and attends to one token of a class",
            stacklevel=3,
        )
    _check_architecture(config, start)
    built = build_prior(config, classes)
    if whole and tuple(start.classes) == tuple(classes):
        _copy_weights(built, start)
        return Started(built)
    denoiser, table = built.denoiser, built.class_embedding
    scheduler = start.scheduler if whole else built.scheduler
    if whole:
        denoiser = copy.deepcopy(start.denoiser)
        table = nn.Embedding.from_pretrained(class_rows(start, classes, said), freeze=False)
    prior = LatentDiffusionPrior(
        copy.deepcopy(start.autoencoder), denoiser, scheduler, table, classes=classes
    )
    return Started(prior, keeps_scale=whole)


def can_go_on(start: LatentDiffusionPrior) -> bool:
    """Whether a prior's denoiser is of the kind that is trained here.

    Args:
        start: any prior.
    """
    return (
        type(start.denoiser).__name__ == "UNet2DConditionModel"
        and start.class_embedding is not None
        and start.condition_shape[0] == 1
        and start.prediction_type == "epsilon"
    )


def like_start(config: PriorConfig, start: LatentDiffusionPrior) -> PriorConfig:
    """A configuration with the architecture of what it starts from.

    Args:
        config: of the training.
        start: its autoencoder's architecture is taken, and its denoiser's where that is trained on.

    Raises:
        InputError: it does not fit the images.
    """
    check_start(start, config.size)
    return replace(config, crop=None, **_architecture(start))


def own_side(start: LatentDiffusionPrior) -> int | None:
    """The side of a whole prior's images, pixels; None where any side will do.

    Args:
        start: any prior.
    """
    if not can_go_on(start) or start.denoiser is None:
        return None
    side = start.denoiser.config.get("sample_size")
    return side * start.factor if isinstance(side, int) else None


def check_start(start: LatentDiffusionPrior, size: int) -> None:
    """Refuse a prior whose networks cannot take the images.

    Args:
        start: any prior.
        size: side of the images, pixels.

    Raises:
        InputError: of another number of channels, or another size.
    """
    channels = start.autoencoder.config.get("in_channels", 3)
    if channels != 3:
        raise InputError(
            f"the prior to start from takes images of {channels} channel(s), those here have 3 "
            "(grey ones too); start from an autoencoder of RGB images, or from nothing"
        )
    if size % start.factor:
        raise InputError(
            f"images of {size} px do not fit the prior to start from, whose factor is "
            f"{start.factor}; give a --size that is a multiple of it"
        )
    side = own_side(start)
    if side is not None and side != size:
        raise InputError(
            f"the prior to start from makes images of {side} px, not {size}; give --size {side}, "
            "or start from its autoencoder alone (its folder vae)"
        )


def class_rows(
    start: LatentDiffusionPrior, classes: Sequence[str], said: ClassMap = NO_MAP
) -> Float[Tensor, "rows D"]:
    """A class embedding for other classes, a row for each and one for none.

    Args:
        start: a whole prior.
        classes: of the data.
        said: which of the prior's classes they are, where the names don't tell.

    Raises:
        InputError: an entry that is no class of the prior, or for no class of the data.
    """
    said.check(classes)
    assert start.class_embedding is not None
    weight, known = start.class_embedding.weight.detach(), tuple(start.classes)
    none = weight[-1] if start.has_null else weight.mean(0)
    rows = {n: next(iter(h)) for n, h in rows_by_name(classes, known).items() if len(h) == 1}
    for name, value in said.entries.items():
        rows[name] = resolved_row(name, value, known, start.class_count)
    return torch.stack([weight[rows[n]] if n in rows else none for n in classes] + [none]).clone()


def _architecture(start: LatentDiffusionPrior) -> dict[str, Any]:
    """The fields of a configuration that say what is taken over."""
    config = start.autoencoder.config
    fields: dict[str, Any] = {
        "vae_widths": tuple(config.block_out_channels),
        "vae_layers": config.layers_per_block,
        "latent_channels": start.latent_channels,
    }
    if can_go_on(start) and start.denoiser is not None:
        of = start.denoiser.config
        fields |= {
            "unet_widths": tuple(of.block_out_channels),
            "unet_layers": of.layers_per_block,
            "attention": tuple("CrossAttn" in kind for kind in of.down_block_types),
            "condition_width": of.cross_attention_dim,
        }
    return fields


def _check_architecture(config: PriorConfig, start: LatentDiffusionPrior) -> None:
    """Whether a configuration says what is taken over.

    Raises:
        InputError: it says otherwise.
    """
    for name, value in _architecture(start).items():
        if getattr(config, name) != value:
            of = "UNet2DConditionModel" if name[:3] in ("une", "att", "con") else "AutoencoderKL"
            raise InputError(
                f"the prior to start from has another architecture than {of} of this "
                f"configuration: {name} is {value}, not {getattr(config, name)}"
            )


@torch.no_grad()
def _copy_weights(prior: LatentDiffusionPrior, start: LatentDiffusionPrior) -> None:
    """Give a prior the weights of another one of the same classes.

    Raises:
        InputError: its networks are built otherwise.
    """
    for to, of in zip(prior.modules, start.modules, strict=True):
        try:
            to.load_state_dict(of.state_dict())
        except RuntimeError as error:  # names or shapes
            raise InputError(
                f"the prior to start from is built otherwise than {type(to).__name__} of this "
                f"configuration: {str(error).splitlines()[-1].strip()}"
            ) from None
