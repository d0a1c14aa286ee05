"""Many short trainings at a time: networks in step, trainings in threads (sections 2.1 and 4.1).

Evaluation and experts train many small networks of one kind on few images, each on draws of its
own. Two things pay. `Group` holds several networks and makes one training step of all of them.
Where a step is bound by launching kernels (a GPU; a ViT on a few images), they are stacked: each
parameter is (R, ...), and the forward pass is vectorised over R. Elsewhere they go one after the
other. `side_by_side` runs trainings in threads with one PyTorch thread each, because networks this
small gain little from more. How many run together changes nothing in what is drawn. So it changes
results by rounding at most, and that only where networks are stacked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from ld3m_min.augment import DSA, Draw
from ld3m_min.networks import Dropout, Network

# of all images in one step; a ResNet18 of full width keeps roughly 8 kB for each
MOST_PIXELS = 2**21
STACKED_ON_CPU = ("ViT",)  # measured
CHANNELS_LAST_ON_CPU = ("AlexNet",)  # measured; group normalisation has no fast kernel there


def stacks(name: str, device: torch.device | str) -> bool:
    """Whether networks are trained stacked: measured on the CPU, assumed on a GPU.

    Args:
        name: of their architecture.
        device: where they are trained.
    """
    return torch.device(device).type == "cuda" or name in STACKED_ON_CPU


def group_size(total: int, images: int, size: int) -> int:
    """How many trainings may hold their activations at once.

    Args:
        total: trainings there are.
        images: of one step of one training.
        size: side of the images in pixels.

    Returns:
        From 1 to `total`.
    """
    return max(1, min(total, MOST_PIXELS // (images * size**2)))


class Group:
    """R networks of one architecture, trained by SGD in step with one another.

    Args:
        networks: R of them, on their device, in training mode. They hold the result after
            :meth:`write_back`.
        momentum: of SGD.
        weight_decay: of SGD.
        stacked: one vectorised pass for all; False is one after the other. Networks with buffers
            (batch normalisation) are never stacked.

    Attributes:
        params: the parameters in definition order. Each is (R, ...) where the networks are
            stacked; else there are R lists' worth, network by network.
    """

    def __init__(
        self,
        networks: Iterable[Network],
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        stacked: bool = False,
    ) -> None:
        self.networks = list(networks)
        first = self.networks[0]
        self.stacked = stacked and len(self.networks) > 1 and not any(True for _ in first.buffers())
        self.names = [name for name, _ in first.named_parameters()]
        each = [list(n.parameters()) for n in self.networks]
        self.params: list[Tensor]
        if self.stacked:
            self.params = [
                torch.stack([p.detach() for p in same]).requires_grad_()
                for same in zip(*each, strict=True)
            ]
        else:
            self.params = [p for parameters in each for p in parameters]
        self.sgd = torch.optim.SGD(
            self.params, lr=0.0, momentum=momentum, weight_decay=weight_decay, fused=True
        )
        self.dropouts = [[m for m in n.modules() if isinstance(m, Dropout)] for n in self.networks]

    def step(
        self,
        x: Float[Tensor, "R B C H W"],
        labels: Int[Tensor, "R B"] | Float[Tensor, "R B K"],
        lr: float,
    ) -> None:
        """One SGD step of each network on its own images.

        Args:
            x: normalised images.
            labels: of the images: class numbers, or probabilities of the classes.
            lr: learning rate of this step.
        """
        self.sgd.param_groups[0]["lr"] = lr
        self.sgd.zero_grad()
        if self.stacked:
            logits = self._logits(x)
            # each network's mean, summed: their gradients do not meet
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1), reduction="sum")
            torch.autograd.backward(loss / x.shape[1])
        else:
            for network, images, y in zip(self.networks, x, labels, strict=True):
                torch.autograd.backward(F.cross_entropy(network(images), y))
        self.sgd.step()

    def _logits(self, x: Float[Tensor, "R B C H W"]) -> Float[Tensor, "R B classes"]:
        """Logits of stacked networks; the masks of their dropouts are drawn before."""
        first, dropouts = self.networks[0], self.dropouts[0]
        masks = []
        if dropouts and first.training:
            shape = first.dropout_shape(x.shape[1])
            masks = [
                torch.stack([m.draw(shape, x.device) for m in same])
                for same in zip(*self.dropouts, strict=True)
            ]

        def one(params: list[Tensor], images: Tensor, *given: Tensor) -> Tensor:
            for module, mask in zip(dropouts, given, strict=bool(given)):
                module.mask = mask
            named = dict(zip(self.names, params, strict=True))
            logits: Tensor = functional_call(first, named, (images,))
            return logits

        try:
            return torch.vmap(one)(self.params, x, *masks)
        finally:
            for module in dropouts:
                module.mask = None

    @torch.no_grad()
    def write_back(self, params: Sequence[Tensor] | None = None) -> list[Network]:
        """Put parameters into the networks.

        Args:
            params: laid out as `params`; None for the trained ones.

        Returns:
            The networks.
        """
        params = self.params if params is None else params
        if self.stacked:
            for i, network in enumerate(self.networks):
                for p, value in zip(network.parameters(), params, strict=True):
                    p.copy_(value[i])
        else:
            for own, value in zip(self.params, params, strict=True):
                own.copy_(value)
        return self.networks

    def flat(self) -> Float[Tensor, "R P"]:
        """Each network's parameters as one detached vector, in definition order."""
        if self.stacked:
            return torch.cat([p.detach().flatten(1) for p in self.params], 1)
        n = len(self.names)
        rows = (self.params[i : i + n] for i in range(0, len(self.params), n))
        return torch.stack([torch.cat([p.detach().flatten() for p in row]) for row in rows])

    @torch.no_grad()
    def load_flat(self, rows: Float[Tensor, "R P"]) -> None:
        """Take the parameters that :meth:`flat` gave."""
        for i, row in enumerate(rows):
            parts = torch.split(row, [p.numel() for p in self.networks[i].parameters()])
            for j, part in enumerate(parts):
                target = self.params[j][i] if self.stacked else self.params[i * len(self.names) + j]
                target.copy_(part.view_as(target))

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, by name: parameters, momenta, dropout's generators."""
        tensors = {f"param.{i}": p for i, p in enumerate(self.params)}
        for i, p in enumerate(self.params):
            if "momentum_buffer" in self.sgd.state.get(p, {}):
                tensors[f"momentum.{i}"] = self.sgd.state[p]["momentum_buffer"]
        return tensors | self.dropout_state()

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` gave."""
        for i, p in enumerate(self.params):
            p.copy_(tensors[f"param.{i}"])
            if f"momentum.{i}" in tensors:
                momentum = torch.empty_like(p).copy_(tensors[f"momentum.{i}"])
                self.sgd.state[p]["momentum_buffer"] = momentum
        self.load_dropout_state(tensors)

    def dropout_state(self) -> dict[str, Tensor]:
        """The state of every dropout's generator, by name; empty for networks without dropout."""
        return {
            f"dropout.{i}.{j}": m.generator.get_state()
            for i, ms in enumerate(self.dropouts)
            for j, m in enumerate(ms)
        }

    def load_dropout_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`dropout_state` gave."""
        for i, modules in enumerate(self.dropouts):
            for j, module in enumerate(modules):
                module.place(self.params[0].device)
                module.generator.set_state(tensors[f"dropout.{i}.{j}"].cpu())


class StepDraws(NamedTuple):
    """What R trainings draw for one step.

    Attributes:
        positions: of each training's images in the set, (R, B).
        augmentations: one draw for each training.
    """

    positions: Tensor
    augmentations: list[Draw]


def batch_sizes(n: int, batch: int) -> list[int]:
    """How many images each step of an epoch takes.

    What is left over is a step of its own, as with any loader, but for less than an eighth of a
    batch: that joins the step before. A step of one image moves the weights as far as one of
    thirty-two, in a direction that is mostly chance; a few of them can spoil a training.

    Args:
        n: images in the set.
        batch: images per step.

    Example:
        >>> from ld3m_min.training import batch_sizes
        >>> batch_sizes(72, 32), batch_sizes(65, 32), batch_sizes(10, 32)
        ([32, 32, 8], [32, 33], [10])
    """
    sizes, rest = [batch] * (n // batch), n % batch
    if sizes and 8 * rest < batch:
        sizes[-1] += rest
    elif rest:
        sizes.append(rest)
    return sizes


class Draws:
    """Batches and augmentation draws of R trainings, each from its own generator.

    They come in the order in which a plain loop over batches draws them.

    Args:
        n: images in the set.
        batch: images per step.
        size: side of the images in pixels.
        dsa: the augmentation.
    """

    def __init__(self, n: int, batch: int, size: int, dsa: DSA) -> None:
        self.n, self.sizes, self.size, self.dsa = n, batch_sizes(n, batch), size, dsa

    def epoch(self, generators: Iterable[torch.Generator]) -> list[StepDraws]:
        """The draws of one epoch's steps.

        Args:
            generators: one for each training, on the CPU.

        Returns:
            One entry for each step.
        """
        trainings = []
        for g in generators:
            order = torch.split(torch.randperm(self.n, generator=g), self.sizes)
            trainings.append([(index, self.dsa.draw(len(index), self.size, g)) for index in order])
        return [
            StepDraws(torch.stack([index for index, _ in same]), [draw for _, draw in same])
            for same in zip(*trainings, strict=True)
        ]

    def augmented(
        self, x: Float[Tensor, "R B C H W"], draws: Sequence[Draw]
    ) -> Float[Tensor, "R B C H W"]:
        """Images of a step, augmented.

        Args:
            x: normalised images.
            draws: one for each training.

        Returns:
            The augmented images.
        """
        count = x.shape[1]
        together = self.dsa.apply_each(x.flatten(0, 1), draws, [count] * len(draws))
        return torch.unflatten(together, 0, (len(draws), count))


def fast_layout(networks: list[Network], name: str) -> list[Network]:
    """The networks in the memory layout in which their architecture trains fastest.

    Args:
        networks: of one architecture, on one device.
        name: of their architecture.

    Returns:
        The same networks.
    """
    device = next(networks[0].parameters()).device
    if name in CHANNELS_LAST_ON_CPU and device.type == "cpu":
        for n in networks:
            n.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it
            n.register_forward_pre_hook(
                lambda _, args: (args[0].contiguous(memory_format=torch.channels_last),)
            )
    return networks


def is_plain(network: nn.Module) -> bool:
    """Whether each image passes by itself, without a draw: no batch normalisation, no dropout."""
    return not any(isinstance(m, (nn.BatchNorm2d, Dropout)) for m in network.modules())
