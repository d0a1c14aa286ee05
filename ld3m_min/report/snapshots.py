"""Snapshots of a few images while they are learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ld3m_min.io.files import write_bytes
from ld3m_min.report.pictures import column, firsts
from ld3m_min.run import Progress

CLASSES = 4  # whose first image is kept
MOMENTS = 8  # that a run is divided into
SIDE = 64  # of a kept image at most, pixels


@dataclass(frozen=True)
class Snapshot:
    """Images after some iterations.

    Attributes:
        iterations: how many were done.
        png: the images one below the other, the first of each of the first classes.
    """

    iterations: int
    png: bytes


class SnapshotKeeper:
    """Keeps the first image of each of the first classes, now and then, as files in a folder.

    Args:
        folder: of the snapshots.
        iterations: of the whole run.
        classes: of the set.
    """

    def __init__(self, folder: Path, iterations: int, classes: int) -> None:
        self.folder, self._classes = folder, classes
        self._moments = moments(iterations)

    @torch.no_grad()
    def keep(self, progress: Progress) -> None:
        """Keep a snapshot where one is due.

        Args:
            progress: of an iteration.

        Raises:
            OSError: it cannot be written.
        """
        done = progress.iteration + 1
        if done == 1:
            for old in self.folder.glob("[0-9]" * 6 + ".png"):  # of a run before
                old.unlink(missing_ok=True)
        if done in self._moments:
            images = progress.space.images()
            shown = firsts(len(images), self._classes, each=1, shown=CLASSES)
            write_bytes(self.folder / f"{done:06d}.png", column(images[shown], SIDE))


def moments(iterations: int) -> list[int]:
    """After how many iterations snapshots are kept: the first, and then evenly to the last.

    Args:
        iterations: of the whole run.
    """
    steps = (round(i * iterations / MOMENTS) for i in range(1, MOMENTS + 1))
    return sorted({1, *(n for n in steps if n > 0)})


def snapshots(folder: Path, iterations: int) -> list[Snapshot]:
    """The snapshots of a run that are there.

    Args:
        folder: of the snapshots.
        iterations: of the whole run.
    """
    files = [folder / f"{n:06d}.png" for n in moments(iterations)]
    return [Snapshot(int(f.stem), f.read_bytes()) for f in files if f.is_file()]
