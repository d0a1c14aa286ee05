"""What the folder of a synthetic set must hold, to be believed: fields of `set.json`; names, shapes and values of tensors."""
from __future__ import annotations

import re
from pathlib import Path

import torch

from .errors import InputError
from .hub import SHIPPED

FORMAT, VERSION = "ld3m_min synthetic set", 2
FILES = ("README.md", "images", "metadata.jsonl", "prior", "set.json", "set.safetensors")  # all that a set's folder holds
STATES = {"pixel": ("pixels",), "autoencoder": ("Z",), "ld3m": ("Z", "c", "noise")}  # c only where the prior has classes
OWN_PRIOR = "saved with the set"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


def is_path(source):
    """Whether a prior's source is a path of some machine, not a shipped name or a hub id."""
    shipped = (SHIPPED / str(source) / "model_index.json").exists() and Path(source).name == source
    return not shipped and (not HUB_ID.fullmatch(str(source)) or ".." in str(source) or Path(source).exists())


def check_index(folder, index):
    kinds = {"classes": list, "recipe": dict, "history": list, "sha256": str}
    wrong = [k for k, kind in kinds.items() if not isinstance(index.get(k), kind)]
    if not wrong and (not index["classes"] or not all(isinstance(c, str) for c in index["classes"])):
        wrong = ["classes"]
    if not wrong and not all(isinstance(h, dict) for h in index["history"]):
        wrong = ["history"]
    config = index["recipe"].get("config") if not wrong else None
    if not wrong and (not isinstance(config, dict) or config.get("space") not in STATES):
        wrong = ["recipe.config"]
    prior = index["recipe"].get("prior") if not wrong else None
    if not wrong and config["space"] != "pixel" and not (isinstance(prior, dict) and isinstance(prior.get("source"), str)):
        wrong = ["recipe.prior"]
    if wrong:
        raise InputError(f"{folder / 'set.json'} lacks {', '.join(wrong)}, or holds something else there; it is no whole set")


def check_tensors(folder, tensors, index):
    """Names, shapes, dtypes and values of a set; ValueError names the first that is not as it must be."""
    file, needed = folder / "set.safetensors", STATES[index["recipe"]["config"]["space"]]
    names = {"images", "labels", *(f"state.{k}" for k in needed)}
    odd = sorted((names - {"state.c"}) - tensors.keys()) or sorted(tensors.keys() - names)
    if odd:
        raise InputError(f"{file}: tensor {odd[0]!r} is {'missing' if odd[0] not in tensors else 'not part of such a set'}")
    images, labels, classes = tensors["images"], tensors["labels"], index["classes"]
    if images.dim() != 4 or images.shape[1] != 3 or images.dtype != torch.float32 or labels.dtype != torch.int64 \
            or labels.shape != images.shape[:1]:
        raise InputError(f"{file}: images are {tuple(images.shape)} {images.dtype}, labels {tuple(labels.shape)} {labels.dtype}; "
                         "expected (B, 3, H, W) float32 and (B,) int64")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        reach = f"{int(labels.min())} to {int(labels.max())}"
        raise InputError(f"{file}: labels reach from {reach}, but there are {len(classes)} classes")
    for name, tensor in tensors.items():
        if name.startswith("state.") and (not tensor.is_floating_point() or len(tensor) != len(labels)):
            raise InputError(f"{file}: {name} is {tuple(tensor.shape)} {tensor.dtype} for {len(labels)} images")
        if not torch.isfinite(tensor).all():
            raise InputError(f"{file}: {name} is not finite everywhere")
    if len(images) and not 0 <= float(images.min()) <= float(images.max()) <= 1:
        raise InputError(f"{file}: images reach from {images.min():.3g} to {images.max():.3g}; they must lie in [0, 1]")
