"""What looks at a run after each iteration: the clock, the snapshots, the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from ld3m_min.io.environment import peak_memory
from ld3m_min.report.plots import warm_up
from ld3m_min.report.preview import Preview
from ld3m_min.report.snapshots import SnapshotKeeper
from ld3m_min.report.words import duration, size_of
from ld3m_min.run import Progress

MEASURED = 3  # iterations that the first forecast is made from
RECENT = 20  # iterations that the time left is reckoned by


class Watch:
    """A callback of a distillation.

    Args:
        iterations: of the whole run.
        preview: the page of the run.
        keeper: of its snapshots.
        say: prints a line.
        device: whose memory is asked for.
    """

    def __init__(
        self,
        iterations: int,
        preview: Preview,
        keeper: SnapshotKeeper,
        say: Callable[[str], None],
        device: str = "cpu",
    ) -> None:
        self._iterations, self._preview, self._keeper = iterations, preview, keeper
        self._say, self._device = say, device
        self._began = time.monotonic()
        self._times: list[float] = []
        self._seen = 0
        warm_up()

    def __call__(self, progress: Progress) -> None:
        """Look at an iteration.

        Args:
            progress: of the iteration.
        """
        now = time.monotonic()
        if self._seen:  # the time before the first one is not all of iterations
            self._times.append(now - self._began)
        self._seen += 1
        if self._seen == MEASURED:
            self._say(self._forecast(progress.iteration + 1))
        self._preview.guard(lambda: self._keeper.keep(progress))
        left = self._iterations - progress.iteration - 1
        recent = self._times[-RECENT:]
        self._preview.show(progress, left * median(recent) if recent else None)
        self._began = time.monotonic()  # the pages' time is none of the iterations'

    def _forecast(self, done: int) -> str:
        """What the first iterations say of the rest.

        Args:
            done: iterations of all sittings.
        """
        each = median(self._times)
        left = self._iterations - done
        memory = peak_memory(self._device)
        used = f"; memory so far {size_of(memory)}" if memory is not None else ""
        return (
            f"time        {duration(each)} an iteration: {duration(each * self._iterations)} for "
            f"{self._iterations:,}, {duration(each * left)} for the {left:,} left{used}"
        )
