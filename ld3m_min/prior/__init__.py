"""The frozen generative prior: loading, training, and measuring one (sections 2.2 and 4.1)."""

from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior

__all__ = ["LatentDiffusionPrior"]
