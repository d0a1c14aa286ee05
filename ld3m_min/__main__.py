"""The entry of the command line: `python -m ld3m_min COMMAND ...`; see :mod:`ld3m_min.commands`.

Libraries are imported behind it, so that a stop in the first second is a stop and no
traceback. Exit codes: 0 done, 2 a mistake that one line explains, 1 a bug of ours, 75 out of the
time that was given, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable

from ld3m_min import __version__
from ld3m_min.errors import Mistake
from ld3m_min.io import launcher
from ld3m_min.io import stop as signals


def main() -> None:
    """Do what `sys.argv` asks for; ends in the exit code that says how it went."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a character shows its number
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _warned
    if launcher.number() > 0:  # the first of several processes speaks for all
        warnings.simplefilter("ignore")
        os.environ["TQDM_DISABLE"] = "1"
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # until the process ends
    signals.leave_at_once()  # while libraries are imported, there is nothing to save
    try:
        _end(*_tried(_run))
    except KeyboardInterrupt:  # between two lines of ours
        _end("stopped; the same command goes on from the last checkpoint", 130)


def _run() -> None:
    """Read the command line, which imports what its command needs, and do what it asks for."""
    from ld3m_min.commands import parsed

    # from its first look at files on, a stop has something to clear away
    parsed(sys.argv[1:], imported=signals.interrupt)()


def _tried(run: Callable[[], None]) -> tuple[str | None, int]:
    """What is to be said at the end, and the exit code."""
    try:
        run()
        sys.stdout.flush()
        return None, 0
    except signals.Interrupted as stopped:
        return str(stopped) if launcher.number() == 0 else None, stopped.code
    except KeyboardInterrupt:
        return "stopped; the same command goes on from the last checkpoint", 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return None, 141
    except Mistake as error:
        return str(error), 2
    except OSError as error:  # one of Python's own has a number, which says nothing to a reader
        named = error.filename if isinstance(error.filename, str) else None
        return f"{named}: {error.strerror}" if named and error.strerror else str(error), 2
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> tuple[str, int]:
    """What is to be said of an error that nobody expected, and the exit code."""
    from ld3m_min.planner.machine import out_of_memory

    if out_of_memory(error):
        what = str(error).splitlines()[0] if str(error) else "no more is to be had"
        return (
            f"out of memory: {what}; lower --ipc, --size or the width of the networks, or see "
            "`python -m ld3m_min plan`",
            2,
        )
    traceback.print_exception(error)
    return (
        f"this is a bug of ld3m_min {__version__}, not your mistake. Please report it, with the "
        f"lines above and the command: python -m ld3m_min {shlex.join(sys.argv[1:])}",
        1,
    )


def _warned(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one line: where in the code it was raised says nothing to who typed a command.

    It begins on a line of its own, past a bar that may be drawn.
    """
    print(f"\rld3m_min: warning: {message}", file=sys.stderr)


def _end(sentence: str | None, code: int) -> None:
    if sentence:
        which = f", process {launcher.number()}" if launcher.number() else ""
        print(f"ld3m_min{which}: {sentence}", file=sys.stderr)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
