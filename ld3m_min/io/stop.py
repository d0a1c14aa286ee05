"""Long work that can be asked to stop: by a signal, Ctrl-C or a deadline, where nothing is lost.

A loop asks once a round and saves before it leaves. The command line turns :class:`Interrupted`
into its exit code: 143 after SIGTERM, 129 when the terminal is closed, 130 after Ctrl-C, 75 ("try
again") when the time that was given is up or a cluster warns that it will be (SIGUSR1, as by
Slurm's `--signal=USR1@60`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

DEADLINE = "the time given is up"
WARNED = "SIGUSR1"
REASONS = {"SIGTERM": 143, "Ctrl-C": 130, DEADLINE: 75, WARNED: 75, "SIGHUP": 129}
_SIGNALS = {"SIGTERM": "SIGTERM", "SIGINT": "Ctrl-C", "SIGUSR1": WARNED, "SIGHUP": "SIGHUP"}
_NAMES = {getattr(signal, s): n for s, n in _SIGNALS.items() if hasattr(signal, s)}  # Windows: two
_deadline: float | None = None


class Interrupted(KeyboardInterrupt):
    """Work that stopped because it was asked to, after saving what it could.

    Args:
        reason: a key of `REASONS`.
        saved: what there is, as in "12 of 60 iterations are saved".
        kept: whether it is, in a folder; else that is said, and the same command starts again.

    Attributes:
        reason: a key of `REASONS`.
        code: the exit code that says why.
    """

    def __init__(self, reason: str, saved: str, *, kept: bool = True) -> None:
        said = f"{saved}; the same command goes on from there"
        lost = "nothing is kept without `out`; the same command starts again"
        super().__init__(f"{reason}: {said if kept else lost}")
        self.reason, self.code = reason, REASONS[reason]


class Stop:
    """Whether a running loop shall stop, and why."""

    def __init__(self) -> None:
        self._signal: str | None = None

    @property
    def reason(self) -> str | None:
        """A key of `REASONS`, or None while the loop may go on."""
        late = _deadline is not None and time.monotonic() > _deadline
        return self._signal or (DEADLINE if late else None)

    def leave(self, saved: str, *, kept: bool = True) -> NoReturn:
        """Leave the loop.

        Args:
            saved: as in :class:`Interrupted`.
            kept: as there.

        Raises:
            Interrupted: always.
        """
        raise Interrupted(self.reason or DEADLINE, saved, kept=kept)

    def leave_if_signalled(self, finished: str, *, kept: bool = True) -> None:
        """Leave after work that is finished, where a signal came during its last part.

        Whoever called the work must not go on either. A deadline the caller sees itself.

        Args:
            finished: what is done, as in "5 of 5 experts are finished and saved".
            kept: as in :class:`Interrupted`.

        Raises:
            Interrupted: a signal had come.
        """
        if self._signal:
            self.leave(finished, kept=kept)


def stop_after(seconds: float | None) -> None:
    """Ask all long work of this process to stop in so many seconds; None takes that back."""
    global _deadline
    _deadline = None if seconds is None else time.monotonic() + seconds


def leave_at_once() -> None:
    """Until :func:`interrupt`, every signal ends the process: it has nothing to save yet."""

    def leave(number: int, frame: FrameType | None) -> None:
        os.write(2, f"ld3m_min: {_NAMES[number]}: nothing had begun\n".encode())
        os._exit(REASONS[_NAMES[number]])

    _handle(leave)


def interrupt() -> None:
    """Signals raise :class:`Interrupted` wherever the program is; :func:`stoppable` loops save."""
    _handle(_at_once)


def _at_once(number: int, frame: FrameType | None) -> None:
    raise Interrupted(_NAMES[number], "left at once; what the last checkpoint holds is saved")


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _NAMES:
        # nohup: the terminal may close
        if _NAMES[number] != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """While inside, signals only set the :class:`Stop` it gives; a second one interrupts at once.

    Loops may nest: the innermost sees the signal. Outside the main thread signals stay as they are,
    and so does SIGHUP under nohup.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop._signal:
            _at_once(number, frame)
        stop._signal = _NAMES[number]

    before = {s: signal.getsignal(s) for s in _NAMES}
    _handle(ask)
    try:
        yield stop
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
