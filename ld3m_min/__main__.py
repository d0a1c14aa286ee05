"""The door of the command line: `python -m ld3m_min COMMAND ...`; what the commands do is in `commands`.

Libraries are imported behind the door, so that a stop in the first second is a stop and no traceback. Exit codes: 0 done,
2 a mistake that one line explains, 1 a bug of ours, 75 out of the time that was given, 130 Ctrl-C, 143 SIGTERM.
"""
from __future__ import annotations

import os
import shlex
import sys
import traceback

from . import __version__, signals
from .errors import Mistake


def main() -> None:
    """Run the command that `sys.argv` names; ends in the exit code that says how it went."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character shows its number instead
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    signals.leave_at_once()  # while libraries are imported, there is nothing to save
    try:
        from .commands import run
        from .planner import out_of_memory

        signals.interrupt()
        _end(*_tried(run, out_of_memory))
    except KeyboardInterrupt:  # between two lines of ours
        _end("stopped; the same command goes on from the last checkpoint", 130)


def _tried(run, out_of_memory):
    """What is to be said at the end, and the exit code."""
    try:
        run()
        sys.stdout.flush()
        return None, 0
    except signals.Interrupted as stopped:
        return str(stopped), stopped.code
    except KeyboardInterrupt:
        return "stopped; the same command goes on from the last checkpoint", 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return None, 141
    except (Mistake, OSError) as error:
        return str(error), 2
    except Exception as error:
        if out_of_memory(error):
            return f"out of memory: {str(error).splitlines()[0] if str(error) else 'no more is to be had'}; lower --ipc or " \
                   "--size, or see `python -m ld3m_min plan`", 2
        traceback.print_exc()
        return f"this is a bug of ld3m_min {__version__}, not your mistake. Please report it, with the lines above and the " \
               f"command: python -m ld3m_min {shlex.join(sys.argv[1:])}", 1


def _end(sentence, code):
    if sentence:
        print(f"ld3m_min: {sentence}", file=sys.stderr)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
