"""Checkpoints in the layout of the public latent-diffusion code, into diffusers' networks: section 4.1.

The paper's prior, `cin256-v2`, and the unconditional FFHQ and CelebA-HQ models were released as one file of weights and
one yaml. Here every key of such a file is either renamed, or named as left out (`IGNORED`); anything else is an error.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from .checkpoints import read_config, read_state
from .errors import InputError

IGNORED = {  # pattern of a key -> why the sampler does without it
    r"(betas|(sqrt_|log_)?(recip_|recipm1_|one_minus_)?alphas_cumprod(_prev)?|posterior_\w+)$": "schedule, computed anew",
    r"model_ema\.": "averaged copies of the U-Net; `ema=True` takes them instead of model.*",
    r"(first_stage_model\.)?loss\.": "training losses of the autoencoder",
    r"(scale_factor|logvar)$": "training state; the scale is read where the config says scale_by_std",
}
UNET_RESIDUAL = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
                 "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "qkv": "qkv", "proj_out": "to_out.0"}
VAE_RESIDUAL = {"nin_shortcut": "conv_shortcut"}


@dataclass(frozen=True)
class Converted:
    """The parts of a `LatentDiffusionPrior`, and the keys that were left out on purpose."""

    autoencoder: nn.Module
    denoiser: nn.Module | None
    scheduler: object | None
    class_embedding: nn.Embedding | None
    ignored: tuple[str, ...]


def convert(checkpoint, config, *, ema=False):
    """Read a checkpoint and its config.

    Args:
        checkpoint: path (.ckpt, .pt, .safetensors) or state dict: `model.diffusion_model.*`, `first_stage_model.*`,
            `cond_stage_model.*`; or a stand-alone autoencoder, without these prefixes.
        config: path to the yaml, or a mapping with its fields (all of it, or what stands below `model`).
        ema: take the averaged copies of the U-Net's weights, where the file has them.

    Returns:
        :class:`Converted`. No random number is drawn.

    Raises:
        ValueError: a pickle that holds more than tensors; a config or key that has no counterpart; weights missing or of
            another shape than the config says. FileNotFoundError: no such file.
    """
    state, config = read_state(checkpoint), read_config(config)
    model = config.get("model", config)
    params, target = _field(model, "params", "model"), str(model.get("target", "")).rsplit(".", 1)[-1]
    if target in ("VQModel", "VQModelInterface", "AutoencoderKL"):
        renamed = {k: v for k, v in state.items() if not _ignored(k)}
        vae = _autoencoder(target, params, renamed, 1.0)
        return Converted(vae, None, None, None, tuple(k for k in state if _ignored(k)))
    if ema:
        state = _averaged(state)
    groups = {"model.diffusion_model.": {}, "first_stage_model.": {}, "cond_stage_model.": {}}
    ignored, left = [], []
    for key, value in state.items():
        prefix = next((p for p in groups if key.startswith(p)), None)
        if _ignored(key):
            ignored.append(key)
        elif prefix:
            groups[prefix][key.removeprefix(prefix)] = value
        else:
            left.append(key)
    _refuse_left(left)
    first = _field(params, "first_stage_config", "model.params")
    kind = str(first.get("target", "")).rsplit(".", 1)[-1]
    vae = _autoencoder(kind, _field(first, "params", "first_stage_config"), groups["first_stage_model."],
                       _scale(params, state))
    unet = _unet(_field(_field(params, "unet_config", "model.params"), "params", "unet_config"),
                 groups["model.diffusion_model."])
    embedding = _class_embedding(params, groups["cond_stage_model."])
    return Converted(vae, unet, _scheduler(params, state), embedding, tuple(ignored))


def _field(mapping, name, where):
    if not isinstance(mapping, Mapping) or name not in mapping:
        raise InputError(f"the config's {where} lacks {name!r}; it is not that of a latent diffusion model")
    return mapping[name]


def _some(names, n=5):
    return ", ".join(map(str, list(names)[:n])) + (f" and {len(names) - n} more" if len(names) > n else "")


def _ignored(key):
    return any(re.match(pattern, key) for pattern in IGNORED)


def _refuse_left(keys):
    if keys:
        raise InputError(f"keys of the checkpoint that have no counterpart under this config: {_some(sorted(keys))}")


def _refuse_unusual(params, usual, where):
    """Settings that would change the network in ways that have no counterpart."""
    for name, values in usual.items():
        if name in params and params[name] not in values:
            raise InputError(f"{where}.{name} = {params[name]!r} is not supported; only {_some(values)} is")


# -- the parts -------------------------------------------------------------------------------------------------------


def _averaged(state):
    """model_ema.* holds the names of model.* without their dots."""
    if not any(k.startswith("model_ema.") for k in state):
        raise InputError("ema=True, but the checkpoint has no averaged copies (model_ema.*); use ema=False")
    names = {k: "model_ema." + k.removeprefix("model.").replace(".", "") for k in state if k.startswith("model.")}
    return state | {k: state[copy] for k, copy in names.items() if copy in state}


def _scale(params, state):
    if params.get("scale_by_std"):  # measured at the start of the training and kept with the weights
        if "scale_factor" not in state:
            raise InputError("the config says scale_by_std, but the checkpoint lacks scale_factor; the latents' scale is unknown")
        return float(state["scale_factor"])
    return float(params.get("scale_factor", 1.0))


def _scheduler(params, state):
    from .prior import alphas_cumprod, ldm_scheduler

    _refuse_unusual(params, {"beta_schedule": ("linear",), "conditioning_key": ("crossattn", None)}, "model.params")
    kinds = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
    kind = params.get("parameterization", "eps")
    _refuse_unusual({"parameterization": kind}, {"parameterization": tuple(kinds)}, "model.params")
    scheduler = ldm_scheduler(num_train_timesteps=params.get("timesteps", 1000), beta_start=params.get("linear_start", 1e-4),
                              beta_end=params.get("linear_end", 2e-2), prediction_type=kinds[kind])
    stored = state.get("alphas_cumprod")
    if stored is not None and not stored.is_meta:
        ours = alphas_cumprod(scheduler)
        if stored.shape != ours.shape or (stored.double().cpu() - ours).abs().max() > 1e-5:
            raise InputError("the checkpoint's noise schedule is not the config's (timesteps, linear_start, linear_end)")
    return scheduler


def _class_embedding(params, state):
    stage = params.get("cond_stage_config", "__is_unconditional__")
    if stage == "__is_unconditional__":
        _refuse_left(state)
        return None
    if str(_field(stage, "target", "cond_stage_config")).rsplit(".", 1)[-1] != "ClassEmbedder":
        raise InputError(f"conditioning {stage['target']} is not supported, only ClassEmbedder is; a text-conditioned model "
                         "loads with diffusers' from_single_file, then LatentDiffusionPrior.from_diffusers")
    weight = state.pop("embedding.weight", None)
    _refuse_left(state)
    params = _field(stage, "params", "cond_stage_config")
    shape = (params.get("n_classes", 1000), _field(params, "embed_dim", "cond_stage_config.params"))  # 1000: the original's default
    if weight is None or tuple(weight.shape) != shape:
        default = "" if "n_classes" in params else " by default"
        raise InputError(f"class embedding is {None if weight is None else tuple(weight.shape)}, the config says n_classes = {shape[0]}"
                         f"{default} and embed_dim = {shape[1]}; give the yaml that belongs to the checkpoint")
    return nn.Embedding.from_pretrained(weight.to(torch.float32, copy=True))  # the last row is the null class


def _unet(p, state):
    """UNet2DConditionModel where the config has a spatial transformer, else UNet2DModel."""
    _refuse_unusual(p, {"dims": (2,), "conv_resample": (True,), "use_scale_shift_norm": (False,), "resblock_updown": (False,),
                        "use_new_attention_order": (False,), "num_classes": (None,), "n_embed": (None,),
                        "num_heads_upsample": (-1, None)}, "unet_config.params")
    levels, n, spatial = len(p["channel_mult"]), p["num_res_blocks"], p.get("use_spatial_transformer", False)
    widths = [p["model_channels"] * m for m in p["channel_mult"]]
    attends = [2**level in p["attention_resolutions"] for level in range(levels)]
    head_width, heads = p.get("num_head_channels", -1), p.get("num_heads", -1)
    if head_width == -1 and heads < 1:
        raise InputError("unet_config.params needs num_heads or num_head_channels")
    if spatial:
        kind, down, up = "UNet2DConditionModel", "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
        # what diffusers calls attention_head_dim is, in this class, the number of heads
        special = {"cross_attention_dim": p["context_dim"], "transformer_layers_per_block": p.get("transformer_depth", 1),
                   "attention_head_dim": [heads if head_width == -1 else w // head_width for w in widths]}
    else:
        kind, down, up = "UNet2DModel", "AttnDownBlock2D", "AttnUpBlock2D"
        if head_width == -1 and heads != 1:
            raise InputError("num_heads above 1 without num_head_channels is not supported in an unconditional U-Net")
        special = {"attention_head_dim": None if head_width == -1 else head_width}
    options = {
        "sample_size": p.get("image_size"), "in_channels": p["in_channels"], "out_channels": p["out_channels"],
        "block_out_channels": widths, "layers_per_block": n, "norm_num_groups": 32,
        "down_block_types": [down if a else "DownBlock2D" for a in attends],
        "up_block_types": [up if a else "UpBlock2D" for a in reversed(attends)],
    }
    attention = {} if spatial else ATTENTION
    names = {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2", "out.0": "conv_norm_out",
             "out.2": "conv_out", "input_blocks.0.0": "conv_in"}
    blocks = {old: (new, {}) for old, new in names.items()}
    for i, part in enumerate(("resnets.0", "attentions.0", "resnets.1")):
        blocks[f"middle_block.{i}"] = (f"mid_block.{part}", attention if i == 1 else UNET_RESIDUAL)
    i = 1
    for level in range(levels):
        for j in range(n):
            blocks[f"input_blocks.{i}.0"] = (f"down_blocks.{level}.resnets.{j}", UNET_RESIDUAL)
            if attends[level]:
                blocks[f"input_blocks.{i}.1"] = (f"down_blocks.{level}.attentions.{j}", attention)
            i += 1
        if level < levels - 1:
            blocks[f"input_blocks.{i}.0.op"] = (f"down_blocks.{level}.downsamplers.0.conv", {})
            i += 1
    for i in range(levels * (n + 1)):
        up, j = divmod(i, n + 1)
        level = levels - 1 - up
        blocks[f"output_blocks.{i}.0"] = (f"up_blocks.{up}.resnets.{j}", UNET_RESIDUAL)
        if attends[level]:
            blocks[f"output_blocks.{i}.1"] = (f"up_blocks.{up}.attentions.{j}", attention)
        if level and j == n:
            blocks[f"output_blocks.{i}.{1 + attends[level]}.conv"] = (f"up_blocks.{up}.upsamplers.0.conv", {})
    return _load(kind, options | special, _rename(state, blocks, head_width), "U-Net")


def _autoencoder(kind, p, state, scale):
    d = _field(p, "ddconfig", "autoencoder params")
    _refuse_unusual(d, {"resamp_with_conv": (True,), "tanh_out": (False,), "use_linear_attn": (False,),
                        "double_z": (kind == "AutoencoderKL",)}, "ddconfig")
    levels, n = len(d["ch_mult"]), d["num_res_blocks"]
    attends = [d["resolution"] // 2**level in d["attn_resolutions"] for level in range(levels)]
    options = {
        "in_channels": d["in_channels"], "out_channels": d["out_ch"], "latent_channels": d["z_channels"],
        "block_out_channels": [d["ch"] * m for m in d["ch_mult"]], "layers_per_block": n, "norm_num_groups": 32,
        "down_block_types": ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attends],
        "up_block_types": ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attends)],
        "sample_size": d["resolution"], "scaling_factor": scale,
    }
    if kind in ("VQModel", "VQModelInterface"):
        kind, options = "VQModel", options | {"num_vq_embeddings": p["n_embed"], "vq_embed_dim": p["embed_dim"]}
    elif kind != "AutoencoderKL" or p["embed_dim"] != d["z_channels"]:
        raise InputError(f"autoencoder {kind or 'without target'} with embed_dim {p.get('embed_dim')} is not supported")
    blocks = {k: (k, {}) for k in ("quant_conv", "post_quant_conv", "quantize.embedding")}
    for half in ("encoder", "decoder"):
        for old, new in (("conv_in", "conv_in"), ("norm_out", "conv_norm_out"), ("conv_out", "conv_out")):
            blocks[f"{half}.{old}"] = (f"{half}.{new}", {})
        for old, new in (("block_1", "resnets.0"), ("block_2", "resnets.1")):
            blocks[f"{half}.mid.{old}"] = (f"{half}.mid_block.{new}", VAE_RESIDUAL)
        blocks[f"{half}.mid.attn_1"] = (f"{half}.mid_block.attentions.0", ATTENTION)
        for level in range(levels):
            # the decoder's levels are numbered by resolution there, in the order of use in diffusers
            old, new = (f"down.{level}", f"down_blocks.{level}") if half == "encoder" else (
                f"up.{level}", f"up_blocks.{levels - 1 - level}")
            for j in range(n + (half == "decoder")):
                blocks[f"{half}.{old}.block.{j}"] = (f"{half}.{new}.resnets.{j}", VAE_RESIDUAL)
                blocks[f"{half}.{old}.attn.{j}"] = (f"{half}.{new}.attentions.{j}", ATTENTION)
            resample = "downsample" if half == "encoder" else "upsample"
            blocks[f"{half}.{old}.{resample}.conv"] = (f"{half}.{new}.{resample}rs.0.conv", {})
    return _load(kind, options, _rename(state, blocks), "autoencoder")


def _rename(state, blocks, head_width=-1):
    """New key -> tensor. `blocks`: old prefix -> (new prefix, renames of what follows it)."""
    renamed, left = {}, []
    for key, value in state.items():
        parts = key.split(".")
        cut = next((i for i in range(len(parts), 0, -1) if ".".join(parts[:i]) in blocks), None)
        if cut is None:
            left.append(key)
            continue
        block, leaves = blocks[".".join(parts[:cut])]
        layer, kind = ".".join(parts[cut:-1]), parts[-1]
        if leaves is ATTENTION:
            if layer != "norm" and kind == "weight":
                value = value.flatten(1)  # a convolution of size 1 there, a linear layer here
            if layer == "qkv":  # rows are head by head: q, k, v of each
                width = value.shape[0] // 3
                head = width if head_width == -1 else head_width
                if value.shape[0] % (3 * head):
                    raise InputError(f"{key} of {value.shape[0]} rows is not made of heads of width {head} (num_head_channels)")
                three = value.reshape(-1, 3, head, *value.shape[1:]).unbind(1)
                for name, part in zip(("to_q", "to_k", "to_v"), three, strict=True):
                    renamed[f"{block}.{name}.{kind}"] = part.reshape(width, *value.shape[1:])
                continue
        renamed[".".join(filter(None, (block, leaves.get(layer, layer), kind)))] = value
    _refuse_left(left)
    return renamed


def _load(kind, options, state, what):
    """The network of diffusers' class `kind` with these weights; built without storage, so nothing is drawn."""
    import diffusers

    with torch.device("meta"):
        network = getattr(diffusers, kind)(**options)
    expected = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    _refuse_left([k for k in state if k not in expected])
    missing = [k for k in expected if k not in state]
    if missing:
        raise InputError(f"the checkpoint lacks weights of the {what} that the config describes: {_some(missing)}")
    wrong = [f"{k} {tuple(v.shape)} instead of {expected[k]}" for k, v in state.items() if tuple(v.shape) != expected[k]]
    if wrong:
        raise InputError(f"weights of the {what} have other shapes than the config says: {_some(wrong, 3)}")
    # copied: kernels round differently on the unaligned memory of a loaded file
    network.load_state_dict({k: v.to(torch.float32, copy=True) for k, v in state.items()}, assign=True)
    return network
