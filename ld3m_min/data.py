"""Real data: section 4.1 of the paper and its table 5.

Every data set becomes a :class:`DataSplits`: three :class:`ImageDataset` (train, validation, test) whose images are
decoded once, kept as uint8 tensors and drawn from by class. The test split is for the final figure alone: whatever is
chosen (a learning rate, a checkpoint) is chosen on the validation split, which is cut from the training images.
"""
from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .images import list_images, read_image


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
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise TypeError(f"images must be uint8 (N, 3, H, W), got {self.images.dtype} {tuple(self.images.shape)}")
        empty = [self.classes[c] for c in range(len(self.classes)) if not bool((self.labels == c).any())]
        if empty:
            raise ValueError(f"split {self.split!r} has no image of class {', '.join(empty)}; add images or drop the class")
        index = {c: torch.nonzero(self.labels == c).flatten() for c in range(len(self.classes))}
        object.__setattr__(self, "_index", index)

    def __len__(self):
        return len(self.images)

    def float(self):
        """All images, (N, 3, H, W) float32 in [0, 1]."""
        return self.images.float() / 255

    def take(self, index):
        """Images of the given positions, (n, 3, H, W) float32 in [0, 1]."""
        return self.images[index.to(self.images.device)].float() / 255

    def class_positions(self, label):
        """Positions of the images of class `label`, (n,)."""
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
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class DataSplits:
    """A data set: its three splits and the one normalisation that real and synthetic images share.

    Attributes:
        mean, std: (3,) per channel, in units of images in [0, 1].
        name: what records call it, e.g. "digits".
        source: where it came from, for records (never a path).
    """

    name: str
    train: ImageDataset
    validation: ImageDataset
    test: ImageDataset
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str = ""

    @property
    def classes(self):
        return self.train.classes

    @property
    def size(self):
        return self.train.images.shape[-1]

    def normalise(self, images):
        """Images (B, 3, H, W) in [0, 1] -> what the networks take. Differentiable."""
        mean = torch.tensor(self.mean, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
        return (images - mean) / std

    def split(self, name):
        """The split called `name`; "validation" and "test" are what `evaluate` may be asked for."""
        if name not in ("train", "validation", "test"):
            raise ValueError(f"unknown split {name!r}; choose train, validation or test")
        return getattr(self, name)

    def to(self, device):
        return replace(self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device))


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
        raise ValueError(f"digits come in sizes that are multiples of 8 from 16 on, not {size}")
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


def load_folder(path, *, size=128, name=None, validation_fraction=0.1, test_fraction=0.2, progress=True):
    """Any folder of images, one subfolder a class; or one with `train/` and `val/` (or `test/`) of such subfolders.

    Images are decoded once, turned upright, brought to RGB, their short side resized to `size` (antialiased bicubic)
    and the centre cropped. Without a given test folder, `test_fraction` of each class is held out; the validation
    split is always cut from the training images.

    Raises:
        FileNotFoundError: no such folder, or no class in it.
        ValueError: a class without images, too few images for three splits, or files that cannot be read: all of them
            are named in one message.
    """
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"no image folder at {str(root)!r}; give the folder that holds one subfolder per class")
    given = next((root / n for n in ("val", "test", "validation") if (root / n).is_dir()), None)
    if (root / "train").is_dir() and given:
        train = _read_tree(root / "train", size, progress)
        test = _read_tree(given, size, progress)
        if train[2] != test[2]:
            odd = sorted(set(train[2]) ^ set(test[2]))
            raise ValueError(f"train and {given.name} hold different classes: {', '.join(odd[:5])}; give both the same")
    else:
        images, labels, classes = _read_tree(root, size, progress)
        keep, held = _fractions(labels, test_fraction, classes)
        train, test = (images[keep], labels[keep], classes), (images[held], labels[held], classes)
    keep, held = _fractions(train[1], validation_fraction, train[2])
    x, y, classes = train
    return DataSplits(
        name or root.name,
        ImageDataset(x[keep], y[keep], classes, "train"),
        ImageDataset(x[held], y[held], classes, "validation"),
        ImageDataset(test[0], test[1], classes, "test"),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        source="image folder",
    )


def _fractions(labels, fraction, classes):
    """Per class, the last `fraction` (at least one) of a fixed shuffle is held out."""
    keep, held = [], []
    for c, name in enumerate(classes):
        index = torch.nonzero(labels == c).flatten()
        if len(index) < 3:
            raise ValueError(f"class {name!r} has {len(index)} image(s); three splits need at least 3 of each class")
        index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(c))]
        n = max(1, round(fraction * len(index)))
        keep.append(index[:-n])
        held.append(index[-n:])
    return torch.cat(keep).sort().values, torch.cat(held).sort().values


def _read_tree(root, size, progress):
    """Folder of class folders -> uint8 (N, 3, size, size), labels (N,), class names. Names every bad file at once."""
    from tqdm import tqdm

    listing = list_images(root)
    files = [(f, c) for c, (_, found) in enumerate(listing) for f in found]
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    bad = []
    for i, (file, _) in enumerate(tqdm(files, desc=f"decoding {root.name}", disable=not progress, leave=False)):
        try:
            images[i] = read_image(file, size)
        except ValueError as error:
            bad.append(str(error))
    if bad:
        shown = "\n  ".join(bad[:10])
        raise ValueError(f"{len(bad)} file(s) cannot be used; repair or remove them:\n  {shown}")
    labels = torch.tensor([c for _, c in files])
    return images, labels, tuple(name for name, _ in listing)


def load_data(name_or_path="digits", *, size=None, name=None, progress=True):
    """The data set called `name_or_path`: "digits", or the path of an image folder.

    `LD3M_DATA` in the environment is the folder that relative paths are looked up in when they don't exist here.

    Args:
        size: side of the square images in pixels; None takes 32 for digits and 128 for folders.
    """
    if name_or_path == "digits":
        return load_digits(32 if size is None else size)
    path = Path(name_or_path)
    home = os.environ.get("LD3M_DATA")
    if not path.exists() and home and (Path(home) / path).exists():
        path = Path(home) / path
    if not path.exists():
        raise FileNotFoundError(
            f"no data set called {str(name_or_path)!r} and no folder of that name; "
            "use 'digits', or the path of a folder with one subfolder per class"
        )
    return load_folder(path, size=size or 128, name=name, progress=progress)
