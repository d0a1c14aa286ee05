"""Distribution matching: match the mean embeddings (section 2.1, DM)."""
from __future__ import annotations

import torch

from ..errors import InputError
from ..training import MOST_PIXELS, is_plain
from .base import Distiller


def distribution_matching_loss(network, real, synthetic):
    """Squared distance of the mean embeddings of one class.

    Args:
        network: with `.embed(x)` -> (n, features).
        real, synthetic: (n, 3, H, W) and (m, 3, H, W), as the network takes them (normalised); the real side is constant.

    Returns:
        A scalar, differentiable in `synthetic`.
    """
    if real.dim() != 4 or synthetic.dim() != 4 or real.shape[1:] != synthetic.shape[1:] or not len(real) or not len(synthetic):
        raise InputError(f"images of a class are {tuple(real.shape)} and {tuple(synthetic.shape)}; both must be (n, 3, H, W) with n of at "
                         "least 1, of one size")
    with torch.no_grad():
        target = network.embed(real).mean(0)
    return (target - network.embed(synthetic).mean(0)).square().sum()


class DM(Distiller):
    """Per class, at a freshly drawn, frozen network.

    The synthetic images of all classes pass it together. The real ones do on a GPU; on a CPU class by class, which is
    faster, for then a class's activations stay in its cache.
    """

    def step(self, images, labels, iteration):
        network = self.network(iteration).requires_grad_(False)
        pairs = self.pairs(images, labels, iteration)
        if is_plain(network):
            with torch.no_grad():
                most = max(1, MOST_PIXELS // self.data.size**2)
                parts = pairs.real.split(most if images.is_cuda else pairs.real_counts)
                target = _means(torch.cat([network.embed(x) for x in parts]), pairs.real_counts)
            loss = (target - _means(network.embed(pairs.synthetic), pairs.synthetic_counts)).square().sum()
        else:  # what is in a batch matters to batch normalisation, the order of passes to dropout
            loss = sum(distribution_matching_loss(network, real, synthetic) for _, real, synthetic in pairs.by_class())
        loss.backward()
        return loss.detach()


def _means(embedding, counts):
    return torch.stack([part.mean(0) for part in embedding.split(counts)])
