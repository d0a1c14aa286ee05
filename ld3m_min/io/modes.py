"""What of a session's PyTorch modes must not change a result.

These are the precision of new tensors, gradients that are off, and inference mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def ordinary_modes() -> Iterator[None]:
    """New tensors in float32, gradients on, no inference mode; afterwards as before.

    Also a decorator.
    """
    before = torch.get_default_dtype()
    with torch.inference_mode(False), torch.enable_grad():
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(before)
