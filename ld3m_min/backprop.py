"""Memory against time in dL/dZ and dL/dc: section 3.3 of the paper, equations (7) and (8).

Every plan computes the same gradient. What differs is which activations are kept for the backward pass and which are
recomputed, and in which precision and memory format the frozen generator runs. Equation (8) as printed has dz_T/dc, which
is zero: c enters at every step, and its true derivative is the sum over the steps that autograd takes.
"""
from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from .errors import InputError
from .sampler import denoise, timesteps
from .values import checked

PRECISIONS = ("float32", "bfloat16")
COMPILE = ("off", "default", "reduce-overhead")
_A = torch.ops.aten
KEPT = {  # what is dear to compute and small to keep; normalisations and activations are the opposite
    _A.convolution.default, _A.mm.default, _A.addmm.default, _A.bmm.default, _A.baddbmm.default,
    _A._scaled_dot_product_flash_attention_for_cpu.default, _A._scaled_dot_product_flash_attention.default,
    _A._scaled_dot_product_efficient_attention.default, _A._scaled_dot_product_cudnn_attention.default,
}
# the layers that stay float32 under "bfloat16": rounding at the ends of the network costs the gradient the most
ENDS = {
    "UNet2DConditionModel": (("conv_in", "time_embedding"), ("conv_norm_out", "conv_out")),
    "AutoencoderKL": ((), ("decoder.conv_norm_out", "decoder.conv_out")),
    "VQModel": ((), ("decoder.conv_norm_out", "decoder.conv_out")),
}


@dataclass(frozen=True)
class Plan:
    """How gradients pass the generator: what is recomputed in the backward pass instead of kept, and how it is run.

    Attributes:
        steps: noise predictions that are recomputed: 0 none, -1 all (memory no longer grows with T), k the first k.
        selective: of what is recomputed, keep what convolutions and matrix products gave: the cheap rest is redone.
        decoder: recompute the decoder. decoder_chunk: images per recomputed pass through it; None for all at once.
        two_pass: the paper's schedule: generate without gradients, and once more, with them, when dL/dS is known.
        chunk: images per pass through the generator; None for all at once.
        precision: of the generator alone: "float32", or "bfloat16" (states, schedule, first and last layers stay float32).
        channels_last: memory format of the generator's convolutions. compile: "off", or a mode of `torch.compile`.
        auto: let :func:`ld3m_min.planner.choose` say what is recomputed; precision, format and compilation stay as given.
    """

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

    @property
    def engine(self):
        """How the networks are run, whatever is recomputed: precision, channels_last, compile."""
        return {"precision": self.precision, "channels_last": self.channels_last, "compile": self.compile}

    def __post_init__(self):
        checked(self, steps=">= -1", chunk=">= 1", decoder_chunk=">= 1", precision=PRECISIONS, compile=COMPILE)
        if self.decoder_chunk and not self.decoder:
            raise InputError("plan.decoder_chunk is for a decoder that is recomputed; set decoder=True")
        if self.compile == "reduce-overhead" and (self.steps or self.decoder or self.two_pass):
            raise InputError("plan.compile='reduce-overhead' (CUDA graphs) fails where parts are recomputed; use 'default'")


AUTO = Plan(auto=True)
ONE_PASS = Plan()
DECODER = Plan(decoder=True, decoder_chunk=1)
SELECTIVE = Plan(steps=-1, selective=True, decoder=True)
PER_STEP = Plan(steps=-1, decoder=True, decoder_chunk=1)
CHUNKS = Plan(steps=-1, decoder=True, decoder_chunk=1, chunk=2)
TWO_PASS = Plan(steps=-1, decoder=True, decoder_chunk=1, two_pass=True, chunk=10)
PLANS = {"one-pass": ONE_PASS, "decoder": DECODER, "selective": SELECTIVE, "per-step": PER_STEP, "chunks": CHUNKS,
         "two-pass": TWO_PASS}


def ladder(steps):
    """Plans from the fastest to the one that needs least memory, name -> :class:`Plan`, for a sampler of `steps` steps.

    Between those of `PLANS` stands "half", which recomputes half of the steps.
    """
    names = ["one-pass", "decoder", "selective", "half", "per-step", "chunks", "two-pass"]
    return {n: PLANS[n] if n in PLANS else replace(PER_STEP, steps=max(1, steps // 2)) for n in names}


def _keep_products(context, op, *args, **kwargs):
    return CheckpointPolicy.MUST_SAVE if op in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def _recomputed(function, *inputs, selective=False):
    # no dropout and no drawing inside: the random state need not be kept
    options = {"context_fn": partial(create_selective_checkpoint_contexts, _keep_products)} if selective else {}
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False, **options)


def generate_with_plan(prior, Z, c, noise, config, plan=ONE_PASS):
    """`sampler.generate` under a memory plan: same images, same gradients of Z and c.

    Args and returns: as :func:`ld3m_min.sampler.generate`; plan: a :class:`Plan`.
    """
    prior = prepared(prior, plan)
    n = len(timesteps(config.steps, prior.train_steps))

    def apply(k, function, *inputs):
        keep = plan.steps >= 0 and n - 1 - k >= plan.steps
        return function(*inputs) if keep else _recomputed(function, *inputs, selective=plan.selective)

    def whole(Z, c, noise):
        return _decode(prior, denoise(prior, Z, c, noise, config, apply=apply), plan)

    return _chunked(whole, plan, Z, c, noise)


def decode_with_plan(prior, Z, plan=ONE_PASS):
    """`prior.decode` under a memory plan, for latents that no diffusion touches."""
    prior = prepared(prior, plan)
    return _chunked(lambda z: _decode(prior, z, plan), plan, Z)


def _decode(prior, z, plan):
    if not plan.decoder:
        return prior.decode(z)
    return _cat([_recomputed(prior.decode, x, selective=plan.selective) for x in z.split(plan.decoder_chunk or len(z))])


def _chunked(function, plan, *inputs):
    n = len(inputs[0])
    size = min(plan.chunk or n, n)
    twice = plan.two_pass and torch.is_grad_enabled()
    run = partial(_recomputed, function) if twice else function
    return _cat([run(*(x if x is None else x[i : i + size] for x in inputs)) for i in range(0, n, size)])


def _cat(parts):
    return parts[0] if len(parts) == 1 else torch.cat(parts)


# -- the generator in another precision or memory format ---------------------------------------------------------------

_PREPARED = WeakKeyDictionary()


def prepared(prior, plan):
    """The prior as `plan` runs it: itself, or a :class:`Prepared` copy of its networks, made once."""
    if plan.auto:
        raise InputError("plan.auto is not yet decided; let ld3m_min.planner.choose name a plan that fits")
    key = tuple(plan.engine.values())
    if isinstance(prior, Prepared) or key == ("float32", False, "off"):
        return prior
    copies = _PREPARED.setdefault(prior, {})
    if (key, prior.device) not in copies:
        copies[key, prior.device] = Prepared(prior, plan)
    return copies[key, prior.device]


class Prepared:
    """A prior whose noise predictor and decoder run as a :class:`Plan` says; everything else is the prior's own.

    In bfloat16 the weights are cast once. Autocast would cast a frozen weight at every call and keep each copy for the
    backward pass: T copies of the U-Net. What enters and what leaves is float32.
    """

    def __init__(self, prior, plan):
        low = plan.precision == "bfloat16"
        self._prior, self._dtype = prior, torch.bfloat16 if low else next(prior.autoencoder.parameters()).dtype
        networks = {"autoencoder": prior.autoencoder, "denoiser": prior.denoiser}
        made = {k: _lowered(copy.deepcopy(m)) if low else copy.deepcopy(m) for k, m in networks.items() if m is not None}
        for module in made.values():
            if plan.channels_last:
                module.to(memory_format=torch.channels_last)
            if plan.compile != "off":
                options = {"mode": plan.compile, "dynamic": False}
                module.forward = torch.compile(module.forward, **options)
                if hasattr(module, "decode"):
                    module.decode = torch.compile(module.decode, **options)
        self._fast = prior._like(**made)

    def __getattr__(self, name):
        return getattr(self._prior, name)

    def predict_noise(self, z, t, c):
        """As the prior's; float32 in and out."""
        ends = type(self._prior.denoiser).__name__ in ENDS  # its first layer takes float32
        c = c if c is None else c.to(self._dtype)
        return self._fast.predict_noise(z if ends else z.to(self._dtype), t, c).to(z.dtype)

    def decode(self, z):
        """As the prior's; float32 in and out. The codebook is looked up in float32."""
        quantised = self._prior.quantize(z)
        options = {"force_not_quantize": True} if hasattr(self._prior.autoencoder, "quantize") else {}
        out = self._fast.autoencoder.decode(self._prior.unscaled(quantised).to(self._dtype), **options).sample
        return ((out.to(z.dtype) + 1) / 2).clamp(0, 1)


def _lowered(module):
    """`module` in bfloat16 but for its ends, with casts at the border."""
    first, last = ENDS.get(type(module).__name__, ((), ()))
    nn.Module.to(module, torch.bfloat16)
    for name in (*first, *last):
        module.get_submodule(name).float()
    for name in first:
        module.get_submodule(name).register_forward_hook(lambda m, i, out: out.to(torch.bfloat16))
    if last:
        module.get_submodule(last[0]).register_forward_pre_hook(lambda m, inputs: (inputs[0].float(), *inputs[1:]))
    return module
