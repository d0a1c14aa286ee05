"""Files that are whole or not there: atomic writes, checkpoints with checksums, and the generators that need no replay.

A checkpoint is a folder `step-00000042` with `state.safetensors` (all tensors) and `manifest.json` (schema, step,
configuration, checksum), written beside its place, flushed, then renamed. The last two are kept. Reading takes the
newest that verifies, else the one before.
"""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

SCHEMA = 1


def seeded(seed, *purpose):
    """A CPU generator that belongs to (seed, purpose, ...) alone: the same on resume, without replaying earlier draws.

    `seeded(0, "real", 17)` gives the draws of iteration 17 whatever was drawn before.
    """
    digest = hashlib.sha256(repr((int(seed), *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _flush(path):
    """Bring a file or folder to the disk; folders cannot be opened on some systems, where the rename suffices."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path, data):
    """Write a file beside its place, flush it, rename it: a reader sees the old content or the new, never a part."""
    path = Path(path)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = error.strerror or error
        raise OSError(f"cannot write {path.name} in {path.parent}: {reason}; nothing was changed") from error


def write_json(path, value):
    """Atomically write `value` as readable JSON."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def read_json(path):
    """The JSON object in a file.

    Raises:
        FileNotFoundError, ValueError: no such file; not JSON. Both name the file.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); it is damaged or not one of our files") from None


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

    Args:
        tensors: name -> tensor; everything that a continued run needs.
        config: JSON-able; a run with another configuration refuses this checkpoint.
        notes: JSON-able extras (metrics so far).
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
        write_json(temporary / "manifest.json", manifest)  # last: a folder without it never counts
        if place.exists():
            shutil.rmtree(place)
        os.replace(temporary, place)
        _flush(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(f"cannot write a checkpoint in {folder}: {error}; earlier checkpoints are intact") from error
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def _steps(folder):
    return sorted(p for p in Path(folder).glob("step-*") if p.is_dir())


def load_checkpoint(folder, *, config):
    """The newest checkpoint below `folder` that verifies, or None where there is none.

    Raises:
        ValueError: checkpoints exist, but none verifies, or the newest belongs to another configuration.
    """
    problems = []
    for place in reversed(_steps(folder)):
        try:
            manifest = read_json(place / "manifest.json")
            if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
                raise ValueError(f"{place.name}/manifest.json has schema other than {SCHEMA}")
            data = (place / "state.safetensors").read_bytes()
            if hashlib.sha256(data).hexdigest() != manifest["sha256"]["state.safetensors"]:
                raise ValueError(f"{place.name}/state.safetensors does not match its checksum")
            tensors = load_file(place / "state.safetensors")
            step, stored, notes = int(manifest["step"]), manifest["config"], manifest["notes"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            problems.append(str(error))
            continue
        difference = config_difference(stored, json.loads(json.dumps(config)))
        if difference:
            raise ValueError(
                f"{folder} holds a run of another configuration; use another folder, or the same values:\n  "
                + "\n  ".join(difference)
            )
        return Checkpoint(step, tensors, notes)
    if problems:
        listed = "\n  ".join(problems)
        raise ValueError(f"no checkpoint in {folder} is whole; remove the folder to start anew:\n  {listed}")
    return None


def config_difference(stored, now, prefix=""):
    """Lines 'field: stored -> now' for each value in which two nested configurations differ."""
    if isinstance(stored, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted({*stored, *now})
            for line in config_difference(stored.get(key), now.get(key), f"{prefix}{key}.")
        ]
    return [] if stored == now else [f"{prefix[:-1]}: {stored!r} -> {now!r}"]


@contextmanager
def locked(folder):
    """Hold `folder` for this process; a second one is refused. The lock goes when the process does."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RuntimeError(f"another process works in {folder}; wait for it, or use another folder") from None
        yield
