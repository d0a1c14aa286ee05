"""The frozen generative prior: loading, training, and measuring one (sections 2.2 and 4.1)."""

from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.schedule import alphas_cumprod, ldm_scheduler

__all__ = ["LatentDiffusionPrior", "alphas_cumprod", "ldm_scheduler"]
