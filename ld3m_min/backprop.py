"""Memory against time in dL/dZ and dL/dc: section 3.3 of the paper, equations (7) and (8).

Every plan computes the same gradient. What differs is which activations are kept for the backward
pass and which are recomputed, and in which precision and memory format the frozen generator runs.
Equation (8) as printed has dz_T/dc, which is zero. c enters at every step, and its true derivative
is the sum over the steps, which autograd takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from ld3m_min.backends import Prepared, prepared
from ld3m_min.errors import InputError
from ld3m_min.frozen import FrozenPrior
from ld3m_min.io.values import checked
from ld3m_min.sampler import NoisePredictor, SamplerConfig, denoise, timesteps

PRECISIONS = ("float32", "bfloat16")
COMPILE = ("off", "default", "reduce-overhead")
_A = torch.ops.aten
# what is dear to compute and small to keep; normalisations and activations are the opposite
KEPT = {
    _A.convolution.default,
    _A.mm.default,
    _A.addmm.default,
    _A.bmm.default,
    _A.baddbmm.default,
    _A._scaled_dot_product_flash_attention_for_cpu.default,
    _A._scaled_dot_product_flash_attention.default,
    _A._scaled_dot_product_efficient_attention.default,
    _A._scaled_dot_product_cudnn_attention.default,
}


@dataclass(frozen=True)
class Plan:
    """How gradients pass the generator: what is recomputed in the backward pass, and how it is run.

    Attributes:
        steps: noise predictions that are recomputed instead of kept: 0 none, k the first k, -1 all,
            so that memory does not grow with T.
        selective: of what is recomputed, keep what convolutions and matrix products gave; the cheap
            rest is done again.
        decoder: recompute the decoder.
        decoder_chunk: images per recomputed pass through the decoder; None for all at once.
        two_pass: the paper's schedule: generate without gradients, and once more, with them, when
            dL/dS is known.
        chunk: images per pass through the generator; None for all at once.
        precision: of the generator alone: "float32", or "bfloat16", where states, schedule, first
            and last layers stay float32.
        channels_last: memory format of the generator's convolutions.
        compile: "off", or a mode of `torch.compile`.
        auto: let :func:`ld3m_min.planner.fallback.choose` say what is recomputed; precision, format
            and compilation stay as given.
        probe: let a probe of this machine say precision and compilation, by trying them. Another
            machine may go on with another backend, which is the same up to rounding.

    Raises:
        InputError: a value out of range, or values that do not go together.
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    steps: int = 0
    selective: bool = False
    decoder: bool = False
    decoder_chunk: int | None = None
    two_pass: bool = False
    chunk: int | None = None
    precision: str = "float32"
    channels_last: bool = False
    compile: str = "off"
    auto: bool = False
    probe: bool = False

    @property
    def recomputes(self) -> bool:
        """Whether anything is computed again in the backward pass."""
        return bool(self.steps or self.decoder or self.two_pass)

    @property
    def backend(self) -> dict[str, str | bool]:
        """How the networks are run, whatever is recomputed, by the names of the fields."""
        if self.probe:
            return {"probe": True}
        return {
            "precision": self.precision,
            "channels_last": self.channels_last,
            "compile": self.compile,
        }

    def __post_init__(self) -> None:
        checked(
            self,
            steps=">= -1",
            chunk=">= 1",
            decoder_chunk=">= 1",
            precision=PRECISIONS,
            compile=COMPILE,
        )
        if self.decoder_chunk and not self.decoder:
            raise InputError(
                "plan.decoder_chunk is for a decoder that is recomputed; set decoder=True"
            )
        if self.probe and (self.precision, self.compile) != ("float32", "off"):
            raise InputError(
                "plan.probe chooses precision and compile itself; leave them out or set probe=False"
            )
        if self.compile == "reduce-overhead" and self.recomputes:
            raise InputError(
                "plan.compile='reduce-overhead' (CUDA graphs) fails where parts are recomputed; "
                "use 'default'"
            )


AUTO = Plan(auto=True)
ONE_PASS = Plan()
DECODER = Plan(decoder=True, decoder_chunk=1)
SELECTIVE = Plan(steps=-1, selective=True, decoder=True)
PER_STEP = Plan(steps=-1, decoder=True, decoder_chunk=1)
CHUNKS = Plan(steps=-1, decoder=True, decoder_chunk=1, chunk=2)
TWO_PASS = Plan(steps=-1, decoder=True, decoder_chunk=1, two_pass=True, chunk=10)
PLANS = {
    "one-pass": ONE_PASS,
    "decoder": DECODER,
    "selective": SELECTIVE,
    "per-step": PER_STEP,
    "chunks": CHUNKS,
    "two-pass": TWO_PASS,
}


def ordered_plans(steps: int) -> dict[str, Plan]:
    """Plans by name, from the fastest to the one that needs least memory.

    Between those of `PLANS` stands "half", which recomputes half of the steps.

    Args:
        steps: T of the sampler.
    """
    names = ["one-pass", "decoder", "selective", "half", "per-step", "chunks", "two-pass"]
    half = replace(PER_STEP, steps=max(1, steps // 2))
    return {name: PLANS.get(name, half) for name in names}


def generate_with_plan(
    prior: FrozenPrior | Prepared,
    Z: Tensor,
    c: Tensor | None,
    noise: Tensor,
    config: SamplerConfig,
    plan: Plan = ONE_PASS,
) -> Float[Tensor, "B 3 H W"]:
    """:func:`ld3m_min.sampler.generate` under a memory plan: same images, same gradients.

    The backward pass through what it returns is dL/dZ of equation (7) and dL/dc, for which the
    paper prints equation (8).

    Args:
        prior: the frozen generator.
        Z: latent codes, (B, c, h, w).
        c: conditioning codes, (B, L, D); None for an unconditional prior.
        noise: of the forward process, (B, c, h, w).
        config: settings of the sampler.
        plan: what is recomputed, and how the networks are run.

    Returns:
        Images in [0, 1].

    Raises:
        InputError: as :func:`ld3m_min.sampler.generate`, or a plan that is not yet decided.
    """
    fast = _verified(prior, plan, Z, c, config)
    n = len(timesteps(config.steps, fast.train_steps))

    def apply(k: int, predict: NoisePredictor, z: Tensor, c: Tensor | None, t: int) -> Tensor:
        if plan.steps >= 0 and n - 1 - k >= plan.steps:
            return predict(z, c, t)
        return _recomputed(predict, z, c, t, selective=plan.selective)

    def whole(Z: Tensor, c: Tensor | None, noise: Tensor) -> Tensor:
        return _decode(fast, denoise(fast, Z, c, noise, config, apply=apply), plan)

    return in_chunks(whole, plan, Z, c, noise)


def decode_with_plan(
    prior: FrozenPrior | Prepared, Z: Tensor, plan: Plan = ONE_PASS
) -> Float[Tensor, "B 3 H W"]:
    """`prior.decode` under a memory plan, for latents that no diffusion touches (section 2.3).

    Args:
        prior: has the decoder.
        Z: latents, (B, c, h, w).
        plan: what is recomputed, and how the decoder is run.

    Returns:
        Images in [0, 1].

    Raises:
        InputError: latents that do not fit the prior, or a plan that is not yet decided.
    """
    fast = _verified(prior, plan, Z)
    return in_chunks(lambda z: _decode(fast, z, plan), plan, Z)


def _verified(
    prior: FrozenPrior | Prepared,
    plan: Plan,
    Z: Tensor,
    c: Tensor | None = None,
    config: SamplerConfig | None = None,
) -> FrozenPrior | Prepared:
    """The prior as a plan runs it, its backend verified for the batches that will pass it.

    A compiler makes other code for another length, without gradients, and where another input
    requires one: each that will run is compared, the shorter last batch too.

    Args:
        prior: frozen.
        plan: names the backend and the size of the batches.
        Z: latents.
        c: conditioning codes, or None.
        config: settings of the sampler; None where only the decoder is run.
    """
    fast = prepared(prior, plan)
    if not isinstance(fast, Prepared) or not len(Z):
        return fast
    of_Z = torch.is_grad_enabled() and Z.requires_grad
    of_c = torch.is_grad_enabled() and c is not None and c.requires_grad
    of_state = of_Z or of_c  # c enters the first step, and its result all that follows
    for n in _lengths(len(Z), plan.chunk):
        if config is not None:
            twice = 2 * n if config.guidance_scale != 1 and fast.conditional else n
            codes = None if c is None else _like(c, twice, of_c)
            for of_z in dict.fromkeys((of_Z, of_state)):
                fast.verify("denoiser", _like(Z, twice, of_z), codes)
        for part in _lengths(n, plan.decoder_chunk):
            fast.verify("decoder", _like(Z, part, of_state))
    return fast


def _lengths(n: int, size: int | None) -> tuple[int, ...]:
    """How long the parts of n images are, each length once: the size, and what is left over."""
    size = min(size or n, n)
    return (size, n % size) if n % size else (size,)


def _like(x: Tensor, n: int, requires_grad: bool) -> Tensor:
    """A batch of n that stands for one of x: shape, type, device, and whether it has a gradient."""
    return x.new_empty((n, *x.shape[1:])).requires_grad_(requires_grad)


def _decode(
    prior: FrozenPrior | Prepared, z: Float[Tensor, "B c h w"], plan: Plan
) -> Float[Tensor, "B 3 H W"]:
    """Images of latents; where the plan says so, chunk by chunk, and recomputed."""
    if not plan.decoder:
        return prior.decode(z)
    chunks = torch.split(z, plan.decoder_chunk or len(z))
    return _cat([_recomputed(prior.decode, x, selective=plan.selective) for x in chunks])


def _recomputed(function: Callable[..., Tensor], *inputs: Any, selective: bool = False) -> Tensor:
    """`function(*inputs)`, whose activations are not kept for the backward pass.

    Args:
        function: gives a tensor.
        inputs: of the function: tensors, numbers and None.
        selective: keep the results of `KEPT`.
    """
    options: dict[str, Any] = {}
    if selective:
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_products)
    # no dropout and no drawing inside: the random state need not be kept
    out: Tensor = checkpoint(
        function, *inputs, use_reentrant=False, preserve_rng_state=False, **options
    )
    return out


def _keep_products(context: object, op: object, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Whether the result of an operation is kept."""
    return CheckpointPolicy.MUST_SAVE if op in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def in_chunks(function: Callable[..., Tensor], plan: Plan, *inputs: Tensor | None) -> Tensor:
    """`function(*inputs)`, so many images at a time as a plan says, in one pass or in two.

    Args:
        function: from batches of the inputs to images.
        plan: the size of the batches, and whether there are two passes.
        inputs: tensors of one length, the first of them, and None, which is passed on.

    Returns:
        The images, with the gradient of one pass over all of them.
    """
    assert inputs[0] is not None
    n = len(inputs[0])
    size = min(plan.chunk or n, n)
    twice = plan.two_pass and torch.is_grad_enabled()
    run = partial(_recomputed, function) if twice else function
    starts = range(0, n, size)
    return _cat([run(*(x if x is None else x[i : i + size] for x in inputs)) for i in starts])


def _cat(parts: list[Tensor]) -> Tensor:
    """The parts as one; a single part as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)
