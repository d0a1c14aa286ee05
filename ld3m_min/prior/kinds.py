"""Which networks of diffusers can be parts of a prior: sections 2.2 and 4.1.

diffusers takes seconds to import, more than all else, so the package imports it where a network or
a schedule is made or read, and not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from ld3m_min.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from diffusers import (
        AutoencoderKL,
        DiTTransformer2DModel,
        UNet2DConditionModel,
        UNet2DModel,
        VQModel,
    )

    Autoencoder: TypeAlias = AutoencoderKL | VQModel
    Denoiser: TypeAlias = UNet2DConditionModel | UNet2DModel | DiTTransformer2DModel
else:  # as much of it as a check at run time needs
    Autoencoder = Denoiser = nn.Module

AUTOENCODERS = ("AutoencoderKL", "VQModel")
DENOISERS = ("UNet2DConditionModel", "UNet2DModel", "DiTTransformer2DModel")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
OUTPUT_LAYER = {
    "UNet2DConditionModel": "conv_out",
    "UNet2DModel": "conv_out",
    "DiTTransformer2DModel": "proj_out_2",
}


def supported_autoencoder(given: object) -> Autoencoder:
    """The autoencoder that was given.

    Args:
        given: anything.

    Raises:
        InputError: it is of no kind in `AUTOENCODERS`.
    """
    if type(given).__name__ not in AUTOENCODERS:
        raise InputError(
            f"autoencoder {type(given).__name__} is not supported; {', '.join(AUTOENCODERS)} are"
        )
    return given


def supported_denoiser(given: object) -> Denoiser:
    """The denoiser that was given.

    Args:
        given: anything.

    Raises:
        InputError: it is of no kind in `DENOISERS`.
    """
    kind = type(given).__name__
    if kind not in DENOISERS:
        raise InputError(f"denoiser {kind} is not supported; {', '.join(DENOISERS)} are")
    return given


def supported_embedding(given: object) -> nn.Embedding | None:
    """The class embedding that was given; None where there is none.

    Args:
        given: anything.

    Raises:
        InputTypeError: it is neither an embedding nor None.
    """
    if given is not None and not isinstance(given, nn.Embedding):
        raise InputTypeError(
            f"class_embedding must be a torch.nn.Embedding, not {type(given).__name__}"
        )
    return given


def redrawn(network: Autoencoder | Denoiser, generator: torch.Generator) -> Autoencoder | Denoiser:
    """The same architecture with random weights; the global random state is left as it was.

    Args:
        network: the network whose configuration, device and dtype are taken.
        generator: CPU generator of the weights.
    """
    with torch.random.fork_rng(devices=[]):  # diffusers' constructors know no generator
        seed = int(torch.randint(2**62, (), generator=generator))
        torch.default_generator.set_state(torch.Generator().manual_seed(seed).get_state())
        drawn = type(network).from_config(network.config)
    like = next(network.parameters())
    return nn.Module.to(drawn, like.device, like.dtype)  # diffusers' own `to` warns of a cast
