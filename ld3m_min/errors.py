"""Mistakes that a message explains: one family, so that the command line can tell them from bugs.

Everything the package raises on purpose is a :class:`Mistake`, or an OSError with a sentence in
place of its number. Each is also the built-in exception that Python programs expect, so
`except ValueError` catches an :class:`InputError`.
"""

from __future__ import annotations


class Mistake(Exception):
    """Something that doesn't fit, with what was wrong, where, and what to do.

    No traceback is needed to mend it.
    """


class InputError(Mistake, ValueError):
    """A value, file or combination that cannot be used."""


class InputTypeError(Mistake, TypeError):
    """A value of another kind than is expected."""


class Busy(Mistake, RuntimeError):
    """Another process holds what is needed."""


class NotFinite(Mistake, FloatingPointError):
    """A computation has left the finite numbers."""
