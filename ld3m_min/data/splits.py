"""A data set in its three splits, and the statistics that all of it is normalised with."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ld3m_min.data.dataset import NORMALISATIONS, REFERENCE_SYNTHETIC_MEAN, ImageDataset
from ld3m_min.data.report import DataReport
from ld3m_min.errors import InputError


@dataclass(frozen=True)
class DataSplits:
    """A data set: its three splits and the one normalisation that real and synthetic images share.

    Attributes:
        name: what records and `load_data` call it, e.g. "digits", "imagenette",
            "imagenette-fastai".
        train: images to distil from.
        validation: images on which everything is chosen, cut from the training images.
        test: images for the final figure alone.
        mean: of each channel, in units of images in [0, 1]: the training split's for digits,
            ImageNet's for everything read from image files.
        std: standard deviation of each channel, likewise.
        source: where it came from and how it is split, for records (never a path).
        ids: ImageNet class ids in label order, what a prior trained on ImageNet is conditioned on;
            empty for other data.
        synthetic_mean: None, or what :meth:`normalise` takes from synthetic images instead of
            `mean`.
        root: the folder that the images were read from, where no output may lie; None where there
            is none.
        files: what its first image file is, such as "WEBP, 128 x 128 px". ImageNet's own pictures
            are JPEG of many sizes: square files are a copy that was cropped or squashed before, and
            one smaller than `size` was enlarged.
        report: what was left out while a folder was read, and what looked odd; None for other data.

    Raises:
        InputError: splits of different classes or sizes, or statistics that cannot be used.

    Example:
        >>> import torch
        >>> from ld3m_min.data import DataSplits, ImageDataset
        >>> white = torch.full((2, 3, 16, 16), 255, dtype=torch.uint8)
        >>> split = ImageDataset(white, torch.tensor([0, 1]), ("cat", "dog"), "train")
        >>> data = DataSplits("pets", split, split, split, (0.5,) * 3, (0.25,) * 3)
        >>> data.normalise(data.test.float()).unique().tolist()
        [2.0]
    """

    __no_type_check__ = True  # what is given is looked at below, and refused in a sentence

    name: str
    train: ImageDataset
    validation: ImageDataset
    test: ImageDataset
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str = ""
    ids: tuple[int, ...] = ()
    synthetic_mean: tuple[float, ...] | None = None
    root: Path | None = None
    files: str | None = None
    report: DataReport | None = None

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            object.__setattr__(self, name, _fitted(getattr(self, name), name, self.train))
        for name, least in (("mean", -math.inf), ("std", 0.0)):
            values = tuple(float(v) for v in getattr(self, name))
            object.__setattr__(self, name, values)
            if len(values) != 3 or not all(math.isfinite(v) and v > least for v in values):
                raise InputError(
                    f"{name} must be three finite numbers{' above 0' * (name == 'std')}, not "
                    f"{values}"
                )
        if self.ids and len(self.ids) != len(self.classes):
            raise InputError(
                f"{len(self.ids)} ImageNet ids for {len(self.classes)} classes; give one for each, "
                "or none"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in label order."""
        return self.train.classes

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.train.images.shape[-1]

    def normalise(
        self, images: Float[Tensor, "B 3 H W"], *, synthetic: bool = False
    ) -> Float[Tensor, "B 3 H W"]:
        """Images as the networks take them. Differentiable.

        Args:
            images: in [0, 1].
            synthetic: whether they are learned ones; it makes no difference unless
                :meth:`with_normalisation` asked for the public code's.

        Returns:
            The images less the mean, by the standard deviation, of each channel.
        """
        taken = self.synthetic_mean if synthetic and self.synthetic_mean else self.mean
        mean = torch.tensor(taken, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
        return (images - mean) / std

    def with_normalisation(self, name: str) -> DataSplits:
        """The same data with another normalisation.

        Args:
            name: "shared", or the "reference-mismatch" of the public code. The latter takes another
                mean from synthetic images than from real ones (see the page on differences); it is
                for comparison alone.

        Returns:
            The data.

        Raises:
            InputError: an unknown name.
        """
        if name not in NORMALISATIONS:
            raise InputError(f"unknown normalisation {name!r}; choose {', '.join(NORMALISATIONS)}")
        return replace(self, synthetic_mean=None if name == "shared" else REFERENCE_SYNTHETIC_MEAN)

    def split(self, name: str) -> ImageDataset:
        """One of the splits.

        Args:
            name: "train", or "validation" or "test", which `evaluate` may be asked for.

        Returns:
            The split.

        Raises:
            InputError: an unknown name.
        """
        found = {"train": self.train, "validation": self.validation, "test": self.test}.get(name)
        if found is None:
            raise InputError(f"unknown split {name!r}; choose train, validation or test")
        return found

    def to(self, device: str | torch.device) -> DataSplits:
        """The same data with all images and labels on `device`."""
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
        )


def _fitted(split: ImageDataset, name: str, train: ImageDataset) -> ImageDataset:
    """A split whose labels are numbered in the training split's order of classes.

    Args:
        split: what is given.
        name: what an error calls it.
        train: the training split.

    Returns:
        The split.

    Raises:
        InputError: it has other classes, or images of another size.
    """
    if split.classes != train.classes:
        if set(split.classes) != set(train.classes):
            odd = sorted(set(split.classes) ^ set(train.classes))
            raise InputError(
                f"the splits train and {name} have different classes: {', '.join(odd[:5])}"
            )
        order = torch.tensor(
            [train.classes.index(c) for c in split.classes], device=split.labels.device
        )
        split = replace(split, labels=order[split.labels], classes=train.classes)
    if split.images.shape[1:] != train.images.shape[1:]:
        raise InputError(
            f"images of the splits train and {name} are {tuple(train.images.shape[1:])} and "
            f"{tuple(split.images.shape[1:])}; bring them to one size"
        )
    return split
