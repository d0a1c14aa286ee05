"""What every space has (sections 2.3 and 3.2).

A space turns its parameters into images, differentiably; a distiller never knows which one it
drives. Whatever the space, the synthetic set starts from real images drawn at random, one for each
synthetic image, class by class.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.backprop import ONE_PASS, Plan
from ld3m_min.config import DistilConfig
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.loading import AnyPrior


class Space:
    """Parameters that are learned, constants that belong to the set, and their map to images.

    Args:
        parameters: name -> what is learned. It is copied.
        constants: name -> what else the images depend on (the forward noise). It is copied.
        plan: how gradients pass the generator; pixels have none.

    Attributes:
        parameters: name -> leaf tensor that requires grad.
        constants: name -> tensor.
        plan: how gradients pass the generator; may be changed between iterations.
        rates: learning rate of a parameter as a multiple of the configuration's; 1 where it has
            none.
        notes: what a recipe says of the start, JSON-able; empty where there is nothing to say.
        needs_prior: whether a prior makes the images.
        prior_kind: of which kind it has to be.
        starts_from_classes: whether the codes start from the prior's classes.
        saves: names of the tensors of :meth:`state`, which a set's folder holds.
        may_lack: those of them that are not always there.
        by_class: those of them that have a row for each class, not for each image; may be bytes.
        drawn: those of them that the seed of the set draws again.

    Example:
        >>> import torch
        >>> from ld3m_min.spaces import Space
        >>> space = Space({"Z": torch.zeros(2, 3)}, {"noise": torch.ones(2, 3)})
        >>> list(space.parameters), list(space.state())
        (['Z'], ['Z', 'noise'])
    """

    needs_prior: ClassVar[bool] = True
    prior_kind: ClassVar[type[AnyPrior]] = LatentDiffusionPrior
    starts_from_classes: ClassVar[bool] = False
    saves: ClassVar[tuple[str, ...]] = ()
    may_lack: ClassVar[tuple[str, ...]] = ()
    by_class: ClassVar[tuple[str, ...]] = ()
    drawn: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        constants: Mapping[str, Tensor] | None = None,
        *,
        plan: Plan = ONE_PASS,
    ) -> None:
        # one memory layout, as a saved set has it: on another, kernels round differently, and a set
        # must decode bit for bit
        self.parameters = {k: _plain(v).requires_grad_() for k, v in parameters.items()}
        self.constants = {k: _plain(v) for k, v in (constants or {}).items()}
        self.plan = plan
        self.rates: dict[str, float] = {}
        self.notes: dict[str, Any] = {}

    @classmethod
    def per_class(cls, config: DistilConfig, prior: AnyPrior | None = None) -> int:
        """Images per class: `config.ipc`, or as many as fit into the storage of so many.

        Args:
            config: of the distillation.
            prior: given where the space needs one; its networks are not run.

        Raises:
            InputError: not one fits.
        """
        return config.ipc

    @classmethod
    def build(
        cls,
        config: DistilConfig,
        images: Float[Tensor, "B 3 H W"],
        labels: Int[Tensor, " B"],
        prior: AnyPrior | None,
    ) -> Space:
        """The space of a configuration, starting from real images (section 3.2).

        Args:
            config: of the distillation.
            images: in [0, 1].
            labels: of the images.
            prior: given where the space needs one, and then it computes in the images' precision.

        Returns:
            The space.
        """
        raise NotImplementedError

    @classmethod
    def restore(
        cls,
        config: DistilConfig,
        state: Mapping[str, Tensor],
        prior: AnyPrior | None,
    ) -> Space:
        """The space that gave a saved state, as far as its images go.

        Args:
            config: of the distillation.
            state: what :meth:`state` gave, on the prior's device.
            prior: given where the space needs one.

        Returns:
            The space.
        """
        raise NotImplementedError

    @classmethod
    def shared_weights(cls, config: DistilConfig, prior: AnyPrior) -> list[Tensor]:
        """Weights of the prior that turn saved codes into images: every set needs the same ones.

        Args:
            config: of the distillation.
            prior: of a space that needs one.
        """
        raise NotImplementedError

    def images(self) -> Float[Tensor, "B 3 H W"]:
        """The images in [0, 1], differentiable in every parameter."""
        raise TypeError(f"{type(self).__name__} is abstract; use one of ld3m_min.spaces.SPACES")

    def part(self, rows: slice) -> Space:
        """The same space with some of the images alone; gradients reach this one's parameters.

        Args:
            rows: which images.
        """
        made = copy(self)
        made.parameters = {k: v[rows] for k, v in self.parameters.items()}
        made.constants = {
            k: v if k in self.by_class else v[rows] for k, v in self.constants.items()
        }
        return made

    def begin(self) -> None:
        """What takes long before the first iteration; a run that goes on does it no more."""

    def project(self) -> None:
        """Bring the parameters back to where they make sense, after an optimiser step."""

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the images depend on, detached, by name."""
        return {k: v.detach() for k, v in self.parameters.items()} | self.constants


def _plain(tensor: Tensor) -> Tensor:
    """A copy without history, in the ordinary memory layout."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def is_class_by_class(labels: Int[Tensor, " B"], classes: int) -> bool:
    """Whether the images of each class stand in a row, in the order of the classes, equally many.

    Args:
        labels: of the images.
        classes: how many there are.
    """
    each = torch.arange(classes, device=labels.device).repeat_interleave(len(labels) // classes)
    return torch.equal(labels, each)
