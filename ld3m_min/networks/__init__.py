"""The five classifiers of section 4.1: ConvNet-D, AlexNet, VGG11, ResNet18 and ViT.

Two more, a perceptron and a ResNet10, look at sets where something has to be chosen, so that the
five do not take part in the choice.

Their parameters stand in definition order. So a flat vector, a list of gradients and a stored
expert mean the same here as in the public code. Initial values come from a `torch.Generator`, and
nothing touches the global one. AlexNet and ViT have no normalisation layers in this protocol, so
`norm` says nothing to them.

To add a network, write a subclass of `Network` and add it to `NETWORKS` in `networks.build`.
"""

from ld3m_min.networks.base import NORMS, Network, Spec
from ld3m_min.networks.build import NETWORKS, build_network, flat_parameters, functional
from ld3m_min.networks.convolutional import VGG11, AlexNet, ConvNet, ResNet10, ResNet18
from ld3m_min.networks.dropout import Dropout
from ld3m_min.networks.perceptron import MLP
from ld3m_min.networks.vision_transformer import ViT

__all__ = [
    "MLP",
    "NETWORKS",
    "NORMS",
    "VGG11",
    "AlexNet",
    "ConvNet",
    "Dropout",
    "Network",
    "ResNet10",
    "ResNet18",
    "Spec",
    "ViT",
    "build_network",
    "flat_parameters",
    "functional",
]
