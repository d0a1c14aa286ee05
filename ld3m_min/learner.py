"""What a distillation learns, its optimiser and its history: what a checkpoint has to hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ld3m_min.distillers import DISTILLERS
from ld3m_min.distillers.base import Distiller
from ld3m_min.errors import InputError
from ld3m_min.experts import ExpertBuffer
from ld3m_min.io import several
from ld3m_min.io.checkpoints import Checkpoint, Checkpointer
from ld3m_min.networks import Dropout
from ld3m_min.prepare import Setup


@dataclass(frozen=True)
class Share:
    """What one of several processes does of each iteration.

    Attributes:
        rows: its images; None for all, in a process alone.
        labels: of the images that it compares with real ones: its own, or all.
        compares: whether it does that. Where a loss needs all images at a time, the first process
            alone compares.
        gathers: whether the images of all processes are needed for that.
    """

    rows: slice | None
    labels: Int[Tensor, " _"]
    compares: bool = True
    gathers: bool = False


@dataclass
class Learner:
    """What changes from iteration to iteration.

    Attributes:
        distiller: gives the loss; may learn something itself (MTT's rate).
        learned: every tensor that is learned, "space.NAME" or "distiller.NAME".
        sgd: its optimiser.
        checkpoints: of all this.
        share: the images that this process generates, and back-propagates through.
        history: one entry an iteration.
        before: what the last step started from, until the images after it are known to be finite;
            empty when they are.
        gave_up: the run was ended for want of finite numbers.
    """

    distiller: Distiller
    learned: dict[str, Tensor]
    sgd: torch.optim.SGD
    checkpoints: Checkpointer
    share: Share
    history: list[dict[str, Any]] = field(default_factory=list)
    before: dict[str, Tensor] = field(default_factory=dict)
    gave_up: bool = False

    @property
    def misses(self) -> int:
        """How many iterations at the end were skipped, so that patience survives a resume."""
        missed = enumerate(reversed(self.history))
        return next((i for i, h in missed if "skipped" not in h), len(self.history))

    def momenta(self) -> dict[str, Tensor]:
        """The optimiser's momentum of each learned tensor that has one."""
        state = self.sgd.state
        return {
            f"momentum.{k}": state[p]["momentum_buffer"]
            for k, p in self.learned.items()
            if state.get(p)
        }

    def step(self) -> str | None:
        """One step of the optimiser, undone where something is not finite afterwards.

        Returns:
            What was not finite, in words; None where all is.
        """
        now = self.learned | self.momenta()
        self.before = {k: v.detach().clone() for k, v in now.items() if v is not None}
        self.sgd.step()
        buffers = [self.sgd.state[p].get("momentum_buffer") for p in self.learned.values()]
        pairs = zip(self.learned.values(), buffers, strict=True)
        whole = torch.stack([torch.isfinite(p if b is None else p + b).all() for p, b in pairs])
        named = zip(self.learned, whole.tolist(), strict=True)
        wrong = next((k for k, ok in named if not ok), None)
        if wrong is None:
            return None
        self.undo()
        return f"{wrong.split('.')[-1]} after the step"

    @torch.no_grad()
    def undo(self) -> None:
        """Go back to before the last step, unless the images after it are known to be finite."""
        if not self.before:
            return
        for k, p in self.learned.items():
            p.copy_(self.before[k])
            kept = self.before.get(f"momentum.{k}")
            self.sgd.state[p] = {} if kept is None else {"momentum_buffer": kept}
        self.before = {}

    def save(self) -> None:
        """Write a checkpoint after the iterations of the history; of several processes, the first.

        Raises:
            OSError: it cannot be written; the earlier ones are whole.
        """
        if not several.is_first():
            return
        tensors = self.learned | self.momenta()
        notes: dict[str, Any] = {"history": self.history}
        if self.misses:  # a run that goes on from here must be able to go back as well
            tensors |= {f"before.{k}": v for k, v in self.before.items()}
        if self.gave_up:
            notes["gave_up"] = True
        self.checkpoints.save(len(self.history), tensors, notes)

    @torch.no_grad()
    def go_on(self) -> Checkpoint | None:
        """Take over the state of the newest checkpoint, and give it; None where there is none.

        Raises:
            InputError: it is of other work, or of no distillation.
        """
        momenta = {f"momentum.{k}": p for k, p in self.learned.items()}
        before = {f"before.{k}": p for k, p in (self.learned | momenta).items()}
        found = several.from_first(
            lambda: self.checkpoints.load(like=self.learned, optional=momenta | before)
        )
        if found is None:
            return None
        history: Any = found.notes.get("history")
        fits = isinstance(history, list) and len(history) == found.step
        if not fits or not all(isinstance(h, dict) for h in history):
            raise InputError(
                f"checkpoint {found.step} has no history of {found.step} iterations; it is not of "
                "a distillation"
            )
        self.history, self.gave_up = history, "gave_up" in found.notes
        self.before = {
            k.removeprefix("before."): found.tensors[k].to(p.device)
            for k, p in before.items()
            if k in found.tensors
        }
        for k, p in self.learned.items():
            p.copy_(found.tensors[k])
            if f"momentum.{k}" in found.tensors:
                momentum = found.tensors[f"momentum.{k}"].to(p.device)
                self.sgd.state[p]["momentum_buffer"] = momentum
        return found


def make_learner(setup: Setup, experts: ExpertBuffer | None, checkpoints: Checkpointer) -> Learner:
    """The learner of a distillation, at its first iteration.

    Args:
        setup: what is worked on.
        experts: for MTT.
        checkpoints: where it is saved.
    """
    config = setup.config
    options = {"experts": experts} if config.algorithm == "MTT" else {}
    distiller = DISTILLERS[config.algorithm](config, setup.data, setup.labels.device, **options)
    codes = {f"space.{k}": p for k, p in setup.space.parameters.items()}
    own = {f"distiller.{k}": p for k, p in distiller.parameters.items()}
    rates = setup.space.rates
    groups: list[dict[str, Any]] = [
        {"params": [p], "lr": config.lr * rates.get(k, 1.0)}
        for k, p in setup.space.parameters.items()
    ]
    if own:
        groups.append({"params": list(own.values()), "lr": config.mtt.lr_lr})
    sgd = torch.optim.SGD(groups, momentum=config.momentum)
    return Learner(distiller, codes | own, sgd, checkpoints, _share(setup, distiller))


def _share(setup: Setup, distiller: Distiller) -> Share:
    """What this process does of each iteration.

    Raises:
        InputError: there are more processes than classes, or images, to share.
    """
    labels, classes = setup.labels, len(setup.data.classes)
    if several.count() == 1:
        return Share(None, labels)
    # a network with dropout draws for one class after the other: all have to pass the same one
    drawing = any(isinstance(m, Dropout) for m in distiller.network(0).modules())
    if distiller.adds_classes and not drawing:
        mine, each = several.share(classes, "classes"), len(labels) // classes
        rows = slice(mine.start * each, mine.stop * each)  # the images stand class by class
        return Share(rows, labels[rows])
    rows = several.share(len(labels), "images")
    return Share(rows, labels, compares=several.is_first(), gathers=True)
