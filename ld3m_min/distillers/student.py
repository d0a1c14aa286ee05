"""The inner loop of MTT: a student's training on synthetic images, differentiable (section 2.1).

The gradient is that of the whole unrolled chain. Each inner step is recomputed in the backward
pass, and a step of many images in parts, so the memory is that of one part and of N parameter
vectors, whatever the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ld3m_min.augment import DSA, Draw
from ld3m_min.networks import functional
from ld3m_min.training import MOST_PIXELS, is_plain

Gradient = Callable[..., Tensor]  # of theta and the images, as `inner_gradient`


def inner_batches(
    n: int, steps: int, batch_size: int | None, generator: torch.Generator | None
) -> list[Int[Tensor, " _"]]:
    """Positions of the images of each inner step: shuffled passes over all images.

    Args:
        n: images there are.
        steps: how many, N.
        batch_size: images per inner step; None takes all at once.
        generator: for shuffling; not used where all are taken.

    Returns:
        One tensor for each step. The last one of a pass may be shorter.
    """
    if batch_size is None or batch_size >= n:
        return [torch.arange(n)] * steps
    batches, waiting = [], torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(waiting) == 0:
            waiting = torch.randperm(n, generator=generator)
        batches.append(waiting[:batch_size])
        waiting = waiting[batch_size:]
    return batches


def train_student(
    network: nn.Module,
    theta: Float[Tensor, " P"],
    images: Float[Tensor, "B 3 H W"],
    labels: Int[Tensor, " B"],
    lr: Float[Tensor, ""] | float,
    batches: Sequence[Int[Tensor, " _"]],
    augment: DSA | None = None,
    draws: Sequence[Draw | None] | None = None,
) -> Float[Tensor, " P"]:
    """The student's parameters after one step of plain SGD per batch.

    Args:
        network: gives the architecture; its own weights are not used.
        theta: parameters to start from, in definition order.
        images: as the network takes them (normalised).
        labels: of the images.
        lr: learning rate.
        batches: positions of the images of each inner step.
        augment: the augmentation; None for none.
        draws: of the augmentation, one per batch.

    Returns:
        theta_N, differentiable in `theta`, `images` and `lr`.
    """
    drawn = draws or [None] * len(batches)
    # batch normalisation sees the batch as a whole
    most = max(1, MOST_PIXELS // images[0, 0].numel()) if is_plain(network) else len(images)

    def gradient_of(index: Tensor, draw: Draw | None, share: float) -> Gradient:
        def gradient(theta: Tensor, images: Tensor, *, create_graph: bool = False) -> Tensor:
            g = inner_gradient(network, theta, images, labels, index, augment, draw, create_graph)
            return g * share if share < 1 else g

        return gradient

    def parts_of(index: Tensor, draw: Draw | None) -> list[Gradient]:
        n = len(index)
        places = [slice(k, k + most) for k in range(0, n, most)]
        return [gradient_of(index[p], draw and draw[p], len(index[p]) / n) for p in places]

    steps = [parts_of(*one) for one in zip(batches, drawn, strict=True)]
    rate = torch.as_tensor(lr, dtype=theta.dtype, device=theta.device)
    last: Tensor = _Unrolled.apply(theta, images, rate, steps)  # type: ignore[no-untyped-call]  # torch's own
    return last


def inner_gradient(
    network: nn.Module,
    theta: Float[Tensor, " P"],
    images: Float[Tensor, "B 3 H W"],
    labels: Int[Tensor, " B"],
    index: Int[Tensor, " _"],
    augment: DSA | None,
    draw: Draw | None,
    create_graph: bool = False,
) -> Float[Tensor, " P"]:
    """Gradient of the cross-entropy on one inner batch with respect to the flat parameters.

    Args:
        network: gives the architecture.
        theta: parameters that the gradient is taken at; they require grad.
        images: as the network takes them (normalised).
        labels: of the images.
        index: positions of the batch's images.
        augment: the augmentation; None for none.
        draw: of the augmentation.
        create_graph: whether the gradient can itself be differentiated.

    Returns:
        The gradient.
    """
    x = images[index]
    if augment is not None:
        assert draw is not None
        x = augment.apply(x, draw)
    with torch.enable_grad():
        loss = F.cross_entropy(functional(network, theta)(x), labels[index])
        return torch.autograd.grad(loss, theta, create_graph=create_graph)[0]


class _Unrolled(torch.autograd.Function):
    """N steps theta_{i+1} = theta_i - lr g_i(theta_i, images), keeping the parameters alone.

    Backward, the adjoint a_i = dL/dtheta_i runs from N to 0:
    a_i = a_{i+1} - lr (dg_i/dtheta)^T a_{i+1}. Each step adds -lr (dg_i/dimages)^T a_{i+1} to
    dL/dimages, and -<g_i, a_{i+1}> to dL/dlr. g_i is a sum of parts, and one part's graph exists at
    a time.
    """

    @staticmethod
    def forward(
        ctx: Any,  # autograd's own, on which anything may be kept
        theta: Float[Tensor, " P"],
        images: Float[Tensor, "B 3 H W"],
        lr: Float[Tensor, ""],
        steps: Sequence[Sequence[Gradient]],
    ) -> Float[Tensor, " P"]:
        """theta_N; `steps[i]` are the parts of g_i."""
        thetas, x = [theta.detach()], images.detach()
        for parts in steps:
            at = thetas[-1].detach().requires_grad_()
            g = sum(part(at, x).detach() for part in parts)
            thetas.append(thetas[-1] - lr * g)
        ctx.save_for_backward(images, lr, *thetas[:-1])
        ctx.steps = steps
        return thetas[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *adjoints: Float[Tensor, " P"]) -> tuple[Tensor | None, ...]:
        """The gradient of each argument of `forward`."""
        (adjoint,) = adjoints
        images, lr, *thetas = ctx.saved_tensors
        grad_images, grad_lr = torch.zeros_like(images), torch.zeros_like(lr)
        for theta, parts in zip(reversed(thetas), reversed(ctx.steps), strict=True):
            at, x = theta.detach().requires_grad_(), images.detach().requires_grad_()
            d_theta = torch.zeros_like(theta)
            for part in parts:
                with torch.enable_grad():
                    along = part(at, x, create_graph=True) @ adjoint
                of_theta, of_images = torch.autograd.grad(along, (at, x))
                d_theta += of_theta
                grad_images -= lr * of_images
                grad_lr -= along.detach()
            adjoint = adjoint - lr * d_theta
        return adjoint, grad_images, grad_lr, None
