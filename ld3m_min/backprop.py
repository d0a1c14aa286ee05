"""Memory against time in dL/dZ and dL/dc: section 3.3 of the paper, equations (7) and (8).

Every plan computes the same gradient. What differs is which activations are kept for the backward pass and which are
recomputed, and in which precision and memory format the frozen generator runs. Equation (8) as printed has dz_T/dc, which
is zero: c enters at every step, and its true derivative is the sum over the steps that autograd takes.
"""
from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from .digests import versions
from .errors import InputError
from .sampler import denoise, timesteps
from .storage import seeded
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
    prior = _verified(prior, plan, Z, c, config)
    n = len(timesteps(config.steps, prior.train_steps))

    def apply(k, function, *inputs):
        keep = plan.steps >= 0 and n - 1 - k >= plan.steps
        return function(*inputs) if keep else _recomputed(function, *inputs, selective=plan.selective)

    def whole(Z, c, noise):
        return _decode(prior, denoise(prior, Z, c, noise, config, apply=apply), plan)

    return _chunked(whole, plan, Z, c, noise)


def decode_with_plan(prior, Z, plan=ONE_PASS):
    """`prior.decode` under a memory plan, for latents that no diffusion touches."""
    prior = _verified(prior, plan, Z)
    return _chunked(lambda z: _decode(prior, z, plan), plan, Z)


def _verified(prior, plan, Z, c=None, config=None):
    """The prior as `plan` runs it, its engine verified for the batches that will pass it."""
    fast = prepared(prior, plan)
    if isinstance(fast, Prepared) and len(Z):
        z, c = Z[: plan.chunk or len(Z)].detach(), c if c is None else c[: plan.chunk or len(Z)].detach()
        if config is not None:
            twice = 2 if config.guidance_scale != 1 and fast.conditional else 1
            fast.verify("denoiser", z.repeat(twice, 1, 1, 1), c if c is None else c.repeat(twice, 1, 1))
        fast.verify("decoder", z[: plan.decoder_chunk or len(z)])
    return fast


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


# -- the generator run by another engine: precision, memory format, compiler ---------------------------------------------

_PREPARED = WeakKeyDictionary()
PLAIN = ("float32", False, "off")
# how far one call may be from eager float32, relative norms of output and gradients: rounding, not another result
ROUNDING = {"float32": 1e-3, "bfloat16": 0.1}


def prepared(prior, plan):
    """The prior as `plan` runs it: itself, or a :class:`Prepared` copy of its networks, made once for the weights it has."""
    if plan.auto:
        raise InputError("plan.auto is not yet decided; let ld3m_min.planner.choose name a plan that fits")
    key = tuple(plan.engine.values())
    if isinstance(prior, Prepared) or key == PLAIN:
        return prior
    copies, now = _PREPARED.setdefault(prior, {}), versions(p for m in prior.modules for p in m.parameters())
    if (key, prior.device) not in copies or copies[key, prior.device].of != now:
        copies[key, prior.device] = Prepared(prior, plan, now)
    return copies[key, prior.device]


class Prepared:
    """A prior whose noise predictor and decoder run by the engine that a :class:`Plan` names; all else is the prior's own.

    An engine is believed only after :meth:`verify` has compared it with eager float32 on this device. In bfloat16 the weights
    are cast once: autocast would cast a frozen weight at every call and keep each copy for the backward pass, T copies of the
    U-Net. What enters and what leaves is float32.

    Attributes:
        ran: "denoiser" and "decoder" -> (precision, channels_last, compile) that runs now. of: which weights it is a copy of.
    """

    def __init__(self, prior, plan, of=None):
        self._prior, self.of, self._verified = prior, of, set()
        named = tuple(plan.engine.values())
        self.ran = {"decoder": named} | ({} if prior.denoiser is None else {"denoiser": named})
        self._networks = {name: self._built(name, named) for name in self.ran}

    def __getattr__(self, name):
        return getattr(self._prior, name)

    @property
    def copies(self):
        """The networks that are held beside the prior's own."""
        parts = {"decoder": "autoencoder", "denoiser": "denoiser"}
        return [getattr(holder, parts[name]) for name, (holder, _) in self._networks.items() if holder is not self._prior]

    def _built(self, name, engine):
        """(the prior that holds the network, the type it computes in) of one engine."""
        precision, channels_last, mode = engine
        part = "denoiser" if name == "denoiser" else "autoencoder"
        if engine == PLAIN:
            return self._prior, next(self._prior.autoencoder.parameters()).dtype
        module = copy.deepcopy(getattr(self._prior, part))
        if precision == "bfloat16":
            module = _lowered(module)
        if channels_last:
            module.to(memory_format=torch.channels_last)
        if mode != "off":
            compile_part(module, "forward" if name == "denoiser" else "decode", mode)
        low = torch.bfloat16 if precision == "bfloat16" else next(self._prior.autoencoder.parameters()).dtype
        return self._prior._like(**{part: module}), low

    def predict_noise(self, z, t, c):
        """As the prior's; float32 in and out."""
        holder, dtype = self._networks["denoiser"]
        ends = type(self._prior.denoiser).__name__ in ENDS  # its first layer takes float32
        c = c if c is None else c.to(dtype)
        return holder.predict_noise(z if ends else z.to(dtype), t, c).to(z.dtype)

    def decode(self, z):
        """As the prior's; float32 in and out. The codebook is looked up in float32."""
        return ((self._decoded(self._prior.quantize(z)) + 1) / 2).clamp(0, 1)

    def _decoded(self, z):
        holder, dtype = self._networks["decoder"]
        options = {"force_not_quantize": True} if hasattr(self._prior.autoencoder, "quantize") else {}
        return holder.autoencoder.decode(self._prior.unscaled(z).to(dtype), **options).sample.to(z.dtype)

    def verify(self, name, z, c=None):
        """Compare a network's engine with eager float32 for inputs of this shape, once; where it is wrong, take a simpler one.

        Args:
            name: "denoiser" or "decoder". z (B, c, h, w), c (B, L, D) or None: give shapes and device, not values.

        What runs in the end is in `ran`; a warning says so where it is not what the plan named.
        """
        if self.ran[name][2] == "off":  # only compiled code is made for one shape; a part of the batch tells as much
            z, c = z[:1], c if c is None else c[:1]
        shapes = name, tuple(z.shape), None if c is None else tuple(c.shape)
        if shapes in self._verified or z.is_meta:
            return
        precision, channels_last, mode = self.ran[name]
        simpler = [(precision, channels_last, "off"), PLAIN] if mode != "off" else [PLAIN]
        for engine in simpler:
            wrong = None if self.ran[name] == PLAIN else self._wrong(name, z, c)
            if not wrong:
                break
            warnings.warn(f"the {name} run by {_words(self.ran[name])} is not the eager one on this machine ({wrong}); from here on it "
                          f"is run by {_words(engine)}", stacklevel=4)
            self.ran[name], self._networks[name] = engine, self._built(name, engine)
        self._verified.add(shapes)

    def _wrong(self, name, z, c):
        """What differs from eager float32 by more than rounding, in words; None where nothing does."""
        def results(function):
            g = seeded(0, "verify", name)
            inputs = [torch.randn(x.shape, generator=g, dtype=z.dtype).to(z.device).requires_grad_() for x in (z, c) if x is not None]
            out = function(*inputs)
            weights = torch.randn(out.shape, generator=g, dtype=z.dtype).to(z.device)
            return [out.detach(), *torch.autograd.grad((out * weights).sum(), inputs)]

        def denoised(prior):
            t = torch.full((len(z),), prior.train_steps // 2, device=z.device)
            return lambda z, c=None: prior.predict_noise(z, t, c)

        plain = Prepared.__new__(Prepared)
        plain._prior, plain._networks = self._prior, {k: (self._prior, z.dtype) for k in self._networks}
        functions = [p._decoded if name == "decoder" else denoised(p) for p in (self, plain)]
        with torch.enable_grad():
            try:
                found = results(functions[0])
            except Exception as error:  # compilers fail in many ways: no compiler, no cache, an operation they don't know
                if self.ran[name][2] == "off":
                    raise
                return f"it cannot be compiled: {str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__}"
            for what, a, b in zip(("output", "gradient of Z", "gradient of c"), found, results(functions[1]), strict=False):
                error = float((a - b).norm() / b.norm().clamp_min(torch.finfo(b.dtype).tiny))
                if not error <= ROUNDING[self.ran[name][0]]:
                    return f"its {what} is off by {error:.1%}"
        return None


def engine_of(prior, plan):
    """What runs the networks under a plan, for records: "denoiser", "decoder" -> precision, channels_last, compile.

    What the plan names, but where :meth:`Prepared.verify` has fallen back.
    """
    if plan.auto:
        return None
    fast = prepared(prior, plan)
    ran = fast.ran if isinstance(fast, Prepared) else {"denoiser": PLAIN, "decoder": PLAIN}
    return {name: dict(zip(plan.engine, engine, strict=True)) for name, engine in ran.items()}


def _words(engine):
    precision, channels_last, mode = engine
    return ("compiled " if mode != "off" else "eager ") + precision + (" in channels-last format" if channels_last else "")


def compile_part(module, method, mode):
    """Compile one method of a network of diffusers, all but its upsampling.

    Inductor of PyTorch 2.13 gives zero for the gradient through `Upsample2D` on a CPU where it fuses it with what is around.
    """
    for part in module.modules():
        if type(part).__name__ == "Upsample2D":
            part.forward = torch.compiler.disable(part.forward)
    setattr(module, method, torch.compile(getattr(module, method), mode=mode, dynamic=False))


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
