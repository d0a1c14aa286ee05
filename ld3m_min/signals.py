"""Long work that can be asked to stop: by SIGTERM, Ctrl-C or a deadline, at a place where nothing is lost.

A loop asks once a round and saves before it leaves. The command line turns :class:`Interrupted` into its exit code: 143
after SIGTERM, 129 when the terminal is closed, 130 after Ctrl-C, 75 ("try again") when the time that was given is up or a
cluster warns that it will be (SIGUSR1, as by Slurm's `--signal=USR1@60`).
"""
from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager

DEADLINE = "the time given is up"
WARNED = "SIGUSR1"
REASONS = {"SIGTERM": 143, "Ctrl-C": 130, DEADLINE: 75, WARNED: 75, "SIGHUP": 129}
_NAMES = {getattr(signal, s): name for s, name in (("SIGTERM", "SIGTERM"), ("SIGINT", "Ctrl-C"), ("SIGUSR1", WARNED),
                                                   ("SIGHUP", "SIGHUP")) if hasattr(signal, s)}  # Windows lacks two
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


def leave_at_once():
    """Until :func:`interrupt`, every signal ends the process with its code: for a process that has nothing to save yet."""
    def leave(number, frame):
        os.write(2, f"ld3m_min: {_NAMES[number]}: nothing had begun\n".encode())
        os._exit(REASONS[_NAMES[number]])

    _handle(leave)


def interrupt():
    """Signals raise :class:`Interrupted` wherever the program is, with their own exit codes; :func:`stoppable` loops save."""
    _handle(_at_once)


def _at_once(number, frame):
    raise Interrupted(_NAMES[number], "left at once; what the last checkpoint holds is saved")


def _handle(handler):
    if threading.current_thread() is threading.main_thread():
        for number in _NAMES:
            if _NAMES[number] != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN:  # nohup: the terminal may close
                signal.signal(number, handler)


@contextmanager
def stoppable():
    """While inside, signals only set the :class:`Stop` it gives; a second one interrupts at once.

    Loops may nest: the innermost sees the signal. Outside the main thread signals stay as they are, and so does SIGHUP
    under nohup.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number, frame):
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
