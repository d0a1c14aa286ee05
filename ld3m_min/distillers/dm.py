"""Distribution matching: match the mean embeddings (section 2.1, DM)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.distillers.base import Distiller, Pairs
from ld3m_min.errors import InputError
from ld3m_min.networks import Network
from ld3m_min.training import MOST_PIXELS, is_plain


def distribution_matching_loss(
    network: Network, real: Tensor, synthetic: Tensor
) -> Float[Tensor, ""]:
    """Squared distance of the mean embeddings of one class.

    Args:
        network: that embeds.
        real: images as the network takes them (normalised), (n, 3, H, W); constant.
        synthetic: the same, (m, 3, H, W).

    Returns:
        The loss, differentiable in `synthetic`.

    Raises:
        InputError: the images are of different sizes, or there are none.

    Example:
        >>> import torch
        >>> from ld3m_min import build_network
        >>> from ld3m_min.distillers import distribution_matching_loss
        >>> network = build_network("MLP", size=16, width=8)
        >>> real = torch.rand(4, 3, 16, 16)
        >>> f"{distribution_matching_loss(network, real, real.flip(0)):.3f}"
        '0.000'
    """
    if (
        real.dim() != 4
        or synthetic.dim() != 4
        or real.shape[1:] != synthetic.shape[1:]
        or not len(real)
        or not len(synthetic)
    ):
        raise InputError(
            f"images of a class are {tuple(real.shape)} and {tuple(synthetic.shape)}; both must be "
            "(n, 3, H, W) with n of at least 1, of one size"
        )
    with torch.no_grad():
        target = network.embed(real).mean(0)
    return (target - network.embed(synthetic).mean(0)).square().sum()


class DM(Distiller):
    """Distance of the mean embeddings at a freshly drawn, frozen network, per class.

    The synthetic images of ten classes pass it together. The real ones do on a GPU. On a CPU they
    go class by class, which is faster: a class's activations then stay in its cache.

    Example:
        >>> import torch
        >>> from ld3m_min import distillers, load_data, preset
        >>> dm = distillers.DM(preset("smoke"), load_data("digits"))
        >>> images, labels = torch.zeros(2, 3, 32, 32).requires_grad_(), torch.arange(2)
        >>> losses = [round(dm.step(images, labels, i).item(), 2) for i in (0, 0, 1)]
        >>> [losses.index(loss) for loss in losses]  # an iteration can be repeated
        [0, 0, 2]
    """

    adds_classes = True

    def step(
        self, images: Float[Tensor, "B 3 H W"], labels: Int[Tensor, " B"], iteration: int
    ) -> Float[Tensor, ""]:
        """The distance of the mean embeddings, summed over the classes.

        Args:
            images: in [0, 1]; a leaf whose `.grad` is filled.
            labels: of the images.
            iteration: 0-based; says what is drawn.

        Returns:
            The loss, detached.
        """
        network = self.network(iteration).requires_grad_(False)
        total = images.new_zeros(())
        for pairs in self.groups(images, labels, iteration):
            if is_plain(network):
                loss = self._together(network, pairs)
            else:  # what is in a batch matters to batch normalisation, the order to dropout
                losses = (distribution_matching_loss(network, *p[1:]) for p in pairs.by_class())
                loss = sum(losses, start=images.new_zeros(()))
            torch.autograd.backward(loss)
            total += loss.detach()
        return total

    def _together(self, network: Network, pairs: Pairs) -> Float[Tensor, ""]:
        """The sum of all classes' losses, for a network that takes each image by itself."""
        with torch.no_grad():
            most = max(1, MOST_PIXELS // self.data.size**2)
            parts = torch.split(pairs.real, most if pairs.real.is_cuda else pairs.real_counts)
            target = _means(torch.cat([network.embed(x) for x in parts]), pairs.real_counts)
        found = _means(network.embed(pairs.synthetic), pairs.synthetic_counts)
        return (target - found).square().sum()


def _means(embedding: Float[Tensor, "N D"], counts: list[int]) -> Float[Tensor, "K D"]:
    """The mean embedding of each class, whose images stand in a row."""
    return torch.stack([part.mean(0) for part in torch.split(embedding, counts)])
