"""Image folders as data sets: any folder of classes, and the trees in which ImageNet and its subsets come.

This module only decides which file belongs to which class and split; `images.py` reads the files. What is held out
depends on the files' names alone (the smallest SHA-256 of class folder and stem), so it is the same on every machine, in
every layout and image format, and one file more or less moves no other.
"""
from __future__ import annotations

import hashlib
import os
import unicodedata
import warnings
from collections import Counter
from pathlib import Path

import torch

from .archives import is_archive, unpack
from .data import IMAGENET_MEAN, IMAGENET_STD, DataSplits, ImageDataset
from .errors import InputError
from .files import shown
from .images import cache_folder, decode, file_kind, list_images
from .subsets import subset

HELD_OUT = ("val", "val_folders", "validation", "valid")  # names of the folder beside train/
OFFICIAL = "ILSVRC2012_val_"  # begins the names of ImageNet's validation images, in every copy of them
OFFICIAL_COUNT = 50  # of them in each class


def load_folder(path, *, size=128, name=None, test_fraction=0.2, cache=True, progress=True, workers=None):
    """Any folder of images, one subfolder a class; or train/ with val/ or test/ or both, each of such subfolders.

    A zip or tar of such a folder does as well; it is unpacked once, see :mod:`ld3m_min.archives`.

    Images are decoded once, turned upright, brought to RGB, their short side resized to `size` (antialiased bicubic)
    and the centre cropped. With train/ and one other folder, that one is the test split; with all three each is what it
    says. Without any, `test_fraction` of each class is held out. A validation split that isn't given is cut from the
    training images: a tenth of each class, at least 1 image.

    Args:
        cache: True keeps the decoded images in a memory-mapped file of :func:`~ld3m_min.images.cache_folder`; a path
            names another folder; False keeps them in memory.
        workers: threads that decode; None for one per core, at most 8.

    Raises:
        FileNotFoundError: no such folder, or no class in it.
        ValueError: a class without images or with too few for the splits, files that are no images, or images that
            cannot be read: all of them are named in one message.
    """
    root = _folder(path)
    options = {"size": size, "cache": cache, "progress": progress, "workers": workers}
    if not _is_split(root / "train"):
        listing = list_images(root)
        classes = tuple(_spelt(c) for c, _ in listing)
        test, rest = _hold_out(_labelled(listing), lambda n: max(1, round(test_fraction * n)), classes, pieces=3)
        validation, train = _hold_out(rest, _tenth, classes)
        return _assemble(name or root.name, (train, validation, test), classes, "image folder, a part held out", root=root,
                         **options)
    given = [n for n in HELD_OUT if _is_split(root / n)]
    held = given + ["test"] * _is_split(root / "test")
    if len(given) > 1 or not held:
        raise InputError(f"{root.name!r} holds train/ and {', '.join(held) or 'no val/ or test/'}; expected val/, test/ or both")
    listings = {n: list_images(root / n) for n in ("train", *held)}
    listings = {n: sorted((_spelt(c), files) for c, files in listing) for n, listing in listings.items()}
    classes = tuple(c for c, _ in listings["train"])
    for n in held:
        if odd := sorted(set(classes) ^ {c for c, _ in listings[n]}):
            raise InputError(f"train and {n} hold different classes: {', '.join(odd[:5])}; give both the same")
    parts = [_labelled(listings[n]) for n in ("train", *held)]
    if len(parts) == 2:
        validation, train = _hold_out(parts[0], _tenth, classes)
        parts = [train, validation, parts[1]]
    return _assemble(name or root.name, parts, classes, "image folder, split by its own folders", root=root, **options)


def load_subset(name, path=None, *, split="paper", size=128, cache=True, progress=True, workers=None):
    """One of the paper's ten ImageNet subsets, its classes in the paper's label order.

    Args:
        name: "imagenette", "imagenet-a", ...: see :mod:`ld3m_min.subsets`.
        path: a folder with train/ and val/ whose class folders are named by wnid: all of ImageNet (other classes are
            not looked at), only the subset, or what fastai publishes; or one folder of class folders. None takes
            `LD3M_DATA` from the environment. The tree may also lie in a subfolder called `name`.
        split: "paper" tests on ImageNet's official validation images, known by their names `ILSVRC2012_val_*` wherever
            they lie, 50 a class; "fastai" tests on val/ of fastai's own partition of ImageNette and ImageWoof.
        size, cache, progress, workers: as for :func:`load_folder`, which also says how the validation split is cut.

    Raises:
        FileNotFoundError: no path given, nothing there, or a class is missing; names it.
        ValueError: as for :func:`load_folder`; an image that is there twice; a split that the tree doesn't have.
    """
    chosen = subset(name)
    if split not in ("paper", "fastai"):
        raise InputError(f"unknown split {split!r} of {chosen.name}; choose paper or fastai")
    if split == "fastai" and chosen.name not in ("imagenette", "imagewoof"):
        raise InputError(f"fastai made no split of {chosen.name}, only of imagenette and imagewoof; take split='paper'")
    root = _subset_root(chosen, path)
    tops = [root / n for n in ("train", *HELD_OUT) if (root / n).is_dir()] or [root]
    parts = [_labelled(list_images(top, only=chosen.wnids)) for top in tops]
    everything = [x for part in parts for x in part]
    counts = Counter(_key(f) for f, _ in everything)
    if twice := [key for key, n in counts.items() if n > 1]:
        raise InputError(f"{len(twice)} image(s) of {chosen.name} are there twice, e.g. {twice[0]}; keep one of each")
    if split == "paper":
        train = [x for x in everything if not x[0].name.startswith(OFFICIAL)]
        test = [x for x in everything if x[0].name.startswith(OFFICIAL)]
        _check_official(chosen, test)
    elif len(parts) == 2 and not all(f.name.startswith(OFFICIAL) for f, _ in parts[1]):
        train, test = parts
    else:
        raise InputError(f"{root.name!r} is not fastai's partition, whose val/ holds training images too; take split='paper'")
    validation, train = _hold_out(train, _tenth, chosen.classes)
    return _assemble(chosen.name if split == "paper" else f"{chosen.name}-fastai", (train, validation, test), chosen.classes,
                     f"{chosen.title} of ImageNet, {split} split", size, cache, progress, workers, chosen.ids, root)


def _folder(path):
    root = Path(path).expanduser()
    if is_archive(root):
        return unpack(root, cache_folder() / "archives").resolve()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise FileNotFoundError(f"image folder {str(root)!r} {what}; give the folder, or the "
                                "zip or tar, that holds one subfolder per class")
    return root.resolve()


def _is_split(folder):
    """Whether a folder called train, val or test is a split, holding class folders; one of pictures is a class of that name."""
    return folder.is_dir() and any(p.is_dir() and not p.name.startswith(".") for p in folder.iterdir())


def _subset_root(chosen, path):
    """Where the class folders, or train/ and val/ of them, are."""
    path = path or os.environ.get("LD3M_DATA")
    if not path:
        raise FileNotFoundError(f"{chosen.name} needs its images: give path=, or set LD3M_DATA, to a folder with train/ and val/ "
                                "of class folders named by wnid (all of ImageNet, or the subset)")
    base = _folder(path)
    for root in (base, base / chosen.name):
        if any((root / top / wnid).is_dir() for top in ("train", ".") for wnid in chosen.wnids):
            return root
    first = f"{chosen.wnids[0]} ({chosen.classes[0]}), {chosen.wnids[1]} ({chosen.classes[1]}), ..."
    raise FileNotFoundError(f"{str(base)!r} holds no class of {chosen.name}: no folder {first} is there, in train/ or in "
                            f"{chosen.name}/; give the folder that holds them")


def _check_official(chosen, test):
    counts = Counter(label for _, label in test)
    if absent := [f"{w} ({c})" for i, (w, c) in enumerate(zip(chosen.wnids, chosen.classes, strict=True)) if not counts[i]]:
        raise InputError(f"no official validation image ({OFFICIAL}*) of {', '.join(absent)}; the paper's split tests on those: "
                         "add ImageNet's val/, or read the folder by its path with a split of its own")
    if odd := [f"{chosen.wnids[i]}: {n}" for i, n in sorted(counts.items()) if n != OFFICIAL_COUNT]:
        warnings.warn(f"{chosen.name}: not {OFFICIAL_COUNT} official validation images of each class ({', '.join(odd)}); "
                      "numbers of this split do not compare with the paper's", stacklevel=4)


def _spelt(name):
    """A class name in one spelling: accents composed, as Linux and Windows write them and a Mac's file system does not."""
    return unicodedata.normalize("NFC", name)


def _labelled(listing):
    return [(f, label) for label, (_, files) in enumerate(listing) for f in files]


def _key(file):
    return f"{file.parent.name}/{file.stem}"


def _tenth(n):
    return max(1, n // 10)


def _hold_out(part, count, classes, pieces=2):
    """Cut [(file, label), ...] in two: of each class's n images the `count(n)` of smallest hash, and the rest."""
    by_class = [[] for _ in classes]
    for x in part:
        by_class[x[1]].append(x)
    held, rest = [], []
    for name, mine in zip(classes, by_class, strict=True):
        if len(mine) < pieces:
            raise InputError(f"class {name!r} has {len(mine)} image(s) to split; {pieces} splits need {pieces} of each class")
        mine.sort(key=lambda x: (hashlib.sha256(os.fsencode(_key(x[0]))).digest(), x[0].name))
        n = min(count(len(mine)), len(mine) - pieces + 1)
        held += mine[:n]
        rest += mine[n:]
    return held, rest


def _assemble(name, parts, classes, source, size, cache, progress, workers, ids=(), root=None):
    """Decode all parts in one go; the splits are views of one tensor, which may be a file of the cache."""
    cache = cache_folder() if cache is True else (cache or None)
    parts = [sorted(p, key=lambda x: (x[1], x[0].stem, x[0].name)) for p in parts]  # an order that no layout changes
    files = [f for part in parts for f, _ in part]
    pieces = decode(files, size, cache=cache, name=name, progress=progress, workers=workers).split([len(p) for p in parts])
    splits = [
        ImageDataset(x, torch.tensor([label for _, label in part]), classes, which)
        for x, part, which in zip(pieces, parts, ("train", "validation", "test"), strict=True)
    ]
    _warn_of_twins(splits[2], splits[:2], parts)
    return DataSplits(name, *splits, mean=IMAGENET_MEAN, std=IMAGENET_STD, source=source, ids=ids, root=root,
                      files=file_kind(files[0]))


def _warn_of_twins(test, others, parts):
    """Say aloud that test images are training images too, by their pixels: every accuracy would be too good."""
    def pixels(image):
        return hashlib.blake2b(image.numpy(), digest_size=16).digest()

    pairs = (pair for split, part in zip(others, parts, strict=False) for pair in zip(split.images, part, strict=True))
    known = {pixels(x): f for x, (f, _) in pairs}
    twins = [(f, known[key]) for x, (f, _) in zip(test.images, parts[2], strict=True) if (key := pixels(x)) in known]
    if twins:
        a, b = (shown(f"{x.parent.name}/{x.name}") for x in twins[0])
        warnings.warn(f"{len(twins)} of {len(test)} test images are among the training images too, e.g. {a} is {b}: accuracies "
                      "will be too good; remove them from one of the two", stacklevel=4)
