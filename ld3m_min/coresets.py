"""Baselines that choose real training images instead of learning (section 4.1).

A distilled set has to beat what a plain choice of as many real images gives. Every choice is made
class by class, and ends in a :class:`~ld3m_min.synthetic.SyntheticSet`, so that it is evaluated,
saved and loaded like a learned one. Images that are equally good are taken in the order of their
positions in the training split. A selection may also be compressed, to hold more images in as many
bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ld3m_min.compressed import FORMATS, Compression, fitted
from ld3m_min.config import DistilConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.features import Features
from ld3m_min.io.digests import digest
from ld3m_min.io.modes import ordinary_modes
from ld3m_min.io.packing import codec
from ld3m_min.io.seeds import seeded
from ld3m_min.recipe import recipe
from ld3m_min.spaces.build import build_space
from ld3m_min.synthetic import SyntheticSet


@dataclass(frozen=True)
class _Choice:
    """Images in the order of the classes, their classes, and what a recipe says of them."""

    images: Float[Tensor, "B 3 H H"]
    counts: list[int]
    positions: list[int]
    about: dict[str, Any] = field(default_factory=dict)


@ordinary_modes()
def select(
    data: DataSplits,
    ipc: int,
    method: str = "herding",
    *,
    seed: int = 0,
    features: Tensor | Features | None = None,
    compression: Compression | None = None,
) -> SyntheticSet:
    """A set of real training images, `ipc` of each class, or of one mean image for each class.

    "random" draws them: the images that a distillation with this seed starts from. "herding" takes
    the images whose mean stays closest to the class's. "k-center" starts from an image drawn at
    random, and then takes the image farthest from those taken; it finds outliers. "k-means" makes
    `ipc` clusters and takes the image nearest to each centre. "class-mean" is the average image,
    which is no real one. "webp" and "jpeg" compress real images, and take as many of each class as
    fit into the bytes of `ipc`; the set has them as they are decoded.

    Herding depends on no seed, and its first n images are its choice for ipc = n. With many
    threads, scikit-learn rounds centres in no fixed order, which may decide a tie of "k-means".

    Args:
        data: only its training split is looked at.
        ipc: images per class; 1 for "class-mean".
        method: "random", "herding", "k-center", "k-means", "class-mean", "webp" or "jpeg".
        seed: of the draws of "random", of the start of "k-center", of scikit-learn in "k-means".
        features: (N, D), a row for each training image, by which images are compared; they are
            taken as they are, so divide by their norms first where directions are meant; see
            :mod:`ld3m_min.features`. None takes the pixels. "random" and "class-mean" compare
            nothing.
        compression: quality, bytes and order of "webp" and "jpeg"; None takes the defaults.

    Returns:
        The set, on the CPU, class by class, each class in the order of the choice ("k-means": in
        the order of positions). Its recipe is that of an unlearned set in pixel space, and has an
        entry "selection": method, seed, features (what made them and their digest, or "pixels"),
        and the positions of the images in the training split, in the set's order; none for
        "class-mean". Of compressed images it also has format, codec, quality, budget, order, and
        for each class the bytes of its files and how many there are.

    Raises:
        InputError: an unknown method, ipc below 1 or above 1 for "class-mean", a class with fewer
            images than ipc, features that are not a finite (N, D), a budget too small for one
            image, compression of another method.

    Example:
        >>> from ld3m_min import load_data, select
        >>> chosen = select(load_data("digits"), ipc=2, method="k-center")
        >>> chosen.labels.tolist()[:6]
        [0, 0, 1, 1, 2, 2]
        >>> len(chosen.recipe["selection"]["positions"])
        20
    """
    start = time.perf_counter()
    _check(data, ipc, method, compression)
    given = features.rows if isinstance(features, Features) else features
    rows = None if given is None else _checked_features(given, len(data.train))
    config = DistilConfig(
        dataset=data.name, size=data.size, space="pixel", ipc=ipc, iterations=0, seed=seed
    )
    data = data.with_normalisation(config.normalisation)
    how = compression or Compression()
    if method == "class-mean":
        chosen = _means(data)
    elif method in FORMATS:
        chosen = _compressed(data, method, config, rows, how)
    else:
        chosen = _real(data, method, config, rows)
    labels = torch.arange(len(data.classes)).repeat_interleave(torch.tensor(chosen.counts))
    space = build_space(config, chosen.images, labels)
    made = recipe(config, data, None, space, time.perf_counter() - start, None)
    compared = "pixels"
    if rows is not None and (how.order if method in FORMATS else method) in _COMPARING:
        about = f"{features.about}, " if isinstance(features, Features) else ""
        compared = about + digest(rows)
    made["selection"] = {
        "method": method,
        "seed": config.seed,
        "features": compared,
        **chosen.about,
        "positions": chosen.positions,
    }
    return SyntheticSet(chosen.images, labels, data.classes, space.state(), made)


def _means(data: DataSplits) -> _Choice:
    """The average image of each class."""
    images = torch.stack([_mean_image(data, label) for label in range(len(data.classes))])
    return _Choice(images, [1] * len(images), [])


def _real(
    data: DataSplits, method: str, config: DistilConfig, features: Float[Tensor, "N D"] | None
) -> _Choice:
    """Real images as they are, IPC of each class."""
    order = partial(_order, data, method=method, config=config, features=features)
    classes = range(len(data.classes))
    chosen = [i for label in classes for i in islice(order(label), config.ipc)]
    images = data.train.take(torch.tensor(chosen)).cpu().contiguous()
    return _Choice(images, [config.ipc] * len(classes), chosen)


def _compressed(
    data: DataSplits,
    method: str,
    config: DistilConfig,
    features: Float[Tensor, "N D"] | None,
    how: Compression,
) -> _Choice:
    """Real images as they are decoded, as many of each class as fit into its bytes."""
    kind, raw = FORMATS[method], 3 * data.size**2
    budget = config.ipc * raw if how.budget is None else how.budget
    order = partial(_order, data, method=how.order, config=config, features=features)
    parts = [
        fitted(data.train.images, order(label), kind, how.quality, budget)
        for label in range(len(data.classes))
    ]
    counts = [len(p.sizes) for p in parts]
    about = {
        "format": kind,
        "codec": codec(kind),
        "quality": how.quality,
        "budget": budget,
        "order": how.order,
        "bytes": [sum(p.sizes) for p in parts],
        "images": counts,
    }
    images = torch.cat([p.images for p in parts]).float() / 255
    return _Choice(images, counts, [i for p in parts for i in p.positions], about)


def _check(data: DataSplits, ipc: int, method: str, compression: Compression | None) -> None:
    """InputError where the method is unknown, or cannot give as many images per class."""
    if method not in METHODS:
        raise InputError(f"unknown selection {method!r}; choose {', '.join(METHODS)}")
    if ipc < 1:
        raise InputError(f"a selection takes at least 1 image per class, not ipc = {ipc}")
    if method == "class-mean" and ipc > 1:
        raise InputError(
            f"class-mean has one image per class, its mean, not ipc = {ipc}; set ipc to 1, or take "
            "k-means, which chooses around several means"
        )
    if method in FORMATS:
        return
    if compression is not None:
        raise InputError(
            f"{method} takes images as they are; compression is for {' and '.join(FORMATS)}"
        )
    for label, name in enumerate(data.classes):
        n = len(data.train.class_positions(label))
        if n < ipc:
            raise InputError(
                f"class {name!r} has {n} training images to choose from, fewer than ipc = {ipc}; "
                "lower ipc or add images"
            )


def _checked_features(features: Tensor, n: int) -> Float[Tensor, "N D"]:
    """Features of n training images, or InputError where they are not."""
    rows = torch.as_tensor(features).detach()
    if rows.dim() != 2 or len(rows) != n or rows.shape[1] < 1:
        raise InputError(
            f"features are {tuple(rows.shape)}, but must be (N, D), a row for each of the {n} "
            "training images in their order"
        )
    # in float32's range no distance in float64 overflows
    if rows.is_complex() or not bool(torch.isfinite(rows.float()).all()):
        raise InputError(
            "features are not finite real numbers (of float32's range) everywhere, so images "
            "cannot be compared by them; look at what made them"
        )
    return rows if rows.is_floating_point() else rows.double()


def _mean_image(data: DataSplits, label: int) -> Float[Tensor, "3 H H"]:
    """The average of a class's images, in [0, 1]."""
    images = data.train.images[data.train.class_positions(label)]
    return (images.sum(0).double() / (255 * len(images))).float().cpu()  # an exact sum, of bytes


def _order(
    data: DataSplits,
    label: int,
    *,
    method: str,
    config: DistilConfig,
    features: Float[Tensor, "N D"] | None,
) -> Iterator[int]:
    """Positions in the training split of a class's images, the first IPC of which are chosen.

    "random" and "herding" go on to the last image of the class.
    """
    seed, index = config.seed, data.train.class_positions(label)
    if method == "random":  # the draw of `draw_initial_images`, and those after it
        draw = data.train.draw_positions(label, len(index), seeded(seed, "initial images", label))
        yield from draw.tolist()
        return
    if features is None:
        rows = data.train.images[index].flatten(1)  # bytes: their sums are exact
    else:
        rows = features[index.to(features.device)]
    picked = _COMPARING[method](rows.double().cpu(), config.ipc, seeded(seed, method, label))
    positions = index.tolist()
    yield from (positions[row] for row in picked)


def _herding(x: Float64[Tensor, "n D"], ipc: int, generator: torch.Generator) -> Iterator[int]:
    """Rows whose mean follows the mean of all (Welling 2009), to the last. Nothing is drawn."""
    total, taken = torch.zeros_like(x[0]), list[int]()
    for k in range(1, len(x) + 1):
        # argmin over x not taken of || mean - (total + x) / k ||: nearest to k mean - total
        lacking = k * x.sum(0) / len(x) - total
        taken.append(_least(_squared_distances(x, lacking), taken))
        yield taken[-1]
        total = total + x[taken[-1]]


def _k_center(x: Float64[Tensor, "n D"], ipc: int, generator: torch.Generator) -> list[int]:
    """A row drawn at random, then always the one farthest from the nearest of those taken."""
    taken = [int(torch.randint(len(x), (1,), generator=generator))]
    gap = _squared_distances(x, x[taken[0]])  # from each row to the nearest of those taken
    while len(taken) < ipc:
        taken.append(_least(-gap, taken))
        gap = torch.minimum(gap, _squared_distances(x, x[taken[-1]]))
    return taken


def _k_means(x: Float64[Tensor, "n D"], ipc: int, generator: torch.Generator) -> list[int]:
    """The row nearest to each of `ipc` centres, in order of rows.

    Where two centres have the same nearest row, the nearer centre takes it, and the other one its
    nearest of those left.
    """
    from sklearn.cluster import KMeans

    seed = int(torch.randint(2**31, (1,), generator=generator))
    found = KMeans(n_clusters=ipc, n_init=10, random_state=seed).fit(x.numpy())
    centres = torch.from_numpy(found.cluster_centers_)
    gaps = torch.stack([_squared_distances(x, centre) for centre in centres])
    taken: list[int] = []
    for _ in range(ipc):
        row = int(gaps.min(0).values.argmin())
        taken.append(row)
        gaps[gaps[:, row].argmin()] = torch.inf
        gaps[:, row] = torch.inf
    return sorted(taken)


def _squared_distances(
    x: Float64[Tensor, "n D"], point: Float64[Tensor, " D"]
) -> Float64[Tensor, " n"]:
    """Of each row from a point."""
    return (x - point).square().sum(1)


def _least(values: Float64[Tensor, " n"], taken: list[int]) -> int:
    """Position of the least value that is not yet taken, the first of equal ones."""
    left = values.clone()
    left[taken] = torch.inf
    return int(left.argmin())


# those that compare images: rows of a class, how many, what draws -> rows, first the chosen ones
_COMPARING: dict[str, Callable[[Tensor, int, torch.Generator], Iterable[int]]] = {
    "herding": _herding,
    "k-center": _k_center,
    "k-means": _k_means,
}
METHODS = ("random", *_COMPARING, "class-mean", *FORMATS)
