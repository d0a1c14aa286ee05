"""ConvNet-D, AlexNet, VGG11 and ResNet18 (section 4.1), and a smaller ResNet10."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ld3m_min.networks.base import NORMS, Network, Spec, scaled


def _convolution(before: int, after: int, norm: str, kernel: int = 3) -> list[nn.Module]:
    """A convolution that keeps the size, normalisation and ReLU."""
    normalisation = [] if norm == "none" else [NORMS[norm](after)]
    return [
        nn.Conv2d(before, after, kernel, padding=kernel // 2),
        *normalisation,
        nn.ReLU(),
    ]


class ConvNet(Network):
    """Blocks of 3x3 convolution, normalisation, ReLU and 2x2 average pooling; one linear layer.

    Example:
        >>> from ld3m_min.networks import ConvNet, Spec
        >>> specs = [Spec(3, 10, 32, 16, "instance", depth=d) for d in (1, 2, 3)]
        >>> [ConvNet(spec).classifier.in_features for spec in specs]
        [4096, 1024, 256]
    """

    has_depth = True

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        layers: list[nn.Module] = []
        for d in range(spec.depth):
            before = spec.width if d else spec.channels
            layers += [*_convolution(before, spec.width, spec.norm), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(spec.width * (spec.size // 2**spec.depth) ** 2, spec.classes)


class AlexNet(Network):
    """Two 5x5 and three 3x3 convolutions, three max poolings, one linear layer; no norm.

    Example:
        >>> import torch
        >>> from ld3m_min.networks import AlexNet, Spec
        >>> network = AlexNet(Spec(3, 10, 32, 16, "none"))
        >>> [tuple(p.shape) for p in network.parameters()][:4]
        [(16, 3, 5, 5), (16,), (24, 16, 5, 5), (24,)]
        >>> tuple(network(torch.zeros(1, 3, 32, 32)).shape)
        (1, 10)
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        a, b, c = (scaled(n, spec.width) for n in (128, 192, 256))
        self.features = nn.Sequential(
            *_convolution(spec.channels, a, "none", 5),
            nn.MaxPool2d(2),
            *_convolution(a, b, "none", 5),
            nn.MaxPool2d(2),
            *_convolution(b, c, "none"),
            *_convolution(c, b, "none"),
            *_convolution(b, b, "none"),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Linear(b * (spec.size // 8) ** 2, spec.classes)


class VGG11(Network):
    """Eight 3x3 convolutions with norm and five max poolings, brought to 7x7; one linear layer.

    Example:
        >>> from torch import nn
        >>> from ld3m_min.networks import VGG11, Spec
        >>> network = VGG11(Spec(3, 10, 32, 16, "instance"))
        >>> [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
        [8, 16, 32, 32, 64, 64, 64, 64]
    """

    smallest = 32

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        layers: list[nn.Module] = []
        before = spec.channels
        for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
            for n in stage:
                layers += _convolution(before, scaled(n, spec.width), spec.norm)
                before = scaled(n, spec.width)
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(7))
        self.classifier = nn.Linear(before * 49, spec.classes)


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where shapes change."""

    def __init__(self, before: int, after: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = NORMS[norm](after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = NORMS[norm](after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), NORMS[norm](after)
            )

    def forward(self, x: Float[Tensor, "B before h w"]) -> Float[Tensor, "B after H W"]:
        """Its output, of `after` channels, smaller by the stride."""
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class ResNet18(Network):
    """Four stages of two residual blocks behind a 3x3 stem of stride 1; mean over the pixels.

    Example:
        >>> import torch
        >>> from ld3m_min.networks import ResNet18, Spec
        >>> network = ResNet18(Spec(3, 10, 32, 16, "instance"))
        >>> tuple(network.embed(torch.zeros(1, 3, 32, 32)).shape)
        (1, 64)
    """

    blocks: ClassVar[int] = 2  # of each stage

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        norm = spec.norm
        a, b, c, d = (scaled(n, spec.width) for n in (64, 128, 256, 512))
        self.conv1 = nn.Conv2d(spec.channels, a, 3, 1, 1, bias=False)
        self.bn1 = NORMS[norm](a)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(
                _ResidualBlock(before, after, stride, norm),
                *(_ResidualBlock(after, after, 1, norm) for _ in range(1, self.blocks)),
            )
            for before, after, stride in ((a, a, 1), (a, b, 2), (b, c, 2), (c, d, 2))
        )
        self.classifier = nn.Linear(d, spec.classes)

    def features(self, x: Float[Tensor, "B channels H W"]) -> Float[Tensor, "B features"]:
        """Mean over the pixels of the last stage."""
        x = F.relu(self.bn1(self.conv1(x)))
        last: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return last.mean((2, 3))


class ResNet10(ResNet18):
    """As ResNet18, with one residual block in each stage.

    Example:
        >>> from ld3m_min.networks import ResNet10, ResNet18, Spec
        >>> pair = [kind(Spec(3, 10, 32, 16, "batch")) for kind in (ResNet18, ResNet10)]
        >>> [[len(x) for x in (n.layer1, n.layer2, n.layer3, n.layer4)] for n in pair]
        [[2, 2, 2, 2], [1, 1, 1, 1]]
    """

    blocks = 1
