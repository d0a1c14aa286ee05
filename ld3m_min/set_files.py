"""What the folder of a synthetic set must hold, to be believed.

These are the names, shapes and values of the tensors; :mod:`ld3m_min.set_index` looks at the fields
of `set.json`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ld3m_min.data.images import CLUTTER
from ld3m_min.errors import InputError
from ld3m_min.io.files import read_json, signature
from ld3m_min.io.text import shown
from ld3m_min.prior.weights import is_explicit, shipped
from ld3m_min.spaces.base import is_class_by_class
from ld3m_min.spaces.build import SPACES

FORMAT, VERSION = "ld3m_min synthetic set", 2
CHECKSUMS = "SHA256SUMS"
# all that a set's folder holds
FILES = (
    "README.md",
    CHECKSUMS,
    "images",
    "metadata.jsonl",
    "prior",
    "set.json",
    "set.safetensors",
)
# of these names alone a set's index is believed that they are the set's own
_LAYOUT = re.compile(
    r"README\.md|SHA256SUMS|metadata\.jsonl|set\.json|set\.safetensors"
    r"|images/\d+/\d+\.png|prior/.+\.(json|safetensors)"
)
OWN_PRIOR = "saved with the set"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


def is_path(source: str) -> bool:
    """Whether a prior's source is a path of some machine, not a shipped name or a hub id.

    Args:
        source: as a recipe has it.
    """
    return shipped(source) is None and (
        is_explicit(source)
        or not HUB_ID.fullmatch(source)
        or ".." in source
        or Path(source).exists()
    )


def mapping_of(recipe: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A field of a recipe, if it is a mapping; else an empty one.

    Args:
        recipe: as JSON has it.
        name: of the field.
    """
    value = recipe.get(name)
    return value if isinstance(value, dict) else {}


def check_tensors(folder: Path, tensors: Mapping[str, Tensor], index: Mapping[str, Any]) -> None:
    """Names, shapes, dtypes and values of a set's tensors.

    Args:
        folder: the set's, as messages name it.
        tensors: what `set.safetensors` holds.
        index: what `set.json` holds, verified.

    Raises:
        InputError: a tensor is not as it must be; names the first.
    """
    file, space = folder / "set.safetensors", SPACES[index["recipe"]["config"]["space"]]
    names = {"images", "labels", "soft_labels", *(f"state.{k}" for k in space.saves)}
    optional = {"soft_labels", *(f"state.{k}" for k in space.may_lack)}
    missing, unknown = names - optional - tensors.keys(), tensors.keys() - names
    if odd := sorted(missing) or sorted(unknown):
        what = "missing" if missing else "not part of such a set"
        raise InputError(f"{file}: tensor {odd[0]!r} is {what}")
    if tensors["images"].dtype != torch.float32:
        raise InputError(f"{file}: images are {tensors['images'].dtype}, not float32")
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    images, labels = tensors["images"], tensors["labels"]
    check_set(images, labels, index["classes"], state, f"{file}: ", space.by_class)
    check_soft_labels(tensors.get("soft_labels"), len(labels), len(index["classes"]), f"{file}: ")
    size = index["recipe"]["config"].get("size")
    if size is not None and images.shape[2:] != (size, size):  # codes are decoded at that size
        raise InputError(
            f"{file}: images are {tuple(images.shape)}, but recipe.config.size is {size}"
        )


def check_set(
    images: Tensor,
    labels: Tensor,
    classes: Sequence[object],
    state: Mapping[str, Tensor],
    where: str = "",
    by_class: Collection[str] = (),
) -> None:
    """Whether the parts of a set fit together.

    Args:
        images: to be (B, 3, H, W) in [0, 1].
        labels: to be (B,) int64, below the number of classes.
        classes: to be names, each another.
        state: to be finite floats, B of each.
        where: what a message begins with.
        by_class: names of the state that have a row for each class instead, and may be bytes.

    Raises:
        InputError: they do not fit; says what.
    """
    if (
        images.dim() != 4
        or images.shape[1] != 3
        or labels.dtype != torch.int64
        or labels.shape != images.shape[:1]
    ):
        raise InputError(
            f"{where}images are {tuple(images.shape)} {images.dtype}, labels "
            f"{tuple(labels.shape)} {labels.dtype}; expected (B, 3, H, W) float32 and (B,) int64; "
            "grey images take images.repeat(1, 3, 1, 1)"
        )
    texts = all(isinstance(c, str) for c in classes)
    if not classes or not texts or len(set(classes)) < len(classes):
        raise InputError(f"{where}class names must be text, each another: {list(classes)[:5]}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        reach = f"{int(labels.min())} to {int(labels.max())}"
        raise InputError(f"{where}labels reach from {reach}, but there are {len(classes)} classes")
    for name, tensor in state.items():
        if name in by_class:
            _check_by_class(name, tensor, labels, len(classes), where)
        else:
            _check_state(name, tensor, len(labels), where)
    images = images.detach()
    if not torch.isfinite(images).all():
        raise InputError(f"{where}images are not finite everywhere")
    if len(images) and not 0 <= float(images.min()) <= float(images.max()) <= 1:
        raise InputError(
            f"{where}images reach from {images.min():.3g} to {images.max():.3g}; "
            "they must lie in [0, 1]"
        )


def check_soft_labels(soft: Tensor | None, images: int, classes: int, where: str = "") -> None:
    """Whether soft labels are probabilities of the classes, a row for each image.

    Args:
        soft: None for a set without them.
        images: how many there are.
        classes: how many there are.
        where: what a message begins with.

    Raises:
        InputError: they are not.
    """
    if soft is None:
        return
    shape, kind = tuple(soft.shape), soft.dtype
    fits = shape == (images, classes) and kind == torch.float32
    if not fits or not bool((soft >= 0).all() and ((soft.sum(1) - 1).abs() < 1e-3).all()):
        raise InputError(
            f"{where}soft labels are {shape} {kind}; they must be ({images}, {classes}) float32, "
            "probabilities that add up to 1 for each image"
        )


def _check_state(name: str, tensor: Tensor, n: int, where: str) -> None:
    """Whether a tensor of a set's state is finite floats, one row for each of n images."""
    if not tensor.is_floating_point() or tensor.dim() == 0 or len(tensor) != n:
        raise InputError(
            f"{where}state.{name} is {tuple(tensor.shape)} {tensor.dtype} for {n} images; choose "
            "images, labels and every tensor of the state alike"
        )
    if not torch.isfinite(tensor).all():
        raise InputError(f"{where}state.{name} is not finite everywhere")


def _check_by_class(name: str, tensor: Tensor, labels: Tensor, n: int, where: str) -> None:
    """Whether a tensor of a set's state is bytes or finite floats, a row for each of n classes."""
    fits = tensor.dtype == torch.uint8 or tensor.is_floating_point()
    if not fits or tensor.dim() == 0 or len(tensor) != n or not is_class_by_class(labels, n):
        raise InputError(
            f"{where}state.{name} is {tuple(tensor.shape)} {tensor.dtype} for {n} classes; it "
            "needs a row for each class, whose images stand in a row, as many as any other's"
        )
    if not torch.isfinite(tensor).all():
        raise InputError(f"{where}state.{name} is not finite everywhere")


def by_class(recipe: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the state that have a row for each class, by the space that a recipe names.

    Args:
        recipe: of a set; none of it is verified.
    """
    space = mapping_of(recipe, "config").get("space")
    return SPACES[space].by_class if isinstance(space, str) and space in SPACES else ()


def check_place(folder: str | PathLike[str]) -> None:
    """Refuse to put a set where something else is.

    Args:
        folder: where the set is to be.

    Raises:
        InputError: a file or a link stands there, or a folder with files that no set wrote there,
            or the card of the set there was changed by hand.
    """
    folder = Path(folder)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(
            f"{folder} is {'a link' if folder.is_symlink() else 'a file'}, no folder of ours, and "
            "stays as it is; move it, or give another place"
        )
    if not folder.is_dir():
        return
    ours = _ours(folder)
    damaged = not ours and (folder / "set.json").exists()
    why = "; its set.json is damaged or not a set's" if damaged else ""
    inside = (
        f.relative_to(folder).as_posix()
        for f in folder.rglob("*")
        if f.is_symlink() or not f.is_dir()
    )
    if others := sorted(f for f in inside if f not in ours and Path(f).name.lower() not in CLUTTER):
        raise InputError(
            f"{folder} holds other files ({', '.join(map(shown, others[:5]))}){why}, and a set "
            "replaces its folder as a whole; move them, or give the set a folder of its own"
        )
    if ours and _rewritten(folder / "README.md"):
        raise InputError(
            f"{folder / 'README.md'} was changed by hand since the set was written, and would be "
            "written anew; keep your text elsewhere and delete the file, or give another place"
        )


def _rewritten(card: Path) -> bool:
    """Whether the card of a set is another file than its list of checksums says."""
    try:
        lines = (card.parent / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        now = hashlib.sha256(card.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return False
    known = [line.split()[0] for line in lines if line.split()[1:] == [card.name]]
    return bool(known) and now not in known


def is_index(value: object) -> bool:
    """Whether a value is what the `set.json` of a set holds, unchanged since it was written.

    Args:
        value: as JSON has it.
    """
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        return False
    version = value.get("version")  # the first had no checksum
    return version == 1 or (version == VERSION and value.get("checksum") == signature(value))


def is_index_file(file: Path) -> bool:
    """Whether a file is the `set.json` of a set, unchanged since it was written.

    Args:
        file: it need not exist.
    """
    try:
        return is_index(read_json(file))
    except (OSError, ValueError):
        return False


def _ours(folder: Path) -> set[str]:
    """Paths of the files that the set in a folder wrote; none where its index can't be believed.

    The index lists them. An earlier version's does not: then they are known by their places. A name
    that no set writes is never one, whoever lists it.
    """
    try:
        index = read_json(folder / "set.json")
        if not is_index(index):
            return set()
        listed = index.get("files") or _by_their_places(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {f for f in listed if isinstance(f, str) and _LAYOUT.fullmatch(f)}


def _by_their_places(folder: Path) -> set[str]:
    """Paths of the files of a set whose index doesn't list them."""
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    images = {json.loads(line)["file_name"] for line in lines}
    prior = {f.relative_to(folder).as_posix() for f in (folder / "prior").rglob("*")}
    return images | prior | {f for f in FILES if "." in f}
