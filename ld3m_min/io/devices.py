"""Which device work runs on: named by the user, and looked for before anything else is done."""

from __future__ import annotations

import torch

from ld3m_min.errors import InputError


def checked_device(device: object) -> torch.device:
    """The `torch.device` of that name, if this machine and this build of PyTorch have it.

    Args:
        device: a name such as "cpu", "cuda", "cuda:1" or "mps", or a `torch.device`.

    Returns:
        The device.

    Raises:
        InputError: no such name, or no such device here.
    """
    try:
        # anything may be given, and what PyTorch cannot take is refused below
        found: torch.device = torch.device(device)  # type: ignore[call-overload]
    except (RuntimeError, TypeError):
        raise InputError(f"device {device!r} is unknown; use cpu, cuda, cuda:1 or mps") from None
    if found.type == "cuda":
        n = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (found.index or 0) >= n:
            built = torch.backends.cuda.is_built()
            build = "" if built else ", and this build of PyTorch is for CPUs alone"
            raise InputError(
                f"device {device!r} is not there: {n} CUDA GPUs are to be had{build}; "
                "use cpu, or another index"
            )
    elif found.type == "mps":
        if not torch.backends.mps.is_available():
            raise InputError(f"device {device!r} is not there: PyTorch finds no Apple GPU; use cpu")
    elif found.type != "cpu":
        try:
            torch.empty(0, device=found)
        except Exception as error:  # each backend fails in its own way
            raise InputError(
                f"device {device!r} is not there ({str(error).splitlines()[0]}); use cpu"
            ) from None
        if found.type == "meta":
            raise InputError("device 'meta' holds no numbers; use cpu, cuda or mps")
    return found
