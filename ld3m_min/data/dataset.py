"""Images in memory with labels, and how they are normalised."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import SupportsInt

import torch
from jaxtyping import Float32, Int, Int64, UInt8
from torch import Tensor

from ld3m_min.errors import InputError, InputTypeError
from ld3m_min.io.digests import digest, versions

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
REFERENCE_SYNTHETIC_MEAN = (  # what the public code takes from generated images: SVHN's mean
    0.4377,
    0.4438,
    0.4728,
)
NORMALISATIONS = ("shared", "reference-mismatch")


@dataclass(frozen=True)
class ImageDataset:
    """Images of one split, indexed by class.

    Attributes:
        images: square, of three channels.
        labels: of the images, 0 <= label < K.
        classes: the K class names, in label order.
        split: "train", "validation" or "test".

    Raises:
        InputError: images, labels or classes that do not go together.
        InputTypeError: no tensors, or images that are no bytes.

    Example:
        >>> import torch
        >>> from ld3m_min.data import ImageDataset
        >>> images = torch.zeros(5, 3, 16, 16, dtype=torch.uint8)
        >>> labels = torch.tensor([0, 1, 1, 0, 1])
        >>> pets = ImageDataset(images, labels, ("cat", "dog"), "train")
        >>> len(pets), pets.class_positions(1).tolist()
        (5, [1, 2, 4])
    """

    __no_type_check__ = True  # what is given is looked at below, and refused in a sentence

    images: UInt8[Tensor, "N 3 H H"]
    labels: Int64[Tensor, " N"]
    classes: tuple[str, ...]
    split: str
    _index: dict[int, Tensor] = field(init=False, repr=False, compare=False)
    _digest: tuple[object, str] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_images(self.images, self.labels, self.split)
        classes = tuple(self.classes)
        object.__setattr__(self, "classes", classes)
        _check_classes(self.labels, classes, self.split)
        index = {c: torch.nonzero(self.labels == c).flatten() for c in range(len(classes))}
        object.__setattr__(self, "_index", index)

    @property
    def digest(self) -> str:
        """What these images are, whatever they are called.

        It is of pixels, labels and class names in their order.
        """
        now = versions((self.images, self.labels))
        if self._digest is not None and now is not None and self._digest[0] == now:
            return self._digest[1]
        found = digest(self.images, self.labels, list(self.classes))
        object.__setattr__(self, "_digest", (now, found))
        return found

    def __len__(self) -> int:
        return len(self.images)

    def float(self) -> Float32[Tensor, "N 3 H H"]:
        """All images in [0, 1]."""
        return self.images.float() / 255

    def take(self, index: Int[Tensor, " n"]) -> Float32[Tensor, "n 3 H H"]:
        """Images of the given positions, in [0, 1]."""
        return self.images[index.to(self.images.device)].float() / 255

    def class_positions(self, label: SupportsInt) -> Int64[Tensor, " n"]:
        """Positions of the images of a class.

        Args:
            label: of the class.

        Returns:
            The positions, in order.

        Raises:
            InputError: there is no such class.
        """
        if int(label) not in self._index:
            raise InputError(
                f"no class {label}: {self.split} has classes 0 to {len(self.classes) - 1}"
            )
        return self._index[int(label)]

    def draw_positions(
        self, label: SupportsInt, n: int, generator: torch.Generator
    ) -> Int64[Tensor, " n_or_all"]:
        """Positions of different images of a class, drawn at random.

        Args:
            label: of the class.
            n: how many; a class with fewer images gives all it has, as the public code does.
            generator: of the draws, on the CPU.

        Returns:
            The positions, in the order of the draws.
        """
        index = self.class_positions(label)
        return index[torch.randperm(len(index), generator=generator)[:n].to(index.device)]

    def sample_class(
        self, label: SupportsInt, n: int, generator: torch.Generator
    ) -> Float32[Tensor, "n_or_all 3 H H"]:
        """Different real images of a class in [0, 1], as :meth:`draw_positions` draws them."""
        return self.take(self.draw_positions(label, n, generator))

    def to(self, device: str | torch.device) -> ImageDataset:
        """The same split with its images and labels on `device`."""
        moved = replace(self, images=self.images.to(device), labels=self.labels.to(device))
        if self._digest is not None:
            object.__setattr__(
                moved, "_digest", (versions((moved.images, moved.labels)), self.digest)
            )
        return moved


def _check_images(images: object, labels: object, split: str) -> None:
    """InputError or InputTypeError where images or labels are none, or not of each other."""
    where = f"split {split!r}"
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        raise InputTypeError(
            f"{where}: images and labels must be tensors; torch.from_numpy(array) makes one of an "
            "array"
        )
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise InputTypeError(
            f"images must be uint8 (N, 3, H, W), got {images.dtype} {tuple(images.shape)}"
        )
    if images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise InputError(
            f"{where}: images are {tuple(images.shape)}, but must be (N, 3, H, H); grey ones take "
            "images.repeat(1, 3, 1, 1), others are cropped to squares first"
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise InputError(
            f"{where}: labels are {tuple(labels.shape)} {labels.dtype}, but must be "
            f"one int64 for each of {len(images)} images"
        )
    if labels.device != images.device and not images.is_meta:  # the planner's have no values
        raise InputError(
            f"{where}: images are on {images.device}, labels on {labels.device}; "
            "bring both to one device"
        )


def _check_classes(labels: Int64[Tensor, " N"], classes: tuple[object, ...], split: str) -> None:
    """InputError where class names are none, or labels and classes are not of each other."""
    where = f"split {split!r}"
    if (
        not classes
        or not all(isinstance(c, str) and c for c in classes)
        or len(set(classes)) < len(classes)
    ):
        raise InputError(
            f"{where}: class names must be text, each another, not "
            f"{', '.join(map(repr, classes[:5])) or 'none'}"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise InputError(
            f"{where}: labels reach from {int(labels.min())} to {int(labels.max())}, but there are "
            f"{len(classes)} classes, 0 to {len(classes) - 1}; leave images without a label out"
        )
    empty = [str(name) for c, name in enumerate(classes) if not bool((labels == c).any())]
    if empty:
        raise InputError(
            f"{where} has no image of class {', '.join(empty)}; add images or drop the class"
        )
