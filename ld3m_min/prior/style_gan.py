"""GLaD's prior, a style-based generator: where it comes from, and what it is (section 2.3).

`style_model` has what a distillation computes with it. Here are its files, its digests, and
generators from elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from ld3m_min.errors import InputError, InputTypeError
from ld3m_min.io.digests import digest, versions
from ld3m_min.io.files import write_bytes, write_json
from ld3m_min.io.tensors import to_bytes
from ld3m_min.prior.place import has_index, whole_prior
from ld3m_min.prior.saving import STYLE, check_finite
from ld3m_min.prior.style_foreign import foreign_parts
from ld3m_min.prior.style_model import StyleModel
from ld3m_min.prior.style_parts import (
    WEIGHTS,
    StyleArchitecture,
    StyleParts,
    read_style,
    untrained_parts,
)
from ld3m_min.prior.weights import find_prior


class StyleGenerator(StyleModel):
    """A frozen style-based generator, as a distillation sees it.

    Arguments, attributes and what it computes (`map`, `features`, `output`, `synthesize`) are those
    of :class:`~ld3m_min.prior.style_model.StyleModel`.

    Example:
        >>> from ld3m_min.prior import StyleGenerator
        >>> glad = StyleGenerator.from_pretrained("style-digits")
        >>> glad.z_width, glad.num_ws, glad.num_layers, glad.size
        (32, 9, 8, 32)
        >>> glad.for_classes([3, 8]).class_count
        2
    """

    _digest: tuple[object, str] | None = None  # of the synthesis, and the weights it belongs to

    @property
    def digest(self) -> str:
        """What this prior is, whatever it is called: its networks, its classes and their order."""
        rows = [] if self.class_embedding is None else [self.class_embedding.weight]
        mapping = [v for _, v in sorted(self.mapping.state_dict().items())]
        return digest(*rows, *mapping, [self.networks_digest, list(self.classes)])

    @property
    def networks_digest(self) -> str:
        """What turns codes (w, features) into images: a digest of the synthesis."""
        now = versions(self.weights)
        if self._digest is None or now is None or self._digest[0] != now:
            names = sorted(self.synthesis.state_dict())
            self._digest = now, digest(*self.weights, ["synthesis", names])
        return self._digest[1]

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

        Example:
            >>> from ld3m_min.prior import StyleGenerator
            >>> glad = StyleGenerator.from_pretrained("style-digits")
            >>> glad.source, glad.dtype, len(glad.classes)
            ('style-digits', torch.float32, 10)
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

        Example:
            >>> from os import listdir
            >>> from tempfile import TemporaryDirectory
            >>> from ld3m_min.prior import StyleGenerator
            >>> with TemporaryDirectory() as folder:
            ...     StyleGenerator.from_pretrained("style-digits").save_pretrained(folder)
            ...     sorted(listdir(folder))
            ['generator', 'model_index.json']
        """
        if self.architecture is None:
            raise InputTypeError(
                f"a generator from elsewhere ({self.source}) is saved by its own code; keep its "
                "own file"
            )
        if has_index(folder):
            with whole_prior(folder) as empty:
                self.save_pretrained(empty)
            return
        write_bytes(Path(folder) / WEIGHTS, to_bytes(self.state_dict()))
        index: dict[str, object] = {"_class_name": STYLE, "classes": list(self.classes)}
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
