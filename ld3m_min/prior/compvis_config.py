"""The public latent-diffusion code's settings, as arguments of diffusers' networks: section 4.1.

A setting that would change a network in a way that has no counterpart is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ld3m_min.errors import InputError
from ld3m_min.io.values import converted, within
from ld3m_min.prior.compvis_keys import Block, autoencoder_blocks, some, unet_blocks

# the yaml of a model mixes numbers, texts, lists and mappings
Settings: TypeAlias = Mapping[str, Any]
NEEDED = object()  # a setting has no default

UNET_USUAL: dict[str, tuple[object, ...]] = {
    "dims": (2,),
    "conv_resample": (True,),
    "use_scale_shift_norm": (False,),
    "resblock_updown": (False,),
    "use_new_attention_order": (False,),
    "num_classes": (None,),
    "n_embed": (None,),
    "num_heads_upsample": (-1, None),
}


@dataclass(frozen=True)
class NetworkPlan:
    """How diffusers builds a network, and where its weights come from.

    Attributes:
        what: what the network is called in messages.
        kind: name of diffusers' class.
        options: arguments of that class.
        blocks: prefix of a weight's key there -> block here.
        head_width: of an attention head; -1 for one head.
    """

    what: str
    kind: str
    options: dict[str, Any]
    blocks: dict[str, Block]
    head_width: int = -1


def setting(
    mapping: object,
    name: str,
    where: str,
    kind: Any = None,
    bound: str = "",
    *,
    default: object = NEEDED,
) -> Any:
    """A setting of a latent diffusion model, of the type that it must have.

    Args:
        mapping: where it is looked up; a config from elsewhere may have anything in its place.
        name: of the setting.
        where: what the mapping is called in the message.
        kind: its type, as of :func:`~ld3m_min.io.values.converted`, or Mapping; None takes any.
        bound: of numbers, as of :func:`~ld3m_min.io.values.checked`; "" takes any.
        default: where it is not there; without one it must be.

    Raises:
        InputError: it is not there, of another type, or out of its bound.
    """
    if not isinstance(mapping, Mapping) or (name not in mapping and default is NEEDED):
        raise InputError(
            f"the config's {where} lacks {name!r}; it is not that of a latent diffusion model"
        )
    value = mapping.get(name, default)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = tuple(value)  # other packages that read yaml have lists of their own
    if kind is Mapping:
        if not isinstance(value, Mapping):
            raise InputError(f"{where}.{name} must be settings by their names, not {value!r}")
    elif kind is not None:
        value = converted(kind, value, f"{where}.{name}")
    if bound:
        within(value, bound, f"{where}.{name}")
    return value


def _widths(mapping: object, first: str, multiples: str, where: str) -> list[int]:
    """Channels of each level of a network.

    Args:
        mapping: the network's settings.
        first: name of the setting that the multiples are of.
        multiples: name of the setting with one multiple for each level.
        where: what the mapping is called in the message.

    Raises:
        InputError: one of them is not there or no whole number from 1 on, or there is no level.
    """
    levels = setting(mapping, multiples, where, tuple[int, ...], ">= 1")
    if not levels:
        raise InputError(f"{where}.{multiples} must have a number for each level, but is empty")
    width = setting(mapping, first, where, int, ">= 1")
    return [width * m for m in levels]


def target(mapping: Settings) -> str:
    """The name of the class that a part of the config is for, without its module."""
    return str(mapping.get("target", "")).rsplit(".", 1)[-1]


def refuse_unusual(params: Settings, usual: Mapping[str, Collection[object]], where: str) -> None:
    """Refuse settings that would change the network in ways that have no counterpart.

    Args:
        params: the settings.
        usual: setting -> the values that it may have, if it is given.
        where: what the settings are called in the message.

    Raises:
        InputError: one has another value.
    """
    for name, values in usual.items():
        if name in params and params[name] not in values:
            raise InputError(
                f"{where}.{name} = {params[name]!r} is not supported; only {some(values)} is"
            )


def unet_plan(p: Settings) -> NetworkPlan:
    """A `UNet2DConditionModel` where the config has a spatial transformer, else a `UNet2DModel`.

    Args:
        p: the config's `unet_config.params`.

    Raises:
        InputError: settings that have no counterpart.
    """
    where = "unet_config.params"
    refuse_unusual(p, UNET_USUAL, where)
    layers = setting(p, "num_res_blocks", where, int, ">= 1")
    transformer = setting(p, "use_spatial_transformer", where, bool, default=False)
    widths = _widths(p, "model_channels", "channel_mult", where)
    attention = setting(p, "attention_resolutions", where, tuple[int, ...])
    attends = [2**level in attention for level in range(len(widths))]
    head_width = setting(p, "num_head_channels", where, int, default=-1)
    heads = setting(p, "num_heads", where, int, default=-1)
    if head_width != -1:
        within(head_width, ">= 1", f"{where}.num_head_channels")
    elif heads < 1:
        raise InputError("unet_config.params needs num_heads or num_head_channels")
    if transformer:
        kind, down, up = "UNet2DConditionModel", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
        special = {
            "cross_attention_dim": setting(p, "context_dim", where, int, ">= 1"),
            "transformer_layers_per_block": setting(
                p, "transformer_depth", where, int, ">= 1", default=1
            ),
            # what diffusers calls attention_head_dim is, in this class, the number of heads
            "attention_head_dim": [heads if head_width == -1 else w // head_width for w in widths],
        }
    else:
        kind, down, up = "UNet2DModel", "AttnDownBlock2D", "AttnUpBlock2D"
        if head_width == -1 and heads != 1:
            raise InputError(
                "num_heads above 1 without num_head_channels is not supported in an unconditional "
                "U-Net"
            )
        special = {"attention_head_dim": None if head_width == -1 else head_width}
    options = {
        "sample_size": setting(p, "image_size", where, int | None, ">= 1", default=None),
        "in_channels": setting(p, "in_channels", where, int, ">= 1"),
        "out_channels": setting(p, "out_channels", where, int, ">= 1"),
        "block_out_channels": widths,
        "layers_per_block": layers,
        "norm_num_groups": 32,
        "down_block_types": [down if a else "DownBlock2D" for a in attends],
        "up_block_types": [up if a else "UpBlock2D" for a in reversed(attends)],
    }
    blocks = unet_blocks(attends, layers, transformer)
    return NetworkPlan("U-Net", kind, options | special, blocks, head_width)


def autoencoder_plan(kind: str, p: Settings, scale: float) -> NetworkPlan:
    """A `VQModel` or an `AutoencoderKL`.

    Args:
        kind: the autoencoder's class in the public code.
        p: its settings.
        scale: the factor of its latents.

    Raises:
        InputError: settings that have no counterpart.
    """
    d, where = setting(p, "ddconfig", "autoencoder params", Mapping), "ddconfig"
    usual = {
        "resamp_with_conv": (True,),
        "tanh_out": (False,),
        "use_linear_attn": (False,),
        "double_z": (kind == "AutoencoderKL",),
    }
    refuse_unusual(d, usual, where)
    widths = _widths(d, "ch", "ch_mult", where)
    layers = setting(d, "num_res_blocks", where, int, ">= 1")
    levels, side = len(widths), setting(d, "resolution", where, int, ">= 1")
    attention = setting(d, "attn_resolutions", where, tuple[int, ...])
    attends = [side // 2**level in attention for level in range(levels)]
    channels = setting(d, "z_channels", where, int, ">= 1")
    width = setting(p, "embed_dim", "autoencoder params", int, ">= 1")
    down, up = ("AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D")
    options = {
        "in_channels": setting(d, "in_channels", where, int, ">= 1"),
        "out_channels": setting(d, "out_ch", where, int, ">= 1"),
        "latent_channels": channels,
        "block_out_channels": widths,
        "layers_per_block": layers,
        "norm_num_groups": 32,
        "down_block_types": [down if a else "DownEncoderBlock2D" for a in attends],
        "up_block_types": [up if a else "UpDecoderBlock2D" for a in reversed(attends)],
        "sample_size": side,
        "scaling_factor": scale,
    }
    if kind in ("VQModel", "VQModelInterface"):
        kind = "VQModel"
        codes = setting(p, "n_embed", "autoencoder params", int, ">= 1")
        options |= {"num_vq_embeddings": codes, "vq_embed_dim": width}
    elif kind != "AutoencoderKL" or width != channels:
        raise InputError(
            f"autoencoder {kind or 'without target'} with embed_dim {width} is not supported"
        )
    return NetworkPlan("autoencoder", kind, options, autoencoder_blocks(levels, layers))
