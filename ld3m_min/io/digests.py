"""What a thing is, whatever it is called: digests of pixels, labels, class names and weights.

Runs, experts, evaluations, caches and priors are known by these. A name or a time can stay while
the content changes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

CHUNK = 2**24  # bytes that one thread hashes at a time; part of the digest's definition


def digest(*parts: object) -> str:
    """Digest of tensors and JSON-able values in order.

    It is the same on every device and in every memory layout. Tensors count with dtype, shape and
    values. About a gigabyte a second and thread.

    Args:
        parts: tensors, and values that JSON can hold.

    Returns:
        32 hex digits.
    """
    whole = hashlib.blake2b(digest_size=16)
    pieces: list[bytes | npt.NDArray[np.uint8]] = []
    for part in parts:
        if not isinstance(part, Tensor):
            pieces.append(json.dumps(part, sort_keys=True, ensure_ascii=False).encode())
            continue
        pieces.append(f"{part.dtype} {tuple(part.shape)}".encode())
        flat = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        pieces += [flat[i : i + CHUNK] for i in range(0, flat.size, CHUNK)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing lets other threads run
        for piece in pool.map(lambda x: hashlib.blake2b(x, digest_size=16).digest(), pieces):
            whole.update(piece)
    return whole.hexdigest()


def versions(tensors: Iterable[Tensor]) -> tuple[tuple[int, int], ...] | None:
    """Counters that rise when tensors are written to in place.

    A digest that was made before belongs to the counters of that time.

    Args:
        tensors: of any shapes.

    Returns:
        Identity and counter of each tensor. None where a tensor keeps no counter (made under
        `inference_mode`): then no digest may be kept.
    """
    try:
        return tuple((id(t), t._version) for t in tensors)
    except RuntimeError:
        return None
