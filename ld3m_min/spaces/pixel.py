"""Pixels: what dataset distillation learned before it had a prior (section 2.1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.config import DistilConfig
from ld3m_min.prior.loading import AnyPrior
from ld3m_min.spaces.base import Space


class PixelSpace(Space):
    """The pixels themselves, kept in [0, 1] by projection.

    Arguments are those of :class:`~ld3m_min.spaces.base.Space`; the one parameter is "pixels".

    Example:
        >>> import torch
        >>> from ld3m_min.spaces import PixelSpace
        >>> space = PixelSpace({"pixels": torch.full((1, 3, 8, 8), 1.5)})
        >>> space.project()
        >>> space.images().max().item()
        1.0
    """

    needs_prior = False
    saves = ("pixels",)

    @classmethod
    def build(
        cls,
        config: DistilConfig,
        images: Float[Tensor, "B 3 H W"],
        labels: Int[Tensor, " B"],
        prior: AnyPrior | None,
    ) -> PixelSpace:
        """The images themselves; nothing else is looked at."""
        return cls({"pixels": images})

    @classmethod
    def restore(
        cls,
        config: DistilConfig,
        state: Mapping[str, Tensor],
        prior: AnyPrior | None,
    ) -> PixelSpace:
        """The space of saved pixels.

        Args:
            config: of the distillation.
            state: holds the pixels.
            prior: not looked at.

        Returns:
            The space.
        """
        return cls({"pixels": state["pixels"]})

    def images(self) -> Float[Tensor, "B 3 H W"]:
        """The pixels."""
        return self.parameters["pixels"]

    @torch.no_grad()
    def project(self) -> None:
        """Cut off what is below 0 or above 1."""
        self.parameters["pixels"].clamp_(0, 1)
