"""Long work that is saved, stopped and resumed: one class for distillation, experts, priors, tests.

A checkpoint is a folder `step-00000042` with `state.safetensors` (all tensors) and `manifest.json`
(schema, step, identity of the work, checksums of both files). It is written beside its place,
flushed, then renamed, so that a kill leaves a whole one or none. Reading takes the newest that
verifies, else the one before, and says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ld3m_min.errors import InputError
from ld3m_min.io.disk import flush, sweep, why
from ld3m_min.io.files import read_json, signature, signed, write_bytes, write_json
from ld3m_min.io.lock import Lock
from ld3m_min.io.stop import Stop, stoppable
from ld3m_min.io.tensors import from_bytes, to_bytes

SCHEMA = 2
# fields of an identity that checkpoints of earlier versions lack, and what they say
_NOT_ALWAYS_NOTED = {"content": "images and weights", "experts": "experts"}


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint.

    Attributes:
        step: it was made after so many steps.
        tensors: everything that the work goes on from, by name.
        notes: whatever else the writer noted, JSON-able.
    """

    step: int
    tensors: dict[str, Tensor]
    notes: dict[str, Any] = field(default_factory=dict)


class Checkpointer:
    """The checkpoints of one piece of work: when one is due, how it is written, how it is read.

    A loop reads so::

        checkpoints = Checkpointer(folder, identity, every=100)
        found = checkpoints.load()
        with checkpoints.stoppable():
            for step in range(found.step if found else 0, steps):
                ...
                if checkpoints.due(step + 1, last=step + 1 == steps):
                    checkpoints.save(step + 1, tensors())
                checkpoints.leave_if_asked(f"{step + 1} of {steps} steps are saved")

    Args:
        folder: where the checkpoints are; None keeps nothing, and only stops when asked.
        identity: JSON-able; what the work is, by content. A checkpoint with another identity is
            refused. None takes a checkpoint of any work, to look at it.
        unused: fields that checkpoints of earlier versions have and that make no other work.
        every: a checkpoint is due after so many steps; None for none by count.
        seconds: a checkpoint is due so many seconds after the one before; None for none by time.
        keep: how many of the newest stay; None keeps all.
        lock: the hold on the folder that has to be there still when something is written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        identity: Mapping[str, Any] | None,
        *,
        every: int | None = None,
        seconds: float | None = None,
        keep: int | None = 2,
        lock: Lock | None = None,
        unused: Collection[str] = (),
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.identity, self._lock, self._unused = identity, lock, unused
        self._every, self._seconds, self._keep = every, seconds, keep
        self._began = self._saved = time.monotonic()
        self._before, self._stop = 0.0, Stop()

    @property
    def elapsed(self) -> float:
        """Seconds that the work has taken, over all its sittings."""
        return self._before + time.monotonic() - self._began

    @property
    def asked(self) -> str | None:
        """Why the work shall stop (see :mod:`ld3m_min.io.stop`), or None."""
        return self._stop.reason

    @contextmanager
    def stoppable(self) -> Iterator[Stop]:
        """While inside, a signal or a deadline asks the work to stop instead of ending it."""
        with stoppable() as self._stop:
            yield self._stop

    def due(self, step: int, *, last: bool = False, asked: bool = False) -> bool:
        """Whether the state after `step` steps is to be saved.

        Args:
            step: how many steps are done.
            last: the work is done with this step.
            asked: somebody else has asked for a stop.
        """
        if last or asked or self.asked:
            return True
        if self._every is not None and step % self._every == 0:
            return True
        return self._seconds is not None and time.monotonic() - self._saved > self._seconds

    def leave_if_asked(self, saved: str) -> None:
        """Leave the work where a stop was asked for.

        Args:
            saved: what is kept in the folder, as in "12 of 60 iterations are saved".

        Raises:
            Interrupted: a stop was asked for.
        """
        if self.asked:
            self._stop.leave(saved, kept=self.folder is not None)

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        notes: Mapping[str, Any] | None = None,
        *,
        only: bool = False,
    ) -> None:
        """Write the checkpoint after `step` steps, and drop all but the newest.

        Later ones go too: they are damaged, or of a run that was started anew.

        Args:
            step: how many steps are done.
            tensors: everything that the work goes on from, by name.
            notes: JSON-able extras, such as the losses so far; "seconds" are added.
            only: drop all others: the work is finished.

        Raises:
            OSError: it cannot be written; the earlier checkpoints are whole.
        """
        if self.folder is None:
            return
        self.check_place()
        noted = {**(notes or {}), "seconds": self.elapsed}
        self._write(self.folder, step, to_bytes(tensors), noted, 1 if only else self._keep)
        self._saved = time.monotonic()

    def check_place(self) -> None:
        """See that the locked folder is still there, before something is written below it.

        Raises:
            OSError: it was deleted, moved, or its disk unmounted.
        """
        if self._lock is not None:
            self._lock.check()

    def _write(
        self, folder: Path, step: int, data: bytes, notes: dict[str, Any], keep: int | None
    ) -> None:
        place, temporary = folder / f"step-{step:08d}", folder / f".tmp-{uuid.uuid4().hex}"
        manifest = {
            "schema": SCHEMA,
            "step": step,
            "config": self.identity,
            "notes": notes,
            "sha256": {"state.safetensors": hashlib.sha256(data).hexdigest()},
        }
        try:
            temporary.mkdir(parents=True)
            write_bytes(temporary / "state.safetensors", data)
            # last: a folder without it never counts
            write_json(temporary / "manifest.json", signed(manifest))
            if place.exists():  # a rename, so that no half of it is ever read
                os.replace(place, folder / f".tmp-{uuid.uuid4().hex}")
            os.replace(temporary, place)
            flush(folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise OSError(
                f"cannot write checkpoint {step} in {folder}: {why(error)}; earlier checkpoints "
                "are intact, and the same command goes on from the last of them"
            ) from error
        self._tidy(place, keep)

    def _tidy(self, newest: Path, keep: int | None) -> None:
        """Drop what is later than the newest checkpoint, what is too old, and what a kill left."""
        found = self._places()
        gone = [p for p in found if p > newest]
        if keep is not None:
            gone += [p for p in found if p <= newest][:-keep]
        for old in gone:
            shutil.rmtree(old, ignore_errors=True)
        sweep(newest.parent)

    def load(
        self,
        *,
        like: Mapping[str, Tensor] | None = None,
        optional: Mapping[str, Tensor] | None = None,
        apart: Collection[str] = (),
    ) -> Checkpoint | None:
        """The newest checkpoint that verifies, or None where there is none.

        One that doesn't verify is passed over with a warning that names the file and what is wrong.

        Args:
            like: what it must hold, in names, shapes and dtypes, with every value finite; None
                checks nothing.
            optional: as `like`, for what may be missing.
            apart: names of what is not looked at, such as logs that have gaps.

        Raises:
            InputError: checkpoints exist, but none verifies, or the newest is of other work.
        """
        problems: list[str] = []
        for place in reversed(self._places()):
            try:
                found, of = _read(place)
            except (OSError, ValueError) as error:
                problems.append(str(error))
                continue
            self._check_identity(of)
            seen = {k: v for k, v in found.tensors.items() if k not in apart}
            odd = "" if like is None else _misfits(seen, like, optional or {})
            if odd:
                problems.append(
                    f"{place.name}/state.safetensors holds other tensors than this run: {odd}"
                )
                continue
            if problems:
                listed = "\n  ".join(problems)
                warnings.warn(
                    f"a checkpoint in {self.folder} is damaged; going on from step "
                    f"{found.step}:\n  {listed}",
                    stacklevel=2,
                )
            elif self.identity is not None:  # a kill may have come between writing and tidying
                self._tidy(place, self._keep)
            self._before = _seconds(found)
            self._began = self._saved = time.monotonic()
            return found
        if problems:
            listed = "\n  ".join(problems)
            raise InputError(
                f"no checkpoint in {self.folder} is whole; remove the folder to start anew:\n  "
                f"{listed}"
            )
        return None

    def chain(self) -> Iterator[Checkpoint]:
        """The checkpoints after step 1, 2, 3, ..., as far as they are there and whole.

        Raises:
            InputError: one is of other work.
        """
        for step, place in enumerate(self._places(), 1):
            if place.name != f"step-{step:08d}":
                return
            try:
                found, of = _read(place)
            except (OSError, ValueError):
                return  # from here on the work is done again
            self._check_identity(of)
            yield found

    def drop_older(self, newest: Checkpoint) -> None:
        """Remove what a kill left beside the checkpoint of finished work.

        Args:
            newest: that checkpoint.
        """
        if self.folder is not None:
            self._tidy(self.folder / f"step-{newest.step:08d}", 1)

    def clear(self) -> None:
        """Remove all checkpoints: the work is finished, and its result is elsewhere."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _places(self) -> list[Path]:
        if self.folder is None:
            return []
        found = self.folder.glob("step-*")
        return sorted(p for p in found if re.fullmatch(r"step-\d{8,}", p.name) and p.is_dir())

    def _check_identity(self, stored: dict[str, Any]) -> None:
        if self.identity is None:
            return
        stored = {k: v for k, v in stored.items() if k not in self._unused}
        difference = config_difference(stored, json.loads(json.dumps(self.identity)))
        alike = stored.get("algorithm") == self.identity.get("algorithm")
        lacking = [k for k in _NOT_ALWAYS_NOTED if k in self.identity and k not in stored]
        if alike and lacking:
            raise InputError(
                f"{self.folder} is of a version that didn't note which "
                f"{_NOT_ALWAYS_NOTED[lacking[0]]} a run is of; finish it with that version, or "
                "start anew in another folder"
            )
        if difference:
            raise InputError(
                f"{self.folder} holds a run of another configuration; use another folder, or the "
                "same values:\n  " + "\n  ".join(difference)
            )


def _read(place: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """A checkpoint whose checksums hold, and the identity of the work that it is of."""
    manifest = _read_manifest(place)
    tensors = _read_state(place, manifest)
    return Checkpoint(manifest["step"], tensors, manifest["notes"]), manifest["config"]


def _seconds(found: Checkpoint) -> float:
    """Seconds that the work had taken when a checkpoint was made; 0 where that wasn't noted."""
    seconds = found.notes.get("seconds", 0.0)
    return float(seconds) if isinstance(seconds, (int, float)) else 0.0


def _read_manifest(place: Path) -> dict[str, Any]:
    manifest, name = read_json(place / "manifest.json"), f"{place.name}/manifest.json"
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise InputError(f"{name} has a schema other than {SCHEMA}")
    if manifest.get("checksum") != signature(manifest):
        raise InputError(f"{name} does not match its checksum")
    kinds = {"step": int, "config": dict, "notes": dict, "sha256": dict}
    wrong = [k for k, kind in kinds.items() if not isinstance(manifest.get(k), kind)]
    if wrong or manifest["step"] != int(place.name.removeprefix("step-")):
        raise InputError(f"{name} does not describe this checkpoint ({', '.join(wrong) or 'step'})")
    return manifest


def _read_state(place: Path, manifest: dict[str, Any]) -> dict[str, Tensor]:
    name = f"{place.name}/state.safetensors"
    try:
        data = (place / "state.safetensors").read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read: {why(error)}") from None
    if hashlib.sha256(data).hexdigest() != manifest["sha256"].get("state.safetensors"):
        raise InputError(f"{name} does not match its checksum")
    return from_bytes(data, name)


def _misfits(
    tensors: Mapping[str, Tensor], like: Mapping[str, Tensor], optional: Mapping[str, Tensor]
) -> str:
    """What is missing, too much, of another shape or dtype, or not finite; "" where all fits."""
    known = {**optional, **like}
    odd = [f"{k} is missing" for k in like if k not in tensors]
    odd += [f"{k} is not of it" for k in tensors if k not in known]
    for k, v in tensors.items():
        if k in known and (v.shape != known[k].shape or v.dtype != known[k].dtype):
            wanted = f"{tuple(known[k].shape)} {known[k].dtype}"
            odd.append(f"{k} is {tuple(v.shape)} {v.dtype}, not {wanted}")
        elif not torch.isfinite(v).all():
            odd.append(f"{k} is not finite")
    return "; ".join(odd[:5])


def config_difference(stored: object, now: object, prefix: str = "") -> list[str]:
    """Lines "field: stored -> now" for each value in which two nested configurations differ."""
    if isinstance(stored, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted({*stored, *now})
            for line in config_difference(stored.get(key), now.get(key), f"{prefix}{key}.")
        ]
    return [] if stored == now else [f"{prefix[:-1]}: {stored!r} -> {now!r}"]
