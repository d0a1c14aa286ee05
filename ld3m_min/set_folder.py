"""The folder of a synthetic set, written and read.

It holds codes and exact pixels, PNG files by class, the recipe, and a card.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.errors import InputError
from ld3m_min.io.files import (
    current_version,
    read_json,
    signature,
    signed,
    write_bytes,
    write_json,
)
from ld3m_min.io.packing import eight_bits, packed
from ld3m_min.io.tensors import from_bytes, to_bytes
from ld3m_min.io.text import in_card
from ld3m_min.set_files import FORMAT, VERSION, check_index, check_tensors
from ld3m_min.storage import storage_of


@dataclass(frozen=True)
class SetContents:
    """What a set's folder holds, but for a prior.

    Attributes:
        images: in [0, 1].
        labels: of the images, int64.
        classes: their names, in the order of the labels.
        state: the learned codes and constants, by name.
        recipe: how the set was made, as JSON has it.
        history: one entry for each iteration.
    """

    images: Float[Tensor, "B 3 H W"]
    labels: Int[Tensor, " B"]
    classes: tuple[str, ...]
    state: dict[str, Tensor]
    recipe: dict[str, Any]
    history: tuple[dict[str, Any], ...]


def write_set(folder: Path, contents: SetContents) -> None:
    """Write a set into an empty folder, or into one that holds its prior.

    Args:
        folder: where to; it exists.
        contents: what is written.

    Raises:
        OSError: it cannot be written.
    """
    tensors = {f"state.{k}": v for k, v in contents.state.items()}
    data = to_bytes(tensors | {"images": contents.images, "labels": contents.labels})
    lines = _write_pictures(folder, contents)
    write_bytes(folder / "metadata.jsonl", ("\n".join(lines) + "\n").encode())
    write_bytes(folder / "README.md", card(contents).encode())
    write_bytes(folder / "set.safetensors", data)
    files = [f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()]
    index = {
        "format": FORMAT,
        "version": VERSION,
        "classes": list(contents.classes),
        "recipe": contents.recipe,
        "history": list(contents.history),
        "sha256": hashlib.sha256(data).hexdigest(),
        "files": sorted([*files, "set.json"]),
    }
    write_json(folder / "set.json", signed(index))


def _write_pictures(folder: Path, contents: SetContents) -> list[str]:
    """One PNG for each image, in a folder for each class.

    Args:
        folder: of the set.
        contents: of the set.

    Returns:
        The lines of `metadata.jsonl`: file, label and class of each image.
    """
    digits = max(3, len(str(len(contents.classes) - 1)))  # so that folders sort as labels do
    lines = []
    labels = contents.labels.tolist()
    for i, (image, label) in enumerate(zip(eight_bits(contents.images), labels, strict=True)):
        place = Path("images") / f"{label:0{digits}d}" / f"{i:05d}.png"
        (folder / place.parent).mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(packed(image, "PNG"))
        entry = {"file_name": place.as_posix(), "label": label, "class": contents.classes[label]}
        lines.append(json.dumps(entry))
    return lines


def card(contents: SetContents) -> str:
    """The README of a set's folder: what it is, and how to train on it.

    Args:
        contents: of the set.
    """
    c, n = contents.recipe["config"], contents.recipe["normalisation"]
    mean, std = ([round(v, 4) for v in n[k]] for k in ("mean", "std"))
    count, each = len(contents.labels), contents.labels.bincount(minlength=len(contents.classes))
    least, most = int(each.min()), int(each.max())
    storage = storage_of(
        contents.images, contents.labels, contents.classes, contents.state, contents.recipe
    )
    ipc = c.get("ipc", most)  # of the configuration, where it may count storage
    place = "" if most == ipc or "selection" in contents.recipe else f", in the place of {ipc}"
    how = f"distilled by {c['algorithm']} in {c['space']} space"
    if "selection" in contents.recipe:
        how = f"chosen by {in_card(contents.recipe['selection']['method'])}"
    elif "drawn" in contents.recipe:
        how = f"drawn from a prior by {in_card(contents.recipe['drawn']['method'])}"
    elif not contents.history:
        how = f"the initial images of {c['space']} space, not distilled"
    return (
        "---\ntask_categories: [image-classification]\ntags: [dataset-distillation]\n---\n"
        f"# {in_card(c['dataset'])}, {how}\n\n"
        f"{count} images ({least if least == most else f'{least} to {most}'} per class{place}) of "
        f"{c['size']} px, {len(contents.history)} iterations, seed {c['seed']}.\n\n"
        f"{in_card(storage.in_words)}\n\n"
        f"Train on `images/` with the labels of `metadata.jsonl`; normalise with mean {mean} and "
        f"std {std}; augment with DSA ({c['dsa']}). `set.safetensors` has the exact pixels and the "
        "codes; `set.json` the whole recipe.\n"
    )


def read_set(folder: str | PathLike[str]) -> SetContents:
    """What the folder of a set holds, verified.

    Args:
        folder: written by :func:`write_set`.

    Raises:
        FileNotFoundError: no such set, or a part of it is missing.
        InputError: damaged, or not one of ours.
    """
    folder = Path(folder).absolute()
    for _ in range(20):  # another process may be replacing it: then it is read again
        before = _stamp(folder)
        try:
            return _read(folder)
        except (InputError, FileNotFoundError):
            if _stamp(folder) == before:
                raise
    return _read(folder)


def _read(folder: Path) -> SetContents:
    """As :func:`read_set`, one try."""
    place = current_version(folder)
    index = _read_index(folder, place)
    try:
        data = (place / "set.safetensors").read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} lacks set.safetensors; the set is incomplete") from None
    if hashlib.sha256(data).hexdigest() != index["sha256"]:
        raise InputError(
            f"{folder / 'set.safetensors'} does not match the checksum in set.json; "
            "the file is damaged"
        )
    tensors = from_bytes(data, folder / "set.safetensors")
    check_tensors(folder, tensors, index)
    images, labels = tensors.pop("images"), tensors.pop("labels")
    state = {k.removeprefix("state."): v for k, v in tensors.items()}
    classes, history = tuple(index["classes"]), tuple(index["history"])
    return SetContents(images, labels, classes, state, index["recipe"], history)


def _read_index(folder: Path, place: Path) -> dict[str, Any]:
    """`set.json`, every field verified.

    Args:
        folder: the set's, as messages name it.
        place: where its current version is.

    Raises:
        FileNotFoundError: there is none.
        InputError: damaged, of another version, or not one of ours.
    """
    index = read_json(place / "set.json")
    version = index.get("version") if isinstance(index, dict) else None
    if version not in (1, VERSION) or index.get("format") != FORMAT:
        raise InputError(
            f"{folder / 'set.json'} does not describe a synthetic set of version {VERSION}"
        )
    if version > 1 and index.get("checksum") != signature(index):  # version 1 had none
        raise InputError(
            f"{folder / 'set.json'} does not match its own checksum; the file is damaged"
        )
    check_index(folder, index)
    return dict(index)


def _stamp(folder: Path) -> tuple[Path, int, int] | None:
    """What changes when a set is replaced: its folder's path, number and time. None without one."""
    place = current_version(folder)
    try:
        found = place.stat()
    except OSError:
        return None
    return place, found.st_ino, found.st_mtime_ns
