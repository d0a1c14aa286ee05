"""The noise schedule of a diffusion model: section 2.2, equation (4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float64
from torch import Tensor

from ld3m_min.errors import InputError
from ld3m_min.io.values import converted, within


@runtime_checkable
class Scheduler(Protocol):
    """Any scheduler of diffusers: a configuration, and `betas` or `alphas_cumprod`."""

    @property
    def config(self) -> Mapping[str, Any]:
        """What the scheduler was made with; diffusers mixes numbers, texts and lists."""


def alphas_cumprod(scheduler: Scheduler) -> Float64[Tensor, " N"]:
    """alpha_bar_t for t = 0 ... N - 1: the paper's gamma_t (section 2.2, equation 4).

    Computed from the schedule's own definition in float64, since diffusers keeps it in float32.

    Args:
        scheduler: names a schedule by its first and last beta, or holds `betas` or
            `alphas_cumprod`.

    Returns:
        The share of the variance that is signal, after each of the N training steps.

    Raises:
        InputError: an impossible number of steps, impossible betas, or none at all.

    Example:
        >>> from ld3m_min.prior import alphas_cumprod, ldm_scheduler
        >>> alpha_bar = alphas_cumprod(ldm_scheduler())
        >>> [round(alpha_bar[t].item(), 4) for t in (0, 500, 999)]
        [0.9985, 0.1149, 0.0001]
    """
    config = scheduler.config
    n = checked_length(config.get("num_train_timesteps"))
    start: Any = config.get("beta_start")
    end: Any = config.get("beta_end")
    kind = config.get("beta_schedule")
    named = config.get("trained_betas") is None and not config.get("rescale_betas_zero_snr")
    if named and kind in ("scaled_linear", "linear"):
        start = converted(float, start, "the schedule's beta_start")
        end = converted(float, end, "the schedule's beta_end")
        within((start, end), ">= 0", "the schedule's beta_start and beta_end")
        scaled = kind == "scaled_linear"
        first, last = (start**0.5, end**0.5) if scaled else (start, end)
        betas = torch.linspace(first, last, n, dtype=torch.float64)
        betas = betas**2 if scaled else betas
    else:
        betas = _held_betas(scheduler)
    if betas.shape != (n,) or not bool(((betas > 0) & (betas <= 1)).all()):
        raise InputError(
            f"the noise schedule is impossible: its betas must be {n} numbers above 0, at most 1; "
            f"see beta_start = {start}, beta_end = {end} and trained_betas in the scheduler's "
            "configuration"
        )
    return torch.cumprod(1 - betas, dim=0)  # equation (4): gamma_t, the product of 1 - beta


def _held_betas(scheduler: Scheduler) -> Float64[Tensor, " ..."]:
    """The betas of a scheduler whose configuration does not name its schedule.

    Raises:
        InputError: it holds neither `betas` nor `alphas_cumprod`.
    """
    betas, products = (getattr(scheduler, k, None) for k in ("betas", "alphas_cumprod"))
    if betas is not None:
        return torch.as_tensor(betas).double()
    if products is None:
        raise InputError(
            f"{type(scheduler).__name__} gives neither betas nor alphas_cumprod; LD3M needs the "
            "noise schedule of a diffusion model"
        )
    found = torch.as_tensor(products).double()
    return 1 - found / torch.cat([found.new_ones(1), found[:-1]])


def checked_length(steps: object) -> int:
    """The number of training steps of a schedule, before any memory is taken for it.

    Args:
        steps: what a configuration says, whatever its type.

    Raises:
        InputError: not a whole number from 1 to 100,000.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 100_000:
        raise InputError(
            f"the schedule has num_train_timesteps = {steps!r}; it must be a whole number from 1 "
            "to 100,000"
        )
    return steps


def ldm_scheduler(**changes: object) -> Scheduler:
    """The schedule of the public latent diffusion model, the paper's prior (section 4.1).

    1000 steps with scaled-linear betas from .0015 to .0195.

    Args:
        **changes: fields of diffusers' `DDIMScheduler` that are other than that model's.

    Example:
        >>> from ld3m_min.prior import ldm_scheduler
        >>> config = ldm_scheduler(num_train_timesteps=100).config
        >>> config.num_train_timesteps, config.beta_schedule, config.prediction_type
        (100, 'scaled_linear', 'epsilon')
    """
    from diffusers import DDIMScheduler

    values = {
        "num_train_timesteps": 1000,
        "beta_start": 0.0015,
        "beta_end": 0.0195,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": "epsilon",
    }
    scheduler: Scheduler = DDIMScheduler(**values | changes)
    return scheduler
