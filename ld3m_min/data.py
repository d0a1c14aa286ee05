"""Real data: section 4.1 of the paper and its table 5.

Every data set becomes a :class:`DataSplits`: three :class:`ImageDataset` (train, validation, test) whose images are
decoded once, kept as uint8 tensors and drawn from by class. The test split is for the final figure alone: whatever is
chosen (a learning rate, a checkpoint) is chosen on the validation split, which is cut from the training images.
"""
from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .digests import digest, versions
from .errors import InputError, InputTypeError
from .subsets import SUBSETS
from .values import converted, within

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
REFERENCE_SYNTHETIC_MEAN = (0.4377, 0.4438, 0.4728)  # what the public code takes from generated images: SVHN's mean
NORMALISATIONS = ("shared", "reference-mismatch")


@dataclass(frozen=True)
class ImageDataset:
    """Images of one split, indexed by class.

    Attributes:
        images: (N, 3, H, W) uint8.
        labels: (N,) int64, 0 <= label < K.
        classes: the K class names, in label order.
        split: "train", "validation" or "test".
    """

    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    split: str

    def __post_init__(self):
        where = f"split {self.split!r}"
        if not isinstance(self.images, torch.Tensor) or not isinstance(self.labels, torch.Tensor):
            raise InputTypeError(f"{where}: images and labels must be tensors; torch.from_numpy(array) makes one of an array")
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise InputTypeError(f"images must be uint8 (N, 3, H, W), got {self.images.dtype} {tuple(self.images.shape)}")
        if self.images.shape[1] != 3 or self.images.shape[2] != self.images.shape[3]:
            raise InputError(f"{where}: images are {tuple(self.images.shape)}, but must be (N, 3, H, H); grey ones take "
                             "images.repeat(1, 3, 1, 1), others are cropped to squares first")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise InputError(f"{where}: labels are {tuple(self.labels.shape)} {self.labels.dtype}, but must be "
                             f"one int64 for each of {len(self.images)} images")
        if self.labels.device != self.images.device and not self.images.is_meta:  # the planner's images have no values
            raise InputError(f"{where}: images are on {self.images.device}, labels on {self.labels.device}; "
                             "bring both to one device")
        classes = tuple(self.classes)
        object.__setattr__(self, "classes", classes)
        if not classes or not all(isinstance(c, str) and c for c in classes) or len(set(classes)) < len(classes):
            raise InputError(f"{where}: class names must be text, each another, not "
                             f"{', '.join(map(repr, classes[:5])) or 'none'}")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(classes):
            raise InputError(f"{where}: labels reach from {int(self.labels.min())} to {int(self.labels.max())}, but there are "
                             f"{len(classes)} classes, 0 to {len(classes) - 1}; leave images without a label out")
        empty = [self.classes[c] for c in range(len(self.classes)) if not bool((self.labels == c).any())]
        if empty:
            raise InputError(f"split {self.split!r} has no image of class {', '.join(empty)}; add images or drop the class")
        index = {c: torch.nonzero(self.labels == c).flatten() for c in range(len(self.classes))}
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_digest", None)

    @property
    def digest(self):
        """What these images are, whatever they are called: a digest of pixels, labels and class names in their order."""
        now = versions((self.images, self.labels))
        if self._digest is None or now is None or self._digest[0] != now:
            object.__setattr__(self, "_digest", (now, digest(self.images, self.labels, list(self.classes))))
        return self._digest[1]

    def __len__(self):
        return len(self.images)

    def float(self):
        """All images, (N, 3, H, W) float32 in [0, 1]."""
        return self.images.float() / 255

    def take(self, index):
        """Images of the given positions, (n, 3, H, W) float32 in [0, 1]."""
        return self.images[index.to(self.images.device)].float() / 255

    def class_positions(self, label):
        """Positions of the images of class `label`, (n,). ValueError where there is no such class."""
        if int(label) not in self._index:
            raise InputError(f"no class {label}: {self.split} has classes 0 to {len(self.classes) - 1}")
        return self._index[int(label)]

    def draw_positions(self, label, n, generator):
        """Positions of n different images of class `label` (all of them, when the class has fewer)."""
        index = self.class_positions(label)
        return index[torch.randperm(len(index), generator=generator)[:n].to(index.device)]

    def sample_class(self, label, n, generator):
        """n different real images of class `label`, drawn with `generator`: (n, 3, H, W) in [0, 1].

        A class with fewer than n images gives all it has, as the public code does.
        """
        return self.take(self.draw_positions(label, n, generator))

    def to(self, device):
        """The same split with its images and labels on `device`."""
        moved = replace(self, images=self.images.to(device), labels=self.labels.to(device))
        if self._digest is not None:
            object.__setattr__(moved, "_digest", (versions((moved.images, moved.labels)), self.digest))
        return moved


@dataclass(frozen=True)
class DataSplits:
    """A data set: its three splits and the one normalisation that real and synthetic images share.

    Attributes:
        name: what records and `load_data` call it, e.g. "digits", "imagenette", "imagenette-fastai".
        mean, std: (3,) per channel, in units of images in [0, 1]: the training split's for digits, ImageNet's statistics
            for everything read from image files.
        source: where it came from and how it is split, for records (never a path).
        ids: ImageNet class ids in label order, what a prior trained on ImageNet is conditioned on; empty elsewhere.
        synthetic_mean: None, or what :meth:`normalise` takes from synthetic images instead of `mean`.
        root: the folder that the images were read from, where no output may lie; None where there is none.
        files: what its first image file is, such as "WEBP, 128 x 128 px". ImageNet's own pictures are JPEG of many sizes: square
            files are a copy that was cropped or squashed before, and one smaller than `size` was enlarged.
    """

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

    def __post_init__(self):
        for name in ("validation", "test"):  # labels of the same classes, numbered in the training split's order
            split = getattr(self, name)
            if split.classes != self.train.classes:
                if set(split.classes) != set(self.train.classes):
                    odd = sorted(set(split.classes) ^ set(self.train.classes))
                    raise InputError(f"the splits train and {name} have different classes: {', '.join(odd[:5])}")
                order = torch.tensor([self.train.classes.index(c) for c in split.classes], device=split.labels.device)
                object.__setattr__(self, name, replace(split, labels=order[split.labels], classes=self.train.classes))
            if split.images.shape[1:] != self.train.images.shape[1:]:
                raise InputError(f"images of the splits train and {name} are {tuple(self.train.images.shape[1:])} and "
                                 f"{tuple(split.images.shape[1:])}; bring them to one size")
        for name, least in (("mean", -math.inf), ("std", 0.0)):
            values = tuple(float(v) for v in getattr(self, name))
            object.__setattr__(self, name, values)
            if len(values) != 3 or not all(math.isfinite(v) and v > least for v in values):
                raise InputError(f"{name} must be three finite numbers{' above 0' * (name == 'std')}, not {values}")
        if self.ids and len(self.ids) != len(self.classes):
            raise InputError(f"{len(self.ids)} ImageNet ids for {len(self.classes)} classes; give one for each, or none")

    @property
    def classes(self):
        return self.train.classes

    @property
    def size(self):
        return self.train.images.shape[-1]

    def normalise(self, images, *, synthetic=False):
        """Images (B, 3, H, W) in [0, 1] -> what the networks take. Differentiable.

        `synthetic` says that the images are learned ones; it makes no difference unless `with_normalisation` asked for
        the public code's.
        """
        mean = self.synthetic_mean if synthetic and self.synthetic_mean else self.mean
        mean = torch.tensor(mean, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
        return (images - mean) / std

    def with_normalisation(self, name):
        """The same data with "shared" normalisation, or with the "reference-mismatch" of the public code.

        The second takes another mean from synthetic images than from real ones (see the page on differences); it is for
        comparison alone.
        """
        if name not in NORMALISATIONS:
            raise InputError(f"unknown normalisation {name!r}; choose {', '.join(NORMALISATIONS)}")
        return replace(self, synthetic_mean=None if name == "shared" else REFERENCE_SYNTHETIC_MEAN)

    def split(self, name):
        """The split called `name`; "validation" and "test" are what `evaluate` may be asked for."""
        if name not in ("train", "validation", "test"):
            raise InputError(f"unknown split {name!r}; choose train, validation or test")
        return getattr(self, name)

    def to(self, device):
        return replace(self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device))


# -- scikit-learn's digits -------------------------------------------------------------------------------------------


def _partition(labels, sizes, seed):
    """Cut positions into stratified parts of the given sizes (the last takes the rest), the same on every machine."""
    from sklearn.model_selection import train_test_split

    rest, parts = np.arange(len(labels)), []
    for size in sizes:
        part, rest = train_test_split(rest, train_size=size, stratify=labels[rest], random_state=seed)
        parts.append(np.sort(part))
    return [*parts, np.sort(rest)]


def _statistics(images):
    x = images.double() / 255
    return tuple(x.mean((0, 2, 3)).tolist()), tuple(x.std((0, 2, 3)).tolist())


def load_digits(size=32):
    """scikit-learn's 1,797 real digits, 8 x 8 grey, enlarged (bicubic) to `size` and repeated to three channels.

    Fixed stratified split: 1,000 train, 297 validation, 500 test. Needs no network.
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
    parts = _partition(raw.target, (1000, 297), seed=0)
    splits = [
        ImageDataset(x[torch.from_numpy(p)], labels[torch.from_numpy(p)], classes, name)
        for p, name in zip(parts, ("train", "validation", "test"), strict=True)
    ]
    mean, std = _statistics(splits[0].images)
    return DataSplits("digits", *splits, mean=mean, std=std, source="scikit-learn's handwritten digits")


# -- by name or path -------------------------------------------------------------------------------------------------


def load_data(name_or_path="digits", *, path=None, size=None, split=None, name=None, cache=True, progress=True, workers=None):
    """The data set called `name_or_path`: "digits", one of the paper's ten ImageNet subsets, or a path of images.

    `LD3M_DATA` in the environment is the folder of a subset's images, or one in which paths that don't exist here are
    looked up. A name that a record holds gives the same data again: "imagenette-fastai" is split="fastai".

    Args:
        path: where a subset's images lie, see :func:`~ld3m_min.folders.load_subset`.
        size: side of the square images in pixels; None takes 32 for digits and 128 for image files.
        split: "paper" (None) or "fastai", for subsets alone.
        name: what records call an image folder; None takes the folder's name.
        cache, progress, workers: see :func:`~ld3m_min.folders.load_folder`.

    Raises:
        FileNotFoundError, ValueError: unknown name, no such folder, an argument that doesn't apply, images that cannot
            be read.
    """
    from .folders import load_folder, load_subset

    given = str(name_or_path)
    if not given.strip():
        raise InputError("an empty name is no data set; give 'digits', a subset of ImageNet, or the path of a folder")
    if size is not None:
        within(converted(int, size, "size"), ">= 1", "size")
    options = {"size": 128 if size is None else size, "cache": cache, "progress": progress, "workers": workers}
    key = given.lower().removesuffix("-fastai")
    if key in SUBSETS:
        if key != given.lower():
            if split not in (None, "fastai"):
                raise InputError(f"{given!r} is split='fastai' by its name, not {split!r}; give one of the two")
            split = "fastai"
        return load_subset(key, path, split=split or "paper", **options)
    if split is not None or path is not None:
        raise InputError(f"path= and split= belong to the ImageNet subsets ({', '.join(SUBSETS)}), not to {given!r}")
    if given == "digits":
        return load_digits(32 if size is None else size)
    folder, home = Path(given).expanduser(), os.environ.get("LD3M_DATA")
    if not folder.exists() and home:
        folder = Path(home) if Path(home).name == given else Path(home) / given
    if not folder.exists():
        raise FileNotFoundError(
            f"no data set called {given!r} and no folder of that name; use 'digits', {', '.join(SUBSETS)}, or the path of a "
            "folder with one subfolder per class"
        )
    return load_folder(folder, name=name, **options)


def check_outside(out, data):
    """Refuse to write among the images that are read: the next reading would find the output there.

    Raises:
        InputError: `out` is the data's folder or in it.
    """
    if out is not None and data.root is not None and Path(out).absolute().resolve().is_relative_to(data.root):
        raise InputError(f"{out} lies in the data's own folder, where the next reading would take it for images; "
                         "give a place outside of it")
