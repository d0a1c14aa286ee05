"""The handwritten digits of scikit-learn, which come with it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from ld3m_min.data.dataset import ImageDataset
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError


def load_digits(size: int = 32) -> DataSplits:
    """scikit-learn's 1,797 real digits, 8 x 8 grey, enlarged (bicubic), in three equal channels.

    Fixed stratified split: 1,000 train, 297 validation, 500 test. Needs no network.

    Args:
        size: side of the images in pixels, a multiple of 8.

    Returns:
        The three splits, normalised by the training split's statistics.

    Raises:
        InputError: a size that is no multiple of 8, or below 16.

    Example:
        >>> from ld3m_min.data import load_digits
        >>> images = load_digits(size=16).train.images
        >>> images.dtype, tuple(images.shape)
        (torch.uint8, (1000, 3, 16, 16))
        >>> (images[:, 0] != images[:, 1]).sum().item()  # the channels are equal
        0
    """
    from sklearn.datasets import load_digits as sklearn_digits

    if size % 8 or size < 16:
        raise InputError(f"digits come in sizes that are multiples of 8 from 16 on, not {size}")
    raw = sklearn_digits()
    x = torch.from_numpy(raw.images).float()[:, None] / 16
    x = F.interpolate(x, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 1)
    x = (x * 255).round().to(torch.uint8).repeat(1, 3, 1, 1)
    labels = torch.from_numpy(raw.target).long()
    classes = tuple(str(d) for d in range(10))
    train, validation, test = (
        ImageDataset(x[torch.from_numpy(p)], labels[torch.from_numpy(p)], classes, name)
        for p, name in zip(
            _partition(raw.target, (1000, 297), seed=0),
            ("train", "validation", "test"),
            strict=True,
        )
    )
    statistics = train.images.double() / 255
    return DataSplits(
        "digits",
        train,
        validation,
        test,
        mean=tuple(statistics.mean((0, 2, 3)).tolist()),
        std=tuple(statistics.std((0, 2, 3)).tolist()),
        source="scikit-learn's handwritten digits",
    )


def _partition(
    labels: npt.NDArray[np.integer], sizes: Iterable[int], seed: int
) -> list[npt.NDArray[np.intp]]:
    """Cut positions into stratified parts, the same on every machine.

    Args:
        labels: of the positions.
        sizes: of all parts but the last, which takes the rest.
        seed: of the draws.

    Returns:
        Positions of each part, in order.
    """
    from sklearn.model_selection import train_test_split

    rest, parts = np.arange(len(labels)), []
    for size in sizes:
        part, rest = train_test_split(
            rest, train_size=size, stratify=labels[rest], random_state=seed
        )
        parts.append(np.sort(part))
    return [*parts, np.sort(rest)]
