"""Real images, compressed by WebP or JPEG until as many as can be take the bytes of a few.

The plainest rival at equal storage, which tables of distilled sets do not show: where a set is
counted in bytes, ordinary files of real images are counted so too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from ld3m_min.errors import InputError
from ld3m_min.io.packing import FileFormat, available, packed, unpacked
from ld3m_min.io.values import checked

FORMATS: dict[str, FileFormat] = {"webp": "WebP", "jpeg": "JPEG"}  # by the selection's name


@dataclass(frozen=True)
class Compression:
    """How images are compressed, and into how many bytes.

    Attributes:
        quality: of the files, from 1 to 100.
        budget: bytes for each class; None takes those of IPC raw images, 3 H W bytes each, as
            tables of equal storage count.
        order: "random" takes the images that the selection of that name draws, and goes on;
            "herding" those that herding chooses.
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    quality: int = 50
    budget: int | None = None
    order: Literal["random", "herding"] = "random"

    def __post_init__(self) -> None:
        checked(self, quality="in [1, 100]", budget=">= 1")


@dataclass(frozen=True)
class Fitted:
    """The images of one class that fit.

    Attributes:
        positions: of the images among all, in the order of the choice.
        images: decoded from their files, numbers from 0 to 255.
        sizes: bytes of each file.
    """

    positions: tuple[int, ...]
    images: UInt8[Tensor, "n 3 H W"]
    sizes: tuple[int, ...]


def fitted(
    images: UInt8[Tensor, "N 3 H W"],
    order: Iterable[int],
    kind: FileFormat,
    quality: int,
    budget: int,
) -> Fitted:
    """The first images of an order whose files together have at most so many bytes.

    The first one that doesn't fit ends it: to pass it over would favour images that compress well.

    Args:
        images: numbers from 0 to 255.
        order: positions of a class's images.
        kind: of the files.
        quality: of the files.
        budget: bytes.

    Returns:
        At least one image, decoded.

    Raises:
        InputError: not even the first fits, or Pillow cannot write such files here.
    """
    if not available(kind):
        raise InputError(
            f"this installation of Pillow cannot write {kind}; install Pillow from its wheel, or "
            "take the other format"
        )
    positions, decoded, sizes = list[int](), list[Tensor](), list[int]()
    for i in order:
        file = packed(images[i], kind, quality)
        if sum(sizes) + len(file) > budget:
            break
        positions.append(i)
        decoded.append(unpacked(file))
        sizes.append(len(file))
    if not sizes:
        raise InputError(
            f"the first image of a class takes {len(file)} bytes as {kind} of quality {quality}, "
            f"and {budget} are all that the class has; raise the budget or lower the quality"
        )
    return Fitted(tuple(positions), torch.stack(decoded), tuple(sizes))
