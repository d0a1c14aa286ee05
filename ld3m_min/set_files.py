"""What the folder of a synthetic set must hold, to be believed: fields of `set.json`; names, shapes and values of tensors."""
from __future__ import annotations

import json
import math
import re
from pathlib import Path

import torch

from .config import DistilConfig, from_dict
from .data import NORMALISATIONS
from .errors import InputError
from .files import read_json, shown
from .hub import SHIPPED, is_explicit
from .images import CLUTTER

FORMAT, VERSION = "ld3m_min synthetic set", 2
FILES = ("README.md", "images", "metadata.jsonl", "prior", "set.json", "set.safetensors")  # all that a set's folder holds
STATES = {"pixel": ("pixels",), "autoencoder": ("Z",), "ld3m": ("Z", "c", "noise")}  # c only where the prior has classes
OWN_PRIOR = "saved with the set"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


def is_path(source):
    """Whether a prior's source is a path of some machine, not a shipped name or a hub id."""
    shipped = (SHIPPED / str(source) / "model_index.json").exists() and Path(source).name == source
    return not shipped and (is_explicit(str(source)) or not HUB_ID.fullmatch(str(source)) or ".." in str(source) or Path(source).exists())


def check_index(folder, index):
    """Every field of a set's index by type and range; InputError names what is not as it must be."""
    def need(fine, what):
        if not fine:
            raise InputError(f"{folder / 'set.json'} lacks {what}, or holds something else there; it is no whole set")

    for name, kind in {"classes": list, "recipe": dict, "history": list, "sha256": str}.items():
        need(isinstance(index.get(name), kind), name)
    need(index["classes"] and all(isinstance(c, str) for c in index["classes"]), "classes")
    need(all(isinstance(h, dict) for h in index["history"]), "history")
    files = index.get("files", [])
    need(isinstance(files, list) and all(isinstance(f, str) for f in files), "files")
    config, norm, prior = (index["recipe"].get(k) for k in ("config", "normalisation", "prior"))
    need(isinstance(config, dict) and config.get("space") in STATES, "recipe.config")
    try:
        from_dict(DistilConfig, config, "recipe.config")
    except InputError as error:
        raise InputError(f"{folder / 'set.json'}: {error}; it is no whole set") from None
    need(isinstance(norm, dict) and norm.get("kind") in NORMALISATIONS, "recipe.normalisation")
    for name, least in (("mean", -math.inf), ("std", 0)):
        values = norm.get(name)
        numbers = isinstance(values, list) and len(values) == 3 and all(type(v) in (int, float) for v in values)
        need(numbers and all(math.isfinite(v) and v > least for v in values), f"recipe.normalisation.{name}")
    need(config["space"] == "pixel" or (isinstance(prior, dict) and isinstance(prior.get("source"), str)), "recipe.prior")
    need(not prior or isinstance(prior.get("digest", ""), str), "recipe.prior.digest")


def check_tensors(folder, tensors, index):
    """Names, shapes, dtypes and values of a set's tensors; InputError names the first that is not as it must be."""
    file, needed = folder / "set.safetensors", STATES[index["recipe"]["config"]["space"]]
    names = {"images", "labels", *(f"state.{k}" for k in needed)}
    odd = sorted((names - {"state.c"}) - tensors.keys()) or sorted(tensors.keys() - names)
    if odd:
        raise InputError(f"{file}: tensor {odd[0]!r} is {'missing' if odd[0] not in tensors else 'not part of such a set'}")
    if tensors["images"].dtype != torch.float32:
        raise InputError(f"{file}: images are {tensors['images'].dtype}, not float32")
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    check_set(tensors["images"], tensors["labels"], index["classes"], state, f"{file}: ")


def check_set(images, labels, classes, state, where=""):
    """InputError where images (B, 3, H, W) in [0, 1], labels (B,), class names and state of a set do not fit together."""
    if images.dim() != 4 or images.shape[1] != 3 or labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise InputError(f"{where}images are {tuple(images.shape)} {images.dtype}, labels {tuple(labels.shape)} {labels.dtype}; "
                         "expected (B, 3, H, W) float32 and (B,) int64; grey images take images.repeat(1, 3, 1, 1)")
    if not classes or not all(isinstance(c, str) for c in classes) or len(set(classes)) < len(classes):
        raise InputError(f"{where}class names must be text, each another: {list(classes)[:5]}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        reach = f"{int(labels.min())} to {int(labels.max())}"
        raise InputError(f"{where}labels reach from {reach}, but there are {len(classes)} classes")
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.dim() == 0 or len(tensor) != len(labels):
            raise InputError(f"{where}state.{name} is {tuple(tensor.shape)} {tensor.dtype} for {len(labels)} images; choose "
                             "images, labels and every tensor of the state alike")
        if not torch.isfinite(tensor).all():
            raise InputError(f"{where}state.{name} is not finite everywhere")
    if not torch.isfinite(images).all():
        raise InputError(f"{where}images are not finite everywhere")
    if len(images) and not 0 <= float(images.min()) <= float(images.max()) <= 1:
        raise InputError(f"{where}images reach from {images.min():.3g} to {images.max():.3g}; they must lie in [0, 1]")


def check_place(folder):
    """Refuse to put a set where something else is: a file, a link, or a folder with files that no set of ours wrote there."""
    folder = Path(folder)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is {'a link' if folder.is_symlink() else 'a file'}, no folder of ours, and stays as it "
                         "is; move it, or give another place")
    if not folder.is_dir():
        return
    ours = _ours(folder)
    inside = (f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_symlink() or not f.is_dir())
    if others := sorted(f for f in inside if f not in ours and Path(f).name.lower() not in CLUTTER):
        raise InputError(f"{folder} holds other files ({', '.join(map(shown, others[:5]))}), and a set replaces its folder as a "
                         "whole; move them, or give the set a folder of its own")


def _ours(folder):
    """Paths of the files that the set in a folder wrote, as its index lists them; by their places for an earlier version's."""
    try:
        index = read_json(folder / "set.json")
        listed = index.get("files") if isinstance(index, dict) else None
        if listed:
            return set(listed)
        lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        images = {json.loads(line)["file_name"] for line in lines}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    known = {f.relative_to(folder).as_posix() for f in (folder / "prior").rglob("*") if f.suffix in (".json", ".safetensors")}
    return images | known | {f for f in FILES if "." in f}
