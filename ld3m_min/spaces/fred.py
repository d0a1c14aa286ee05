"""Images by some of their frequencies (FreD, NeurIPS 2023).

Each channel of an image is a sum of cosine waves, of which a class keeps those in which its images
differ most. What is not kept needs no storage, so a class has more images in the place of `ipc`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ld3m_min.config import DistilConfig
from ld3m_min.errors import InputError
from ld3m_min.prior.loading import AnyPrior
from ld3m_min.spaces.base import Space, is_class_by_class


class FreDSpace(Space):
    """The coefficients of the frequencies that each class keeps.

    All channels of all images of a class share one mask of frequencies. It is a constant of the
    set, packed to one bit for each frequency, and counts as its storage: 1/96 of the bits of an
    image whose numbers are float32.

    Args:
        coefficients: to start from, (B, 3, n), in the order of the frequencies; the images stand
            class by class.
        masks: (K, bytes), what :func:`packed` makes of the frequencies that each class keeps.
        size: side of the images, in pixels.

    Raises:
        InputError: masks and coefficients do not fit each other.

    Example:
        >>> from ld3m_min import load_data, preset
        >>> from ld3m_min.spaces import FreDSpace, draw_initial_images
        >>> config, data = preset("smoke", space="fred"), load_data("digits")
        >>> start = draw_initial_images(data, FreDSpace.per_class(config), seed=0)
        >>> space = FreDSpace.build(config, start.images, start.labels, None)
        >>> {name: tuple(x.shape) for name, x in space.state().items()}
        {'coefficients': (20, 3, 512), 'masks': (10, 128)}
    """

    needs_prior = False
    saves = ("coefficients", "masks")
    by_class = ("masks",)

    def __init__(self, coefficients: Tensor, masks: Tensor, size: int) -> None:
        super().__init__({"coefficients": coefficients}, {"masks": masks})
        self._size, self._matrix = size, dct_matrix(size).to(coefficients)
        self._places = places(coefficients, masks, size)

    @classmethod
    def per_class(cls, config: DistilConfig, prior: AnyPrior | None = None) -> int:
        """As many images as `ipc` have room for: ipc H W / kept, rounded down.

        Args:
            config: says how many frequencies are kept.
            prior: not looked at.

        Raises:
            InputError: more are to be kept than there are.
        """
        return config.ipc * config.size**2 // kept_frequencies(config)

    @classmethod
    def build(
        cls,
        config: DistilConfig,
        images: Float[Tensor, "B 3 H W"],
        labels: Int[Tensor, " B"],
        prior: AnyPrior | None,
    ) -> FreDSpace:
        """The coefficients of images, at the frequencies in which those of their class differ most.

        Args:
            config: says how many frequencies are kept.
            images: in [0, 1], class by class.
            labels: of the images.
            prior: not looked at.

        Returns:
            The space.

        Raises:
            InputError: more frequencies are to be kept than there are, or the images do not stand
                class by class.
        """
        kept, classes = kept_frequencies(config), int(labels.max()) + 1
        if not is_class_by_class(labels, classes):
            raise InputError(
                "the space 'fred' takes its images class by class, equally many of each; sort "
                "images and labels, as draw_initial_images gives them"
            )
        masks = torch.stack([most_varied(x, kept) for x in torch.chunk(images, classes)])
        saved = packed(masks).to(images.device)
        empty = images.new_empty(len(images), images.shape[1], kept)
        where = places(empty, saved, config.size)[:, None].expand_as(empty)
        return cls(dct2(images).flatten(2).gather(2, where), saved, config.size)

    @classmethod
    def restore(
        cls,
        config: DistilConfig,
        state: Mapping[str, Tensor],
        prior: AnyPrior | None,
    ) -> FreDSpace:
        """The space of saved coefficients.

        Args:
            config: says the size.
            state: holds the coefficients and the masks.
            prior: not looked at.

        Returns:
            The space.

        Raises:
            InputError: they do not fit each other.
        """
        return cls(state["coefficients"], state["masks"], config.size)

    def part(self, rows: slice) -> Space:
        """The same space with some of the images alone; see :class:`Space`."""
        made = super().part(rows)
        assert isinstance(made, FreDSpace)
        made._places = self._places[rows]
        return made

    def images(self) -> Float[Tensor, "B 3 H W"]:
        """The sums of the kept waves, cut off below 0 and above 1."""
        kept = self.parameters["coefficients"]
        every = kept.new_zeros(*kept.shape[:2], self._size**2)
        every = every.scatter(2, self._places[:, None].expand_as(kept), kept)
        return idct2(every.unflatten(2, (self._size, self._size)), self._matrix).clamp(0, 1)


def kept_frequencies(config: DistilConfig) -> int:
    """How many frequencies a class keeps: by default an eighth of those of an image.

    Raises:
        InputError: more are asked for than there are.
    """
    every = config.size**2
    kept = max(1, every // 8) if config.fred.kept is None else config.fred.kept
    if kept > every:
        raise InputError(
            f"fred.kept = {kept} is more than the {every} frequencies of an image of {config.size} "
            f"px; lower it to {every} or less"
        )
    return kept


def dct_matrix(n: int) -> Float[Tensor, "n n"]:
    """The orthonormal cosine transform (DCT-II) of n numbers, a row for each frequency; float64.

    Row k is sqrt(2 / n) cos(pi (i + 1/2) k / n), and sqrt(1 / n) for k = 0.
    """
    i = torch.arange(n, dtype=torch.float64)
    matrix = math.sqrt(2 / n) * torch.cos(math.pi / n * torch.outer(i, i + 0.5))
    matrix[0] = math.sqrt(1 / n)
    return matrix


def dct2(x: Float[Tensor, "*b n n"]) -> Float[Tensor, "*b n n"]:
    """Coefficients of images, the transform of their columns and rows."""
    matrix = dct_matrix(x.shape[-1]).to(x)
    return matrix @ x @ matrix.T


def idct2(
    x: Float[Tensor, "*b n n"], matrix: Float[Tensor, "n n"] | None = None
) -> Float[Tensor, "*b n n"]:
    """Images of coefficients: the inverse of :func:`dct2`.

    Args:
        x: the coefficients.
        matrix: of the transform; None makes it.
    """
    matrix = dct_matrix(x.shape[-1]).to(x) if matrix is None else matrix
    return matrix.T @ x @ matrix  # its inverse is its transpose


def most_varied(images: Float[Tensor, "n C H H"], kept: int) -> Bool[Tensor, " HH"]:
    """The frequencies with the most variance over images, of the mean of their channels.

    Equal ones are taken from the lowest vertical frequency on. A single image has no variance: of
    it the largest coefficients are taken.

    Args:
        images: of one class.
        kept: how many frequencies.

    Returns:
        Which ones, in the order of a flattened image; on the CPU.
    """
    # in float64 on the CPU, so that rounding does not choose
    x = dct2(images.detach().mean(1).double().cpu())
    spread = x.var(0, correction=0) if len(x) > 1 else x[0].square()
    found = torch.zeros(spread.numel(), dtype=torch.bool)
    found[spread.flatten().argsort(descending=True, stable=True)[:kept]] = True
    return found


def packed(masks: Bool[Tensor, "K n"]) -> UInt8[Tensor, "K bytes"]:
    """Masks as bytes, eight frequencies in each; the last byte is filled up with zeros."""
    return torch.from_numpy(np.packbits(masks.cpu().numpy(), axis=1))


def places(coefficients: Tensor, masks: Tensor, size: int) -> Int[Tensor, "B n"]:
    """Where each image's coefficients belong in a flattened image of all of them.

    Args:
        coefficients: (B, 3, n), of images that stand class by class.
        masks: (K, bytes), as :func:`packed` makes them.
        size: side of the images, in pixels.

    Raises:
        InputError: there is no such place for each coefficient.
    """
    every = size**2
    fits = masks.dtype == torch.uint8 and masks.dim() == 2 and coefficients.dim() == 3
    if fits and len(masks) and masks.shape[1] == -(-every // 8):
        bits = torch.from_numpy(np.unpackbits(masks.cpu().numpy(), axis=1)).bool()
        n, counts = coefficients.shape[2], bits.sum(1)
        each, left = divmod(len(coefficients), len(masks))
        if not left and not bits[:, every:].any() and bool((counts == n).all()):
            rows = bits.nonzero()[:, 1].view(len(masks), n)
            return rows.repeat_interleave(each, 0).to(coefficients.device)
    raise InputError(
        f"masks are {tuple(masks.shape)} {masks.dtype}, but must have a row for each class with a "
        f"bit for each of {every} frequencies, set for as many as there are coefficients: those "
        f"are {tuple(coefficients.shape)}"
    )
