"""What a number was measured with: versions, device, commit, memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from ld3m_min import __version__


@runtime_checkable
class ReadFromFiles(Protocol):
    """Data that knows which files it was read from, as a `DataSplits` does."""

    @property
    def files(self) -> str | None:
        """What its image files are, such as "JPEG, 500 x 375 px"."""

    @property
    def ids(self) -> tuple[int, ...]:
        """ImageNet class ids; empty for other data."""


def commit_of(package: Path) -> str:
    """The commit of this project's own repository.

    A package in the `.venv` of somebody's repository is not part of it: git has to know the
    package's files, and the top of the repository has to be this project.

    Args:
        package: folder of the package.

    Returns:
        12 digits, and "+changes" where files differ from it; "" where the package is installed.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603
                ["git", *words],  # noqa: S607
                capture_output=True,
                text=True,
                cwd=package,
                env=clean,
                check=False,
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if (
        not top
        or Path(top).resolve() != package.parent
        or git("ls-files", "--error-unmatch", "__init__.py") is None
    ):
        return ""
    commit = git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return ""
    return commit + ("+changes" if git("status", "--porcelain", "--", ".") else "")


def environment(device: str | torch.device = "cpu") -> dict[str, str]:
    """What a number was measured with.

    Args:
        device: where it was measured.

    Returns:
        Device, versions, commit and date, each as text.
    """
    on_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device)
        if on_gpu
        else f"CPU, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ld3m_min": __version__,
        "commit": commit_of(Path(__file__).resolve().parents[1]),
        "date": datetime.now(UTC).date().isoformat(),
    }


def peak_memory(device: str | torch.device = "cpu") -> int | None:
    """Largest memory so far.

    Args:
        device: where the memory is.

    Returns:
        Bytes: of PyTorch's allocator on a GPU, else of the whole process. None on Windows' CPUs.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # not on Windows, where psutil would be needed

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def files_of(data: ReadFromFiles) -> str | None:
    """What the image files of an ImageNet subset are; None for other data."""
    return data.files if data.ids else None
