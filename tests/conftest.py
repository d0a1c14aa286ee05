"""Small real components, shared by the tests: digits, and a tiny prior with random weights."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")

import pytest
import torch

from ld3m_min.data import load_data
from ld3m_min.prior.architecture import build_prior
from ld3m_min.prior.presets import prior_preset


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")


@pytest.fixture
def tiny_prior(digits):
    """An untrained prior of 16 channels. Function-scoped: tests may move or cast it."""
    return build_prior(prior_preset("smoke"), digits.classes)


class LinearPrior:
    """A prior with a linear noise prediction, e = p z + q c: the sampler has a closed form."""

    conditional, latent_channels, train_steps = True, 2, 1000

    def __init__(self, p=0.3, q=0.2, codes=None):
        from ld3m_min.prior.schedule import alphas_cumprod, ldm_scheduler

        self.p, self.q, self.codes = p, q, codes
        self.alpha_bar = alphas_cumprod(ldm_scheduler())

    def predict_noise(self, z, t, c):
        return self.p * z + self.q * c.mean((1, 2)).view(-1, 1, 1, 1) * (
            1 + t.view(-1, 1, 1, 1).to(z) / 1000
        )

    def quantize(self, z):
        return z if self.codes is None else z + ((z / self.codes).round() * self.codes - z).detach()

    def decode(self, z):
        return z

    def null_conditioning(self, n):
        return torch.full((n, 1, 3), 0.25, dtype=torch.float64)


@pytest.fixture
def linear_prior():
    return LinearPrior


@pytest.fixture
def codes():
    """Z, c, noise for four images of a two-channel latent, float64."""
    g = torch.Generator().manual_seed(0)
    Z, noise = (torch.randn(4, 2, 3, 3, generator=g, dtype=torch.float64) for _ in range(2))
    c = torch.randn(4, 1, 3, generator=g, dtype=torch.float64)
    return Z.requires_grad_(), c.requires_grad_(), noise
