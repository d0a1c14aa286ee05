"""`python -m ld3m_min doctor`: see :mod:`ld3m_min.doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from ld3m_min.commands.plain import PlainCommand
from ld3m_min.doctor import examined
from ld3m_min.errors import InputError

ABOUT = """Say what this machine can do, and what is to be mended.

Versions, processor, cores, memory and its limits, bfloat16, GPUs, shipped priors, the Hub, caches,
disks, encoding. Each line ends in "fine" or in what to do. The exit code is 0 unless something is
broken.
"""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """How it is said.

    Attributes:
        json: as JSON, for a bug report; no name, token or home of yours is in it.
    """

    json: bool = False


def run(options: DoctorOptions) -> None:
    """Look at everything, and print a line for each thing."""
    report = examined()
    print(report.json if options.json else "\n".join(report.lines))
    if report.broken:
        raise InputError(f"broken: {', '.join(report.broken)}; the lines above say what to do")


COMMAND = PlainCommand("doctor", ABOUT, DoctorOptions, run)
