"""Where a prior's folder is, and whether it may be read: shipped, given by path, or of the hub.

A folder from elsewhere is data: no file of it is run, no name in it leads out of it, and what it
says is checked before anything is built from it. With `HF_HUB_OFFLINE=1` nothing is asked of the
network; what was downloaded before is found.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ld3m_min.errors import InputError
from ld3m_min.io.files import current_version, read_json
from ld3m_min.io.paths import expanded, resolved
from ld3m_min.prior.schedule import checked_length

SHIPPED = Path(__file__).parent / "shipped"
# parts only: no checkpoints of the whole model, no code
WEIGHTS = (".json", ".safetensors", ".txt", ".model")


@dataclass(frozen=True)
class Found:
    """A prior's folder.

    Attributes:
        folder: where it is.
        source: the name under which it is found again; a hub id carries the commit that was read.
    """

    folder: Path
    source: str


def shipped(name: object) -> Path | None:
    """The folder of a prior that is shipped; None for a path, as `./digits` is one, or other names.

    Args:
        name: as it was given; only text can be such a name.
    """
    bare = isinstance(name, str) and Path(name).name == name and name not in (".", "..")
    folder = SHIPPED / str(name)
    return folder if bare and (folder / "model_index.json").exists() else None


def find_prior(
    path_or_id: str | os.PathLike[str], *, revision: str | None = None, sha256: str | None = None
) -> Found:
    """The folder of a prior.

    Args:
        path_or_id: a shipped name, a folder, or a hub id, "org/name" or "org/name@revision".
        revision: branch, tag or commit of a hub id; None takes what the id says, else the hub's
            newest. Only a commit always gives the same files.
        sha256: what :func:`folder_digest` must give; None checks nothing.

    Raises:
        FileNotFoundError: neither shipped, nor a folder, nor to be had from the hub (or, offline,
            from its cache).
        InputError: another digest than `sha256`, a revision for what is not of the hub, files that
            are no prior's, or a path in the home of a user that there isn't.
    """
    given = os.fspath(path_or_id)
    if not given.strip():
        raise InputError("an empty name is no prior; give a shipped name, a folder, or a hub id")
    local = shipped(path_or_id) or current_version(resolved(expanded(given)))
    if local.exists():
        if revision is not None:
            raise InputError(f"revision={revision!r} is for hub ids; {given!r} is a folder here")
        _check_files(local)
        found = Found(local, given)
    elif not isinstance(path_or_id, str) or is_explicit(given):
        raise FileNotFoundError(
            f"no prior {given!r}: there is no such folder. A path is never looked up on the hub; "
            "check it, or give a shipped name or a hub id such as org/name"
        )
    else:
        found = _download(given, revision)
    if sha256 is not None and (digest := folder_digest(found.folder)) != sha256.lower():
        raise InputError(
            f"prior {found.source!r} has the digest {digest}, not {sha256}; it is not the one you "
            "expect"
        )
    return found


def is_explicit(text: str) -> bool:
    """Whether a prior's name can only be a path.

    Such a name is absolute, from `~` or `.`, with a backslash, or of three parts or more.
    """
    return (
        text.startswith(("/", "~", "./", "../", ".\\", "..\\"))
        or "\\" in text
        or text.count("/") > 1
        or text in (".", "..")
    )


def _check_files(place: Path) -> None:
    """Refuse what only looks like a prior's folder.

    Raises:
        InputError: it is no folder, holds pipes or devices, pointers in place of weights, or a
            noise schedule of an impossible length.
    """
    if not place.is_dir():
        how = "a single file" if place.is_file() else "no folder"
        raise InputError(
            f"{place} is {how}; a prior is a folder as save_pretrained writes it, or a released "
            "checkpoint (.ckpt, .pt, .safetensors) with its yaml beside it under the same name"
        )
    for file in place.rglob("*"):
        if file.is_dir():
            continue
        if not file.is_file():
            raise InputError(f"{file} is no ordinary file; a prior's folder holds files alone")
        if file.suffix == ".safetensors" and file.stat().st_size < 1024:
            with file.open("rb") as opened:
                if opened.read(24).startswith(b"version https://git-lfs"):
                    raise InputError(
                        f"{file} is a pointer of Git LFS, not the weights; fetch them with "
                        "`git lfs pull`"
                    )
    for config in place.glob("scheduler/scheduler_config.json"):
        schedule = read_json(config)
        named = isinstance(schedule, dict)
        checked_length(schedule.get("num_train_timesteps", 1000) if named else None)


def _download(given: str, revision: str | None) -> Found:
    """The hub's snapshot of a prior, from its cache where it was downloaded before.

    Args:
        given: "org/name" or "org/name@revision".
        revision: of the hub; None for what the id says.

    Raises:
        InputError: two revisions.
        FileNotFoundError: the hub has no such id, or cannot be reached.
    """
    from huggingface_hub import snapshot_download

    name, _, pinned = given.partition("@")
    if revision is not None and pinned and revision != pinned:
        raise InputError(
            f"{given!r} is pinned to {pinned!r}, and revision={revision!r} says otherwise; give "
            "one of the two"
        )
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=revision or pinned or None,
                # weights beside the index are an autoencoder's alone, or the whole model twice
                allow_patterns=[
                    f"*{s}" if s != ".safetensors" else "*/*.safetensors" for s in WEIGHTS
                ]
                + ["diffusion_pytorch_model*.safetensors"],
                ignore_patterns=["*.fp16.*", "*.non_ema.*", "safety_checker/*"],
            )
        )
    except Exception as error:
        shipped = (
            sorted(p.name for p in SHIPPED.iterdir() if p.is_dir()) if SHIPPED.is_dir() else []
        )
        raise FileNotFoundError(
            f"no prior {given!r}: it is neither shipped ({', '.join(shipped)}), nor a folder here, "
            f"nor to be had from the hub ({type(error).__name__}). A released checkpoint becomes "
            "a folder by LatentDiffusionPrior.from_compvis(checkpoint, "
            "yaml).save_pretrained(folder); then give that folder"
        ) from error
    commit = folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else (revision or pinned)
    return Found(folder, f"{name}@{commit}" if commit else name)


def folder_digest(folder: str | os.PathLike[str]) -> str:
    """SHA-256 of a prior's folder, 64 hex digits.

    It is taken of the names and contents of the configurations, weights and vocabularies, in order.
    """
    place, digest = Path(folder), hashlib.sha256()
    for file in sorted(f for f in place.rglob("*") if f.is_file() and f.suffix in WEIGHTS):
        with file.open("rb") as opened:
            inner = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{inner}  {file.relative_to(place).as_posix()}\n".encode())
    return digest.hexdigest()
