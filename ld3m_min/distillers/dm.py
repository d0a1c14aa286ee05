"""Distribution matching: match the mean embeddings (section 2.1, DM)."""
from __future__ import annotations

import torch

from .base import Distiller


def distribution_matching_loss(network, real, synthetic):
    """Squared distance of the mean embeddings of one class.

    Args:
        network: with `.embed(x)` -> (n, features).
        real, synthetic: (n, 3, H, W) and (m, 3, H, W), as the network takes them (normalised); the real side is constant.

    Returns:
        A scalar, differentiable in `synthetic`.
    """
    with torch.no_grad():
        target = network.embed(real).mean(0)
    return (target - network.embed(synthetic).mean(0)).square().sum()


class DM(Distiller):
    """Per class, at a freshly drawn, frozen network."""

    def step(self, images, labels, iteration):
        network = self.network(iteration).requires_grad_(False)
        total = torch.zeros((), device=images.device)
        for label in labels.unique().tolist():
            real, synthetic = self.pair(images[labels == label], label, iteration)
            loss = distribution_matching_loss(network, real, synthetic)
            loss.backward()
            total += loss.detach()
        return total
