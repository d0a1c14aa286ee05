"""Checkpoints in the layout of the public latent-diffusion code, into diffusers' networks.

The paper's prior (section 4.1), `cin256-v2`, and the unconditional FFHQ and CelebA-HQ models were
released as one file of weights and one yaml.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ld3m_min.errors import InputError
from ld3m_min.prior.compvis_config import (
    NetworkPlan,
    Settings,
    autoencoder_plan,
    refuse_unusual,
    setting,
    target,
    unet_plan,
)
from ld3m_min.prior.compvis_files import read_config, read_state
from ld3m_min.prior.compvis_keys import averaged, is_ignored, refuse_left, renamed, some
from ld3m_min.prior.kinds import Autoencoder, Denoiser
from ld3m_min.prior.schedule import Scheduler, alphas_cumprod, checked_length, ldm_scheduler

STAND_ALONE = ("VQModel", "VQModelInterface", "AutoencoderKL")
UNCONDITIONAL = "__is_unconditional__"
IMAGENET = {1000: False, 1001: True}  # rows: whether one of them is a null class
PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


@dataclass(frozen=True)
class Converted:
    """What a checkpoint holds.

    Attributes:
        autoencoder: the first stage.
        denoiser: the U-Net; None where the checkpoint is an autoencoder's.
        scheduler: of the U-Net.
        class_embedding: of a class-conditional model; its last row may be a null class.
        ignored: the keys that were left out on purpose.
    """

    autoencoder: Autoencoder
    denoiser: Denoiser | None
    scheduler: Scheduler | None
    class_embedding: nn.Embedding | None
    ignored: tuple[str, ...]


def convert(
    checkpoint: str | os.PathLike[str] | Mapping[str, Any],
    config: str | os.PathLike[str] | Mapping[str, Any],
    *,
    ema: bool = False,
) -> Converted:
    """Read a checkpoint and its config. No random number is drawn.

    Args:
        checkpoint: path (.ckpt, .pt, .safetensors) or state dict: `model.diffusion_model.*`,
            `first_stage_model.*`, `cond_stage_model.*`; or a stand-alone autoencoder, without these
            prefixes.
        config: path to the yaml, or a mapping with its fields (all of it, or what stands below
            `model`).
        ema: take the averaged copies of the U-Net's weights, where the file has them.

    Raises:
        FileNotFoundError: no such file.
        InputError: a pickle that holds more than tensors; a config or key that has no counterpart;
            weights missing or of another shape than the config says.
    """
    state, (kind, params) = read_state(checkpoint), described(config)
    ignored = tuple(k for k in state if is_ignored(k))
    stand_alone = kind in STAND_ALONE
    if ema and not stand_alone:
        state = averaged(state)
    left = {k: v for k, v in state.items() if not is_ignored(k)}
    if stand_alone:
        with _naming(config):
            autoencoder = _network(autoencoder_plan(kind, params, 1.0), left)
        return Converted(autoencoder, None, None, None, ignored)
    groups: dict[str, dict[str, Tensor]] = {
        "model.diffusion_model.": {},
        "first_stage_model.": {},
        "cond_stage_model.": {},
    }
    for prefix, group in groups.items():
        for key in [k for k in left if k.startswith(prefix)]:
            group[key.removeprefix(prefix)] = left.pop(key)
    refuse_left(left)
    with _naming(config):
        first = setting(params, "first_stage_config", "model.params")
        first_params = setting(first, "params", "first_stage_config", Mapping)
        first_plan = autoencoder_plan(target(first), first_params, _scale(params, state))
        unet = setting(params, "unet_config", "model.params")
        second_plan = unet_plan(setting(unet, "params", "unet_config", Mapping))
        return Converted(
            _network(first_plan, groups["first_stage_model."]),
            _network(second_plan, groups["model.diffusion_model."]),
            _scheduler(params, state),
            _class_embedding(params, groups["cond_stage_model."]),
            ignored,
        )


def last_is_null(table: nn.Embedding | None, names: Sized, null: bool | None) -> bool:
    """Whether the last row of a checkpoint's class embedding is a null class.

    Neither checkpoint nor config says so. As many names as rows leave no row for it, one name less
    leaves one; and ImageNet has 1,000 classes.

    Args:
        table: the class embedding; None for an unconditional model.
        names: of the classes, as far as they are known.
        null: what was said; None where nothing was.
    """
    if table is None:
        return False
    rows = table.num_embeddings
    if null is not None:
        return null
    if len(names):
        return len(names) < rows
    if rows not in IMAGENET:
        warnings.warn(
            f"whether the last of the {rows} rows of the class embedding is a null class is "
            "unknown, and it is taken for one; say so by null=True, or null=False, or by the names "
            "of the classes: LatentDiffusionPrior.from_compvis(checkpoint, yaml, null=...), whose "
            "save_pretrained(folder) keeps it",
            stacklevel=3,
        )
    return IMAGENET.get(rows, True)


@contextmanager
def _naming(config: str | os.PathLike[str] | Mapping[str, Any]) -> Iterator[None]:
    """What is refused in the block is said with the file that the config is in."""
    try:
        yield
    except InputError as error:
        if not isinstance(config, Mapping):
            error.args = (f"{os.fspath(config)}: {error}",)
        raise


def described(config: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, Settings]:
    """What a config says that its checkpoint holds.

    Args:
        config: as of :func:`convert`.

    Returns:
        The model's class in the public code, which is one of `STAND_ALONE` for an autoencoder; and
        its settings.

    Raises:
        FileNotFoundError: no such file.
        InputError: it is not that of a latent diffusion model.
    """
    whole = read_config(config)
    model = whole.get("model", whole)
    with _naming(config):
        params = setting(model, "params", "model")
    return target(model), params if isinstance(params, Mapping) else {}


def _scale(params: Settings, state: Mapping[str, Tensor]) -> float:
    """The factor of the latents: from the config, or measured when the training began.

    Args:
        params: the config's `model.params`.
        state: the checkpoint, which holds a factor that was measured.

    Raises:
        InputError: it was measured, and the checkpoint lacks it.
    """
    if not params.get("scale_by_std"):
        scale: float = setting(params, "scale_factor", "model.params", float, default=1.0)
        return scale
    if "scale_factor" not in state:
        raise InputError(
            "the config says scale_by_std, but the checkpoint lacks scale_factor; the latents' "
            "scale is unknown"
        )
    return float(state["scale_factor"])


def _scheduler(params: Settings, state: Mapping[str, Tensor]) -> Scheduler:
    """The noise schedule of the config (equation 4), compared with the checkpoint's.

    Args:
        params: the config's `model.params`.
        state: the checkpoint.

    Raises:
        InputError: a setting without counterpart, or two schedules.
    """
    where, kind = "model.params", params.get("parameterization", "eps")
    usual: dict[str, tuple[object, ...]] = {
        "beta_schedule": ("linear",),
        "conditioning_key": ("crossattn", None),
    }
    refuse_unusual(params, usual, where)
    usual = {"parameterization": tuple(PREDICTIONS)}
    refuse_unusual({"parameterization": kind}, usual, where)
    scheduler: Scheduler = ldm_scheduler(
        num_train_timesteps=checked_length(setting(params, "timesteps", where, int, default=1000)),
        beta_start=setting(params, "linear_start", where, float, "> 0", default=1e-4),
        beta_end=setting(params, "linear_end", where, float, "> 0", default=2e-2),
        prediction_type=PREDICTIONS[kind],
    )
    stored = state.get("alphas_cumprod")
    if stored is not None and not stored.is_meta:
        ours = alphas_cumprod(scheduler)
        if stored.shape != ours.shape or (stored.double().cpu() - ours).abs().max() > 1e-5:
            raise InputError(
                "the checkpoint's noise schedule is not the config's (timesteps, linear_start, "
                "linear_end)"
            )
    return scheduler


def _class_embedding(params: Settings, state: Mapping[str, Tensor]) -> nn.Embedding | None:
    """The class embedding; None for an unconditional model.

    Args:
        params: the config's `model.params`.
        state: the weights below `cond_stage_model`.

    Raises:
        InputError: another kind of conditioning, or another shape than the config says.
    """
    stage = params.get("cond_stage_config", UNCONDITIONAL)
    if stage == UNCONDITIONAL:
        refuse_left(state)
        return None
    name = str(setting(stage, "target", "cond_stage_config"))
    if name.rsplit(".", 1)[-1] != "ClassEmbedder":
        raise InputError(
            f"conditioning {name} is not supported, only ClassEmbedder is; a text-conditioned "
            "model loads with diffusers' from_single_file, then LatentDiffusionPrior.from_diffusers"
        )
    weight = state.get("embedding.weight")
    refuse_left(k for k in state if k != "embedding.weight")
    params = setting(stage, "params", "cond_stage_config")
    where = "cond_stage_config.params"
    width = setting(params, "embed_dim", where, int)
    # 1000: the original's default
    shape = (setting(params, "n_classes", where, int, default=1000), width)
    if weight is None or tuple(weight.shape) != shape:
        default = "" if "n_classes" in params else " by default"
        raise InputError(
            f"class embedding is {None if weight is None else tuple(weight.shape)}, the config "
            f"says n_classes = {shape[0]}{default} and embed_dim = {shape[1]}; give the yaml that "
            "belongs to the checkpoint"
        )
    table: nn.Embedding = nn.Embedding.from_pretrained(weight.to(torch.float32, copy=True))
    return table


def _network(plan: NetworkPlan, weights: Mapping[str, Tensor]) -> Any:
    """A network of diffusers with a checkpoint's weights.

    It is built without storage, so no random number is drawn.

    Args:
        plan: how it is built.
        weights: under the public code's names.

    Raises:
        InputError: keys without counterpart, weights missing or of another shape.
    """
    import diffusers

    state = renamed(weights, plan.blocks, plan.head_width)
    try:
        with torch.device("meta"):
            network = getattr(diffusers, plan.kind)(**plan.options)
    except Exception as error:  # settings that do not fit each other fail in many ways
        raise InputError(
            f"the config describes no {plan.what} that can be built: {error}"
        ) from error
    expected = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    refuse_left(k for k in state if k not in expected)
    missing = [k for k in expected if k not in state]
    if missing:
        raise InputError(
            f"the checkpoint lacks weights of the {plan.what} that the config describes: "
            + some(missing)
        )
    wrong = [
        f"{k} {tuple(v.shape)} instead of {expected[k]}"
        for k, v in state.items()
        if tuple(v.shape) != expected[k]
    ]
    if wrong:
        raise InputError(
            f"weights of the {plan.what} have other shapes than the config says: {some(wrong, 3)}"
        )
    # copied: kernels round differently on the unaligned memory of a loaded file
    copies = {k: v.to(torch.float32, copy=True) for k, v in state.items()}
    network.load_state_dict(copies, assign=True)
    return network
