"""A perceptron: no convolution, so it reads a set as none of the five networks does."""

from __future__ import annotations

from torch import nn

from ld3m_min.networks.base import Network, Spec


class MLP(Network):
    """Two hidden layers of 4 x width units with ReLU on the pixels, and one linear layer.

    Example:
        >>> from ld3m_min.networks import MLP, Spec
        >>> network = MLP(Spec(3, 10, 32, 16, "none"))
        >>> [tuple(p.shape) for p in network.parameters() if p.dim() == 2]
        [(64, 3072), (64, 64), (10, 64)]
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        pixels, hidden = spec.channels * spec.size**2, 4 * spec.width
        self.features = nn.Sequential(
            nn.Flatten(),
            nn.Linear(pixels, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(hidden, spec.classes)
