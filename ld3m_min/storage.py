"""Checkpoints with checksums, and the generators that need no replay; files as such are in `files`.

A checkpoint is a folder `step-00000042` with `state.safetensors` (all tensors) and `manifest.json` (schema, step,
configuration, checksums of both files), written beside its place, flushed, then renamed. The last two are kept. Reading
takes the newest that verifies, else the one before, and says so.
"""
from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load, save

from .errors import InputError
from .files import flush, signature, signed, sweep, why
from .files import locked as locked
from .files import read_json as read_json
from .files import replace_folder as replace_folder
from .files import standing as standing
from .files import write_bytes as write_bytes
from .files import write_json as write_json

SCHEMA = 2


def seeded(seed, *purpose):
    """A CPU generator that belongs to (seed, purpose, ...) alone: the same on resume, without replaying earlier draws.

    `seeded(0, "real", 17)` gives the draws of iteration 17 whatever was drawn before.
    """
    digest = hashlib.sha256(repr((int(seed), *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def to_bytes(tensors):
    """safetensors bytes of a dict of tensors, wherever they live."""
    return save({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()})  # no shared storage


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint: the step it was made after, its tensors and whatever else the writer noted."""

    step: int
    tensors: dict[str, torch.Tensor]
    notes: dict = field(default_factory=dict)


def save_checkpoint(folder, step, tensors, *, config, notes=None, keep=2):
    """Write checkpoint `step` below `folder` and drop all but the newest `keep`.

    Later steps go too: they are damaged, or of a run that was started anew.

    Args:
        tensors: name -> tensor; everything that a continued run needs.
        config: JSON-able; a run with another configuration refuses this checkpoint.
        notes: JSON-able extras (metrics so far).

    Raises:
        OSError: it cannot be written; the earlier checkpoints are whole.
    """
    folder = Path(folder)
    place, temporary = folder / f"step-{step:08d}", folder / f".tmp-{uuid.uuid4().hex}"
    data = to_bytes(tensors)
    manifest = {
        "schema": SCHEMA,
        "step": step,
        "config": config,
        "notes": notes or {},
        "sha256": {"state.safetensors": hashlib.sha256(data).hexdigest()},
    }
    try:
        temporary.mkdir(parents=True)
        write_bytes(temporary / "state.safetensors", data)
        write_json(temporary / "manifest.json", signed(manifest))  # last: a folder without it never counts
        if place.exists():
            os.replace(place, folder / f".tmp-{uuid.uuid4().hex}")  # a rename, so that no half of it is ever read
        os.replace(temporary, place)
        flush(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(f"cannot write checkpoint {step} in {folder}: {why(error)}; earlier checkpoints are intact, and the same "
                      "command goes on from the last of them") from error
    found = _steps(folder)
    for old in [p for p in found if p > place] + [p for p in found if p <= place][:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    sweep(folder)


def _steps(folder):
    return sorted(p for p in Path(folder).glob("step-*") if re.fullmatch(r"step-\d{8,}", p.name) and p.is_dir())


def load_checkpoint(folder, *, config, like=None, optional=None):
    """The newest checkpoint below `folder` that verifies, or None where there is none.

    One that doesn't is passed over with a warning that names the file and what is wrong with it.

    Args:
        config: as saved; None takes a checkpoint of any run, to look at it.
        like: name -> tensor: what it must hold, in names, shapes and dtypes, and every value finite; None checks nothing.
        optional: as `like`, for what may be missing.

    Raises:
        ValueError: checkpoints exist, but none verifies, or the newest belongs to another configuration.
    """
    problems = []
    for place in reversed(_steps(folder)):
        try:
            manifest = _read_manifest(place)
            tensors = _read_state(place, manifest)
        except (OSError, ValueError) as error:
            problems.append(str(error))
            continue
        difference = [] if config is None else config_difference(manifest["config"], json.loads(json.dumps(config)))
        if difference and "content" in config and "content" not in manifest["config"]:
            raise InputError(f"{folder} is of a version that didn't note which images and weights a run is of; finish it "
                             "with that version, or start anew in another folder")
        if difference:
            raise InputError(
                f"{folder} holds a run of another configuration; use another folder, or the same values:\n  "
                + "\n  ".join(difference)
            )
        if like is not None and (odd := _misfits(tensors, like, optional or {})):
            problems.append(f"{place.name}/state.safetensors holds other tensors than this run: {odd}")
            continue
        if problems:
            listed = "\n  ".join(problems)
            step = manifest["step"]
            warnings.warn(f"a checkpoint in {folder} is damaged; going on from step {step}:\n  {listed}", stacklevel=2)
        return Checkpoint(manifest["step"], tensors, manifest["notes"])
    if problems:
        listed = "\n  ".join(problems)
        raise InputError(f"no checkpoint in {folder} is whole; remove the folder to start anew:\n  {listed}")
    return None


def _read_manifest(place):
    manifest, name = read_json(place / "manifest.json"), f"{place.name}/manifest.json"
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise InputError(f"{name} has a schema other than {SCHEMA}")
    if manifest.get("checksum") != signature(manifest):
        raise InputError(f"{name} does not match its checksum")
    kinds = {"step": int, "config": dict, "notes": dict, "sha256": dict}
    wrong = [k for k, kind in kinds.items() if not isinstance(manifest.get(k), kind)]
    if wrong or manifest["step"] != int(place.name.removeprefix("step-")):
        raise InputError(f"{name} does not describe this checkpoint ({', '.join(wrong) or 'step'})")
    return manifest


def _read_state(place, manifest):
    name = f"{place.name}/state.safetensors"
    try:
        data = (place / "state.safetensors").read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read: {why(error)}") from None
    if hashlib.sha256(data).hexdigest() != manifest["sha256"].get("state.safetensors"):
        raise InputError(f"{name} does not match its checksum")
    return from_bytes(data, name)


def from_bytes(data, name):
    """Tensors of safetensors bytes, each in memory of its own.

    Raises:
        ValueError: damaged, or no safetensors; names the file.
    """
    try:
        return {k: v.clone() for k, v in sorted(load(data).items())}  # aligned, unlike the bytes: kernels round alike
    except Exception as error:  # SafetensorError, and what a hostile header makes of numbers, names and memory
        raise InputError(f"{name} is no safetensors file, or damaged: {error}") from None


def _misfits(tensors, like, optional):
    """What is missing, too much, of another shape or dtype, or not finite; '' where all fits."""
    known = {**optional, **like}
    odd = [f"{k} is missing" for k in like if k not in tensors] + [f"{k} is not of it" for k in tensors if k not in known]
    for k, v in tensors.items():
        if k in known and (v.shape != known[k].shape or v.dtype != known[k].dtype):
            odd.append(f"{k} is {tuple(v.shape)} {v.dtype}, not {tuple(known[k].shape)} {known[k].dtype}")
        elif not torch.isfinite(v).all():
            odd.append(f"{k} is not finite")
    return "; ".join(odd[:5])


def config_difference(stored, now, prefix=""):
    """Lines 'field: stored -> now' for each value in which two nested configurations differ."""
    if isinstance(stored, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted({*stored, *now})
            for line in config_difference(stored.get(key), now.get(key), f"{prefix}{key}.")
        ]
    return [] if stored == now else [f"{prefix[:-1]}: {stored!r} -> {now!r}"]
