"""Progress bars of tqdm: silent when asked to be, or where TQDM_DISABLE is set."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Never, Protocol, TypedDict, TypeVar, Unpack, overload, runtime_checkable

from tqdm import tqdm

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class Bar(Protocol[T_co]):
    """What is used of a tqdm bar, whose class takes no type of its items at run time."""

    def __iter__(self) -> Iterator[T_co]: ...

    def __enter__(self) -> Bar[T_co]: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

    def update(self, n: float | None = 1) -> bool | None:
        """Move it on by `n`."""

    def set_postfix(
        self,
        ordered_dict: Mapping[str, object] | None = None,
        refresh: bool | None = True,
        **kwargs: object,
    ) -> None:
        """Show values behind the bar: those of the mapping, and those given by name."""


class Options(TypedDict, total=False):
    """How a bar looks.

    Attributes:
        desc: the text before it.
        total: the number of items; the length of the iterable where it isn't given.
        initial: where it begins.
        unit: what an item is.
    """

    desc: str
    total: int
    initial: int
    unit: str


@overload
def bar(iterable: Iterable[T], *, show: bool = True, **options: Unpack[Options]) -> Bar[T]: ...
@overload
def bar(iterable: None = None, *, show: bool = True, **options: Unpack[Options]) -> Bar[Never]: ...
def bar(
    iterable: Iterable[object] | None = None, *, show: bool = True, **options: Unpack[Options]
) -> Bar[object]:
    """A tqdm bar that vanishes when it is full.

    Args:
        iterable: what it runs over; None for a bar to update by hand.
        show: False draws nothing.
        options: as in :class:`Options`.

    Returns:
        The bar.
    """
    if show:  # tqdm heeds TQDM_DISABLE only where it isn't told whether to draw
        return tqdm(iterable, leave=False, **options)
    return tqdm(iterable, leave=False, disable=True, **options)


def say(line: str) -> None:
    """Print a line to the standard output; a bar that is drawn stays whole.

    Args:
        line: without its end.
    """
    tqdm.write(line)
    sys.stdout.flush()  # a log may be followed
