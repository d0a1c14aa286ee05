"""The networks of a style-based generator: made untrained, and read from a folder (section 2.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ld3m_min.errors import InputError
from ld3m_min.io.files import read_json
from ld3m_min.io.seeds import seeded
from ld3m_min.io.tensors import from_bytes
from ld3m_min.io.values import checked, from_dict
from ld3m_min.prior.saving import STYLE
from ld3m_min.prior.style_layers import Mapping, Synthesis

WEIGHTS = Path("generator") / "model.safetensors"
_MOST = 2**16  # classes


@dataclass(frozen=True)
class StyleArchitecture:
    """How large the networks of a generator are.

    Attributes:
        widths: channels at 4, 8, 16, ... pixels; the last is the size of the images.
        z_width: of the noise.
        w_width: D, of a code.
        class_width: of a class's embedding.
        mapping_layers: of the mapping network.
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    widths: tuple[int, ...] = (64, 64, 32, 16)
    z_width: int = 32
    w_width: int = 64
    class_width: int = 32
    mapping_layers: int = 2

    def __post_init__(self) -> None:
        checked(
            self,
            widths=">= 1",
            z_width=">= 1",
            w_width=">= 1",
            class_width=">= 1",
            mapping_layers=">= 1",
        )
        if not 1 <= len(self.widths) <= 9:
            raise InputError(
                f"a generator has 1 to 9 resolutions, from 4 pixels on, not {len(self.widths)}; "
                "give a width for each"
            )

    @property
    def size(self) -> int:
        """Side of the images, pixels."""
        return 4 << (len(self.widths) - 1)


@dataclass(frozen=True)
class StyleParts:
    """The networks of a generator.

    Attributes:
        architecture: how large they are.
        mapping: from noise and class to codes.
        synthesis: from codes to images.
        class_embedding: a row for each class; None without classes.
        classes: their names, () where they are not known.
    """

    architecture: StyleArchitecture
    mapping: Mapping
    synthesis: Synthesis
    class_embedding: nn.Embedding | None
    classes: tuple[str, ...] = ()

    def named(self) -> dict[str, nn.Module]:
        """The networks by name, as a generator has them."""
        found: dict[str, nn.Module] = {"mapping": self.mapping, "synthesis": self.synthesis}
        if self.class_embedding is not None:
            found["class_embedding"] = self.class_embedding
        return found


def untrained_parts(
    architecture: StyleArchitecture, classes: Iterable[str], *, seed: int
) -> StyleParts:
    """Networks whose weights are drawn from a seed.

    Args:
        architecture: how large they are.
        classes: names, in label order; none for a generator without classes.
        seed: of the weights.
    """
    names = tuple(classes)
    with torch.random.fork_rng(devices=[]):  # the layers draw as torch's own do
        torch.default_generator.set_state(seeded(seed, "style generator").get_state())
        return _parts(architecture, len(names), names)


def _parts(a: StyleArchitecture, count: int, classes: tuple[str, ...]) -> StyleParts:
    """New networks of an architecture, for so many classes."""
    table = nn.Embedding(count, a.class_width) if count else None
    synthesis, width = Synthesis(a.widths, a.w_width), a.class_width if count else 0
    mapping = Mapping(a.z_width, width, a.w_width, a.mapping_layers, synthesis.num_ws)
    return StyleParts(a, mapping, synthesis, table, classes)


def read_style(folder: Path, source: str) -> StyleParts:
    """The networks in a folder of `StyleGenerator.save_pretrained`.

    Args:
        folder: where they are.
        source: what messages call it.

    Raises:
        FileNotFoundError: a part is missing.
        InputError: it is a prior of another kind, a part is damaged, or does not fit.
    """
    index = read_json(folder / "model_index.json")
    kind = index.get("_class_name") if isinstance(index, dict) else None
    if kind != STYLE:
        raise InputError(
            f"{source} holds {kind or 'no prior'}, not a {STYLE}; load it by "
            "LatentDiffusionPrior.from_pretrained, or give another folder"
        )
    where = f"{source}: architecture"
    architecture = from_dict(StyleArchitecture, index.get("architecture"), where)
    names, count = index.get("classes"), index.get("class_count")
    named = isinstance(names, list) and all(isinstance(c, str) for c in names)
    if not named or not isinstance(count, int) or not 0 <= count <= _MOST:
        raise InputError(
            f"{folder / 'model_index.json'}: classes must be a list of text, and class_count their "
            "number"
        )
    with torch.device("meta"):  # sizes that a file claims cost no memory
        parts = _parts(architecture, count, tuple(names))
    try:
        data = (folder / WEIGHTS).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder / WEIGHTS} is missing: the generator has no weights"
        ) from None
    _fill(parts, from_bytes(data, folder / WEIGHTS), folder / WEIGHTS)
    return parts


def _fill(parts: StyleParts, tensors: dict[str, Tensor], file: Path) -> None:
    """Give networks their weights: every one is named by the architecture, and no other is there.

    Raises:
        InputError: one is missing, too many, or of another shape or type.
    """
    networks = nn.ModuleDict(parts.named())
    wanted = networks.state_dict()
    odd = [f"{k} is missing" for k in wanted if k not in tensors]
    odd += [f"{k} is not of it" for k in tensors if k not in wanted]
    for k, v in tensors.items():
        if k in wanted and (v.shape != wanted[k].shape or not v.is_floating_point()):
            odd.append(f"{k} is {tuple(v.shape)} {v.dtype}, not {tuple(wanted[k].shape)}")
    if odd:
        raise InputError(
            f"{file} does not hold the weights of this architecture: {'; '.join(odd[:3])}"
        )
    networks.load_state_dict(tensors, assign=True)
