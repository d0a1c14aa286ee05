"""A tiny untrained style-based generator, and one from elsewhere, for the tests."""

import torch
from torch import nn

from ld3m_min.prior.style_gan import build_style
from ld3m_min.prior.style_parts import StyleArchitecture

DIGITS = tuple(map(str, range(10)))


def tiny_style(widths=(8, 8, 8, 8), classes=DIGITS, seed=0):
    """A generator of random weights; four widths make images of 32 px."""
    return build_style(StyleArchitecture(widths, 4, 8, 4, 2), classes, seed=seed)


class Elsewhere(nn.Module):
    """A stand-in with the interface of StyleGAN3: 8 px, three layers and the one of the image."""

    z_dim, num_ws, img_resolution = 3, 5, 8

    def __init__(self, classes=2):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.c_dim, self.mapping = classes, ToCodes(3 + classes, self.num_ws)
            self.synthesis = Synthesis()

    def forward(self, z, c):
        return self.synthesis(self.mapping(z, c))


class ToCodes(nn.Module):
    def __init__(self, width, copies):
        super().__init__()
        self.net, self.copies = nn.Linear(width, 6), copies

    def forward(self, z, c):
        return self.net(torch.cat([z, c], 1))[:, None].repeat(1, self.copies, 1)


class Synthesis(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer_names, self.output_scale = ["L0", "L1", "L2", "L3"], 0.25
        self.input = nn.Sequential(nn.Linear(6, 4 * 64), nn.Unflatten(1, (4, 8, 8)))
        for name, width in zip(self.layer_names, (4, 4, 4, 3), strict=True):
            setattr(self, name, Modulated(4, width))

    def forward(self, ws):
        x = self.input(ws[:, 0])
        for name, w in zip(self.layer_names, ws.unbind(1)[1:], strict=True):
            x = getattr(self, name)(x, w)
        return x * self.output_scale


class Modulated(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv, self.style = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Linear(6, inputs)

    def forward(self, x, w):
        return torch.tanh(self.conv(x * self.style(w)[:, :, None, None]))
