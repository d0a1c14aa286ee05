"""All checks in order, as lines for a reader and as JSON for a bug report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ld3m_min import __version__
from ld3m_min.doctor import files, machine
from ld3m_min.doctor.check import Check


@dataclass(frozen=True)
class Report:
    """What was looked at.

    Attributes:
        checks: in order.

    Example:
        >>> from ld3m_min.doctor import Check, Report
        >>> disk = Check("disk", "full", "broken", "free some space")
        >>> report = Report((Check("GPU", "none"), disk))
        >>> report.broken
        ('disk',)
        >>> report.lines
        ['GPU   none  -> fine', 'disk  full  -> free some space']
    """

    checks: tuple[Check, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of what must be mended before anything runs."""
        return tuple(c.name for c in self.checks if c.status == "broken")

    @property
    def lines(self) -> list[str]:
        """One for each check, with "fine" or what to do."""
        width = max((len(c.name) for c in self.checks), default=0)
        return [
            f"{c.name:{width}}  {c.says}  -> " + ("fine" if c.status == "fine" else c.todo)
            for c in self.checks
        ]

    @property
    def json(self) -> str:
        """All of it, for a bug report."""
        checks = [dataclasses.asdict(c) for c in self.checks]
        return json.dumps({"schema": 1, "ld3m_min": __version__, "checks": checks}, indent=1)


CHECKS: tuple[Callable[[], Check | Sequence[Check]], ...] = (
    machine.versions,
    machine.processor,
    machine.cores,
    machine.memory,
    machine.low_precision,
    machine.gpus,
    files.priors,
    files.hub,
    files.caches,
    files.encoding,
)


def examined(checks: Sequence[Callable[[], Check | Sequence[Check]]] = CHECKS) -> Report:
    """Look at everything; a check that fails is told like the others.

    Args:
        checks: what to look at.

    Example:
        >>> from ld3m_min.doctor import examined, machine
        >>> report = examined([machine.cores, machine.memory, machine.gpus])
        >>> [check.name for check in report.checks]
        ['threads', 'memory', 'GPU']
    """
    found: list[Check] = []
    for look in checks:
        try:
            result = look()
        except Exception as error:  # one library that is broken hides no other line
            name = look.__name__.replace("_", " ")
            said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            result = Check(name, f"could not be looked at ({said})", "broken", "mend the above")
        found += [result] if isinstance(result, Check) else result
    return Report(tuple(found))
