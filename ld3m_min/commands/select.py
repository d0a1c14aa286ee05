"""`python -m ld3m_min select`: see :func:`ld3m_min.coresets.select`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
import yaml

from ld3m_min.commands.fields import with_options
from ld3m_min.commands.options import begin
from ld3m_min.commands.plain import PlainCommand
from ld3m_min.compressed import FORMATS, Compression
from ld3m_min.coresets import METHODS, select
from ld3m_min.data.loading import check_outside, load_data
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.features import Features, latent_features, network_features
from ld3m_min.io.values import within
from ld3m_min.prior.loading import load_latent_prior
from ld3m_min.set_files import check_place
from ld3m_min.synthetic import SyntheticSet

ABOUT = """Choose real images, and write them as a set into OUT/set, which `evaluate` takes.

`webp` and `jpeg` compress real images, as many of each class as fit into the bytes of `--ipc` raw
ones.
"""


@dataclass(frozen=True, kw_only=True)
class SelectOptions:
    """What is chosen.

    Attributes:
        dataset: "digits", a subset of ImageNet such as "imagenette", or a folder with one subfolder
            of images per class.
        method: "random", "herding", "k-center", "k-means", "class-mean", "webp" or "jpeg".
        ipc: images per class; of compressed ones, so many raw images' bytes.
        seed: of every draw.
        size: side of the images in pixels; by default 32 for digits and 128 for image files.
        features: by which images are compared: their "pixels", the "latents" of a prior, or the
            embedding of a "network" trained on the training images.
        prior: of the latents: a name, a folder or a hub id.
        quality: of the files of webp and jpeg, from 1 to 100.
        budget: bytes of a class's files; by default those of `--ipc` raw images, 3 H W each.
        order: that compressed images are taken in, until the bytes are used up.
        out: folder; the set is written to its subfolder `set`.
        data_path: folder of the images of a subset of ImageNet; without it, the variable LD3M_DATA
            of the environment.
        split: of a subset of ImageNet into images to learn from and to test on: the "paper" takes
            ImageNet's, "fastai" that of fastai's own release.
        dry_run: print the options as YAML, and do nothing.
        device: of latents and network: "cpu", "cuda", "cuda:1" or "mps".
    """

    dataset: tyro.conf.Positional[str] = "digits"
    method: str = "herding"
    ipc: int = 1
    seed: int = 0
    size: int | None = None
    features: Literal["pixels", "latents", "network"] = "pixels"
    prior: str = "digits"
    quality: int = 50
    budget: int | None = None
    order: Literal["random", "herding"] = "random"
    out: Path = Path("runs/select")
    data_path: Path | None = None
    split: Literal["paper", "fastai"] | None = None
    dry_run: bool = False
    device: str = "cpu"


def run(options: SelectOptions) -> None:
    """Choose, write the set, and say where it is and what it takes."""
    within(options.method, METHODS, "--method")
    try:
        compression = Compression(options.quality, options.budget, options.order)
    except InputError as error:
        error.args = (with_options(str(error), Compression),)
        raise
    if options.dry_run:
        said = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()}
        print(yaml.safe_dump(said, sort_keys=False, allow_unicode=True), end="")
        return
    begin(options.device)
    place = options.out / "set"
    check_place(place)
    data = load_data(
        options.dataset, path=options.data_path, split=options.split, size=options.size
    )
    check_outside(place, data)
    made = select(
        data,
        options.ipc,
        options.method,
        seed=options.seed,
        features=_features(options, data),
        compression=compression if options.method in FORMATS else None,
    )
    _check_other(place, made)
    made.save(place)
    kept = made.storage().smallest
    print(
        f"{len(made.labels)} images in {place}; {kept.per_class:,.0f} bytes a class as {kept.form}"
    )


def _check_other(place: Path, made: SyntheticSet) -> None:
    """Refuse to put a choice over another set, which may be the only copy.

    Raises:
        InputError: the set there has other images.
    """
    try:
        there = SyntheticSet.load(place)
    except FileNotFoundError:
        return
    if not torch.equal(there.images(), made.images()):
        raise InputError(
            f"{place} holds another set, of {len(there.labels)} images, and it may be the only "
            "copy; give --out another place"
        )


def _features(options: SelectOptions, data: DataSplits) -> Features | None:
    """What images are compared by; None for pixels."""
    if options.features == "latents":
        prior = load_latent_prior(options.prior, device=options.device, classes=data.classes)
        return latent_features(data, prior)
    if options.features == "network":
        return network_features(data, seed=options.seed, device=options.device)
    return None


COMMAND = PlainCommand("select", ABOUT, SelectOptions, run)
