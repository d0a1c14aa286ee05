"""Memory against time in dL/dZ and dL/dc: section 3.3 of the paper, equations (7) and (8).

Every plan computes the same gradient. What differs is which activations are kept for the backward pass and which are
recomputed. Equation (8) as printed has dz_T/dc, which is zero: c enters at every step, and its true derivative is the
sum over the steps that autograd takes.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint

from .sampler import denoise, timesteps


@dataclass(frozen=True)
class Plan:
    """What is recomputed in the backward pass instead of kept.

    Attributes:
        steps: noise predictions that are recomputed: 0 none, -1 all (memory no longer grows with T), k the first k.
        decoder: recompute the decoder.
        two_pass: the paper's schedule: generate without gradients, and once more, with them, when dL/dS is known.
        chunk: images per pass through the generator; None for all at once.
    """

    steps: int = 0
    decoder: bool = False
    two_pass: bool = False
    chunk: int | None = None

    def __post_init__(self):
        if self.steps < -1:
            raise ValueError(f"plan.steps must be -1 (all), 0 (none) or a number of steps, not {self.steps}")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"plan.chunk must be None or at least 1, not {self.chunk}")


ONE_PASS = Plan()
PER_STEP = Plan(steps=-1, decoder=True)
TWO_PASS = Plan(steps=-1, decoder=True, two_pass=True, chunk=10)
PLANS = {"one-pass": ONE_PASS, "per-step": PER_STEP, "two-pass": TWO_PASS}


def _recomputed(function, *inputs):
    # no dropout and no drawing inside: the random state need not be kept
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def generate_with_plan(prior, Z, c, noise, config, plan=ONE_PASS):
    """`sampler.generate` under a memory plan: same images, same gradients of Z and c.

    Args and returns: as :func:`ld3m_min.sampler.generate`; plan: a :class:`Plan`.
    """

    n = len(timesteps(config.steps, prior.train_steps))

    def apply(k, function, *inputs):
        keep = plan.steps >= 0 and n - 1 - k >= plan.steps
        return function(*inputs) if keep else _recomputed(function, *inputs)

    def whole(Z, c, noise):
        latents = denoise(prior, Z, c, noise, config, apply=apply)
        return _recomputed(prior.decode, latents) if plan.decoder else prior.decode(latents)

    return _chunked(whole, plan, Z, c, noise)


def decode_with_plan(prior, Z, plan=ONE_PASS):
    """`prior.decode` under a memory plan, for latents that no diffusion touches."""
    return _chunked(lambda z: _recomputed(prior.decode, z) if plan.decoder else prior.decode(z), plan, Z)


def _chunked(function, plan, *inputs):
    n = len(inputs[0])
    size = min(plan.chunk or n, n)
    twice = plan.two_pass and torch.is_grad_enabled()
    run = (lambda *part: _recomputed(function, *part)) if twice else function
    parts = [run(*(x if x is None else x[i : i + size] for x in inputs)) for i in range(0, n, size)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(frozen=True)
class PlanCost:
    """What one generation with gradients cost under a plan: seconds, and bytes that autograd kept."""

    name: str
    seconds: float
    saved_bytes: int


def compare_plans(config, prior=None, device="cpu"):
    """Measure every plan of `PLANS` on one forward and backward pass of the generator at `config`'s size and IPC."""
    import time

    from .prior import LatentDiffusionPrior

    prior = (prior or LatentDiffusionPrior.from_pretrained(config.prior)).to(device)
    n, side = config.ipc * max(1, len(prior.classes)), config.size // prior.factor
    generator = torch.Generator().manual_seed(config.seed)
    Z, noise = (torch.randn((n, prior.latent_channels, side, side), generator=generator).to(device) for _ in range(2))
    c = prior.class_conditioning(torch.arange(n) % max(1, len(prior.classes))).clone() if prior.conditional else None
    rows = []
    for name, plan in PLANS.items():
        leaves = [x.clone().requires_grad_() for x in (Z, c) if x is not None]
        held = {}

        def keep(tensor, held=held):
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        began = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            images = generate_with_plan(prior, leaves[0], leaves[1] if len(leaves) > 1 else None, noise, config.sampler, plan)
        after_forward = sum(held.values())
        images.sum().backward()
        rows.append(PlanCost(name, time.perf_counter() - began, after_forward))
    return rows
