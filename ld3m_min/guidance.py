"""Where a chain starts, and where it is pulled to: guidance that needs no training.

Each is a rule for the predicted noise of a step, and goes into the `apply` of
:func:`ld3m_min.sampler.denoise`. So the sampler stays the one of section 3.1, equations (1) to (5).
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from ld3m_min.errors import InputError
from ld3m_min.residual import Prior
from ld3m_min.sampler import Apply, NoisePredictor, SamplerConfig, timesteps


def from_the_middle(
    prior: Prior, noise: Float[Tensor, "B c h w"], config: SamplerConfig, strength: float
) -> Apply:
    """Start from latents noised to a strength, as D4M does (arXiv 2407.15138).

    The steps before the start predict the very noise that was added. Then DDIM's step is the
    forward process of the next time: sqrt(gamma_t) Z + sqrt(1 - gamma_t) noise. So the first state
    that the prior sees is Z, noised to its time.

    Args:
        prior: has the noise schedule.
        noise: of the forward process; the same that `denoise` is given.
        config: of the chain; eta must be 0, and the residual none.
        strength: share of the steps that the prior takes, at least one.

    Raises:
        InputError: a strength outside (0, 1].
    """
    if not 0 < strength <= 1:
        raise InputError(
            f"strength is {strength}, but must be above 0 and at most 1, the share of the steps "
            "that is taken"
        )
    taken = max(1, round(strength * len(timesteps(config.steps, prior.train_steps))))

    def apply(k: int, predict: NoisePredictor, z: Tensor, c: Tensor | None, t: int) -> Tensor:
        return predict(z, c, t) if k < taken else noise

    return apply


def towards(
    prior: Prior,
    modes: Float[Tensor, "B c h w"],
    config: SamplerConfig,
    *,
    scale: float = 0.1,
    until: float = 0.5,
) -> Apply:
    """Pull the predicted clean latents to modes, in the first steps (MGD3, arXiv 2505.18963).

    With m the mode and x0 the clean latent that the predicted noise e implies, algorithm 1 of that
    paper for DDIM takes e - scale sqrt(1 - gamma_t) (m - x0). In terms of the clean latent this is
    x0 + scale (1 - gamma_t) / sqrt(gamma_t) (m - x0). (Its equation (6) has the other sign, which
    pushes away.)

    Args:
        prior: has the noise schedule.
        modes: where to, one latent for each image.
        config: of the chain.
        scale: lambda. 0 is the plain chain, bit for bit.
        until: share of the steps that are guided, the first ones. Its authors guide the first 24
            of 50, and find guidance to the end worse.

    Raises:
        InputError: a negative scale, or a share outside [0, 1].
    """
    check_pull(scale, until)
    n = len(timesteps(config.steps, prior.train_steps))
    free = n - round(until * n)  # steps at the end that are not guided

    def apply(k: int, predict: NoisePredictor, z: Tensor, c: Tensor | None, t: int) -> Tensor:
        e = predict(z, c, t)
        if k < free:
            return e
        gamma = float(prior.alpha_bar[t])
        x0 = (z - math.sqrt(1 - gamma) * e) / math.sqrt(gamma)
        return e - scale * math.sqrt(1 - gamma) * (modes - x0)  # MGD3, algorithm 1

    return apply


def check_pull(scale: float, until: float) -> None:
    """Whether modes can be pulled to like this.

    Args:
        scale: lambda.
        until: share of the steps that are guided.

    Raises:
        InputError: a negative scale, or a share outside [0, 1].
    """
    if not 0 <= scale < math.inf or not 0 <= until <= 1:
        raise InputError(
            f"scale is {scale} and until {until}; the scale of mode guidance must be 0 or more, "
            "the share of the steps that are guided from 0 to 1"
        )
