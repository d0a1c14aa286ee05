"""Dataset condensation: match the gradients of the classification loss (section 2.1, DC)."""
from __future__ import annotations

import torch
import torch.nn.functional as F

from ..errors import InputError
from .base import Distiller


def gradient_matching_distance(grads_syn, grads_real, metric="ours"):
    """Distance between two lists of gradients in parameter order.

    Args:
        grads_syn, grads_real: tensors of equal shapes; the distance is differentiable in the first.
        metric: "ours": per output row of each weight, 1 - cosine, summed; 1-D parameters (biases, scales) and 3-D ones
            are left out. "mse": squared distance of all. "cos": 1 - cosine of all, as one vector.

    Returns:
        A scalar.

    Raises:
        ValueError: unknown metric, or lists that don't match.
    """
    if len(grads_syn) != len(grads_real) or any(a.shape != b.shape for a, b in zip(grads_syn, grads_real, strict=False)):
        raise InputError("the two lists of gradients differ in length or shapes; both must come from the same network")
    if metric == "ours":
        rows = [(a.flatten(1), b.flatten(1)) for a, b in zip(grads_syn, grads_real, strict=True) if a.dim() in (2, 4)]
        return sum((1 - _cosine(a, b)).sum() for a, b in rows)
    a, b = (torch.cat([g.flatten() for g in grads]) for grads in (grads_syn, grads_real))
    if metric == "mse":
        return (a - b).square().sum()
    if metric == "cos":
        return 1 - _cosine(a, b)
    raise InputError(f"metric={metric!r} is unknown; choose ours, mse, cos")


def _cosine(a, b):
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-6)


class DC(Distiller):
    """Per class: the gradient of the cross-entropy on real images against that on synthetic ones, at a new network.

    As in GLaD and LD3M, the network is drawn anew at every iteration and never trained. Classes go one after the other: all
    in one pass by `vmap(grad)` takes longer on a CPU (the benchmark of networks measures it), since it multiplies the
    convolutions' weights by the classes.
    """

    def step(self, images, labels, iteration):
        network = self.network(iteration)
        params = list(network.parameters())
        pairs = self.pairs(images, labels, iteration)
        total, learned = torch.zeros((), device=images.device), []
        for label, real, synthetic in pairs.by_class():

            def gradients(x, label=label, **kwargs):
                y = torch.full((len(x),), label, device=x.device)
                return torch.autograd.grad(F.cross_entropy(network(x), y), params, **kwargs)

            grads_real = gradients(real)  # no graph: the real side is a constant
            leaf = synthetic.detach().requires_grad_()
            loss = gradient_matching_distance(gradients(leaf, create_graph=True), grads_real, self.config.dc.metric)
            loss.backward(inputs=[leaf])
            learned.append(leaf.grad)
            total += loss.detach()
        pairs.synthetic.backward(torch.cat(learned))  # through augmentation and normalisation, all classes at once
        return total
