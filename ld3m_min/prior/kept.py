"""Tensors that a training keeps to save time, believed only where they are what it would make anew.

A file carries a digest of its content and of all that this was made from. One of an earlier
version, of other work, or damaged, is as good as none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ld3m_min.errors import InputError
from ld3m_min.io.digests import digest
from ld3m_min.io.files import write_bytes
from ld3m_min.io.tensors import from_bytes


def keep_tensors(file: Path, tensors: Mapping[str, Tensor], of: str) -> None:
    """Write tensors, with what they were made from.

    Args:
        file: where to.
        tensors: by name.
        of: a digest of all that they depend on.

    Raises:
        OSError: they cannot be written.
    """
    plain = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    write_bytes(file, save(plain, {"digest": _digest(plain, of)}))


def kept_tensors(file: Path, of: str) -> dict[str, Tensor] | None:
    """The tensors that :func:`keep_tensors` wrote; None where they are to be made anew.

    Args:
        file: where they are, if they are.
        of: a digest of all that they depend on.

    Raises:
        OSError: there is such a file, and it cannot be read.
    """
    try:
        tensors = from_bytes(file.read_bytes(), file)
        with safe_open(file, "pt") as opened:
            said = opened.metadata() or {}  # earlier versions wrote none
    except (FileNotFoundError, InputError):  # the second: damaged
        return None
    return tensors if said.get("digest") == _digest(tensors, of) else None


def _digest(tensors: Mapping[str, Tensor], of: str) -> str:
    """Of tensors, their names, and what they were made from."""
    names = sorted(tensors)
    return digest(*(tensors[k] for k in names), names, of)
