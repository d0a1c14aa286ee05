"""The sampling process: section 3.1 of the paper, equations (1) to (6).

One differentiable loop with three choices (:class:`Residual`) covers the paper's equation (6), the public code's
variant, and the plain sampler of the ablation. The pipelines of diffusers run without gradients, so the loop is ours.

Paper -> code: z_T -> `z_T`, Z -> `Z`, c -> `c`, f_theta -> `prior.predict_noise`, gamma_t -> `alpha_bar`,
alpha_t -> `alpha_bar[t] / alpha_bar[previous t]`, sigma_t -> `sigma`, mu_theta -> `mean`, t / T -> `weight`.
"""
from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field

import torch

from .errors import InputError
from .values import checked

INTO = ("mean", "x0", "none")
SOURCE = ("noised", "clean", "quantized")
DECAYS = {  # s = 1 at the first step, falling to the last; each maps s to the weight of the initial state
    "linear": lambda s: s,
    "cosine": lambda s: (1 - math.cos(math.pi * s)) / 2,
    "sqrt": lambda s: math.sqrt(s),
    "exponential": lambda s: math.expm1(5 * s) / math.expm1(5),
    "constant": lambda s: 0.5,
    "none": lambda s: 0.0,
}


@dataclass(frozen=True)
class Residual:
    """How the initial state enters the later ones: equation (6) and its relatives.

    Attributes:
        into: "mean" mixes it into the mean of the next state (equation 6), "x0" into the predicted clean latent (the
            public code), "none" leaves it out (the ablation, equation 5).
        source: what is mixed in: "noised" z_T (the paper), "clean" Z, or "quantized" Z (the public code).
        decay: how its weight falls over the steps: "linear" (paper and code), "cosine", "sqrt", "exponential";
            "constant" keeps 1/2, "none" is 0 throughout.
    """

    into: str = "x0"
    source: str = "quantized"
    decay: str = "linear"

    def __post_init__(self):
        checked(self, into=INTO, source=SOURCE, decay=tuple(DECAYS))

    def weight(self, k, n):
        """Weight of the source at step k = n-1 (first) ... 0 (last) of n steps.

        Equation (6) uses t / T = (k + 1) / n, so that even the last step keeps 1 / n; the public code uses k / (n - 1),
        1 at the first step and 0 at the last. A single step is a first step: weight 1.
        """
        if self.into == "none":
            return 0.0
        s = (k + 1) / n if self.into == "mean" or n == 1 else k / (n - 1)
        return DECAYS[self.decay](s)


PAPER_RESIDUAL = Residual("mean", "noised", "linear")
PUBLIC_RESIDUAL = Residual("x0", "quantized", "linear")
NO_RESIDUAL = Residual("none", "noised", "none")


@dataclass(frozen=True)
class SamplerConfig:
    """Settings of the sampler.

    Attributes:
        steps: T. Where it does not divide the training steps, the public code's spacing gives a few more.
        guidance_scale: s of classifier-free guidance; 1 is none (and costs half).
        eta: 0 is DDIM, deterministic given the initial noise; 1 is the ancestral sampler of equations (3) to (5).
        residual: see :class:`Residual`.
    """

    steps: int = 10
    guidance_scale: float = 3.0
    eta: float = 0.0
    residual: Residual = field(default_factory=Residual)

    def __post_init__(self):
        checked(self, steps=">= 1", guidance_scale=">= 0", eta="in [0, 1]")


@dataclass(frozen=True)
class Step:
    """What the callback sees of one step, in the order of sampling (k = n-1 ... 0).

    Attributes:
        index: k. t: the training time step. weight: of the residual.
        z: the state that entered, (B, c, h, w). noise_prediction: f_theta, guided. predicted_x0: the clean latent that
            it implies; pred_x0: the one used, residual mixed in where `into` is "x0". z_next: the state that leaves.
    """

    index: int
    t: int
    weight: float
    z: torch.Tensor
    noise_prediction: torch.Tensor
    predicted_x0: torch.Tensor
    pred_x0: torch.Tensor
    z_next: torch.Tensor


def timesteps(steps, train_steps=1000):
    """The time steps of the public code, ascending: 0, N//T, 2 N//T, ... below N, each plus 1.

    There are more than T of them where T does not divide N (T = 30 of 1000 gives 31). Where the added 1 would lead past
    the last training step (T = 1000, say), it is left out.

    Raises:
        ValueError: T is not between 1 and the number of training steps.
    """
    if not 1 <= steps <= train_steps:
        raise InputError(f"T = {steps} steps are out of range: the prior was trained with {train_steps}; use 1 to {train_steps}")
    grid = range(0, train_steps, train_steps // steps)
    shift = 1 if grid[-1] + 1 < train_steps else 0
    return [t + shift for t in grid]


def generate(prior, Z, c, noise, config=SamplerConfig(), *, callback=None):
    """G(Z, c): latent and conditioning codes -> images, differentiable in both (section 3.1).

    Args:
        Z: (B, c, h, w) latent codes. c: (B, L, D) conditioning, None for an unconditional prior.
        noise: (B, c, h, w), the noise of the forward process. It belongs to the synthetic set: the same (Z, c, noise)
            is the same image in the loss, in the gradient, in the evaluation and in the export.
        callback: called with a :class:`Step` after each step.

    Returns:
        (B, 3, H, W) images in [0, 1].

    Raises:
        ValueError: shapes that do not fit, T out of range, guidance on an unconditional prior.
    """
    return prior.decode(generate_latents(prior, Z, c, noise, config, callback=callback))


def generate_latents(prior, Z, c, noise, config=SamplerConfig(), *, callback=None):
    """As :func:`generate`, without the decoder: the final latents z_0, (B, c, h, w)."""
    return denoise(prior, Z, c, noise, config, callback=callback)


def denoise(prior, Z, c, noise, config, *, callback=None, apply=lambda k, function, *inputs: function(*inputs)):
    """The loop of :func:`generate_latents`; `apply(k, function, ...)` calls the noise predictor of step k, so that
    `backprop` can recompute some of the steps instead of storing them."""
    ts = timesteps(config.steps, prior.train_steps)  # refuses an autoencoder alone
    check_codes(prior, Z, c, noise, config)
    n, residual = len(ts), config.residual
    alpha_bar = [float(prior.alpha_bar[t]) for t in ts]
    alpha_bar_previous = [float(prior.alpha_bar[0]), *alpha_bar[:-1]]
    z_T = math.sqrt(alpha_bar[-1]) * Z + math.sqrt(1 - alpha_bar[-1]) * noise  # forward process, up to the first t
    source = {"noised": lambda: z_T, "clean": lambda: Z, "quantized": lambda: prior.quantize(Z)}[residual.source]()
    fresh = ancestral_noise(noise, n) if config.eta > 0 else None

    def predict(z, c, t):  # classifier-free guidance in one batch: e_u + s (e_c - e_u)
        times = torch.full((len(z),), t, device=z.device, dtype=torch.long)
        if config.guidance_scale == 1 or not prior.conditional:
            return prior.predict_noise(z, times, c)
        null = prior.null_conditioning(len(z)).to(c)
        e_u, e_c = prior.predict_noise(torch.cat([z, z]), times.repeat(2), torch.cat([null, c])).chunk(2)
        return e_u + config.guidance_scale * (e_c - e_u)

    z = z_T
    for k in reversed(range(n)):
        a, a_prev, w = alpha_bar[k], alpha_bar_previous[k], residual.weight(k, n)
        e = apply(k, predict, z, c, ts[k])
        predicted_x0 = (z - math.sqrt(1 - a) * e) / math.sqrt(a)
        x0 = (1 - w) * predicted_x0 + w * source if residual.into == "x0" else predicted_x0
        sigma = config.eta * math.sqrt((1 - a_prev) / (1 - a) * max(0.0, 1 - a / a_prev))
        mean = math.sqrt(a_prev) * x0 + math.sqrt(max(0.0, 1 - a_prev - sigma**2)) * e  # equation (4), for eta = 1
        if residual.into == "mean":
            mean = (1 - w) * mean + w * source  # equation (6)
        z_next = mean + sigma * fresh[k] if sigma > 0 else mean  # equation (5), with sigma where it prints sigma squared
        if callback is not None:
            callback(Step(k, ts[k], w, z, e, predicted_x0, x0, z_next))
        z = z_next
    return z


def ancestral_noise(noise, n):
    """The noise of each of n ancestral steps (eta > 0), list of (B, c, h, w), derived from the forward noise.

    Each image's comes from a generator seeded by its own forward noise: so it belongs to the synthetic set as the
    forward noise does, needs no storage, and does not depend on how images are batched. The signs are what is hashed:
    the last bits of a normal draw differ between machines.
    """
    seeds = [zlib.crc32((x.detach().cpu() > 0).numpy().tobytes()) for x in noise]
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    draws = [[torch.randn(noise.shape[1:], generator=g) for g in generators] for _ in range(n)]
    return [torch.stack(d).to(noise) for d in draws]


def check_codes(prior, Z, c, noise, config):
    """Refuse codes and settings that do not fit the prior; ValueError says which, and what would fit."""
    if Z.dim() != 4 or Z.shape[1] != prior.latent_channels:
        raise InputError(f"Z is {tuple(Z.shape)}, but the prior's latents are (B, {prior.latent_channels}, h, w)")
    if not Z.is_floating_point() or any(x is not None and (x.device != Z.device or not x.is_floating_point()) for x in (c, noise)):
        given = ", ".join(f"{n} {x.dtype} on {x.device}" for n, x in (("Z", Z), ("c", c), ("noise", noise)) if x is not None)
        raise InputError(f"codes must be floats on one device; they are {given}")
    if noise.shape != Z.shape:
        raise InputError(f"noise is {tuple(noise.shape)} and Z {tuple(Z.shape)}; each image needs its own forward noise")
    if not prior.conditional:
        if config.guidance_scale != 1:
            raise InputError("guidance needs a null class, which this unconditional prior lacks; set guidance_scale=1")
        if c is not None:
            raise InputError("this prior is unconditional and takes no c; give c=None")
    elif c is None or c.dim() != 3 or len(c) != len(Z):
        shape = None if c is None else tuple(c.shape)
        raise InputError(f"c is {shape}; expected ({len(Z)}, L, D), as prior.class_conditioning gives")
    elif config.guidance_scale != 1 and (null := prior.null_conditioning(1)).shape[1:] != c.shape[1:]:
        raise InputError(f"c is {tuple(c.shape)}, but the prior's conditioning is (B, {null.shape[1]}, {null.shape[2]})")
