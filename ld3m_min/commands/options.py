"""Options that belong to a run and not to its configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from ld3m_min.errors import InputError
from ld3m_min.io.devices import checked_device
from ld3m_min.io.paths import expanded
from ld3m_min.io.stop import stop_after

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every command with a configuration takes.

    Attributes:
        config: YAML file with fields of the configuration, as `--dry-run` prints them; what it
            leaves out is the preset's, and an option given beside it wins.
        dry_run: print the resolved configuration as YAML, and do nothing.
        device: "cpu", "cuda", "cuda:1" or "mps".
    """

    config: Path | None = None
    dry_run: bool = False
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class LongOptions(Options):
    """Of work that can stop and go on.

    Attributes:
        max_seconds: seconds after which it stops, with what is done saved and exit code 75; the
            same command goes on.
    """

    max_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class DataOptions(LongOptions):
    """Of work on a data set.

    Attributes:
        data_path: folder of the images of a subset of ImageNet; without it, the variable LD3M_DATA
            of the environment.
        split: of a subset of ImageNet into images to learn from and to test on: the "paper" takes
            ImageNet's, "fastai" that of fastai's own release.
    """

    data_path: Path | None = None
    split: Literal["paper", "fastai"] | None = None


def with_homes(options: T) -> T:
    """Options, the `~` of every path brought to the home folder that it stands for.

    A shell does so for a word that begins with it, and not for `--out=~/run`. Done once, before
    anything looks at them, what is checked is what is written to.

    Args:
        options: a dataclass.

    Raises:
        InputError: there is no such user.
    """
    assert is_dataclass(options) and not isinstance(options, type)
    given = {f.name: getattr(options, f.name) for f in fields(options)}
    return replace(options, **{k: expanded(v) for k, v in given.items() if isinstance(v, Path)})


def begin(device: str, max_seconds: float | None = None) -> None:
    """Refuse what is wrong before anything is loaded, and start the clock.

    Args:
        device: to compute on.
        max_seconds: None for no limit.

    Raises:
        InputError: there is no such device, or no such time.
    """
    checked_device(device)
    if max_seconds is not None and not 0 <= max_seconds < math.inf:
        raise InputError(f"--max-seconds must be a number of seconds from 0 on, not {max_seconds}")
    stop_after(max_seconds)
