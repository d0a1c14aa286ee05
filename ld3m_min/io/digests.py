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


def versions(tensors: Iterable[Tensor]) -> tuple[tuple[object, ...], ...] | None:
    """What changes when tensors are written to in place, cast or replaced.

    A digest that was made before belongs to what this was at that time.

    Args:
        tensors: of any shapes.

    Returns:
        Identity, type, counter and sum of the bits of each tensor. What is written through `.data`
        raises no counter, and changes the sum, which takes a hundredth of a digest's time. None
        where a tensor keeps no counter (made under `inference_mode`): then no digest may be kept.
    """
    kept = list(tensors)
    try:
        known = [(id(t), t.dtype, t._version) for t in kept]
    except RuntimeError:
        return None
    sums = [_bits(t) for t in kept]
    return tuple((*k, int(n)) for k, n in zip(known, sums, strict=True))


def _bits(tensor: Tensor) -> Tensor | int:
    """A tensor's bytes, summed as integers of 8 bytes; 0 for one without data."""
    if tensor.is_meta:
        return 0
    flat = tensor.detach().reshape(-1).contiguous()  # every fifth label is a view with gaps
    if flat.storage_offset() * flat.element_size() % 8:
        flat = flat.clone()  # integers of 8 bytes begin at a multiple of 8
    single = flat.view(torch.uint8)
    even = len(single) // 8 * 8
    return single[:even].view(torch.int64).sum() + single[even:].sum()
