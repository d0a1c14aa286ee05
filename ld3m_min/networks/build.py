"""Networks by name, and their parameters as one flat vector."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from ld3m_min.errors import InputError
from ld3m_min.networks.base import NORMS, Network, Spec, initialised
from ld3m_min.networks.convolutional import VGG11, AlexNet, ConvNet, ResNet10, ResNet18
from ld3m_min.networks.perceptron import MLP
from ld3m_min.networks.vision_transformer import ViT

NETWORKS: dict[str, type[Network]] = {
    "ConvNet": ConvNet,
    "AlexNet": AlexNet,
    "VGG11": VGG11,
    "ResNet18": ResNet18,
    "ViT": ViT,
    # no table has these two: they look at sets where something has to be chosen
    "MLP": MLP,
    "ResNet10": ResNet10,
}


def build_network(
    name: str,
    *,
    channels: int | float = 3,
    classes: int | float = 10,
    size: int = 128,
    depth: int | None = None,
    width: int | float = 128,
    norm: str = "instance",
    generator: torch.Generator | None = None,
) -> Network:
    """A freshly initialised network of section 4.1 on the CPU, in training mode.

    Args:
        name: a name of `NETWORKS`.
        channels: of the images, a whole number from 1 on.
        classes: to tell apart, a whole number from 1 on.
        size: side of the images in pixels, a multiple of 16 (VGG11 from 32).
        depth: blocks of the ConvNet. None is the protocol's floor(log2(size)) - 2, that is 3 at 32,
            5 at 128 and 6 at 256 pixels. None for the others.
        width: the ConvNet's channels, a whole number from 1 on. The others scale all their widths
            by width / 128; 128 is the protocol's.
        norm: a name of `NORMS`; "instance" is the protocol's.
        generator: on the CPU. Every initial value is drawn from it, in PyTorch's default
            distributions. None draws from a fresh one.

    Returns:
        The network.

    Raises:
        InputError: one of these is unknown or does not fit; names the choices.

    Example:
        >>> import torch
        >>> from ld3m_min import build_network
        >>> network = build_network("ConvNet", size=32, width=16)
        >>> sum(p.numel() for p in network.parameters())
        7754
        >>> tuple(network(torch.zeros(2, 3, 32, 32)).shape)
        (2, 10)
    """
    if name not in NETWORKS:
        raise InputError(f"unknown network {name!r}: choose one of {', '.join(NETWORKS)}")
    if norm not in NORMS:
        raise InputError(f"unknown norm {norm!r}: choose one of {', '.join(NORMS)}")
    for label, value in {"channels": channels, "classes": classes, "width": width}.items():
        if value < 1 or value != int(value):
            raise InputError(f"{label} must be a whole number from 1 on, not {value!r}")
    kind = NETWORKS[name]
    if size < kind.smallest or size % 16:
        raise InputError(
            f"{name} takes images whose side is a multiple of 16 from {kind.smallest} on "
            f"({kind.smallest}, {kind.smallest + 16}, {kind.smallest + 32}, ...), not {size!r}"
        )
    blocks = _blocks(name, size, depth)
    spec = Spec(int(channels), int(classes), size, int(width), norm, blocks)
    with torch.device("meta"):  # no storage yet and so no draw from the global generator
        network = kind(spec)
    return initialised(network.to_empty(device="cpu"), generator)


def _blocks(name: str, size: int, depth: int | None) -> int:
    """How many blocks a network has; 0 where their number cannot be chosen."""
    if not NETWORKS[name].has_depth:
        if depth is not None:
            raise InputError(f"depth is the ConvNet's alone: use None for {name}, not {depth!r}")
        return 0
    deepest = int(math.log2(size))
    blocks = deepest - 2 if depth is None else depth
    if blocks not in range(1, deepest + 1):
        raise InputError(f"ConvNet at size {size} has a depth from 1 to {deepest}, not {depth!r}")
    return blocks


def flat_parameters(network: nn.Module) -> Float[Tensor, " P"]:
    """A copy of all parameters as one detached vector, in definition order.

    Example:
        >>> from ld3m_min.networks import build_network, flat_parameters
        >>> network = build_network("MLP", size=16, width=8)
        >>> tuple(flat_parameters(network).shape)
        (25994,)
    """
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def functional(network: nn.Module, flat: Tensor) -> Callable[[Tensor], Tensor]:
    """A network as a function of images, with other parameters in the place of its own.

    It can be differentiated any number of times, with respect to `flat` and to the images. The
    network keeps its parameters. Its mode and buffers are used as they stand.

    Args:
        network: that gives the architecture.
        flat: parameters, (P,), in definition order.

    Returns:
        The function from images to logits.

    Raises:
        InputError: `flat` has another length than the parameters.

    Example:
        >>> import torch
        >>> from ld3m_min.networks import build_network, flat_parameters, functional
        >>> network = build_network("MLP", size=16, width=8)
        >>> logits = functional(network, torch.zeros_like(flat_parameters(network)))
        >>> logits(torch.rand(1, 3, 16, 16)).unique().tolist()
        [0.0]
    """
    sizes = [p.numel() for p in network.parameters()]
    if flat.ndim != 1 or len(flat) != sum(sizes):
        raise InputError(
            f"{type(network).__name__} has {sum(sizes)} parameters but the flat vector has shape "
            f"{tuple(flat.shape)}: it belongs to another network, width, depth or image size"
        )
    parts = zip(network.named_parameters(), torch.split(flat, sizes), strict=True)
    parameters = {name: part.view_as(p) for (name, p), part in parts}
    return lambda x: functional_call(network, parameters, (x,))
