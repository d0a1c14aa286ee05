"""The names of weights in the public latent-diffusion code, and in diffusers: section 4.1.

Every key of a checkpoint is either renamed, or named as left out (`IGNORED`); anything else is an
error. `renamed` works from a table of blocks: the prefix of a block there, its prefix here, and the
names of its layers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ld3m_min.errors import InputError

IGNORED = {  # pattern of a key -> why the sampler does without it
    r"(betas|(sqrt_|log_)?(recip_|recipm1_|one_minus_)?alphas_cumprod(_prev)?|posterior_\w+)$": (
        "schedule, computed anew"
    ),
    r"model_ema\.": "averaged copies of the U-Net; `ema=True` takes them instead of model.*",
    r"(first_stage_model\.)?loss\.": "training losses of the autoencoder",
    r"(scale_factor|logvar)$": (
        "training state; the scale is read where the config says scale_by_std"
    ),
}
UNET_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "qkv": "qkv",
    "proj_out": "to_out.0",
}
VAE_RESIDUAL = {"nin_shortcut": "conv_shortcut"}


@dataclass(frozen=True)
class Block:
    """A block of a network, as diffusers names it.

    Attributes:
        name: prefix of its keys.
        layers: names of its layers, there -> here; others keep theirs.
        attention: whether its layers are an attention, written as convolutions of size 1 there and
            as linear layers here.
    """

    name: str
    layers: Mapping[str, str] = field(default_factory=dict)
    attention: bool = False


def some(names: Collection[object], n: int = 5) -> str:
    """The first n of some names, and how many there are besides."""
    rest = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(map(str, list(names)[:n])) + rest


def is_ignored(key: str) -> bool:
    """Whether a key of a checkpoint is left out on purpose."""
    return any(re.match(pattern, key) for pattern in IGNORED)


def refuse_left(keys: Iterable[str]) -> None:
    """Refuse keys that nothing was found for.

    Raises:
        InputError: there are any.
    """
    if left := sorted(keys):
        raise InputError(
            "keys of the checkpoint that have no counterpart under this config: " + some(left)
        )


def averaged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint with the averaged copies of the U-Net's weights in place of the weights.

    `model_ema.*` holds them under the names of `model.*` without their dots.

    Raises:
        InputError: there are none.
    """
    if not any(k.startswith("model_ema.") for k in state):
        raise InputError(
            "ema=True, but the checkpoint has no averaged copies (model_ema.*); use ema=False"
        )
    names = {
        k: "model_ema." + k.removeprefix("model.").replace(".", "")
        for k in state
        if k.startswith("model.")
    }
    return {**state, **{k: state[copy] for k, copy in names.items() if copy in state}}


def unet_blocks(attends: Sequence[bool], layers: int, transformer: bool) -> dict[str, Block]:
    """The blocks of a U-Net, by their prefix in the public code.

    Args:
        attends: for each level, from the finest, whether it has attention.
        layers: residual blocks per level.
        transformer: whether attention is a spatial transformer, whose layers have equal names.
    """
    names = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
        "input_blocks.0.0": "conv_in",
    }
    blocks = {old: Block(new) for old, new in names.items()}
    for i, part in enumerate(("resnets.0", "attentions.0", "resnets.1")):
        new = f"mid_block.{part}"
        middle = _attention(new, transformer) if i == 1 else Block(new, UNET_RESIDUAL)
        blocks[f"middle_block.{i}"] = middle
    return (
        blocks | dict(_down(attends, layers, transformer)) | dict(_up(attends, layers, transformer))
    )


def _attention(name: str, transformer: bool) -> Block:
    return Block(name) if transformer else Block(name, ATTENTION, True)


def _down(attends: Sequence[bool], layers: int, transformer: bool) -> Iterator[tuple[str, Block]]:
    """(prefix there, block) of a U-Net's way down; the arguments are :func:`unet_blocks`'s."""
    i = 1  # the public code counts all blocks in one row; the first is the convolution of the input
    for level, attention in enumerate(attends):
        here = f"down_blocks.{level}"
        for j in range(layers):
            yield f"input_blocks.{i}.0", Block(f"{here}.resnets.{j}", UNET_RESIDUAL)
            if attention:
                yield f"input_blocks.{i}.1", _attention(f"{here}.attentions.{j}", transformer)
            i += 1
        if level < len(attends) - 1:
            yield f"input_blocks.{i}.0.op", Block(f"{here}.downsamplers.0.conv")
            i += 1


def _up(attends: Sequence[bool], layers: int, transformer: bool) -> Iterator[tuple[str, Block]]:
    """(prefix there, block) of a U-Net's way up; the arguments are :func:`unet_blocks`'s."""
    for up, attention in enumerate(reversed(attends)):
        here, last = f"up_blocks.{up}", up == len(attends) - 1
        for j in range(layers + 1):
            there = f"output_blocks.{up * (layers + 1) + j}"
            yield f"{there}.0", Block(f"{here}.resnets.{j}", UNET_RESIDUAL)
            if attention:
                yield f"{there}.1", _attention(f"{here}.attentions.{j}", transformer)
            if not last and j == layers:
                yield f"{there}.{1 + attention}.conv", Block(f"{here}.upsamplers.0.conv")


def autoencoder_blocks(levels: int, layers: int) -> dict[str, Block]:
    """The blocks of an autoencoder, by their prefix in the public code.

    Args:
        levels: how many there are.
        layers: residual blocks per level.
    """
    blocks = {k: Block(k) for k in ("quant_conv", "post_quant_conv", "quantize.embedding")}
    for half, way, extra in (("encoder", "down", 0), ("decoder", "up", 1)):
        for old, new in (
            ("conv_in", "conv_in"),
            ("norm_out", "conv_norm_out"),
            ("conv_out", "conv_out"),
        ):
            blocks[f"{half}.{old}"] = Block(f"{half}.{new}")
        middle = f"{half}.mid_block"
        blocks[f"{half}.mid.block_1"] = Block(f"{middle}.resnets.0", VAE_RESIDUAL)
        blocks[f"{half}.mid.block_2"] = Block(f"{middle}.resnets.1", VAE_RESIDUAL)
        blocks[f"{half}.mid.attn_1"] = _attention(f"{middle}.attentions.0", False)
        for level in range(levels):
            # the decoder's levels are numbered by resolution there, in the order of use here
            use = level if half == "encoder" else levels - 1 - level
            there, here = f"{half}.{way}.{level}", f"{half}.{way}_blocks.{use}"
            for j in range(layers + extra):
                blocks[f"{there}.block.{j}"] = Block(f"{here}.resnets.{j}", VAE_RESIDUAL)
                blocks[f"{there}.attn.{j}"] = _attention(f"{here}.attentions.{j}", False)
            blocks[f"{there}.{way}sample.conv"] = Block(f"{here}.{way}samplers.0.conv")
    return blocks


def renamed(
    state: Mapping[str, Tensor], blocks: Mapping[str, Block], head_width: int = -1
) -> dict[str, Tensor]:
    """A network's weights under diffusers' names.

    Args:
        state: weights under the public code's names.
        blocks: prefix there -> block here.
        head_width: of an attention head, where query, key and value are one matrix; -1 for one
            head.

    Raises:
        InputError: a key of no block, or a matrix that is not made of whole heads.
    """
    found: dict[str, Tensor] = {}
    left = []
    for key, value in state.items():
        parts = key.split(".")
        cut = next((i for i in range(len(parts), 0, -1) if ".".join(parts[:i]) in blocks), None)
        if cut is None:
            left.append(key)
            continue
        block = blocks[".".join(parts[:cut])]
        layer, kind = ".".join(parts[cut:-1]), parts[-1]
        if block.attention and layer != "norm" and kind == "weight":
            value = value.flatten(1)
        if block.attention and layer == "qkv":
            for name, part in _three(key, value, head_width).items():
                found[f"{block.name}.{name}.{kind}"] = part
        else:
            names = (block.name, block.layers.get(layer, layer), kind)
            found[".".join(filter(None, names))] = value
    refuse_left(left)
    return found


def _three(key: str, value: Tensor, head_width: int) -> dict[str, Tensor]:
    """Query, key and value, whose rows stand head by head in one matrix.

    Args:
        key: its name, for the message.
        value: the matrix, or its bias.
        head_width: rows of one head; -1 for one head.

    Raises:
        InputError: the rows are not whole heads.
    """
    width = value.shape[0] // 3
    head = width if head_width == -1 else head_width
    if value.shape[0] % (3 * head):
        raise InputError(
            f"{key} of {value.shape[0]} rows is not made of heads of width {head} "
            "(num_head_channels)"
        )
    three = value.reshape(-1, 3, head, *value.shape[1:]).unbind(1)
    names = ("to_q", "to_k", "to_v")
    return {
        name: part.reshape(width, *value.shape[1:]) for name, part in zip(names, three, strict=True)
    }
