"""The public latent-diffusion code's settings, as arguments of diffusers' networks: section 4.1.

A setting that would change a network in a way that has no counterpart is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ld3m_min.errors import InputError
from ld3m_min.prior.compvis_keys import Block, autoencoder_blocks, some, unet_blocks

# the yaml of a model mixes numbers, texts, lists and mappings
Settings: TypeAlias = Mapping[str, Any]

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


def setting(mapping: object, name: str, where: str) -> Any:
    """A setting that a latent diffusion model must have.

    Args:
        mapping: where it is looked up; a config from elsewhere may have anything in its place.
        name: of the setting.
        where: what the mapping is called in the message.

    Raises:
        InputError: it is not there.
    """
    if not isinstance(mapping, Mapping) or name not in mapping:
        raise InputError(
            f"the config's {where} lacks {name!r}; it is not that of a latent diffusion model"
        )
    return mapping[name]


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
    refuse_unusual(p, UNET_USUAL, "unet_config.params")
    layers, transformer = p["num_res_blocks"], p.get("use_spatial_transformer", False)
    widths = [p["model_channels"] * m for m in p["channel_mult"]]
    attends = [2**level in p["attention_resolutions"] for level in range(len(widths))]
    head_width, heads = p.get("num_head_channels", -1), p.get("num_heads", -1)
    if head_width == -1 and heads < 1:
        raise InputError("unet_config.params needs num_heads or num_head_channels")
    if transformer:
        kind, down, up = "UNet2DConditionModel", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
        special = {
            "cross_attention_dim": p["context_dim"],
            "transformer_layers_per_block": p.get("transformer_depth", 1),
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
        "sample_size": p.get("image_size"),
        "in_channels": p["in_channels"],
        "out_channels": p["out_channels"],
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
    d = setting(p, "ddconfig", "autoencoder params")
    usual = {
        "resamp_with_conv": (True,),
        "tanh_out": (False,),
        "use_linear_attn": (False,),
        "double_z": (kind == "AutoencoderKL",),
    }
    refuse_unusual(d, usual, "ddconfig")
    levels, layers = len(d["ch_mult"]), d["num_res_blocks"]
    attends = [d["resolution"] // 2**level in d["attn_resolutions"] for level in range(levels)]
    down, up = ("AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D")
    options = {
        "in_channels": d["in_channels"],
        "out_channels": d["out_ch"],
        "latent_channels": d["z_channels"],
        "block_out_channels": [d["ch"] * m for m in d["ch_mult"]],
        "layers_per_block": layers,
        "norm_num_groups": 32,
        "down_block_types": [down if a else "DownEncoderBlock2D" for a in attends],
        "up_block_types": [up if a else "UpDecoderBlock2D" for a in reversed(attends)],
        "sample_size": d["resolution"],
        "scaling_factor": scale,
    }
    if kind in ("VQModel", "VQModelInterface"):
        kind = "VQModel"
        options |= {"num_vq_embeddings": p["n_embed"], "vq_embed_dim": p["embed_dim"]}
    elif kind != "AutoencoderKL" or p["embed_dim"] != d["z_channels"]:
        raise InputError(
            f"autoencoder {kind or 'without target'} with embed_dim {p.get('embed_dim')} is not "
            "supported"
        )
    return NetworkPlan("autoencoder", kind, options, autoencoder_blocks(levels, layers))
