"""A generator of random numbers for each purpose, which needs no replay."""

from __future__ import annotations

import hashlib
from typing import SupportsInt

import torch


def seeded(seed: SupportsInt, *purpose: object) -> torch.Generator:
    """A CPU generator that belongs to (seed, purpose, ...) alone.

    It is the same on resume, without replaying earlier draws. `seeded(0, "real", 17)` gives the
    draws of iteration 17 whatever was drawn before.

    Args:
        seed: of the run.
        purpose: what is drawn; anything whose `repr` says what it is.

    Returns:
        The generator, at its first draw.
    """
    digest = hashlib.sha256(repr((int(seed), *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
