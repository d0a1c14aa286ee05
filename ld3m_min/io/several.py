"""Several processes that do one piece of work together, each a share of it.

`torchrun` and `accelerate launch` start them. All hold the same state, and sums over the processes
bring their shares together. In a single process each function here gives back what it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ld3m_min.errors import InputError
from ld3m_min.io.devices import checked_device
from ld3m_min.io.launcher import number_on_machine, started

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # the first one may train experts while the others wait


def joined(device: str | torch.device) -> str | torch.device:
    """From here on this process works with those that were started with it, if any were.

    Args:
        device: where the work is done; "cuda" gives each process of a machine a GPU of its own.

    Returns:
        The device of this process.

    Raises:
        InputError: there is no such device, or processes cannot work together on it.
    """
    if started() == 1:
        return device
    here = checked_device(device)
    if here.type not in ("cpu", "cuda"):
        raise InputError(
            f"several processes work together on CPUs or CUDA GPUs, not on {device!s}; start one "
            "process, or take another device"
        )
    if here.type == "cuda":
        own = number_on_machine()
        if here.index not in (None, own):
            raise InputError(
                f"device {device!s} is one GPU for {started()} processes; give cuda, and each "
                "process takes its own"
            )
        here = checked_device(f"cuda:{own}")
        torch.cuda.set_device(here)
    if not dist.is_initialized():  # once in a process: a second group would meet the first's traces
        backend = "cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo"
        with _lost():
            dist.init_process_group(backend, timeout=PATIENCE)
    return str(here)


def count() -> int:
    """How many processes work together; 1 for one alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes and speaks for all."""
    return count() == 1 or dist.get_rank() == 0


def share(n: int, what: str) -> slice:
    """Which of `n` things this process works on: a part without gaps, of nearly equal size.

    Args:
        n: how many there are.
        what: they are, in the plural.

    Raises:
        InputError: there are fewer than processes.
    """
    if count() == 1:
        return slice(0, n)
    if n < count():
        raise InputError(f"{count()} processes for {n} {what}; start at most {n}")
    rank = dist.get_rank()
    return slice(n * rank // count(), n * (rank + 1) // count())


def summed(tensor: Tensor) -> Tensor:
    """A tensor, replaced by its sum over all processes.

    Args:
        tensor: of the same shape in all; changed in place.
    """
    if count() > 1:
        with _lost():
            dist.all_reduce(tensor)
    return tensor


def spread(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by those of the first process.

    Args:
        tensors: as many in all, of the same shapes; changed in place.
    """
    if count() > 1:
        with _lost():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them.

    Args:
        make: called in the first process alone; what it gives can be pickled.
    """
    if count() == 1:
        return make()
    made = [make() if is_first() else None]
    with _lost():
        dist.broadcast_object_list(made, src=0)
    return made[0]  # type: ignore[return-value]  # the first one's


def agreed(said: str | None, words: Sequence[str]) -> str | None:
    """What any process says, the same in all; None where none says anything.

    Args:
        said: what this one says.
        words: that may be said; of several, the first one counts.
    """
    if count() == 1:
        return said
    said_by = summed(torch.tensor([float(word == said) for word in words]))
    return next((word for word, n in zip(words, said_by.tolist(), strict=True) if n), None)


def wait() -> None:
    """Go on when all processes have come here."""
    summed(torch.zeros(()))


@contextmanager
def _lost() -> Iterator[None]:
    """Say in a sentence that a process this one waits for is gone."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(
            "another process of this run is gone, and said why if it could; started again, the run "
            f"goes on from its last checkpoint ({str(error).splitlines()[0]})"
        ) from error
