"""What memory this machine, its limits and its container leave to this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import torch


def device_bytes(device: str | torch.device) -> int:
    """Memory of a device, bytes.

    Of a GPU that is all of it. Of the machine it is what is not in use at present, and what limits
    leave to this process.

    Args:
        device: it has to be there.

    Example:
        >>> from ld3m_min.planner import device_bytes
        >>> needed = 10 * 2**20
        >>> "fits" if needed < device_bytes("cpu") else "too large"
        'fits'
    """
    if torch.device(device).type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    free = psutil.virtual_memory().available
    return max(0, min([free, *memory_limits().values()]))


def memory_limits() -> dict[str, int]:
    """What limits leave to this process, by what sets them, bytes; nothing where there are none."""
    found = _process_limits()
    if around := _container_limits():
        found["container"] = min(around)
    return found


def _process_limits() -> dict[str, int]:
    """What RLIMIT_AS and RLIMIT_DATA leave to this process, bytes; nothing without such limits."""
    try:
        import resource
    except ImportError:  # Windows
        return {}
    used = psutil.Process().memory_info()
    triples = (
        ("limit of addresses (ulimit -v)", resource.RLIMIT_AS, used.vms),
        ("limit of data (ulimit -d)", resource.RLIMIT_DATA, getattr(used, "data", used.rss)),
    )
    limits = ((name, resource.getrlimit(which)[0], taken) for name, which, taken in triples)
    return {name: most - taken for name, most, taken in limits if most != resource.RLIM_INFINITY}


def _container_limits(
    proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[int]:
    """What the control groups around this process leave to it, bytes.

    These are the process's own group and those above it. Pages of files that the kernel could drop
    are not counted as used.

    Args:
        proc: names the process's groups, a line for each tree.
        root: of the trees. Version 1 keeps one for each kind, version 2 one for all.
    """
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found: list[int] = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        base = root / "memory" if kinds else root
        limit, used = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if kinds
            else ("memory.max", "memory.current")
        )
        for folder in _groups(base, path):
            with suppress(OSError, ValueError):  # "max" is no number: no limit here
                most = int((folder / limit).read_text(encoding="utf-8"))
                taken = int((folder / used).read_text(encoding="utf-8")) - _droppable(folder)
                if most < 2**60:
                    found.append(most - max(0, taken))
    return found


def _groups(base: Path, path: str) -> Iterator[Path]:
    """The folder of a control group and of those above it.

    Args:
        base: of the tree.
        path: of the group in it, from "/" on.
    """
    group = base / path.lstrip("/")
    yield group
    if group != base:
        yield from (p for p in group.parents if p.is_relative_to(base))


def _droppable(folder: Path) -> int:
    """Bytes of a control group that are pages of files which the kernel could drop."""
    lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
    return int(dict(x.split() for x in lines).get("inactive_file", 0))
