"""The frozen generative prior: loading, training, and measuring one (sections 2.2 and 4.1)."""

from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.loading import load_prior
from ld3m_min.prior.schedule import alphas_cumprod, ldm_scheduler
from ld3m_min.prior.style_gan import StyleGenerator

__all__ = [
    "LatentDiffusionPrior",
    "StyleGenerator",
    "alphas_cumprod",
    "ldm_scheduler",
    "load_prior",
]
