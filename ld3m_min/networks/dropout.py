"""Dropout whose draws are counted, so that a training goes on where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout whose mask comes from a generator of its own, which is neither parameter nor buffer.

    The generator lives on the input's device: masks made on the CPU would dominate a training step
    on a GPU. It is copied with the module by deepcopy and pickle, and `build_network` seeds it.
    Each forward pass in training mode draws another mask, a recomputed one too. In eval mode the
    module is the identity.

    Args:
        p: probability with which an element is zeroed.

    Attributes:
        mask: what `draw` gave beforehand, for a forward pass that may not draw (vmap); else None.

    Example:
        >>> import torch
        >>> from ld3m_min.networks import Dropout
        >>> dropout = Dropout(p=0.5)
        >>> dropout(torch.ones(1000)).unique().tolist()
        [0.0, 2.0]
        >>> dropout.eval()(torch.ones(1000)).unique().tolist()
        [1.0]
    """

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        self.p, self.generator = p, torch.Generator()
        self.mask: Tensor | None = None

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Each element zeroed with probability p, the others divided by 1 - p."""
        if not self.training:
            return x
        kept = self.draw(x.shape, x.device) if self.mask is None else self.mask
        return x * kept / (1 - self.p)

    def draw(self, shape: Sequence[int], device: torch.device | str) -> Bool[Tensor, " ..."]:
        """The next mask of this shape: True where an element is kept."""
        self.place(device)
        return torch.rand(shape, generator=self.generator, device=device) >= self.p

    def place(self, device: torch.device | str) -> None:
        """Bring the generator to a device, where it goes on with draws of its own."""
        if self.generator.device != torch.device(device):
            self.generator = torch.Generator(device).manual_seed(seed_of(self.generator))

    # a torch.Generator itself cannot be copied in every version of PyTorch
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "generator": (self.generator.device, self.generator.get_state())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        device, value = state["generator"]
        self.__dict__.update({**state, "generator": torch.Generator(device)})
        self.generator.set_state(value)


def seed_of(generator: torch.Generator) -> int:
    """A seed for another generator, drawn from this one."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))
