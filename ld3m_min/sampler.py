"""The sampling process: section 3.1 of the paper, equations (1) to (6).

One differentiable loop with three choices (:class:`Residual`) covers the paper's equation (6), the
public code's variant, the plain sampler of the ablation, and other routes and decays. The pipelines
of diffusers run without gradients, so the loop is ours.

From the paper to the code: z_T -> `z_T`, Z -> `Z`, c -> `c`, f_theta -> `prior.predict_noise`,
gamma_t -> `alpha_bar`, alpha_t -> `alpha_bar[t] / alpha_bar[previous t]`, sigma_t -> `sigma`,
mu_theta -> `mean`, t / T -> `weight`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ld3m_min.errors import InputError
from ld3m_min.io.values import checked
from ld3m_min.residual import DECAYS as DECAYS
from ld3m_min.residual import NO_RESIDUAL as NO_RESIDUAL
from ld3m_min.residual import PAPER_RESIDUAL as PAPER_RESIDUAL
from ld3m_min.residual import PUBLIC_RESIDUAL as PUBLIC_RESIDUAL
from ld3m_min.residual import SOURCES
from ld3m_min.residual import Prior as Prior
from ld3m_min.residual import Residual as Residual

# from z (B, c, h, w), c (B, L, D) and the training step t to the noise (B, c, h, w)
NoisePredictor = Callable[[Tensor, Tensor | None, int], Tensor]
# calls the predictor of step k: from k, the predictor and its three arguments to the noise
Apply = Callable[[int, NoisePredictor, Tensor, Tensor | None, int], Tensor]


@dataclass(frozen=True)
class SamplerConfig:
    """Settings of the sampler.

    Attributes:
        steps: how many, T. Where it does not divide the number of training steps, the public
            code's spacing gives a few more.
        guidance_scale: s of classifier-free guidance. 1 is none, and costs half.
        eta: 0 is DDIM, deterministic given the initial noise. 1 is the ancestral sampler of
            equations (3) to (5).
        residual: how the initial state enters the later ones.

    Example:
        >>> from ld3m_min import Residual, SamplerConfig
        >>> paper = SamplerConfig(eta=1.0, residual=Residual("mean", "noised"))
        >>> paper.steps, paper.guidance_scale, paper.residual.decay
        (10, 3.0, 'linear')
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    steps: int = 10
    guidance_scale: float = 3.0
    eta: float = 0.0
    residual: Residual = field(default_factory=Residual)

    def __post_init__(self) -> None:
        checked(self, steps=">= 1", guidance_scale=">= 0", eta="in [0, 1]")


@dataclass(frozen=True)
class Step:
    """What the callback sees of one step, in the order of sampling (k = n - 1 ... 0).

    Attributes:
        index: of the step, k.
        t: the training step.
        weight: of the residual.
        z: the state that entered.
        noise_prediction: f_theta, guided.
        predicted_x0: the clean latent that the prediction implies.
        pred_x0: the clean latent that is used: the residual is mixed in where `into` is "x0" or
            "noise".
        z_next: the state that leaves.
    """

    index: int
    t: int
    weight: float
    z: Float[Tensor, "B c h w"]
    noise_prediction: Float[Tensor, "B c h w"]
    predicted_x0: Float[Tensor, "B c h w"]
    pred_x0: Float[Tensor, "B c h w"]
    z_next: Float[Tensor, "B c h w"]


def timesteps(steps: int, train_steps: int = 1000) -> list[int]:
    """The training steps that the public code visits, ascending: 0, N // T, 2 N // T, ..., plus 1.

    There are more than T of them where T does not divide N (T = 30 of 1000 gives 31). Where the
    added 1 would lead past the last training step (T = 1000, say), it is left out.

    Args:
        steps: how many, T.
        train_steps: of the training, N.

    Returns:
        The steps, each below N.

    Raises:
        InputError: T is not between 1 and N.

    Example:
        >>> from ld3m_min import timesteps
        >>> timesteps(5)
        [1, 201, 401, 601, 801]
        >>> len(timesteps(30)), timesteps(30)[-1]
        (31, 991)
    """
    if not 1 <= steps <= train_steps:
        raise InputError(
            f"T = {steps} steps are out of range: the prior was trained with {train_steps}; "
            f"use 1 to {train_steps}"
        )
    grid = range(0, train_steps, train_steps // steps)
    shift = 1 if grid[-1] + 1 < train_steps else 0
    return [t + shift for t in grid]


def generate(
    prior: Prior,
    Z: Tensor,
    c: Tensor | None,
    noise: Tensor,
    config: SamplerConfig = SamplerConfig(),
    *,
    callback: Callable[[Step], object] | None = None,
) -> Float[Tensor, "B 3 H W"]:
    """G(Z, c): latent and conditioning codes -> images, differentiable in both (section 3.1).

    Args:
        prior: the frozen generator.
        Z: latent codes, (B, c, h, w).
        c: conditioning codes, (B, L, D); None for an unconditional prior.
        noise: of the forward process, (B, c, h, w). It belongs to the synthetic set: the same
            (Z, c, noise) is the same image in the loss, in the gradient, in the evaluation and in
            the export.
        config: settings of the sampler.
        callback: called after each step.

    Returns:
        Images in [0, 1].

    Raises:
        InputError: shapes that do not fit, T out of range, or guidance on an unconditional prior.

    Example:
        >>> import torch
        >>> from ld3m_min import LatentDiffusionPrior, generate
        >>> prior = LatentDiffusionPrior.from_pretrained("digits")
        >>> c = prior.class_conditioning(torch.tensor([3, 7]))
        >>> Z, noise = torch.zeros(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
        >>> tuple(generate(prior, Z, c, noise).shape)
        (2, 3, 32, 32)
    """
    return prior.decode(generate_latents(prior, Z, c, noise, config, callback=callback))


def generate_latents(
    prior: Prior,
    Z: Tensor,
    c: Tensor | None,
    noise: Tensor,
    config: SamplerConfig = SamplerConfig(),
    *,
    callback: Callable[[Step], object] | None = None,
) -> Float[Tensor, "B c h w"]:
    """As :func:`generate`, without the decoder.

    Args:
        prior: the frozen generator.
        Z: latent codes, (B, c, h, w).
        c: conditioning codes, (B, L, D); None for an unconditional prior.
        noise: of the forward process, (B, c, h, w).
        config: settings of the sampler.
        callback: called after each step.

    Returns:
        The final latents z_0.

    Raises:
        InputError: as :func:`generate`.

    Example:
        >>> import torch
        >>> from ld3m_min import LatentDiffusionPrior, SamplerConfig, generate_latents
        >>> prior, seen = LatentDiffusionPrior.from_pretrained("digits"), []
        >>> Z, c = torch.zeros(1, 3, 8, 8), prior.null_conditioning(1)
        >>> z = generate_latents(prior, Z, c, Z, SamplerConfig(4), callback=seen.append)
        >>> [(step.t, round(step.weight, 2)) for step in seen]
        [(751, 1.0), (501, 0.67), (251, 0.33), (1, 0.0)]
    """
    return denoise(prior, Z, c, noise, config, callback=callback)


def _call(
    k: int, function: NoisePredictor, z: Tensor, c: Tensor | None, t: int
) -> Float[Tensor, "B c h w"]:
    return function(z, c, t)


def denoise(
    prior: Prior,
    Z: Tensor,
    c: Tensor | None,
    noise: Tensor,
    config: SamplerConfig,
    *,
    callback: Callable[[Step], object] | None = None,
    apply: Apply = _call,
) -> Float[Tensor, "B c h w"]:
    """The loop of :func:`generate_latents`.

    Args:
        prior: the frozen generator.
        Z: latent codes, (B, c, h, w).
        c: conditioning codes, (B, L, D); None for an unconditional prior.
        noise: of the forward process, (B, c, h, w).
        config: settings of the sampler.
        callback: called after each step.
        apply: calls the noise predictor of a step, so that `ld3m_min.backprop` can recompute some
            of the steps in place of storing them.

    Returns:
        The final latents z_0.

    Raises:
        InputError: as :func:`generate`.
    """
    ts = timesteps(config.steps, prior.train_steps)  # refuses an autoencoder alone
    check_codes(prior, Z, c, noise, config)
    n, residual = len(ts), config.residual
    alpha_bar = [float(prior.alpha_bar[t]) for t in ts]
    alpha_bar_previous = [float(prior.alpha_bar[0]), *alpha_bar[:-1]]
    predict = partial(guided_noise, prior, config.guidance_scale)
    fresh = ancestral_noise(noise, n) if config.eta > 0 else []

    # equation (2) by the forward process, which leaves some of Z in z_T: gamma_T is not 0
    z_T = math.sqrt(alpha_bar[-1]) * Z + math.sqrt(1 - alpha_bar[-1]) * noise
    source = SOURCES[residual.source](prior, Z, z_T)
    z = z_T
    for k in reversed(range(n)):  # equation (1): t = T ... 1
        a, a_previous, w = alpha_bar[k], alpha_bar_previous[k], residual.weight(k, n)
        e = apply(k, predict, z, c, ts[k])  # f_theta(c, z_t, gamma_t)
        # the forward process, solved for Z
        predicted_x0 = (z - math.sqrt(1 - a) * e) / math.sqrt(a)
        x0, e_mixed = predicted_x0, e
        if residual.into in ("x0", "noise"):
            x0 = (1 - w) * predicted_x0 + w * source
        if residual.into == "noise":  # (1 - w) e + w e_s of `Residual`: the noise of this x0 in z
            e_mixed = (z - math.sqrt(a) * x0) / math.sqrt(1 - a)
        # equation (3), times eta
        sigma = config.eta * math.sqrt((1 - a_previous) / (1 - a) * max(0.0, 1 - a / a_previous))
        # equation (4) where eta is 1, as DDIM writes it
        mean = math.sqrt(a_previous) * x0 + math.sqrt(max(0.0, 1 - a_previous - sigma**2)) * e_mixed
        if residual.into == "mean":
            mean = (1 - w) * mean + w * source  # equation (6)
        # equation (5), with sigma where the paper prints sigma squared
        z_next = mean + sigma * fresh[k] if sigma > 0 else mean
        if callback is not None:
            callback(Step(k, ts[k], w, z, e, predicted_x0, x0, z_next))
        z = z_next
    return z


def guided_noise(
    prior: Prior,
    scale: float,
    z: Float[Tensor, "B c h w"],
    c: Float[Tensor, "B L D"] | None,
    t: int,
) -> Float[Tensor, "B c h w"]:
    """Noise under classifier-free guidance, e_u + s (e_c - e_u), both halves in one batch.

    Args:
        prior: predicts the noise.
        scale: of the guidance, s. 1 asks the prior once, without the null class.
        z: the state.
        c: conditioning codes; None for an unconditional prior.
        t: the training step.

    Returns:
        The predicted noise.
    """
    times = torch.full((len(z),), t, device=z.device, dtype=torch.long)
    if scale == 1 or c is None:
        return prior.predict_noise(z, times, c)
    null = prior.null_conditioning(len(z)).to(c)
    e_u, e_c = prior.predict_noise(torch.cat([z, z]), times.repeat(2), torch.cat([null, c])).chunk(
        2
    )
    return e_u + scale * (e_c - e_u)


def ancestral_noise(noise: Float[Tensor, "B c h w"], n: int) -> list[Float[Tensor, "B c h w"]]:
    """The fresh noise of each ancestral step (eta > 0), derived from the forward noise.

    Each image's comes from a generator that is seeded by its own forward noise. So it belongs to
    the synthetic set as the forward noise does, needs no storage, and does not depend on how images
    are batched. Only the signs are hashed: the last bits of a normal draw differ between machines.

    Args:
        noise: of the forward process.
        n: number of steps.

    Returns:
        n tensors, in the order of k.
    """
    seeds = [zlib.crc32((x.detach().cpu() > 0).numpy().tobytes()) for x in noise]
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    draws = [[torch.randn(noise.shape[1:], generator=g) for g in generators] for _ in range(n)]
    return [torch.stack(d).to(noise) for d in draws]


def check_codes(
    prior: Prior, Z: Tensor, c: Tensor | None, noise: Tensor, config: SamplerConfig
) -> None:
    """Refuse codes and settings that do not fit the prior.

    Args:
        prior: that will decode them.
        Z: latent codes, (B, c, h, w).
        c: conditioning codes, (B, L, D), or None.
        noise: of the forward process, (B, c, h, w).
        config: settings of the sampler.

    Raises:
        InputError: something does not fit; says what, and what would fit.
    """
    if Z.dim() != 4 or Z.shape[1] != prior.latent_channels:
        raise InputError(
            f"Z is {tuple(Z.shape)}, but the prior's latents are (B, {prior.latent_channels}, h, w)"
        )
    codes = {k: x for k, x in (("Z", Z), ("c", c), ("noise", noise)) if x is not None}
    if any(x.device != Z.device or not x.is_floating_point() for x in codes.values()):
        given = ", ".join(f"{k} {x.dtype} on {x.device}" for k, x in codes.items())
        raise InputError(f"codes must be floats on one device; they are {given}")
    if noise.shape != Z.shape:
        raise InputError(
            f"noise is {tuple(noise.shape)} and Z {tuple(Z.shape)}; each image needs its own "
            "forward noise"
        )
    if prior.conditional:
        _check_condition(prior, c, len(Z), config)
    elif config.guidance_scale != 1:
        raise InputError(
            "guidance needs a null class, which this unconditional prior lacks; "
            "set guidance_scale=1"
        )
    elif c is not None:
        raise InputError("this prior is unconditional and takes no c; give c=None")


def _check_condition(prior: Prior, c: Tensor | None, n: int, config: SamplerConfig) -> None:
    """Refuse a conditioning that does not fit a conditional prior and n images."""
    if c is None or c.dim() != 3 or len(c) != n:
        shape = None if c is None else tuple(c.shape)
        raise InputError(f"c is {shape}; expected ({n}, L, D), as prior.class_conditioning gives")
    if config.guidance_scale == 1:
        return
    null = prior.null_conditioning(1)
    if null.shape[1:] != c.shape[1:]:
        raise InputError(
            f"c is {tuple(c.shape)}, but the prior's conditioning is "
            f"(B, {null.shape[1]}, {null.shape[2]})"
        )
