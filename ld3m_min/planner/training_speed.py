"""How fast a prior's networks are trained on this machine, and in how much memory: measured.

A few real steps of each network on images of noise; what they show makes no difference to the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ld3m_min.io.seeds import seeded
from ld3m_min.networks import build_network
from ld3m_min.planner.counter import Counter
from ld3m_min.planner.seconds import seconds_of
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.autoencoder_training import autoencoder_loss
from ld3m_min.prior.classifier import ClassifierConfig
from ld3m_min.prior.fit import Optimiser, few_tokens
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.quality import sample_prior
from ld3m_min.prior.start import started
from ld3m_min.prior.train import denoiser_loss
from ld3m_min.prior.training_time import Speeds

REPEATS = 2  # timed steps, after one that is not


def training_speeds(
    config: PriorConfig,
    classes: int,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    start: LatentDiffusionPrior | None = None,
) -> Speeds:
    """Seconds and memory of the steps of a training.

    Args:
        config: of the training.
        classes: how many.
        device: where it is trained.
        dtype: of the forward passes.
        start: what it starts from; its autoencoder is not trained.

    Raises:
        InputError: `start` does not fit.
    """
    device = torch.device(device)
    prior = started(config, [f"class {k}" for k in range(classes)], start).prior.to(device)
    g = seeded(0, "probe")
    n = max(config.vae_batch, 8)
    images = torch.randint(256, (n, 3, config.size, config.size), generator=g, dtype=torch.uint8)
    images = images.to(device)
    peak, autoencoder = 0, 0.0
    if start is None:
        loss = autoencoder_loss(prior, images, config)
        autoencoder, peak = _step({"vae": prior.autoencoder}, loss, device, dtype)
    with torch.no_grad():
        z = prior.encode(images.float()[:8] / 255)
        encoding = seconds_of(lambda: prior.encode(images.float()[:8] / 255), device, REPEATS) / 8
    latents = torch.randn(z.shape, generator=g).to(device)
    labels = torch.arange(len(latents), device=device) % classes
    assert prior.denoiser is not None and prior.class_embedding is not None
    modules = {"unet": prior.denoiser, "class_embedding": prior.class_embedding}
    loss = denoiser_loss(prior, latents, labels, config)
    denoiser, second = _step(modules, loss, device, dtype)
    for module in prior.modules:
        module.requires_grad_(False).eval()
    some = torch.arange(4) % classes
    drawn = seconds_of(lambda: sample_prior(prior, some, config.size, steps=3), device, REPEATS)
    asked = config.classifier or ClassifierConfig()
    return Speeds(
        autoencoder,
        denoiser,
        encoding,
        drawn / (3 * len(some)),
        _classifier_step(asked, classes, device),
        max(peak, second) + _bytes(prior),
        _weights(prior.autoencoder),
        _weights(prior.denoiser),
    )


def _step(
    modules: Mapping[str, nn.Module],
    loss_of: Callable[[int], Tensor],
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[float, int]:
    """Seconds of a training step, and the most bytes that it holds beside the weights."""
    fast = dtype == torch.bfloat16 and device.type == "cpu"
    with Counter() as counted:
        optimiser = Optimiser(modules, lr=1e-9, ema=0.9, steps=10, fused=fast)

        def step() -> None:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = loss_of(0)
            optimiser.step(loss, 0)

        with few_tokens(fast):
            step()
    with few_tokens(fast):
        return seconds_of(step, device, REPEATS, warm=False), counted.peak


def _classifier_step(asked: ClassifierConfig, classes: int, device: torch.device) -> float:
    """Seconds of a training step of the classifier."""
    network = build_network(asked.network, width=asked.width, size=asked.size, classes=classes).to(
        device
    )
    adam = torch.optim.Adam(network.parameters(), lr=1e-9)
    x = torch.zeros(asked.batch, 3, asked.size, asked.size, device=device)
    y = torch.zeros(asked.batch, dtype=torch.long, device=device)

    def step() -> None:
        adam.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            loss = F.cross_entropy(network(x), y)
        loss.backward()
        adam.step()

    return seconds_of(step, device, REPEATS)


def _weights(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _bytes(prior: LatentDiffusionPrior) -> int:
    return sum(p.numel() * p.element_size() for m in prior.modules for p in m.parameters())
