"""The five classifiers of section 4.1: ConvNet-D, AlexNet, VGG11, ResNet18 and ViT.

Their parameters stand in definition order, so that a flat vector, a list of gradients or a stored expert means the
same here as in the public code. Initial values come from a `torch.Generator` and nothing touches the global one.
AlexNet and ViT have no normalisation layers in this protocol, so `norm` says nothing to them.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from .errors import InputError

NORMS = {
    "instance": lambda channels: nn.GroupNorm(channels, channels),
    "batch": lambda channels: nn.BatchNorm2d(channels),
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "none": lambda channels: nn.Identity(),
}


class Network(nn.Module):
    """A classifier of normalised images (B, channels, size, size): logits = `classifier(embed(x))`, (B, classes)."""

    def __init__(self, channels, size):
        super().__init__()
        self.input_shape = (channels, size, size)

    def embed(self, x):
        """Embedding (B, features) before the classifier; ValueError where x is not (B, channels, size, size)."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.input_shape:
            raise InputError(
                f"{type(self).__name__} was built for images (B, {', '.join(map(str, self.input_shape))}) but got "
                f"{tuple(x.shape)}: resize the images, or build it with their channels and size")
        return self.features(x).flatten(1)

    def forward(self, x):
        """Logits (B, classes)."""
        return self.classifier(self.embed(x))


def _convolution(before, after, norm, kernel=3):
    layers = [nn.Conv2d(before, after, kernel, padding=kernel // 2)]
    return [*layers, *([] if norm == "none" else [NORMS[norm](after)]), nn.ReLU()]


class ConvNet(Network):
    """`depth` blocks of 3x3 convolution, normalisation, ReLU and 2x2 average pooling, then one linear layer."""

    def __init__(self, channels, classes, size, width, norm, depth):
        super().__init__(channels, size)
        layers = []
        for d in range(depth):
            layers += [*_convolution(width if d else channels, width, norm), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * (size // 2**depth) ** 2, classes)


class AlexNet(Network):
    """Five convolutions (5x5, 5x5, 3x3, 3x3, 3x3), three max poolings, one linear layer; no normalisation."""

    def __init__(self, channels, classes, size, width, norm):
        super().__init__(channels, size)
        a, b, c = (_scaled(n, width) for n in (128, 192, 256))
        self.features = nn.Sequential(
            *_convolution(channels, a, "none", 5), nn.MaxPool2d(2), *_convolution(a, b, "none", 5), nn.MaxPool2d(2),
            *_convolution(b, c, "none"), *_convolution(c, b, "none"), *_convolution(b, b, "none"), nn.MaxPool2d(2))
        self.classifier = nn.Linear(b * (size // 8) ** 2, classes)


class VGG11(Network):
    """Eight 3x3 convolutions with normalisation and five max poolings, brought to 7x7, then one linear layer."""

    def __init__(self, channels, classes, size, width, norm):
        super().__init__(channels, size)
        layers = []
        for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
            for n in stage:
                layers += _convolution(channels, _scaled(n, width), norm)
                channels = _scaled(n, width)
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(7))
        self.classifier = nn.Linear(channels * 49, classes)


class _ResidualBlock(nn.Module):
    def __init__(self, before, after, stride, norm):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = NORMS[norm](after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = NORMS[norm](after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), NORMS[norm](after))

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class ResNet18(Network):
    """Four stages of two residual blocks behind a 3x3 stem of stride 1 without pooling; mean over the pixels."""

    def __init__(self, channels, classes, size, width, norm):
        super().__init__(channels, size)
        a, b, c, d = (_scaled(n, width) for n in (64, 128, 256, 512))
        self.conv1 = nn.Conv2d(channels, a, 3, 1, 1, bias=False)
        self.bn1 = NORMS[norm](a)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(_ResidualBlock(before, after, stride, norm), _ResidualBlock(after, after, 1, norm))
            for before, after, stride in ((a, a, 1), (a, b, 2), (b, c, 2), (c, d, 2)))
        self.classifier = nn.Linear(d, classes)

    def features(self, x):
        """Mean over the pixels of the last stage, (B, features)."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


class Dropout(nn.Module):
    """Dropout whose mask comes from a generator of its own, which is neither parameter nor buffer.

    The generator lives on the input's device (masks made on the CPU would dominate a training step on a GPU), is
    copied with the module by deepcopy and pickle, and is seeded by `build_network`. Each forward pass in training mode
    draws a new mask, a recomputed one too; in eval mode the module is the identity.
    """

    def __init__(self, p=0.1):
        super().__init__()
        self.p, self.generator = p, torch.Generator()
        self.mask = None  # what `draw` gave beforehand, for a forward pass that may not draw (vmap)

    def forward(self, x):
        """x with each element zeroed with probability p and the others divided by 1 - p; any shape."""
        if not self.training:
            return x
        kept = self.draw(x.shape, x.device) if self.mask is None else self.mask
        return x * kept / (1 - self.p)

    def draw(self, shape, device):
        """The next mask: bool, True where an element is kept."""
        self.place(device)
        return torch.rand(shape, generator=self.generator, device=device) >= self.p

    def place(self, device):
        """Bring the generator to a device, where it goes on with draws of its own."""
        if self.generator.device != torch.device(device):
            self.generator = torch.Generator(device).manual_seed(_seed(self.generator))

    def __getstate__(self):  # a torch.Generator itself cannot be copied in every version of PyTorch
        return {**self.__dict__, "generator": (self.generator.device, self.generator.get_state())}

    def __setstate__(self, state):
        device, value = state["generator"]
        super().__setstate__({**state, "generator": torch.Generator(device)})
        self.generator.set_state(value)


class _Attention(nn.Module):
    def __init__(self, dim, head):
        super().__init__()
        self.head = head
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.dropout = Dropout()

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, self.head)).permute(2, 0, 3, 1, 4)
        # written out because the fused kernels cannot be differentiated twice, which DC and MTT need
        attention = (q @ k.transpose(-1, -2) / self.head**0.5).softmax(-1)
        return self.dropout(self.out((attention @ v).transpose(1, 2).flatten(2)))


class ViT(Network):
    """Ten transformer layers on 16x16 patches and a class token, without layer norm; dropout 0.1 in training."""

    def __init__(self, channels, classes, size, width, norm):
        super().__init__(channels, size)
        dim = _scaled(512, width)
        self.pos_embedding = nn.Parameter(torch.empty(1, (size // 16) ** 2 + 1, dim))
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.patch_embedding = nn.Linear(channels * 16 * 16, dim)
        self.dropout = Dropout()
        self.layers = nn.ModuleList()
        for _ in range(10):
            mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), Dropout(), nn.Linear(dim, dim), Dropout())
            self.layers += [_Attention(dim, math.gcd(dim, 64)), mlp]
        self.classifier = nn.Linear(dim, classes)

    def dropout_shape(self, n):
        """What each of its dropouts sees of n images: (n, tokens, dim)."""
        return (n, *self.pos_embedding.shape[1:])

    def features(self, x):
        """The class token after the last layer, (B, dim)."""
        patches = x.unflatten(3, (-1, 16)).unflatten(2, (-1, 16)).permute(0, 2, 4, 3, 5, 1)  # B, row, col, 16, 16, C
        tokens = self.patch_embedding(patches.flatten(3).flatten(1, 2))
        x = self.dropout(torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.pos_embedding)
        for layer in self.layers:
            x = x + layer(x)
        return x[:, 0]


NETWORKS = {cls.__name__: cls for cls in (ConvNet, AlexNet, VGG11, ResNet18, ViT)}


def build_network(name, *, channels=3, classes=10, size=128, depth=None, width=128, norm="instance", generator=None):
    """A freshly initialised network of section 4.1 on the CPU, in training mode, with `.embed(x)`.

    name: "ConvNet", "AlexNet", "VGG11", "ResNet18" or "ViT". size: image side in pixels, a multiple of 16 (VGG11 from
    32). depth: of the ConvNet only; None is the protocol's floor(log2(size)) - 2, that is 3 at 32, 5 at 128 and 6 at
    256 pixels. width: the ConvNet's channels; the others scale all their widths by width / 128, 128 being the
    protocol's. norm: "instance" (the protocol's), "batch", "layer" or "none". generator: a CPU `torch.Generator` from
    which every initial value is drawn, in PyTorch's default distributions; None draws from a fresh one.
    ValueError names the choices where one of these is unknown or does not fit.
    """
    if name not in NETWORKS:
        raise InputError(f"unknown network {name!r}: choose one of {', '.join(NETWORKS)}")
    if norm not in NORMS:
        raise InputError(f"unknown norm {norm!r}: choose one of {', '.join(NORMS)}")
    for label, value in {"channels": channels, "classes": classes, "width": width}.items():
        if value < 1 or value != int(value):
            raise InputError(f"{label} must be a whole number from 1 on, not {value!r}")
    smallest = 32 if name == "VGG11" else 16
    if size < smallest or size % 16:
        raise InputError(f"{name} takes images whose side is a multiple of 16 from {smallest} on "
                         f"({smallest}, {smallest + 16}, {smallest + 32}, ...), not {size!r}")
    options = {}
    if name == "ConvNet":
        deepest = int(math.log2(size))
        options["depth"] = deepest - 2 if depth is None else depth
        if options["depth"] not in range(1, deepest + 1):
            raise InputError(f"ConvNet at size {size} has a depth from 1 to {deepest}, not {depth!r}")
    elif depth is not None:
        raise InputError(f"depth is the ConvNet's alone: use None for {name}, not {depth!r}")
    with torch.device("meta"):  # no storage yet and so no draw from the global generator
        network = NETWORKS[name](channels, classes, size, width, norm, **options)
    return _initialise(network.to_empty(device="cpu"), generator)


def flat_parameters(network):
    """A copy of all parameters as one detached vector (P,), in definition order."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def functional(network, flat):
    """The function x -> logits of `network` with the parameters `flat` (P,) in the place of its own.

    Differentiable any number of times with respect to `flat` and x; `network` keeps its parameters, and its mode and
    buffers are used as they stand. ValueError where `flat` has another length than the parameters.
    """
    sizes = [p.numel() for p in network.parameters()]
    if flat.ndim != 1 or len(flat) != sum(sizes):
        raise InputError(f"{type(network).__name__} has {sum(sizes)} parameters but the flat vector has shape "
                         f"{tuple(flat.shape)}: it belongs to another network, width, depth or image size")
    parts = zip(network.named_parameters(), flat.split(sizes), strict=True)
    parameters = {name: part.view_as(p) for (name, p), part in parts}
    return lambda x: functional_call(network, parameters, (x,))


def _scaled(channels, width):
    return max(1, round(channels * width / 128))


def _seed(generator):
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


@torch.no_grad()
def _initialise(network, generator):
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):  # both bounds of PyTorch's default come to 1 / sqrt(fan in)
            bound = module.weight[0].numel() ** -0.5
            for p in module.parameters():
                p.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, (nn.GroupNorm, nn.BatchNorm2d)):
            module.reset_parameters()
        elif isinstance(module, ViT):
            module.pos_embedding.normal_(generator=generator)
            module.cls_token.normal_(generator=generator)
        elif isinstance(module, Dropout):
            module.generator.manual_seed(_seed(generator))
    return network
