"""How long one pass of the generator takes on this machine, measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from ld3m_min.backprop import Plan
from ld3m_min.config import DistilConfig
from ld3m_min.planner.forecast import Codes, codes, generate_images
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.sampler import timesteps

MOST = 100  # images that are generated to see how long many take


def synchronise(device: str | torch.device) -> None:
    """Wait for a device, so that a clock can be read.

    Args:
        device: on a CPU there is nothing to wait for.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(
    function: Callable[[], object],
    device: str | torch.device,
    repeats: int = 3,
    *,
    warm: bool = True,
) -> float:
    """Median seconds of a call.

    Args:
        function: what is called.
        device: where it works.
        repeats: how many calls are timed.
        warm: call it once before, untimed.
    """
    if warm:
        function()
    times = []
    for _ in range(repeats):
        synchronise(device)
        began = time.perf_counter()
        function()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return sorted(times)[repeats // 2]


def probe(
    prior: LatentDiffusionPrior,
    config: DistilConfig,
    plan: Plan,
    *,
    device: str | torch.device = "cpu",
    repeats: int = 3,
    classes: int | None = None,
) -> float:
    """Predicted seconds of one forward and backward pass of the generator, from short passes.

    The time is a line in the number of steps that are kept and in that of the steps that are
    recomputed. Three passes of one or two steps give it, whatever T is.

    Args:
        prior: on `device`.
        config: of the distillation.
        plan: what is recomputed, and how the networks are run.
        device: where it works.
        repeats: how many calls of each short pass are timed.
        classes: of the data; None takes the prior's.

    Example:
        >>> from ld3m_min import LatentDiffusionPrior, preset
        >>> from ld3m_min.backprop import Plan
        >>> from ld3m_min.planner import probe
        >>> prior = LatentDiffusionPrior.from_pretrained("digits")
        >>> seconds = probe(prior, preset("smoke"), Plan(), repeats=1)
        >>> f"{seconds // 60:.0f} minutes"
        '0 minutes'
    """
    drawn = codes(prior, config, device, classes)
    n = len(drawn.Z)
    if n > MOST:  # as many times longer as there are more images
        c = None if drawn.c is None else drawn.c[:MOST].detach().requires_grad_()
        drawn = Codes(drawn.Z[:MOST].detach().requires_grad_(), c, drawn.noise[:MOST])
    total = len(timesteps(config.sampler.steps, prior.train_steps)) if config.space == "ld3m" else 1

    def measured(steps: int, recomputed: int) -> float:
        short = replace(config, sampler=replace(config.sampler, steps=steps))
        chosen = replace(plan, steps=recomputed)

        def once() -> None:
            generate_images(prior, short, chosen, drawn).sum().backward()

        return seconds_of(once, device, repeats) * max(1.0, n / MOST)

    recomputed = total if plan.steps < 0 else min(plan.steps, total)
    if total <= 2:
        return measured(total, plan.steps)
    one = measured(1, 0)
    kept = max(0.0, measured(2, 0) - one)
    redone = max(0.0, measured(2, 1) - one) if recomputed else 0.0
    return one - kept + kept * (total - recomputed) + redone * recomputed
