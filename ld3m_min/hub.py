"""Where a prior's folder is, and whether it may be read: shipped, given by path, or a pinned snapshot of the hub.

A folder from elsewhere is data: no file of it is run, no name in it leads out of it, and what it says is checked before
anything is built from it. With `HF_HUB_OFFLINE=1` nothing is asked of the network; what was downloaded before is found.
"""
from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from .adapters import check_length
from .errors import InputError
from .files import read_json

SHIPPED = Path(__file__).parent / "priors"
LIBRARIES = ("diffusers", "transformers")
WEIGHTS = (".json", ".safetensors", ".txt", ".model")  # parts only: no checkpoints of the whole model, no code


@dataclass(frozen=True)
class Found:
    """A prior's folder, and the name under which it is found again: a hub id carries the commit that was read."""

    folder: Path
    source: str


def find_prior(path_or_id, *, revision=None, sha256=None):
    """The folder of a prior.

    Args:
        path_or_id: a shipped name, a folder, or a hub id, "org/name" or "org/name@revision".
        revision: branch, tag or commit of a hub id; None takes what the id says, else the hub's newest. Only a commit
            always gives the same files.
        sha256: what :func:`folder_digest` must give; None checks nothing.

    Raises:
        FileNotFoundError: neither shipped, nor a folder, nor to be had from the hub (or, offline, from its cache).
        ValueError: another digest than `sha256`, or a revision for what is not of the hub.
    """
    given = os.fspath(path_or_id)
    if not given.strip():
        raise InputError("an empty name is no prior; give a shipped name, a folder, or a hub id")
    bare = isinstance(path_or_id, str) and Path(given).name == given and given not in (".", "..")
    local = SHIPPED / given if bare and (SHIPPED / given / "model_index.json").exists() else Path(given).expanduser()
    if local.exists():
        if revision is not None:
            raise InputError(f"revision={revision!r} is for hub ids; {given!r} is a folder here")
        _check_files(local)
        found = Found(local, given)
    elif not isinstance(path_or_id, str) or is_explicit(given):
        raise FileNotFoundError(f"no prior {given!r}: there is no such folder. A path is never looked up on the hub; check it, or "
                                "give a shipped name or a hub id such as org/name")
    else:
        found = _download(given, revision)
    if sha256 is not None and (digest := folder_digest(found.folder)) != sha256.lower():
        raise InputError(f"prior {found.source!r} has the digest {digest}, not {sha256}; it is not the one you expect")
    return found


def is_explicit(text):
    """Whether a prior's name can only be a path: absolute, from `~` or `.`, with a backslash, or of three parts or more."""
    return text.startswith(("/", "~", "./", "../", ".\\", "..\\")) or "\\" in text or text.count("/") > 1 or text in (".", "..")


def _check_files(place):
    """Refuse what only looks like a prior's folder: a file, pipes or devices in it, pointers in place of weights."""
    if not place.is_dir():
        how = "a single file" if place.is_file() else "no folder"
        raise InputError(f"{place} is {how}; a prior is a folder as save_pretrained writes it. A released checkpoint becomes one by "
                         "LatentDiffusionPrior.from_compvis(checkpoint, yaml).save_pretrained(folder)")
    for file in place.rglob("*"):
        if file.is_dir():
            continue
        if not file.is_file():
            raise InputError(f"{file} is no ordinary file; a prior's folder holds files alone")
        if file.suffix == ".safetensors" and file.stat().st_size < 1024:
            with file.open("rb") as opened:
                if opened.read(24).startswith(b"version https://git-lfs"):
                    raise InputError(f"{file} is a pointer of Git LFS, not the weights; fetch them with `git lfs pull`")
    for config in place.glob("scheduler/scheduler_config.json"):
        schedule = read_json(config)
        check_length(schedule.get("num_train_timesteps", 1000) if isinstance(schedule, dict) else None)


def pipeline_parts(folder, index, options):
    """The networks of a pipeline's folder, name -> network, each of whose tensors comes from its file.

    Args:
        index: as :func:`read_index` gives it. options: of diffusers' `from_pretrained`.
    """
    import diffusers
    import transformers

    parts = {}
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list) or len(value) != 2 or value[0] is None or name == "safety_checker":
            continue
        library = {"diffusers": diffusers, "transformers": transformers}.get(value[0]) or getattr(diffusers.pipelines, value[0], None)
        part = getattr(library, value[1], None)
        if isinstance(part, type) and issubclass(part, torch.nn.Module):
            own = options if value[0] != "transformers" else {"use_safetensors": True}
            parts[name] = loaded(part, Path(folder) / name, own)
    return parts


def _download(given, revision):
    from huggingface_hub import snapshot_download

    name, _, pinned = given.partition("@")
    if revision is not None and pinned and revision != pinned:
        raise InputError(f"{given!r} is pinned to {pinned!r}, and revision={revision!r} says otherwise; give one of the two")
    wanted = [f"*{s}" if s != ".safetensors" else "*/*.safetensors" for s in WEIGHTS]
    unwanted = ["*.fp16.*", "*.non_ema.*", "safety_checker/*"]
    try:
        options = {"revision": revision or pinned or None, "allow_patterns": wanted, "ignore_patterns": unwanted}
        folder = Path(snapshot_download(name, **options))
    except Exception as error:
        shipped = sorted(p.name for p in SHIPPED.iterdir() if p.is_dir()) if SHIPPED.is_dir() else []
        raise FileNotFoundError(
            f"no prior {given!r}: it is neither shipped ({', '.join(shipped)}), nor a folder here, "
            f"nor to be had from the hub ({type(error).__name__}). A released checkpoint becomes a folder by "
            "LatentDiffusionPrior.from_compvis(checkpoint, yaml).save_pretrained(folder); then give that folder"
        ) from error
    commit = folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else (revision or pinned)
    return Found(folder, f"{name}@{commit}" if commit else name)


def folder_digest(folder):
    """SHA-256 of a prior's folder: of the names and contents of its configurations, weights and vocabularies, in order."""
    folder, digest = Path(folder), hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.is_file() and f.suffix in WEIGHTS):
        with file.open("rb") as opened:
            inner = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{inner}  {file.relative_to(folder).as_posix()}\n".encode())
    return digest.hexdigest()


def read_index(folder):
    """A prior's `model_index.json`, checked: no code of the folder is named, no library but `LIBRARIES`, no path.

    Raises:
        FileNotFoundError, ValueError: missing, damaged, or naming what must not be loaded.
    """
    import diffusers

    file = Path(folder) / "model_index.json"
    index = read_json(file)
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise InputError(f"{file} does not name the class of a pipeline or prior; code in the folder is never run")
    for name, value in index.items():
        if not name.startswith("_") and isinstance(value, list) and name != "classes":
            library = value[0] if len(value) == 2 else None
            known = library in LIBRARIES or (isinstance(library, str) and hasattr(diffusers.pipelines, library))
            if value != [None, None] and (not known or (file.parent / name / f"{library}.py").exists()):
                raise InputError(f"{file} takes {name} from {library!r}; only parts of {', '.join(LIBRARIES)} are loaded")
    for part in sorted(file.parent.glob("*/*.index.json")):
        shards = read_json(part)
        shards = shards.get("weight_map") if isinstance(shards, dict) else None
        strange = [v for v in (shards.values() if isinstance(shards, dict) else [shards])
                   if not isinstance(v, str) or Path(v).name != v or "\\" in v]
        if strange:
            raise InputError(f"{part} names the weights {strange[0]!r}; they must lie beside it")
    return index


def check_own_index(file, index):
    """ValueError where the index of a folder of `save_pretrained` has fields of another kind."""
    kinds = {"conditional": bool, "null": bool, "classes": list}
    wrong = [k for k, kind in kinds.items() if k in index and not isinstance(index[k], kind)]
    if wrong or not all(isinstance(c, str) for c in index.get("classes", ())):
        raise InputError(f"{file}: {', '.join(wrong) or 'classes'} must be a list of text (classes), true or false")


def loaded(part, folder, options):
    """A network of diffusers from its folder, whole: every weight named by the architecture and no other.

    Raises:
        ValueError: damaged, or weights missing, too many, or of another shape.
    """
    folder = Path(folder)
    try:
        network, info = part.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:  # a hostile configuration fails in as many ways as there are networks
        raise InputError(f"{folder} holds no {part.__name__} that can be loaded: {error}") from error
    odd = {"missing": info["missing_keys"], "not of it": info["unexpected_keys"], "of another shape": info["mismatched_keys"]}
    if part.__module__.startswith("transformers."):  # whose older files hold buffers that newer networks compute
        odd.pop("not of it")
    wrong = "; ".join(f"{len(v)} {k} (first {min(map(str, v))})" for k, v in odd.items() if v)
    if wrong:
        raise InputError(f"{folder} does not hold the weights of its {part.__name__}: {wrong}")
    return network


def read_embedding(file):
    """The class embedding of a prior, (K + 1, L D): one finite matrix called "weight" and nothing else."""
    from .storage import from_bytes

    try:
        tensors = from_bytes(Path(file).read_bytes(), file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is missing: the prior has classes, but no class embedding") from None
    weight = tensors.get("weight")
    if len(tensors) != 1 or weight is None or weight.dim() != 2 or not weight.is_floating_point():
        found = ", ".join(f"{k} {tuple(v.shape)} {v.dtype}" for k, v in sorted(tensors.items())[:3])
        raise InputError(f"{file} must hold one matrix called weight, but holds {found or 'nothing'}")
    return weight


def check_finite(modules, source):
    """ValueError where a weight of a loaded prior is not a number: it would make every image nothing."""
    bad = [f"{type(m).__name__}.{k}" for m in modules for k, p in m.named_parameters() if not bool(p.isfinite().all())]
    if bad:
        raise InputError(f"prior {source!r} has weights that are not finite: {', '.join(bad[:3])}; the files are damaged")
