"""What a set consists of, whether it is in memory, in a folder, or in an exported file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class SetContents:
    """What a set's folder holds, but for a prior.

    Attributes:
        images: in [0, 1].
        labels: of the images, int64.
        classes: their names, in the order of the labels.
        state: the learned codes and constants, by name.
        recipe: how the set was made, as JSON has it.
        history: one entry for each iteration.
        soft_labels: probabilities of the K classes for each image; None where each image has its
            class and no more.
    """

    images: Float[Tensor, "B 3 H W"]
    labels: Int[Tensor, " B"]
    classes: tuple[str, ...]
    state: dict[str, Tensor]
    recipe: dict[str, Any]
    history: tuple[dict[str, Any], ...]
    soft_labels: Float[Tensor, "B K"] | None = None

    @property
    def per_class(self) -> list[int]:
        """How many images each class has."""
        counts: list[int] = self.labels.bincount(minlength=len(self.classes)).tolist()
        return counts

    @property
    def real(self) -> str:
        """Whether the images are real ones, in words; "" where they were learned or generated."""
        if "selection" in self.recipe:
            return "chosen from the real images, or computed from them"
        if "drawn" in self.recipe or self.history:
            return ""
        return "the real images that a distillation would start from, or a prior's copies of them"
