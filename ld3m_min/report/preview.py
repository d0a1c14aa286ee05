"""The page to look at while a distillation runs, `preview.html`: images, loss, time left.

One file that holds everything, so that it can be looked at from another machine. It is replaced as
a whole, and a browser reads it again by itself until the run is over.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ld3m_min.io.files import write_bytes
from ld3m_min.report.html import figure, image, name, page, plain
from ld3m_min.report.pictures import firsts, pngs
from ld3m_min.report.plots import lines
from ld3m_min.report.words import duration
from ld3m_min.run import Progress

SECONDS = 4.0  # between two versions, at least
SHARE = 0.04  # of the run's time that the page may take
REFRESH = 5  # seconds after which a browser reads it again
SHOWN = 24  # images at most


@dataclass
class Preview:
    """Writes the page; where that fails, the run goes on, with one warning.

    Attributes:
        file: of the page.
        title: of the run, text.
        iterations: of the whole run.
        classes: of the set, their names.
    """

    file: Path
    title: str
    iterations: int
    classes: tuple[str, ...]
    _body: list[str] = field(default_factory=list)
    _due: float = 0.0
    _warned: bool = False

    @property
    def begun(self) -> bool:
        """Whether the state of a run was drawn."""
        return bool(self._body)

    def show(self, progress: Progress, left: float | None) -> None:
        """Write the state after an iteration, where it is time to.

        Args:
            progress: of the iteration.
            left: seconds that the distillation will still take; None where that isn't known yet.
        """
        if time.monotonic() < self._due:
            return

        def make() -> None:
            with torch.no_grad():
                images = progress.space.images()
            self._draw(images, progress.history, left)
            self._write("It runs.")

        self._timed(make)

    def stage(self, what: str) -> None:
        """Say what is done after the distillation; the images stay as they are.

        Args:
            what: in words.
        """
        self._timed(lambda: self._write(f"The set is distilled; now {what}."))

    def draw(self, images: Float[Tensor, "B 3 H W"], history: Sequence[Mapping[str, Any]]) -> None:
        """Take over the finished set, for the versions that follow.

        Args:
            images: of the set.
            history: an entry for each iteration.
        """
        self.guard(lambda: self._draw(images, history, None))

    def end(self, what: str) -> None:
        """Write the last version, which no browser reads again.

        Args:
            what: how it ended, in words.
        """
        self.guard(lambda: self._write(what, last=True))

    def _timed(self, make: Callable[[], None]) -> None:
        """Write, and note when it may be done again."""
        began = time.monotonic()
        self.guard(make)
        now = time.monotonic()
        self._due = now + max(SECONDS, (now - began) / SHARE)

    def guard(self, make: Callable[[], None]) -> None:
        """Do what shall not break the run where it fails.

        Args:
            make: writes a page or a picture.
        """
        try:
            make()
        except Exception as error:  # a picture of the run is worth less than the run
            if not self._warned:
                warnings.warn(
                    f"the page {self.file} cannot be written ({error}); the run goes on without it",
                    stacklevel=3,
                )
            self._warned = True

    def _draw(
        self,
        images: Float[Tensor, "B 3 H W"],
        history: Sequence[Mapping[str, Any]],
        left: float | None,
    ) -> None:
        """The part of the page that shows the state of the run."""
        done = len(history)
        time_left = "" if left is None else f", about {duration(left)} left"
        body = [
            f'<p><progress max="{max(1, self.iterations)}" value="{done}">{done}</progress><br>'
            f"iteration {done:,} of {self.iterations:,}{time_left}</p>"
        ]
        body.append(self._pictures(images))
        if done > 1:
            loss = [h.get("loss") for h in history]
            alt = f"loss over {done} iterations, last {loss[-1] or float('nan'):.3g}"
            body += ["<h2>Loss</h2>", lines({"loss": loss}, alt, ylabel="loss", smooth=True)]
        self._body = body

    def _pictures(self, images: Float[Tensor, "B 3 H W"]) -> str:
        """Some of the images with their classes."""
        classes, count = len(self.classes), len(images)
        chosen = firsts(count, classes, each=max(1, SHOWN // classes), shown=SHOWN)
        pictures = []
        for position, png in zip(chosen, pngs(images[chosen]), strict=True):
            known = self.classes[position * classes // count]
            pictures.append(figure(image(png, f"learned image of class {known}"), name(known)))
        rest = f'<p class="dim">{len(chosen)} of {count} images are shown.</p>'
        return f'<div class="images">{"".join(pictures)}</div>' + rest * (len(chosen) < count)

    def _write(self, what: str, *, last: bool = False) -> None:
        """The whole page."""
        now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        ended = "" if last else " The page is written anew as the run goes on."
        body = [
            f"<h1>{plain(self.title)}</h1>",
            f'<p class="note"><strong>{plain(what)}</strong></p>',
            *self._body,
            f'<p class="dim">Written {now}.{ended}</p>',
        ]
        made = page(self.title, body, refresh=None if last else REFRESH)
        write_bytes(self.file, made)
