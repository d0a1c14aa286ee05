"""What a prior's training and measurement take of a data set: section 4.1.

`ld3m_min.data` has data sets of this kind. A prior needs no more of them than these names, and the
two folders stay independent.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor


@runtime_checkable
class ImageSet(Protocol):
    """Images of one split, indexed by class."""

    @property
    def images(self) -> UInt8[Tensor, "N 3 H W"]:
        """Bytes."""

    @property
    def labels(self) -> Int[Tensor, " N"]:
        """Whole numbers from 0 to K - 1."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The K class names, in label order."""

    @property
    def digest(self) -> str:
        """What these images are, whatever they are called."""

    def __len__(self) -> int:
        """N, the number of images."""

    def float(self) -> Float[Tensor, "N 3 H W"]:
        """All images in [0, 1]."""

    def take(self, index: Int[Tensor, " n"], /) -> Float[Tensor, "n 3 H W"]:
        """Images of the given positions, in [0, 1]."""

    def draw_positions(
        self, label: int, n: int, generator: torch.Generator, /
    ) -> Int[Tensor, " n"]:
        """Positions of n different images of a class, or of all that it has."""


@runtime_checkable
class RealImages(Protocol):
    """A data set: three splits, and the normalisation that all networks see it with."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def source(self) -> str:
        """Where it came from and how it is split."""

    @property
    def files(self) -> str | None:
        """What its image files are; None where there are none."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The K class names, in label order."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Their ImageNet ids, in label order; empty where they have none."""

    @property
    def size(self) -> int:
        """Side of the images, pixels."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each channel, of images in [0, 1]."""

    @property
    def std(self) -> tuple[float, ...]:
        """Deviation of each channel, of images in [0, 1]."""

    @property
    def train(self) -> ImageSet:
        """What is trained on."""

    @property
    def validation(self) -> ImageSet:
        """Held-out training images."""

    @property
    def test(self) -> ImageSet:
        """What the paper's tables are measured on."""

    def normalise(self, images: Float[Tensor, "B 3 H W"], /) -> Float[Tensor, "B 3 H W"]:
        """Images in [0, 1] as the networks take them."""
