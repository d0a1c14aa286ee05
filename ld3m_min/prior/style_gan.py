"""GLaD's prior, a style-based generator, as a distillation sees it (section 2.3).

A mapping network turns noise and a class into codes w, one for each layer, and a synthesis network
turns the codes into an image, layer by layer. GLaD learns the codes (the space W+), or the features
after layer n and the codes of the later layers (the space F_n). All weights are frozen.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ld3m_min.errors import InputError, InputTypeError
from ld3m_min.io.digests import digest, versions
from ld3m_min.io.files import write_bytes, write_json
from ld3m_min.io.tensors import to_bytes
from ld3m_min.prior.parts import class_names
from ld3m_min.prior.saving import check_finite
from ld3m_min.prior.style_foreign import ForeignMapping, ForeignSynthesis, foreign_parts
from ld3m_min.prior.style_layers import Mapping, Synthesis
from ld3m_min.prior.style_parts import (
    KIND,
    WEIGHTS,
    StyleArchitecture,
    StyleParts,
    read_style,
    untrained_parts,
)
from ld3m_min.prior.weights import find_prior


class StyleGenerator(nn.Module):
    """A frozen style-based generator.

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
    _digest: tuple[object, str] | None = None  # of the synthesis, and the weights it belongs to

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

    # -- what it is --------------------------------------------------------------------------------

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
        return self._weights[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the networks."""
        return self._weights[0].dtype

    @property
    def _weights(self) -> list[Tensor]:
        """Parameters and buffers of the synthesis, in the order of their names."""
        return [v for _, v in sorted(self.synthesis.state_dict(keep_vars=True).items())]

    @property
    def digest(self) -> str:
        """What this prior is, whatever it is called: its networks, its classes and their order."""
        rows = [] if self.class_embedding is None else [self.class_embedding.weight]
        mapping = [v for _, v in sorted(self.mapping.state_dict().items())]
        return digest(*rows, *mapping, [self.networks_digest, list(self.classes)])

    @property
    def networks_digest(self) -> str:
        """What turns codes (w, features) into images: a digest of the synthesis."""
        now = versions(self._weights)
        if self._digest is None or now is None or self._digest[0] != now:
            names = sorted(self.synthesis.state_dict())
            self._digest = now, digest(*self._weights, ["synthesis", names])
        return self._digest[1]

    # -- what it computes --------------------------------------------------------------------------

    def map(self, noise: Tensor, labels: Tensor | None = None) -> Float[Tensor, "B num_ws D"]:
        """Codes w of noise and classes.

        Args:
            noise: (B, z_width), normal.
            labels: (B,) whole numbers; None for a generator without classes.

        Raises:
            InputError: noise of another shape, or labels that do not fit the classes.
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

    # -- other generators, files -------------------------------------------------------------------

    def for_classes(self, ids: Iterable[int], names: Iterable[str] | None = None) -> StyleGenerator:
        """The same networks for some of the classes.

        Args:
            ids: classes of this generator, which become 0, 1, ... in this order.
            names: of the classes; None takes those that this generator has.

        Raises:
            InputError: there are no classes, one isn't there, or more or fewer names.
        """
        rows = [int(i) for i in ids]
        if self.class_embedding is None:
            raise InputError("this generator has no classes to choose from")
        self._embedded(len(rows), torch.tensor(rows), self.class_embedding.weight)
        called = tuple(names or ()) or tuple(self.classes[i] for i in rows if self.classes)
        chosen = nn.Embedding.from_pretrained(self.class_embedding.weight[rows].clone())
        return StyleGenerator(
            self.mapping,
            self.synthesis,
            chosen,
            z_width=self.z_width,
            classes=called,
            source=self.source,
            architecture=self.architecture,
        )

    @classmethod
    def from_stylegan(
        cls, generator: object, *, source: str, classes: Iterable[object] = ()
    ) -> StyleGenerator:
        """A generator from elsewhere, with the interface of StyleGAN3 and StyleGAN-XL.

        It has `z_dim`, `c_dim` (classes, given as one-hot rows), `num_ws`, `img_resolution`,
        `mapping(z, c)`, and a `synthesis` with `input(w)`, `layer_names`, a module `(x, w)` for
        each of them, of which the last gives the image, and `output_scale`. The first code is that
        of the input, and belongs to no layer. Its networks are used, and frozen. It is saved and
        loaded by its own code, never by this package's.

        Args:
            generator: such a module, already loaded, for inference.
            source: what recipes call it, such as the path of its file.
            classes: names, if known.

        Raises:
            InputTypeError: it is no module, or lacks a part.
        """
        parts = foreign_parts(generator)
        return cls(
            parts.mapping,
            parts.synthesis,
            parts.class_embedding,
            z_width=parts.z_width,
            classes=classes,
            source=source,
        )

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike[str],
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        sha256: str | None = None,
    ) -> StyleGenerator:
        """Load a generator. Weights are read from safetensors alone; no code is run.

        Args:
            path_or_id: a shipped name ("style-digits"), a folder of `save_pretrained`, or the hub
                id of one.
            dtype: of the networks.
            device: of the networks.
            revision: as of :func:`ld3m_min.prior.weights.find_prior`.
            sha256: as of the same function.

        Raises:
            FileNotFoundError: neither a shipped name nor a folder, and not to be had from the hub;
                or a part is missing.
            InputError: the folder holds something else, a part is damaged, or does not fit.
        """
        found = find_prior(path_or_id, revision=revision, sha256=sha256)
        generator = cls._of(read_style(found.folder, found.source), found.source)
        check_finite([generator], found.source)
        return generator.to(device, dtype)

    @classmethod
    def _of(cls, parts: StyleParts, source: str | None = None) -> StyleGenerator:
        """The generator that some networks make."""
        return cls(
            parts.mapping,
            parts.synthesis,
            parts.class_embedding,
            z_width=parts.architecture.z_width,
            classes=parts.classes,
            source=source,
            architecture=parts.architecture,
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the generator: `model_index.json` and the weights.

        Args:
            folder: what :meth:`from_pretrained` reads it from.

        Raises:
            InputTypeError: it came from elsewhere, see :meth:`from_stylegan`.
        """
        if self.architecture is None:
            raise InputTypeError(
                f"a generator from elsewhere ({self.source}) is saved by its own code; keep its "
                "own file"
            )
        write_bytes(Path(folder) / WEIGHTS, to_bytes(self.state_dict()))
        index: dict[str, object] = {"_class_name": KIND, "classes": list(self.classes)}
        index |= {"class_count": self.class_count, "architecture": asdict(self.architecture)}
        write_json(Path(folder) / "model_index.json", index)


def build_style(
    architecture: StyleArchitecture, classes: Iterable[str], *, seed: int = 0
) -> StyleGenerator:
    """An untrained generator; its weights are drawn from a seed.

    Args:
        architecture: how large it is.
        classes: their names, in label order; none for a generator without classes.
        seed: of the weights.
    """
    return StyleGenerator._of(untrained_parts(architecture, classes, seed=seed))
