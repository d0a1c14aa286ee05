"""Matching training trajectories: match the parameters after training (section 2.1, MTT)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from ..errors import InputError
from ..networks import Dropout, functional
from ..storage import seeded
from .base import Distiller


def trajectory_matching_loss(network, theta_start, theta_target, images, labels, lr, steps, *, batch_size=None,
                             batches=None, augment=None, generator=None):
    """Distance to the expert after `steps` of plain SGD on the synthetic images, as a fraction of the way.

    |theta_N - theta_target|^2 / |theta_start - theta_target|^2. The gradient is that of the whole unrolled chain; each
    inner step is recomputed in the backward pass, so the memory is one step's plus N parameter vectors.

    Args:
        network: gives the architecture; its own weights are not used.
        theta_start, theta_target: (P,) flat, in parameter order.
        images: (B, 3, H, W) as the network takes them. labels: (B,) int64.
        lr: scalar tensor; may require grad.
        batch_size: images per inner step, drawn in shuffled passes; None takes all.
        batches: instead, the positions of the images of each inner step, `steps` tensors.
        augment: a :class:`~ld3m_min.augment.DSA`, drawn anew at each step, per image; None for none.
        generator: for the batches and the augmentation; needed if either is used.

    Returns:
        A scalar, differentiable in `images` and `lr`.
    """
    p = sum(x.numel() for x in network.parameters())
    if theta_start.shape != (p,) or theta_target.shape != (p,) or steps < 1 or labels.shape != images.shape[:1]:
        raise InputError(f"parameters are {tuple(theta_start.shape)} and {tuple(theta_target.shape)} for a network of {p}, labels "
                         f"{tuple(labels.shape)} for {len(images)} images, steps {steps}; they must fit, with at least one step")
    batches = _batches(batches, len(images), steps, batch_size, generator, images.device)
    draws = _draws(augment, batches, images.shape[-1], generator, images.device)
    theta = train_student(network, theta_start, images, labels, lr, batches, augment, draws)
    return _progress(theta, theta_start, theta_target)


def train_student(network, theta, images, labels, lr, batches, augment=None, draws=None):
    """theta_N, (P,): the student after one plain SGD step per batch, differentiable through all of them.

    Arguments as :func:`trajectory_matching_loss`; draws: of the augmentation, one per batch.
    """
    draws = draws or [None] * len(batches)

    def gradient(i, theta, images, **options):
        return _inner_gradient(network, theta, images, labels, batches[i], augment, draws[i], **options)

    return _Unrolled.apply(theta, images, torch.as_tensor(lr, dtype=theta.dtype, device=theta.device), gradient, len(batches))


class _Unrolled(torch.autograd.Function):
    """N steps theta_{i+1} = theta_i - lr g_i(theta_i, images), keeping the parameters alone.

    Backward, the adjoint a_i = dL/dtheta_i runs from N to 0: a_i = a_{i+1} - lr (dg_i/dtheta)^T a_{i+1}, and each step
    adds -lr (dg_i/dimages)^T a_{i+1} to dL/dimages and -<g_i, a_{i+1}> to dL/dlr. One step's graph exists at a time.
    """

    @staticmethod
    def forward(ctx, theta, images, lr, gradient, n):
        thetas = [theta.detach()]
        for i in range(n):
            thetas.append(thetas[-1] - lr * gradient(i, thetas[-1].requires_grad_(), images.detach()).detach())
            thetas[i] = thetas[i].detach()
        ctx.save_for_backward(images, lr, *thetas[:-1])
        ctx.gradient = gradient
        return thetas[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx, adjoint):
        images, lr, *thetas = ctx.saved_tensors
        grad_images, grad_lr = torch.zeros_like(images), torch.zeros_like(lr)
        for i in reversed(range(len(thetas))):
            theta, x = thetas[i].detach().requires_grad_(), images.detach().requires_grad_()
            with torch.enable_grad():
                g = ctx.gradient(i, theta, x, create_graph=True)
                along = g @ adjoint
            d_theta, d_images = torch.autograd.grad(along, (theta, x))
            grad_images -= lr * d_images
            grad_lr -= along.detach()
            adjoint = adjoint - lr * d_theta
        return adjoint, grad_images, grad_lr, None, None


def approximate_trajectory_gradient(network, theta_start, theta_target, images, labels, lr, steps, *, batch_size=None,
                                    batches=None, augment=None, generator=None):
    """The gradient that the public GLaD code (after TESLA) takes for MTT's, for comparison only.

    It holds every theta_i and the sum of the gradients constant, and equals the exact one for steps = 1 alone.
    Arguments as :func:`trajectory_matching_loss`; fills `images.grad` and `lr.grad`, and returns the detached loss.
    The public LD3M code loses a factor of 2 in the image gradient; here it is kept.
    """
    batches = _batches(batches, len(images), steps, batch_size, generator, images.device)
    draws = _draws(augment, batches, images.shape[-1], generator, images.device)
    theta, total, thetas = theta_start.detach(), torch.zeros_like(theta_start), []
    for index, draw in zip(batches, draws, strict=True):
        thetas.append(theta)
        g = _inner_gradient(network, theta.requires_grad_(), images.detach(), labels, index, augment, draw)
        total, theta = total + g, (theta - lr.detach() * g).detach()
    scale = (theta_start - theta_target).square().sum()
    weight = (lr * (theta_target - theta_start) + lr**2 * total).detach()
    for theta_i, index, draw in zip(thetas, batches, draws, strict=True):
        g = _inner_gradient(network, theta_i, images, labels, index, augment, draw, create_graph=True)
        (2 * (weight @ g) / scale).backward(inputs=[images])
    loss = (theta_start - lr * total - theta_target).square().sum() / scale
    if lr.requires_grad:
        loss.backward(inputs=[lr])
    return loss.detach()


def inner_batches(n, steps, batch_size, generator):
    """Positions of the images of each inner step, list of (batch_size,): shuffled passes over all n, or all at once."""
    if batch_size is None or batch_size >= n:
        return [torch.arange(n)] * steps
    batches, waiting = [], torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(waiting) == 0:
            waiting = torch.randperm(n, generator=generator)
        batches.append(waiting[:batch_size])
        waiting = waiting[batch_size:]
    return batches


def _batches(given, n, steps, batch_size, generator, device):
    if given is None:
        return [b.to(device) for b in inner_batches(n, steps, batch_size, generator)]
    if len(given) != steps or batch_size is not None:
        raise InputError(f"{len(given)} batches for {steps} steps; give one for each step, and no batch_size")
    return [torch.as_tensor(b, device=device) for b in given]


def _draws(augment, batches, size, generator, device):
    # drawn beforehand: a recomputed step must see the same augmentation, and no step waits for a transfer
    return [None if augment is None else augment.draw(len(b), size, generator).to(device) for b in batches]


def _inner_gradient(network, theta, images, labels, index, augment, draw, create_graph=False):
    """Gradient of the cross-entropy on one inner batch with respect to the flat parameters."""
    x = images[index]
    if augment is not None:
        x = augment.apply(x, draw)
    with torch.enable_grad():
        loss = F.cross_entropy(functional(network, theta)(x), labels[index])
        return torch.autograd.grad(loss, theta, create_graph=create_graph)[0]


def _progress(theta, theta_start, theta_target):
    return (theta - theta_target).square().sum() / (theta_start - theta_target).square().sum()


class MTT(Distiller):
    """Draws an expert and a start epoch at each iteration; learns the student's learning rate beside the images.

    Args:
        experts: an :class:`~ld3m_min.experts.ExpertBuffer`.
    """

    def __init__(self, config, data, device="cpu", experts=None):
        super().__init__(config, data, device)
        if experts is None:
            raise InputError("MTT needs expert trajectories; train them with experts.train_experts")
        experts.check(config, data)
        self.experts = experts
        self.parameters = {"lr": torch.tensor(config.mtt.lr, device=device, requires_grad=True)}

    def step(self, images, labels, iteration):
        m = self.config.mtt
        generator = seeded(self.config.seed, "expert", iteration)
        which = int(torch.randint(len(self.experts), (1,), generator=generator))
        start = int(torch.randint(m.max_start_epoch + 1, (1,), generator=generator))
        thetas = self.experts.read(which, (start, start + m.expert_epochs)).to(images.device)
        augment = None if self.config.dsa in ("", "none") else self.dsa
        network = self.network(iteration)
        for module in network.modules():
            if isinstance(module, Dropout):  # a recomputed step would draw another mask
                module.eval()
        normalised = self.data.normalise(images, synthetic=True)
        arguments = (network, *thetas, normalised, labels, self.parameters["lr"], m.steps)
        options = {"batch_size": m.batch, "augment": augment, "generator": generator}
        if m.gradient == "exact":
            loss = trajectory_matching_loss(*arguments, **options)
            loss.backward()
            return loss.detach()
        leaf = arguments[3].detach().requires_grad_()  # the approximation needs a leaf; the normalisation follows
        loss = approximate_trajectory_gradient(*arguments[:3], leaf, *arguments[4:], **options)
        arguments[3].backward(leaf.grad)
        return loss

    @torch.no_grad()
    def project(self):
        # a rate of zero or below would end the learning, one too large the experts' neighbourhood
        self.parameters["lr"].clamp_(0.01 * self.config.mtt.lr, 100 * self.config.mtt.lr)
