"""A style-based generator from elsewhere, as `StyleGenerator` takes it (section 2.3).

What is asked of it is the interface that StyleGAN3 and StyleGAN-XL have in public. Only that is
called; none of their code is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ld3m_min.errors import InputTypeError

_OF_ALL = ("z_dim", "c_dim", "num_ws", "img_resolution", "mapping", "synthesis")
_OF_SYNTHESIS = ("input", "layer_names")


class ForeignMapping(nn.Module):
    """The mapping of a generator from elsewhere.

    Args:
        mapping: called with noise and one-hot classes; gives a code for each layer.
    """

    def __init__(self, mapping: Any) -> None:
        super().__init__()
        self.network = mapping

    def forward(
        self, z: Float[Tensor, "B z"], e: Float[Tensor, "B e"]
    ) -> Float[Tensor, "B num_ws D"]:
        """The codes.

        Args:
            z: normal noise.
            e: a one-hot row for each image; of no columns where there are no classes.
        """
        w: Tensor = self.network(z, e)
        return w


class ForeignSynthesis(nn.Module):
    """The synthesis of a generator from elsewhere, layer by layer.

    Args:
        synthesis: has `input`, `layer_names`, and a module for each name.
        num_ws: codes of one picture; the first is the input's.
        size: side of the images, pixels.

    Attributes:
        num_layers: named layers without the last, which makes the image.
        num_ws: as it was given.
        size: as it was given.
    """

    def __init__(self, synthesis: Any, num_ws: int, size: int) -> None:
        super().__init__()
        self.network = synthesis
        self.num_layers, self.num_ws, self.size = len(synthesis.layer_names) - 1, num_ws, size

    def first_w(self, layer: int) -> int:
        """Which of the codes is the first that matters after so many layers."""
        return layer + 1 if layer else 0

    def weights_after(self, layer: int) -> list[Tensor]:
        """Those that turn the features after so many layers into an image; of all for 0."""
        if not layer:
            return list(self.network.parameters())
        later = self.network.layer_names[layer:]
        return [p for name in later for p in getattr(self.network, name).parameters()]

    def begin(self, w: Float[Tensor, "B num_ws D"]) -> Tensor:
        """The features before the first layer."""
        x: Tensor = self.network.input(w[:, 0])
        return x

    def step(self, layer: int, x: Tensor, w: Float[Tensor, "B num_ws D"]) -> Tensor:
        """The features after a layer.

        Args:
            layer: counted from 1.
            x: the features before it.
            w: all codes.
        """
        name = self.network.layer_names[layer - 1]
        out: Tensor = getattr(self.network, name)(x, w[:, layer])
        return out

    def end(self, x: Tensor, w: Float[Tensor, "B num_ws D"]) -> Float[Tensor, "B 3 H W"]:
        """Images, mostly in [-1, 1].

        Args:
            x: the features after the last of the counted layers.
            w: all codes.
        """
        out = self.step(self.num_layers + 1, x, w)
        return (out * getattr(self.network, "output_scale", 1)).float()


@dataclass(frozen=True)
class ForeignParts:
    """What `StyleGenerator` is made of.

    Attributes:
        mapping: from noise and class to codes.
        synthesis: from codes to images.
        class_embedding: the one-hot rows of the classes; None without classes.
        z_width: of the noise.
    """

    mapping: ForeignMapping
    synthesis: ForeignSynthesis
    class_embedding: nn.Embedding | None
    z_width: int


def foreign_parts(generator: Any) -> ForeignParts:
    """The parts of a generator from elsewhere, see `StyleGenerator.from_stylegan`.

    Args:
        generator: anything.

    Raises:
        InputTypeError: it is no module with these parts.
    """
    lacking = [name for name in _OF_ALL if not hasattr(generator, name)]
    if not lacking:
        lacking = [f"synthesis.{k}" for k in _OF_SYNTHESIS if not hasattr(generator.synthesis, k)]
    if lacking or not isinstance(generator, nn.Module):
        raise InputTypeError(
            f"{type(generator).__name__} is no generator with mapping and synthesis by layers: it "
            f"lacks {', '.join(lacking) or 'the methods of a torch module'}; give one with the "
            "interface of StyleGAN3"
        )
    given: Any = generator  # now of the kind that its interface says
    classes, named = int(given.c_dim), len(given.synthesis.layer_names)
    if given.num_ws != named + 1:
        raise InputTypeError(
            f"{type(given).__name__} takes {given.num_ws} codes for {named} layers; one "
            "for each and one for the input are expected, as in StyleGAN3"
        )
    table = nn.Embedding.from_pretrained(torch.eye(classes)) if classes else None
    return ForeignParts(
        ForeignMapping(given.mapping),
        ForeignSynthesis(given.synthesis, int(given.num_ws), int(given.img_resolution)),
        table,
        int(given.z_dim),
    )
