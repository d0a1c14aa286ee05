"""Long work that can be asked to stop: by SIGTERM, Ctrl-C or a deadline, at a place where nothing is lost.

A loop asks once a round and saves before it leaves. The command line turns :class:`Interrupted` into its exit code: 143
after SIGTERM, 130 after Ctrl-C, 75 ("try again") when the time that was given is up.
"""
from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager

DEADLINE = "the time given is up"
REASONS = {"SIGTERM": 143, "Ctrl-C": 130, DEADLINE: 75}
_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
_deadline = None


class Interrupted(KeyboardInterrupt):
    """Work that stopped because it was asked to, after saving. `code` is the exit code that says why."""

    def __init__(self, reason, saved):
        super().__init__(f"{reason}: {saved}; the same command goes on from there")
        self.reason, self.code = reason, REASONS[reason]


class Stop:
    """Whether a running loop shall stop, and why: `reason` is a key of `REASONS`, or None."""

    def __init__(self):
        self._signal = None

    @property
    def reason(self):
        late = _deadline is not None and time.monotonic() > _deadline
        return self._signal or (DEADLINE if late else None)

    def leave(self, saved):
        """Leave the loop; `saved` says what is kept ("12 of 60 iterations are saved")."""
        raise Interrupted(self.reason, saved)


def stop_after(seconds):
    """Ask all long work of this process to stop in so many seconds; None takes that back."""
    global _deadline
    _deadline = None if seconds is None else time.monotonic() + seconds


@contextmanager
def stoppable():
    """While inside, SIGTERM and Ctrl-C only set the :class:`Stop` it gives; a second one interrupts at once.

    Loops may nest: the innermost sees the signal. Outside the main thread signals stay as they are.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number, frame):
        if stop._signal:
            raise KeyboardInterrupt
        stop._signal = _NAMES[number]

    before = {s: signal.signal(s, ask) for s in _NAMES}
    try:
        yield stop
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
