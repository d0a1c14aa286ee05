"""The layers of a style-based generator (Karras et al., 2019 and 2020): GLaD's prior, section 2.3.

A code w says how strong each input channel of a convolution is. Nothing else enters a layer: there
are no noise inputs, so a code is one picture, whenever it is asked for.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

GAIN = math.sqrt(2)  # keeps the variance through the activation
RATE = 0.1  # of the mapping's learning; public generators take 0.01, and a thousand times the steps


def modulated_convolution(
    x: Float[Tensor, "B i h w"],
    weight: Float[Tensor, "o i k k"],
    style: Float[Tensor, "B i"],
    *,
    demodulate: bool = True,
) -> Float[Tensor, "B o h w"]:
    """A convolution whose weights are scaled by each image's style, then normalised.

    Scaling the weights and scaling what goes in, or comes out, is the same. So one convolution does
    for all images of a batch, where the definition asks for one each.

    Args:
        x: features.
        weight: shared by all images; k is odd, and the sides of the features stay.
        style: strength of each input channel, for each image.
        demodulate: give the weights of each output channel unit norm.
    """
    x = x * style[:, :, None, None]  # equation (1) of Karras et al. (2020): w' = s w
    out = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    if not demodulate:
        return out
    squares = style.square() @ weight.square().sum((2, 3)).T
    norm = (squares + 1e-8).rsqrt()  # their equation (3): w'' = w' / sqrt(sum of w'^2)
    return out * norm[:, :, None, None]


def activated(x: Tensor) -> Tensor:
    """Leaky rectifier that keeps the variance about as it was."""
    return F.leaky_relu(x, 0.2) * GAIN


def normalised(x: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
    """Rows of mean square 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class Linear(nn.Module):
    """A linear layer with an equalised learning rate: its weights are drawn from N(0, 1).

    They are divided by the square root of their number at run time, so that Adam's steps are as
    large, in proportion, in every layer.

    Args:
        inputs: width of what goes in.
        outputs: width of what comes out.
        rate: multiplier of the learning rate.
        bias: where the bias starts.
    """

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self._scale, self._rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Float[Tensor, "B i"]) -> Float[Tensor, "B o"]:
        """The layer's output."""
        return F.linear(x, self.weight * self._scale, self.bias * self._rate)


class Convolution(nn.Module):
    """A convolution with an equalised learning rate, see :class:`Linear`, and an activation.

    Args:
        inputs: channels of what goes in.
        outputs: channels of what comes out.
        side: of its window, pixels; odd.
    """

    def __init__(self, inputs: int, outputs: int, side: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self._scale = 1 / math.sqrt(inputs * side**2)

    def forward(self, x: Float[Tensor, "B i h w"]) -> Float[Tensor, "B o h w"]:
        """The layer's output; the sides stay."""
        weight = self.weight * self._scale
        return activated(F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2))


class StyleLayer(nn.Module):
    """One layer of a synthesis: a modulated 3 x 3 convolution, where asked for after doubling.

    Args:
        inputs: channels of what goes in.
        outputs: channels of what comes out.
        w_width: width of the code w.
        up: double the sides first, bilinearly.
    """

    def __init__(self, inputs: int, outputs: int, w_width: int, *, up: bool = False) -> None:
        super().__init__()
        self.style = Linear(w_width, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.up = up

    def forward(self, x: Float[Tensor, "B i h w"], w: Float[Tensor, "B D"]) -> Tensor:
        """The features after this layer.

        Args:
            x: features.
            w: the layer's code, for each image.
        """
        if self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = modulated_convolution(x, self.weight, self.style(w))
        return activated(x + self.bias[:, None, None])


class ToImage(nn.Module):
    """The last layer: a modulated 1 x 1 convolution to three channels, not demodulated.

    Args:
        inputs: channels of what goes in.
        w_width: width of the code w.
    """

    def __init__(self, inputs: int, w_width: int) -> None:
        super().__init__()
        self.style = Linear(w_width, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self._scale = 1 / math.sqrt(inputs)

    def forward(
        self, x: Float[Tensor, "B i H W"], w: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B 3 H W"]:
        """Images, mostly in [-1, 1].

        Args:
            x: features.
            w: the layer's code, for each image.
        """
        weight = self.weight * self._scale
        out = modulated_convolution(x, weight, self.style(w), demodulate=False)
        return out + self.bias[:, None, None]


class Mapping(nn.Module):
    """The mapping network: noise and class to the code w, the same one for every layer.

    Args:
        z_width: of the noise.
        class_width: of a class's embedding; 0 for a generator without classes.
        w_width: of the code.
        layers: how many.
        copies: codes of one picture.
    """

    def __init__(
        self, z_width: int, class_width: int, w_width: int, layers: int, copies: int
    ) -> None:
        super().__init__()
        widths = [z_width + class_width, *[w_width] * layers]
        self.layers = nn.ModuleList(Linear(i, o, rate=RATE) for i, o in itertools.pairwise(widths))
        self._copies = copies

    def forward(
        self, z: Float[Tensor, "B z"], e: Float[Tensor, "B e"]
    ) -> Float[Tensor, "B num_ws D"]:
        """The codes.

        Args:
            z: normal noise.
            e: embedding of each image's class.
        """
        x = torch.cat([normalised(z), normalised(e)], 1) if e.shape[1] else normalised(z)
        for layer in self.layers:
            x = activated(layer(x))
        return x[:, None].expand(-1, self._copies, -1)


class Synthesis(nn.Module):
    """The synthesis network: a learned 4 x 4 start, two layers at each resolution, then an image.

    Args:
        widths: channels at 4, 8, 16, ... pixels.
        w_width: width of the code w.

    Attributes:
        num_layers: how many layers there are before the one that makes an image.
        num_ws: codes of one picture: one for each layer, and one for the last.
        size: side of the images, pixels.
    """

    def __init__(self, widths: tuple[int, ...], w_width: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.layers = nn.ModuleList()
        for i, (before, width) in enumerate(itertools.pairwise((widths[0], *widths))):
            self.layers.append(StyleLayer(before, width, w_width, up=i > 0))
            self.layers.append(StyleLayer(width, width, w_width))
        self.last = ToImage(widths[-1], w_width)
        self.num_layers = len(self.layers)
        self.num_ws, self.w_width = self.num_layers + 1, w_width
        self.size = 4 << (len(widths) - 1)

    def first_w(self, layer: int) -> int:
        """Which of the codes is the first that matters after so many layers."""
        return layer

    def weights_after(self, layer: int) -> list[Tensor]:
        """Those that turn the features after so many layers into an image; of all for 0."""
        start = [] if layer else [self.start]
        return [*start, *self.layers[layer:].parameters(), *self.last.parameters()]

    def begin(self, w: Float[Tensor, "B num_ws D"]) -> Tensor:
        """The features before the first layer."""
        return self.start.expand(len(w), -1, -1, -1)

    def step(self, layer: int, x: Tensor, w: Float[Tensor, "B num_ws D"]) -> Tensor:
        """The features after a layer.

        Args:
            layer: counted from 1.
            x: the features before it.
            w: all codes.
        """
        out: Tensor = self.layers[layer - 1](x, w[:, layer - 1])
        return out

    def end(self, x: Tensor, w: Float[Tensor, "B num_ws D"]) -> Float[Tensor, "B 3 H W"]:
        """Images, mostly in [-1, 1].

        Args:
            x: the features after the last layer.
            w: all codes.
        """
        out: Tensor = self.last(x, w[:, -1])
        return out
