"""Whether a prior can do what a method asks of it (section 2.2)."""

from __future__ import annotations

from ld3m_min.errors import InputError
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior


def class_conditional(prior: object, method: str) -> LatentDiffusionPrior:
    """A prior that encodes images, denoises latents, and knows classes.

    Args:
        prior: anything.
        method: that needs it, as a message names it.

    Raises:
        InputError: it lacks one of these; says which.
    """
    lacking = "latents to denoise"
    if isinstance(prior, LatentDiffusionPrior):
        parts = {
            "encoder": getattr(prior.autoencoder, "encoder", None),
            "denoiser": prior.denoiser,
            "classes": prior.class_embedding,
        }
        lacking = next((name for name, part in parts.items() if part is None), "")
        if not lacking:
            return prior
    raise InputError(
        f"{method} needs a class-conditional latent diffusion prior, but this one "
        f"({type(prior).__name__}) has no {lacking}; take a prior that has"
    )
