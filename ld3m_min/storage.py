"""How many bytes a set takes: as images, as codes, and what all sets of a prior share.

A table of systems has two columns for each, images a class and bytes a class, and what is shared
apart. One that counts images alone favours large codes; one that counts bytes alone favours many
small images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.io.packing import lossless_bytes
from ld3m_min.spaces.build import SPACES


@dataclass(frozen=True)
class Kept:
    """One way to keep a set.

    Attributes:
        form: "lossless PNG" or "lossless WebP" for files of its images, "codes", or the lossy files
            of a compressed selection, such as "WebP 50".
        per_class: bytes for each class, the mean over classes.
        shared: bytes that are needed once, whatever the number of classes and sets.
    """

    form: str
    per_class: float
    shared: int


@dataclass(frozen=True)
class Storage:
    """The bytes of a set.

    Attributes:
        classes: K, how many there are.
        count: B, how many images.
        images: of lossless files of the images, 8 bits a channel, by format; "PNG" is what lies in
            the set's folder. Learned pixels are rounded for it.
        files: of the lossy files that the images of a compressed selection were read from, by
            format and quality; empty for every other set.
        codes: of each learned and constant tensor, as `set.safetensors` has it.
        drawn: of tensors that the seed draws again (the forward noise), so that none is kept.
        labels: as `set.safetensors` has them. Hard labels also follow from the order of the images.
        shared: of the prior's weights that turn codes into images, as float32; 0 without a prior,
            None where the set does not say.
    """

    classes: int
    count: int
    images: dict[str, int]
    files: dict[str, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    drawn: dict[str, int] = field(default_factory=dict)
    labels: int = 0
    shared: int | None = 0

    @property
    def images_per_class(self) -> float:
        """B / K, the mean over classes."""
        return self.count / self.classes

    @property
    def ways(self) -> tuple[Kept, ...]:
        """Every way to keep the set, without its labels."""
        files = {f"lossless {k}": n for k, n in self.images.items()} | self.files
        found = [Kept(k, n / self.classes, 0) for k, n in files.items()]
        if self.codes and self.shared is not None:
            found.append(Kept("codes", sum(self.codes.values()) / self.classes, self.shared))
        return tuple(found)

    @property
    def smallest(self) -> Kept:
        """The way of fewest bytes a class; of equal ones that which shares least."""
        return min(self.ways, key=lambda kept: (kept.per_class, kept.shared))

    @property
    def in_words(self) -> str:
        """All of it in one sentence, for a card."""
        sizes = [f"{n:,} as {k}" for k, n in self.files.items()]
        sizes += [f"{n:,} as lossless {k}" for k, n in self.images.items()]
        if self.codes:
            names, total = " and ".join(self.codes), sum(self.codes.values())
            sizes.append(f"{total:,} as the tensors {names}{self._prior_in_words}")
        return f"Bytes of all images: {'; '.join(sizes)}. Labels: {self.labels:,}."

    @property
    def _prior_in_words(self) -> str:
        """What decodes the codes; nothing where they need no prior."""
        if self.shared == 0:
            return ""
        known = "an unknown number of" if self.shared is None else f"{self.shared:,}"
        return f", which {known} bytes of weights decode that all sets of the prior share"


def storage_of(
    images: Float[Tensor, "B 3 H W"],
    labels: Int[Tensor, " B"],
    classes: tuple[str, ...],
    state: Mapping[str, Tensor],
    recipe: Mapping[str, Any],
) -> Storage:
    """The bytes of a set, counted on the files that would be written.

    Args:
        images: in [0, 1].
        labels: of the images.
        classes: their names.
        state: the codes and constants, by name.
        recipe: of the set: its space says which constants are drawn, its prior how many bytes are
            shared, its selection how large the files of compressed images were.
    """
    config, prior = recipe.get("config") or {}, recipe.get("prior")
    space = SPACES.get(config.get("space", ""))
    drawn = () if space is None else space.drawn
    sizes = {k: v.numel() * v.element_size() for k, v in state.items()}
    return Storage(
        classes=len(classes),
        count=len(labels),
        images=lossless_bytes(images),
        files=_files(recipe.get("selection")),
        codes={k: n for k, n in sizes.items() if k not in drawn},
        drawn={k: n for k, n in sizes.items() if k in drawn},
        labels=labels.numel() * labels.element_size(),
        shared=prior.get("bytes") if prior else 0,
    )


def _files(selection: object) -> dict[str, int]:
    """The bytes of compressed images, by format and quality; nothing of other selections."""
    if not isinstance(selection, Mapping) or "bytes" not in selection:
        return {}
    return {f"{selection['format']} {selection['quality']}": sum(selection["bytes"])}
