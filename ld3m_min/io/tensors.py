"""Tensors as safetensors bytes."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors.torch import load, save
from torch import Tensor

from ld3m_min.errors import InputError
from ld3m_min.io.disk import StrPath


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Safetensors bytes of tensors by name, wherever they live."""
    return save(
        {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    )  # no shared storage


def from_bytes(data: bytes, name: StrPath) -> dict[str, Tensor]:
    """Tensors of safetensors bytes, each in memory of its own.

    Args:
        data: the bytes.
        name: what an error calls the file.

    Returns:
        The tensors in the order of their names.

    Raises:
        InputError: damaged, or no safetensors; names the file.
    """
    try:
        return {
            k: v.clone() for k, v in sorted(load(data).items())
        }  # aligned, unlike the bytes: kernels round alike
    except Exception as error:
        # SafetensorError, and what a hostile header makes of numbers, names and memory
        raise InputError(f"{name} is no safetensors file, or damaged: {error}") from None
