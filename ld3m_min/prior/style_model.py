"""A frozen style-based generator, and what a distillation computes with it (section 2.3).

A mapping network turns noise and a class into codes w, one for each layer, and a synthesis network
turns the codes into an image, layer by layer. GLaD learns the codes (the space W+), or the features
after layer n and the codes of the later layers (the space F_n).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ld3m_min.errors import InputError
from ld3m_min.prior.parts import class_names
from ld3m_min.prior.style_foreign import ForeignMapping, ForeignSynthesis
from ld3m_min.prior.style_layers import Mapping, Synthesis
from ld3m_min.prior.style_parts import StyleArchitecture


class StyleModel(nn.Module):
    """The networks of a style-based generator, checked, and what they compute.

    Shapes: images (B, 3, H, W) in [0, 1]; codes w (B, num_ws, D); noise (B, z_width). The layers
    are counted from 1 to `num_layers`; the last step, which makes an image of the features, is none
    of them.

    Args:
        mapping: from noise and class embedding to codes.
        synthesis: from codes to images.
        class_embedding: a row for each class; None without classes.
        z_width: of the noise.
        classes: names of the classes, if known.
        source: how the generator is found again: a shipped name, a folder, a hub id.
        architecture: of networks that are made here; None for others, which cannot be saved.

    Attributes:
        mapping: frozen.
        synthesis: frozen.
        class_embedding: frozen; None without classes.
        has_null: False; a generator of this kind has no null class.
        z_width: as it was given.
        classes: names of the classes, () if they are not known.
        source: as it was given.

    Raises:
        InputError: names that do not fit the classes.
    """

    has_null = False

    def __init__(
        self,
        mapping: Mapping | ForeignMapping,
        synthesis: Synthesis | ForeignSynthesis,
        class_embedding: nn.Embedding | None,
        *,
        z_width: int,
        classes: Iterable[object] = (),
        source: str | None = None,
        architecture: StyleArchitecture | None = None,
    ) -> None:
        super().__init__()
        self.mapping, self.synthesis, self.class_embedding = mapping, synthesis, class_embedding
        self.z_width, self.source, self.architecture = z_width, source, architecture
        self.classes = class_names(classes, class_embedding, False)
        self.requires_grad_(False).eval()

    @property
    def num_layers(self) -> int:
        """How many layers the synthesis has; the features after each can be learned."""
        return self.synthesis.num_layers

    @property
    def num_ws(self) -> int:
        """Codes of one picture."""
        return self.synthesis.num_ws

    @property
    def size(self) -> int:
        """Side of the images, pixels."""
        return self.synthesis.size

    @property
    def class_count(self) -> int:
        """K; 0 without classes."""
        return 0 if self.class_embedding is None else self.class_embedding.num_embeddings

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.weights[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the networks."""
        return self.weights[0].dtype

    @property
    def weights(self) -> list[Tensor]:
        """Parameters and buffers of the synthesis, in the order of their names."""
        return [v for _, v in sorted(self.synthesis.state_dict(keep_vars=True).items())]

    # -- what it computes --------------------------------------------------------------------------

    def map(self, noise: Tensor, labels: Tensor | None = None) -> Float[Tensor, "B num_ws D"]:
        """Codes w of noise and classes.

        Args:
            noise: (B, z_width), normal.
            labels: (B,) whole numbers; None for a generator without classes.

        Raises:
            InputError: noise of another shape, or labels that do not fit the classes.

        Example:
            >>> import torch
            >>> from ld3m_min.prior import StyleGenerator
            >>> glad = StyleGenerator.from_pretrained("style-digits")
            >>> w = glad.map(torch.randn(2, glad.z_width), torch.tensor([3, 7]))
            >>> tuple(w.shape)
            (2, 9, 64)
        """
        if noise.dim() != 2 or noise.shape[1] != self.z_width:
            raise InputError(
                f"noise is {tuple(noise.shape)}; this generator takes (B, {self.z_width})"
            )
        w: Tensor = self.mapping(noise, self._embedded(len(noise), labels, noise))
        return w

    def _embedded(self, n: int, labels: Tensor | None, like: Tensor) -> Float[Tensor, "{n} e"]:
        """Embeddings of n labels.

        Raises:
            InputError: labels that do not fit the classes, or none where there are classes.
        """
        if self.class_embedding is None:
            if labels is not None:
                raise InputError("this generator has no classes; leave the labels out")
            return like.new_zeros(n, 0)
        last = self.class_count - 1
        if labels is None or labels.shape != (n,) or labels.is_floating_point():
            found = "none" if labels is None else f"{tuple(labels.shape)} {labels.dtype}"
            raise InputError(f"labels are {found}; expected ({n},) of whole numbers")
        if n and not 0 <= int(labels.min()) <= int(labels.max()) <= last:
            raise InputError(
                f"labels reach from {int(labels.min())} to {int(labels.max())}, the generator's "
                f"classes from 0 to {last}"
            )
        rows: Tensor = self.class_embedding(labels.to(like.device))
        return rows

    def features(self, w: Float[Tensor, "B num_ws D"], layer: int) -> Tensor:
        """F_n: the features (B, C, h, w) after the first `layer` layers.

        Args:
            w: codes of all layers; those of later layers play no part.
            layer: n, from 1 to `num_layers`.

        Raises:
            InputError: there is no such layer.

        Example:
            >>> import torch
            >>> from ld3m_min.prior import StyleGenerator
            >>> glad = StyleGenerator.from_pretrained("style-digits")
            >>> w = glad.map(torch.randn(1, glad.z_width), torch.tensor([3]))
            >>> [tuple(glad.features(w, layer).shape) for layer in (1, 4, 8)]
            [(1, 64, 4, 4), (1, 64, 8, 8), (1, 16, 32, 32)]
        """
        self.check_layer(layer)
        x = self.synthesis.begin(w)
        for i in range(1, layer + 1):
            x = self.synthesis.step(i, x, w)
        return x

    def output(
        self, w: Float[Tensor, "B num_ws D"], *, features: Tensor | None = None, layer: int = 0
    ) -> Float[Tensor, "B 3 H W"]:
        """What the networks give: images that lie mostly in [-1, 1], and are not clamped.

        Args:
            w: codes of all layers.
            features: what enters after `layer` layers; None starts from the beginning.
            layer: how many layers the features have passed; 0 without features.

        Raises:
            InputError: codes of another shape, no such layer, or features without a layer.
        """
        if w.dim() != 3 or w.shape[1] != self.num_ws:
            raise InputError(
                f"codes are {tuple(w.shape)}; this generator takes (B, {self.num_ws}, D), one code "
                "for each layer"
            )
        if features is None and layer == 0:
            x = self.synthesis.begin(w)
        elif features is None or layer == 0:
            raise InputError(
                "features and the number of layers that they have passed go together; give both, "
                "or neither"
            )
        else:
            self.check_layer(layer)
            x = features
        for i in range(layer + 1, self.num_layers + 1):
            x = self.synthesis.step(i, x, w)
        return self.synthesis.end(x, w)

    def synthesize(
        self, w: Float[Tensor, "B num_ws D"], *, features: Tensor | None = None, layer: int = 0
    ) -> Float[Tensor, "B 3 H W"]:
        """Images in [0, 1] of codes, or of features and the codes of later layers.

        Differentiable; the gradient is zero where an image is clamped. GLaD's public code does not
        clamp, but a set whose images are to be files has to.

        Args:
            w: codes of all layers; those of the layers before the features play no part.
            features: what enters after `layer` layers: F_n of :meth:`features`.
            layer: n; 0 without features.

        Raises:
            InputError: as :meth:`output`.

        Example:
            >>> import torch
            >>> from ld3m_min.prior import StyleGenerator
            >>> glad = StyleGenerator.from_pretrained("style-digits")
            >>> w = glad.map(torch.randn(1, glad.z_width), torch.tensor([3]))
            >>> images = glad.synthesize(w, features=glad.features(w, 5), layer=5)
            >>> f"differ by {(images - glad.synthesize(w)).abs().max():.3f}"
            'differ by 0.000'
        """
        return ((self.output(w, features=features, layer=layer) + 1) / 2).clamp(0, 1)

    def check_layer(self, layer: int) -> None:
        """Refuse a layer that the generator lacks.

        Raises:
            InputError: it does.
        """
        if not 1 <= layer <= self.num_layers:
            raise InputError(
                f"this generator has layers 1 to {self.num_layers}, and none {layer}; choose one "
                "of them, or learn the codes of all layers (W+)"
            )
