"""Images of a set as PNG files that a page holds, none larger than it shows them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ld3m_min.io.packing import eight_bits, packed

LARGEST = 128  # side of a picture in a page, pixels


def small(images: Float[Tensor, "B 3 H W"], largest: int = LARGEST) -> UInt8[Tensor, "B 3 h w"]:
    """Images as bytes, those above a size averaged down to it.

    Args:
        images: in [0, 1].
        largest: side that none is above, pixels.
    """
    images = images.detach().cpu().clamp(0, 1)
    if images.shape[-1] > largest:
        images = F.interpolate(images, size=largest, mode="area")
    return eight_bits(images)


def pngs(images: Float[Tensor, "B 3 H W"], largest: int = LARGEST) -> list[bytes]:
    """A PNG file of each image.

    Args:
        images: in [0, 1].
        largest: side that none is above, pixels.
    """
    return [packed(image, "PNG") for image in small(images, largest)]


def column(images: Float[Tensor, "B 3 H W"], largest: int = LARGEST) -> bytes:
    """A PNG file of images one below the other.

    Args:
        images: in [0, 1].
        largest: side that none is above, pixels.
    """
    return packed(torch.cat(list(small(images, largest)), dim=1), "PNG")


def firsts(count: int, classes: int, *, each: int, shown: int) -> list[int]:
    """Positions of the first images of the first classes, in a set that is class by class.

    Args:
        count: images of the set.
        classes: of the set.
        each: images of a class, at most.
        shown: how many classes, at most.
    """
    per_class = count // classes
    columns = range(min(each, per_class))
    return [k * per_class + i for k in range(min(shown, classes)) for i in columns]
