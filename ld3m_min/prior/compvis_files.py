"""Files from elsewhere: weights that are read as tensors or not at all, and yaml settings.

A PyTorch checkpoint is a pickle, and a pickle can run any code when it is loaded. Here none ever
does.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ld3m_min.errors import InputError
from ld3m_min.io.paths import expanded
from ld3m_min.io.text import yaml_of

CHECKPOINTS = (".ckpt", ".pt", ".pth", ".safetensors")


def read_state(checkpoint: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors by key; a training checkpoint's `state_dict` entry is taken out of it.

    Args:
        checkpoint: path, or a mapping that was read before.

    Raises:
        FileNotFoundError: no such file.
        InputError: damaged, no checkpoint, or one that holds more than tensors; or a path in the
            home of a user that there isn't.
    """
    if not isinstance(checkpoint, Mapping):
        path = expanded(checkpoint)
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint {path}")
        checkpoint = _read_file(path)
    state = checkpoint.get("state_dict", checkpoint)
    strange = [k for k, v in state.items() if not isinstance(v, torch.Tensor)]
    if strange:
        raise InputError(
            f"the checkpoint holds more than tensors: {', '.join(map(str, strange[:5]))}; give its "
            "state dict alone"
        )
    return dict(state)


def _read_file(path: Path) -> Mapping[str, Any]:
    """What a checkpoint holds, of which nothing is run.

    Raises:
        InputError: it is damaged, no checkpoint, or needs more than tensors.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(
                f"{path.name} is not a safetensors file, or damaged: {error}"
            ) from error
    with path.open("rb") as file:
        start = file.read(8)
    try:
        if not start.startswith((b"PK", b"\x80")):
            raise InputError(f"it starts with {start!r}, which may be the error page of a download")
        held: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return held
    except pickle.UnpicklingError as error:
        what = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise InputError(
            f"{path.name} is a pickle that needs more than tensors "
            f"({what[1] if what else 'arbitrary objects'}), and loading it could run any code; "
            "nothing of it was run. The one safe way: once, in an isolated environment (a "
            "container without network and without your files), load it with weights_only=False, "
            "write its 'state_dict' with safetensors.torch.save_file, and give that .safetensors "
            "file here"
        ) from error
    except (ValueError, RuntimeError, EOFError) as error:
        raise InputError(f"{path.name} is not a PyTorch checkpoint, or damaged: {error}") from error


def config_beside(checkpoint: object) -> Path | None:
    """The yaml of a released checkpoint that lies beside it under the same name.

    Args:
        checkpoint: what may be the path of such a file.

    Returns:
        The yaml's path; None where `checkpoint` is something else, or has none.

    Raises:
        InputError: the path is in the home of a user that there isn't.
    """
    path = expanded(checkpoint) if isinstance(checkpoint, str | os.PathLike) else None
    if path is None or path.suffix not in CHECKPOINTS or not path.is_file():
        return None
    return next((p for s in (".yaml", ".yml") if (p := path.with_suffix(s)).is_file()), None)


def read_config(config: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    """A config as a mapping of settings.

    Args:
        config: path to its yaml, or a mapping, which is returned as it is.

    Raises:
        FileNotFoundError: no such file.
        InputError: no yaml, or not of a mapping; or a path in the home of a user that there isn't.
    """
    if isinstance(config, Mapping):
        return config
    path = expanded(config)
    if not path.is_file():
        raise FileNotFoundError(f"no config {path}")
    found = yaml_of(path.read_bytes(), path)
    if not isinstance(found, Mapping):
        raise InputError(f"{path} is not a mapping of settings")
    return {k: _numbers(v) for k, v in found.items()}


def _numbers(value: object) -> object:
    """Numbers such as 2e-2, which YAML 1.1 reads as text since they lack a point, as numbers."""
    if isinstance(value, Mapping):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value
