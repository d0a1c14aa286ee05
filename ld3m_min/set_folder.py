"""The folder of a synthetic set, written and read.

It holds codes and exact pixels, PNG files by class, the recipe, a card, and checksums.
"""

from __future__ import annotations

import hashlib
import json
from os import PathLike
from pathlib import Path
from typing import Any

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
from ld3m_min.set_card import card
from ld3m_min.set_contents import SetContents
from ld3m_min.set_files import CHECKSUMS, FORMAT, VERSION, check_tensors
from ld3m_min.set_index import as_json, check_index, check_recipe


def write_set(folder: Path, contents: SetContents, *, exported: bool = False) -> None:
    """Write a set into an empty folder, or into one that holds its prior.

    Args:
        folder: where to; it exists.
        contents: what is written.
        exported: whether the folder is a copy for others, which a later export may replace.

    Raises:
        InputError: the recipe lacks what a folder must say, or holds something else there.
        OSError: it cannot be written.
    """
    if absent := [k for k in ("config", "normalisation") if not contents.recipe.get(k)]:
        raise InputError(
            f"the set's recipe lacks {' and '.join(absent)}, which its folder has to say; take "
            "those of a set that was distilled, or write its images as npz or webdataset"
        )
    recipe, history = as_json(contents.recipe, contents.history)
    check_recipe("the set", recipe)
    tensors = {f"state.{k}": v for k, v in contents.state.items()}
    tensors |= {"images": contents.images, "labels": contents.labels}
    if contents.soft_labels is not None:
        tensors["soft_labels"] = contents.soft_labels
    data = to_bytes(tensors)
    lines = _write_pictures(folder, contents)
    write_bytes(folder / "metadata.jsonl", ("\n".join(lines) + "\n").encode())
    write_bytes(folder / "README.md", card(contents).encode())
    write_bytes(folder / "set.safetensors", data)
    files = [f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()]
    index = {
        "format": FORMAT,
        "version": VERSION,
        "classes": list(contents.classes),
        "recipe": recipe,
        "history": history,
        "sha256": hashlib.sha256(data).hexdigest(),
        "files": sorted([*files, "set.json", CHECKSUMS]),
    }
    if exported:
        index["exported"] = True
    write_json(folder / "set.json", signed(index))
    write_bytes(folder / CHECKSUMS, checksums(folder).encode())


def checksums(folder: Path) -> str:
    """The SHA-256 of every file in a folder, in the lines that `sha256sum -c` reads.

    Args:
        folder: its own list of checksums is left out.
    """
    names = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
    lines = []
    for name in names:
        if name != CHECKSUMS:
            with (folder / name).open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


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
        if contents.soft_labels is not None:
            entry["soft_label"] = contents.soft_labels[i].tolist()
        lines.append(json.dumps(entry))
    return lines


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
    soft = tensors.pop("soft_labels", None)
    state = {k.removeprefix("state."): v for k, v in tensors.items()}
    classes, history = tuple(index["classes"]), tuple(index["history"])
    return SetContents(images, labels, classes, state, index["recipe"], history, soft)


def _read_index(folder: Path, place: Path) -> dict[str, Any]:
    """`set.json`, every field verified.

    Args:
        folder: the set's, as messages name it.
        place: where its current version is.

    Raises:
        FileNotFoundError: there is none.
        InputError: damaged, of another version, or not one of ours.
    """
    if not (place / "set.json").exists():
        inner = folder / "set"
        hint = f"; it is the folder of a run, whose set is {inner}"
        raise FileNotFoundError(
            f"{folder} is no folder of a set: it holds no set.json"
            + hint * (inner / "set.json").exists()
        )
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
