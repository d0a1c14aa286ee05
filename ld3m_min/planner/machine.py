"""What memory this machine leaves to a run, and how a lack of it shows."""

from __future__ import annotations

import torch

from ld3m_min.io.memory import device_bytes as device_bytes  # where it was before

# of the device's memory that a plan may fill: the rest is the allocator's and the kernels'
SHARE = 0.9


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device has no more memory.

    That is CUDA's own class, or the message of the CPU's allocator.

    Args:
        error: what was raised.
    """
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )
