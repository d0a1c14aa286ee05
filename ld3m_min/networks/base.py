"""What the classifiers of section 4.1 share: specification, base class, initial values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ld3m_min.errors import InputError
from ld3m_min.networks.dropout import Dropout, seed_of

# normalisation layers by name, from the number of channels
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance": lambda channels: nn.GroupNorm(channels, channels),
    "batch": lambda channels: nn.BatchNorm2d(channels),
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "none": lambda channels: nn.Identity(),
}


@dataclass(frozen=True)
class Spec:
    """What a network is built for.

    Attributes:
        channels: of the images.
        classes: to tell apart.
        size: side of the images in pixels.
        width: 128 is the protocol's.
        norm: a name of `NORMS`.
        depth: blocks of a network whose depth is free; 0 for the others.

    Example:
        >>> from ld3m_min.networks import MLP, Spec
        >>> spec = Spec(channels=1, classes=4, size=16, width=8, norm="none")
        >>> MLP(spec).classifier
        Linear(in_features=32, out_features=4, bias=True)
    """

    channels: int
    classes: int
    size: int
    width: int
    norm: str
    depth: int = 0


class Network(nn.Module):
    """A classifier of normalised images: logits = `classifier(embed(x))`.

    A subclass gives `features` (images -> anything with B first) and `classifier`, as modules or
    methods.

    Attributes:
        smallest: least side of the images in pixels.
        has_depth: whether the number of blocks can be chosen.
        input_shape: (channels, size, size) of the images it was built for.

    Example:
        >>> from torch import nn, zeros
        >>> from ld3m_min.networks import Network, Spec
        >>> network = Network(Spec(3, 10, size=16, width=1, norm="none"))
        >>> network.features, network.classifier = nn.Flatten(), nn.Linear(768, 10)
        >>> tuple(network(zeros(2, 3, 16, 16)).shape)
        (2, 10)
    """

    smallest: ClassVar[int] = 16
    has_depth: ClassVar[bool] = False
    features: Callable[[Tensor], Tensor]
    classifier: nn.Linear

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.input_shape = (spec.channels, spec.size, spec.size)

    # these two signatures have no shapes: torch.compile cannot trace the checks at run time
    def embed(self, x: Tensor) -> Tensor:
        """Embedding before the classifier.

        Args:
            x: normalised images, (B, channels, size, size).

        Returns:
            The embedding, (B, features).

        Raises:
            InputError: x has another shape.

        Example:
            >>> import torch
            >>> from ld3m_min import build_network
            >>> network = build_network("ConvNet", size=32, width=16)
            >>> embedding = network.embed(torch.zeros(2, 3, 32, 32))
            >>> tuple(embedding.shape), tuple(network.classifier(embedding).shape)
            ((2, 256), (2, 10))
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.input_shape:
            raise InputError(
                f"{type(self).__name__} was built for images "
                f"(B, {', '.join(map(str, self.input_shape))}) but got {tuple(x.shape)}: resize "
                "the images, or build it with their channels and size"
            )
        return self.features(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, classes), of normalised images (B, channels, size, size)."""
        logits: Tensor = self.classifier(self.embed(x))
        return logits

    def initialise_own(self, generator: torch.Generator) -> None:
        """Draw the parameters that are the network's own, and no layer's. Most have none."""

    def dropout_shape(self, n: int) -> tuple[int, ...]:
        """What each of its dropouts sees of n images. A network with dropout says it."""
        raise NotImplementedError


def scaled(channels: int, width: int) -> int:
    """A number of channels of the protocol, at another width than 128."""
    return max(1, round(channels * width / 128))


@torch.no_grad()
def initialised(network: Network, generator: torch.Generator | None) -> Network:
    """Draw every parameter, and the seed of every dropout, in definition order."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            # PyTorch's default has this bound for weights and for biases: 1 / sqrt(fan in)
            bound = module.weight[0].numel() ** -0.5
            for p in module.parameters():
                p.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, (nn.GroupNorm, nn.BatchNorm2d)):
            module.reset_parameters()
        elif isinstance(module, Network):
            module.initialise_own(generator)
        elif isinstance(module, Dropout):
            module.generator.manual_seed(seed_of(generator))
    return network
