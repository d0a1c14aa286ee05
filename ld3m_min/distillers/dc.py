"""Dataset condensation: match the gradients of the classification loss (section 2.1, DC)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.distillers.base import Distiller
from ld3m_min.errors import InputError
from ld3m_min.networks import Network


def gradient_matching_distance(
    grads_syn: Sequence[Tensor], grads_real: Sequence[Tensor], metric: str = "ours"
) -> Float[Tensor, ""]:
    """Distance between two lists of gradients in parameter order.

    Args:
        grads_syn: gradients on synthetic images; the distance is differentiable in them.
        grads_real: gradients on real images, of the same shapes.
        metric: "ours": 1 - cosine of each output row of each weight, summed; 1-D parameters
            (biases, scales) and 3-D ones are left out. "mse": squared distance of all. "cos":
            1 - cosine of all, as one vector.

    Returns:
        The distance.

    Raises:
        InputError: the metric is unknown, or the lists do not match.

    Example:
        >>> import torch
        >>> from ld3m_min.distillers import gradient_matching_distance
        >>> real = [torch.eye(2), torch.ones(2)]
        >>> pairs = [([-g for g in real], real, m) for m in ("ours", "mse", "cos")]
        >>> [round(gradient_matching_distance(*pair).item(), 3) for pair in pairs]
        [4.0, 16.0, 2.0]
    """
    if len(grads_syn) != len(grads_real) or any(
        a.shape != b.shape for a, b in zip(grads_syn, grads_real, strict=False)
    ):
        raise InputError(
            "the two lists of gradients differ in length or shapes; both must come from the same "
            "network"
        )
    if metric == "ours":
        rows = (
            (a.flatten(1), b.flatten(1))
            for a, b in zip(grads_syn, grads_real, strict=True)
            if a.dim() in (2, 4)
        )
        distances = ((1 - _cosine(a, b)).sum() for a, b in rows)
        return sum(distances, start=grads_syn[0].new_zeros(()))
    a, b = (torch.cat([g.flatten() for g in grads]) for grads in (grads_syn, grads_real))
    if metric == "mse":
        return (a - b).square().sum()
    if metric == "cos":
        return 1 - _cosine(a, b)
    raise InputError(f"metric={metric!r} is unknown; choose ours, mse, cos")


def _cosine(a: Float[Tensor, "*rows n"], b: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows"]:
    """Cosine of the angle between vectors, row by row."""
    lengths: Tensor = a.norm(dim=-1) * b.norm(dim=-1)
    return (a * b).sum(-1) / (lengths + 1e-6)


class DC(Distiller):
    """Gradient of the cross-entropy on real images against that on synthetic ones, per class.

    As in GLaD and LD3M, the network is drawn anew at every iteration and never trained. Classes go
    one after the other. All in one pass by `vmap(grad)` takes longer on a CPU (the benchmark of
    networks measures it), since it multiplies the convolutions' weights by the classes.

    Example:
        >>> import torch
        >>> from ld3m_min import distillers, load_data, preset
        >>> dc = distillers.DC(preset("smoke", algorithm="DC"), load_data("digits"))
        >>> images = torch.rand(4, 3, 32, 32, requires_grad=True)
        >>> loss = dc.step(images, labels=torch.tensor([3, 3, 8, 8]), iteration=0)
        >>> loss.requires_grad, tuple(images.grad.shape)
        (False, (4, 3, 32, 32))
    """

    adds_classes = True

    def step(
        self, images: Float[Tensor, "B 3 H W"], labels: Int[Tensor, " B"], iteration: int
    ) -> Float[Tensor, ""]:
        """The distance of the gradients, summed over the classes.

        Args:
            images: in [0, 1]; a leaf whose `.grad` is filled.
            labels: of the images.
            iteration: 0-based; says what is drawn.

        Returns:
            The loss, detached.
        """
        network, metric = self.network(iteration), self.config.dc.metric
        total = torch.zeros((), device=images.device)
        for pairs in self.groups(images, labels, iteration):
            learned: list[Tensor] = []
            for label, real, synthetic in pairs.by_class():
                grads_real = _gradients(network, real, label)  # no graph: a constant
                leaf = synthetic.detach().requires_grad_()
                loss = gradient_matching_distance(
                    _gradients(network, leaf, label, create_graph=True), grads_real, metric
                )
                torch.autograd.backward(loss, inputs=[leaf])
                assert leaf.grad is not None
                learned.append(leaf.grad)
                total += loss.detach()
            # through augmentation and normalisation, all classes of the group at once
            torch.autograd.backward(pairs.synthetic, torch.cat(learned))
        return total


def _gradients(
    network: Network, x: Float[Tensor, "n 3 H W"], label: int, *, create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Gradient of the cross-entropy on images of one class, per parameter of the network."""
    y = torch.full((len(x),), label, device=x.device)
    loss = F.cross_entropy(network(x), y)
    return torch.autograd.grad(loss, list(network.parameters()), create_graph=create_graph)
