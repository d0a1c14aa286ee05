"""Matching training trajectories: match the parameters after training (section 2.1, MTT)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ld3m_min.augment import DSA, Draw
from ld3m_min.config import DistilConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.distillers.base import Distiller, Experts
from ld3m_min.distillers.student import inner_batches, inner_gradient, train_student
from ld3m_min.errors import InputError
from ld3m_min.io.seeds import seeded
from ld3m_min.networks import Dropout


def trajectory_matching_loss(
    network: nn.Module,
    theta_start: Tensor,
    theta_target: Tensor,
    images: Float[Tensor, "B 3 H W"],
    labels: Tensor,
    lr: Float[Tensor, ""] | float,
    steps: int,
    *,
    batch_size: int | None = None,
    batches: Sequence[Tensor | Sequence[int]] | None = None,
    augment: DSA | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """Distance to the expert after N steps of plain SGD on the synthetic images.

    It is a fraction of the way: |theta_N - theta_target|^2 / |theta_start - theta_target|^2. The
    gradient is that of the whole unrolled chain, in the memory of one inner step.

    Args:
        network: gives the architecture; its own weights are not used.
        theta_start: parameters to start from, (P,), in definition order.
        theta_target: the expert's parameters, (P,).
        images: as the network takes them (normalised).
        labels: of the images, (B,).
        lr: learning rate; may require grad.
        steps: how many, N.
        batch_size: images per inner step, drawn in shuffled passes; None takes all.
        batches: instead, the positions of the images of each inner step.
        augment: the augmentation, drawn anew at each step, per image; None for none.
        generator: for the batches and the augmentation; needed if either is used.

    Returns:
        The loss, differentiable in `images` and `lr`.

    Raises:
        InputError: parameters, labels, steps or batches do not fit.

    Example:
        >>> import torch
        >>> from ld3m_min.distillers import trajectory_matching_loss
        >>> from ld3m_min.networks import build_network, flat_parameters
        >>> images, network = torch.rand(10, 3, 16, 16), build_network("MLP", size=16)
        >>> start, labels = flat_parameters(network), torch.arange(10)
        >>> trajectory_matching_loss(network, start, start + 1, images, labels, 0.0, 2)
        tensor(1.)
    """
    p = sum(x.numel() for x in network.parameters())
    if (
        theta_start.shape != (p,)
        or theta_target.shape != (p,)
        or steps < 1
        or labels.shape != images.shape[:1]
    ):
        raise InputError(
            f"parameters are {tuple(theta_start.shape)} and {tuple(theta_target.shape)} for a "
            f"network of {p}, labels {tuple(labels.shape)} for {len(images)} images, steps "
            f"{steps}; they must fit, with at least one step"
        )
    indices = _batches(batches, len(images), steps, batch_size, generator, images.device)
    draws = _draws(augment, indices, images.shape[-1], generator, images.device)
    theta = train_student(network, theta_start, images, labels, lr, indices, augment, draws)
    return (theta - theta_target).square().sum() / (theta_start - theta_target).square().sum()


def approximate_trajectory_gradient(
    network: nn.Module,
    theta_start: Float[Tensor, " P"],
    theta_target: Float[Tensor, " P"],
    images: Float[Tensor, "B 3 H W"],
    labels: Int[Tensor, " B"],
    lr: Float[Tensor, ""],
    steps: int,
    *,
    batch_size: int | None = None,
    batches: Sequence[Tensor | Sequence[int]] | None = None,
    augment: DSA | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """The gradient that the public GLaD code (after TESLA) takes for MTT's, for comparison only.

    It holds every theta_i and the sum of the gradients constant, and equals the exact one for one
    step alone. The public LD3M code loses a factor of 2 in the image gradient; here it is kept.

    Args:
        network: gives the architecture; its own weights are not used.
        theta_start: parameters to start from, in definition order.
        theta_target: the expert's parameters.
        images: as the network takes them (normalised); a leaf whose `.grad` is filled.
        labels: of the images.
        lr: learning rate; its `.grad` is filled where it requires grad.
        steps: how many, N.
        batch_size: images per inner step, drawn in shuffled passes; None takes all.
        batches: instead, the positions of the images of each inner step.
        augment: the augmentation, drawn anew at each step, per image; None for none.
        generator: for the batches and the augmentation; needed if either is used.

    Returns:
        The loss, detached.

    Raises:
        InputError: there are not as many batches as steps.
    """
    indices = _batches(batches, len(images), steps, batch_size, generator, images.device)
    draws = _draws(augment, indices, images.shape[-1], generator, images.device)
    theta, total, thetas = theta_start.detach(), torch.zeros_like(theta_start), []
    for index, draw in zip(indices, draws, strict=True):
        thetas.append(theta)
        at = theta.requires_grad_()
        g = inner_gradient(network, at, images.detach(), labels, index, augment, draw)
        total, theta = total + g, (theta - lr.detach() * g).detach()
    scale = (theta_start - theta_target).square().sum()
    weight = (lr * (theta_target - theta_start) + lr**2 * total).detach()
    for theta, index, draw in zip(thetas, indices, draws, strict=True):
        g = inner_gradient(network, theta, images, labels, index, augment, draw, create_graph=True)
        torch.autograd.backward(2 * (weight @ g) / scale, inputs=[images])
    loss = (theta_start - lr * total - theta_target).square().sum() / scale
    if lr.requires_grad:
        torch.autograd.backward(loss, inputs=[lr])
    return loss.detach()


def _batches(
    given: Sequence[Tensor | Sequence[int]] | None,
    n: int,
    steps: int,
    batch_size: int | None,
    generator: torch.Generator | None,
    device: torch.device,
) -> list[Int[Tensor, " _"]]:
    """The batches of the inner steps, given or drawn, on the device."""
    if given is None:
        return [b.to(device) for b in inner_batches(n, steps, batch_size, generator)]
    if len(given) != steps or batch_size is not None:
        raise InputError(
            f"{len(given)} batches for {steps} steps; give one for each step, and no batch_size"
        )
    return [torch.as_tensor(b, device=device) for b in given]


def _draws(
    augment: DSA | None,
    batches: Sequence[Int[Tensor, " _"]],
    size: int,
    generator: torch.Generator | None,
    device: torch.device,
) -> list[Draw | None]:
    """The augmentation of each inner step.

    It is drawn beforehand: a recomputed step must see the same, and no step waits for a transfer.
    """
    if augment is None:
        return [None] * len(batches)
    return [augment.draw(len(b), size, generator).to(device) for b in batches]


class MTT(Distiller):
    """Draws an expert and a start epoch at each iteration; learns the student's learning rate too.

    Args:
        config: of the distillation.
        data: whose classes, size and normalisation the student takes.
        device: where networks are built.
        experts: the trajectories.

    Raises:
        InputError: there are no experts, too few, or they do not fit.

    Example:
        >>> from tempfile import mkdtemp
        >>> from ld3m_min import distillers, experts, load_data, preset
        >>> config, data = preset("smoke", algorithm="MTT"), load_data("digits")
        >>> found = experts.train_experts(config, data, mkdtemp(), progress=False)
        >>> mtt = distillers.MTT(config, data, experts=found)
        >>> {name: round(p.item(), 3) for name, p in mtt.parameters.items()}
        {'lr': 0.1}
    """

    needs_experts = True

    def __init__(
        self,
        config: DistilConfig,
        data: DataSplits,
        device: torch.device | str = "cpu",
        experts: Experts | None = None,
    ) -> None:
        super().__init__(config, data, device, experts)
        if experts is None:
            raise InputError("MTT needs expert trajectories; train them with experts.train_experts")
        experts.check(config, data)
        self.experts = experts
        self.parameters = {"lr": torch.tensor(config.mtt.lr, device=device, requires_grad=True)}

    def step(
        self, images: Float[Tensor, "B 3 H W"], labels: Int[Tensor, " B"], iteration: int
    ) -> Float[Tensor, ""]:
        """The distance to the expert.

        Args:
            images: in [0, 1]; a leaf whose `.grad` is filled, as is the learning rate's.
            labels: of the images.
            iteration: 0-based; says what is drawn.

        Returns:
            The loss, detached.
        """
        m = self.config.mtt
        generator = seeded(self.config.seed, "expert", iteration)
        which = int(torch.randint(m.experts, (1,), generator=generator))
        start = int(torch.randint(m.max_start_epoch + 1, (1,), generator=generator))
        thetas = self.experts.read(which, (start, start + m.expert_epochs)).to(images.device)
        theta_start, theta_target = thetas
        network = self.network(iteration)
        for module in network.modules():
            if isinstance(module, Dropout):  # a recomputed step would draw another mask
                module.eval()

        def matched(loss: Callable[..., Tensor], x: Tensor) -> Float[Tensor, ""]:
            return loss(
                network,
                theta_start,
                theta_target,
                x,
                labels,
                self.parameters["lr"],
                m.steps,
                batch_size=m.batch,
                augment=None if self.config.dsa in ("", "none") else self.dsa,
                generator=generator,
            )

        normalised = self.data.normalise(images, synthetic=True)
        if m.gradient == "exact":
            loss = matched(trajectory_matching_loss, normalised)
            torch.autograd.backward(loss)
            return loss.detach()
        leaf = normalised.detach().requires_grad_()  # the approximation needs a leaf
        loss = matched(approximate_trajectory_gradient, leaf)
        torch.autograd.backward(normalised, leaf.grad)
        return loss

    @torch.no_grad()
    def project(self) -> None:
        """Keep the learning rate within a hundredth to a hundred times its start.

        A rate of zero or below would end the learning. One too large leaves the experts'
        neighbourhood.
        """
        self.parameters["lr"].clamp_(0.01 * self.config.mtt.lr, 100 * self.config.mtt.lr)
