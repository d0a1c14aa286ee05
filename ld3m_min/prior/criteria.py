"""Minimax's two criteria, and the memories that they look at (section 5; arXiv 2311.15529).

The clean latents that a prior predicts shall be like the real ones of their class, the least like
of them first (representativeness), and unlike each other, the most alike first (diversity). Both
compare directions, by the cosine. A batch has few images of a class; so they are compared with
what earlier batches left in two memories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.errors import InputError
from ld3m_min.io.digests import digest
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior


def representativeness(e: Float[Tensor, "n D"], real: Float[Tensor, "m D"]) -> Float[Tensor, ""]:
    """1 - the least cosine of a predicted latent and a real one.

    Args:
        e: predicted clean latents of a class.
        real: latents of real images of the class.
    """
    return 1 - cosines(e, real).min()


def diversity(e: Float[Tensor, "n D"], earlier: Float[Tensor, "m D"]) -> Float[Tensor, ""]:
    """The greatest cosine of a predicted latent and an earlier prediction.

    Args:
        e: predicted clean latents of a class.
        earlier: predictions of the same class, of earlier batches.
    """
    return cosines(e, earlier).max()


def cosines(x: Float[Tensor, "n D"], y: Float[Tensor, "m D"]) -> Float[Tensor, "n m"]:
    """The cosine of each row of x and each row of y."""
    return F.normalize(x, dim=1) @ F.normalize(y, dim=1).T


@dataclass(frozen=True)
class Criteria:
    """The criteria of a batch, each averaged over the classes that have a memory.

    Attributes:
        representativeness: 1 - the least cosine to real latents; 0 where nothing is remembered.
        diversity: the greatest cosine to earlier predictions; 0 where nothing is remembered.
        cosine: the mean cosine to earlier predictions, for the record; NaN where there are none.
    """

    representativeness: Float[Tensor, ""]
    diversity: Float[Tensor, ""]
    cosine: Float[Tensor, ""]


class Latest:
    """The latest rows of each class, first in, first out.

    Args:
        classes: how many.
        size: rows that are kept of each.
        width: D, numbers of a row.
        device: where they are kept.
    """

    def __init__(self, classes: int, size: int, width: int, device: torch.device) -> None:
        self.rows = torch.zeros(classes, size, width, device=device)
        self.seen = torch.zeros(classes, dtype=torch.int64)  # over all batches

    def of(self, label: int) -> Float[Tensor, "m D"]:
        """The rows that are kept of a class, in no order that matters."""
        return self.rows[label, : int(self.seen[label])]  # a slice ends at `size`

    def add(self, rows: Float[Tensor, "B D"], labels: Int[Tensor, " B"]) -> None:
        """Keep rows in the place of the oldest of their class.

        Args:
            rows: in order; they are kept without their history.
            labels: of the rows.
        """
        for row, label in zip(rows.detach(), labels.tolist(), strict=True):
            self.rows[label, int(self.seen[label]) % self.rows.shape[1]] = row
            self.seen[label] += 1


@dataclass(frozen=True)
class LabelledLatents:
    """Latents and their classes.

    Attributes:
        values: scaled as the denoiser expects them.
        labels: of the values.
    """

    values: Float[Tensor, "B c h w"]
    labels: Int[Tensor, " B"]

    @property
    def digest(self) -> str:
        """What they are."""
        return digest(self.values, self.labels)


class Memory:
    """What the criteria compare a batch with: real latents, and earlier predictions.

    Args:
        classes: their names.
        size: latents of each kind that are kept of a class.
        width: D, numbers of a latent.
        device: where they are kept.
        real: the real latents, for good, such as the codes that LD3M learned; None remembers those
            of earlier batches.

    Raises:
        InputError: a class has none of the real latents, or more than are kept.
    """

    def __init__(
        self,
        classes: Sequence[str],
        size: int,
        width: int,
        device: torch.device,
        real: LabelledLatents | None = None,
    ) -> None:
        self.real = Latest(len(classes), size, width, device)
        self.predicted = Latest(len(classes), size, width, device)
        self.fixed = real is not None
        if real is not None:
            _check_codes(classes, size, width, real)
            self.real.add(real.values.flatten(1).to(device), real.labels)

    def criteria(self, e: Float[Tensor, "B D"], labels: Int[Tensor, " B"]) -> Criteria:
        """The criteria of a batch of predicted latents, with their gradients.

        Args:
            e: predicted clean latents.
            labels: their classes.
        """
        known = [k for k in sorted(set(labels.tolist())) if len(self.predicted.of(k))]
        if not known:
            nothing = e.new_zeros(())
            return Criteria(nothing, nothing, nothing / 0)
        far, near, mean = [], [], []
        for k in known:
            of_class = e[labels == k]
            far.append(representativeness(of_class, self.real.of(k)))
            near.append(diversity(of_class, self.predicted.of(k)))
            mean.append(cosines(of_class.detach(), self.predicted.of(k)).mean())
        return Criteria(*(torch.stack(x).mean() for x in (far, near, mean)))

    def add(
        self,
        clean: Float[Tensor, "B D"],
        e: Float[Tensor, "B D"],
        labels: Int[Tensor, " B"],
    ) -> None:
        """Remember a batch, after its criteria are computed.

        Args:
            clean: its real latents.
            e: its predicted ones.
            labels: of both.
        """
        self.predicted.add(e, labels)
        if not self.fixed:
            self.real.add(clean, labels)

    def state(self) -> dict[str, Tensor]:
        """All that is remembered, by name."""
        kinds = {"real": self.real, "predicted": self.predicted}
        rows = {f"memory.{name}": kind.rows for name, kind in kinds.items()}
        return rows | {f"memory.{name}.seen": kind.seen for name, kind in kinds.items()}

    def load(self, found: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(found[name])


@runtime_checkable
class CodedSet(Protocol):
    """A synthetic set, as far as its codes go."""

    @property
    def labels(self) -> Int[Tensor, " B"]:
        """Of the images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the labels."""

    @property
    def state(self) -> dict[str, Tensor]:
        """Learned codes, by name."""

    @property
    def recipe(self) -> dict[str, object]:
        """How it was made."""

    def images(self) -> Float[Tensor, "B 3 H W"]:
        """In [0, 1]."""


@torch.no_grad()
def learned_latents(
    prior: LatentDiffusionPrior, made: CodedSet, classes: Sequence[str]
) -> LabelledLatents:
    """The latent codes Z of a set, to be the real memory of a fine-tuning.

    So LD3M comes first and Minimax after it, as section 5 proposes. A set without learned latents,
    such as one in pixel space, is encoded.

    Args:
        prior: whose latents they are.
        made: the set.
        classes: that the fine-tuning is for, in their order.

    Raises:
        InputError: the set has other classes.
    """
    if tuple(made.classes) != tuple(classes):
        theirs, ours = (", ".join(tuple(names)[:5]) for names in (made.classes, classes))
        raise InputError(
            f"the set whose codes are to be remembered has the classes {theirs}, ..., the data "
            f"{ours}, ...; give one of the same classes, in the same order"
        )
    Z = None if "drawn" in made.recipe else made.state.get("Z")  # what is drawn has learned no Z
    if Z is None:
        Z = torch.cat([prior.encode(x.to(prior.device)) for x in made.images().split(64)])
    return LabelledLatents(Z.to(prior.device), made.labels)


def _check_codes(classes: Sequence[str], size: int, width: int, real: LabelledLatents) -> None:
    """InputError unless each class has some of the latents, no more than are kept, of the width."""
    shape, counts = real.values.shape, torch.bincount(real.labels.cpu(), minlength=len(classes))
    if real.values.flatten(1).shape[1] != width or len(counts) > len(classes):
        raise InputError(
            f"the codes to remember are {tuple(shape)} of {len(counts)} classes, but this prior's "
            f"latents have {width} numbers and {len(classes)} classes; give codes of the same "
            "prior, size and data"
        )
    for name, count in zip(classes, counts.tolist(), strict=True):
        if not 1 <= count <= size:
            raise InputError(
                f"class {name!r} has {count} codes to remember, but must have from 1 to {size}, "
                "the memory of a class; give another set, or a larger memory"
            )
