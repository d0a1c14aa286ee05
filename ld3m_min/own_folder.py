"""What is learned of a folder of one's own images, chosen by the prior that there is for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ld3m_min.config import STYLE_SPACES
from ld3m_min.data.glance import Glance
from ld3m_min.errors import InputError
from ld3m_min.io.files import read_json
from ld3m_min.prior.class_matching import _by_name
from ld3m_min.prior.compvis import STAND_ALONE, UNCONDITIONAL, described
from ld3m_min.prior.compvis_files import config_beside
from ld3m_min.prior.saving import STYLE, autoencoder_alone, check_complete, read_index
from ld3m_min.prior.weights import SHIPPED, find_prior
from ld3m_min.spaces.build import SPACES

_OWN = "LatentDiffusionPrior"
_TRAIN = "`python -m ld3m_min train-prior FOLDER` trains one"


@dataclass(frozen=True)
class Choice:
    """What a folder's distillation is done with, where the command line leaves it open.

    Attributes:
        space: what is learned.
        why: this space, in words.
        size: side of the images where none is given, pixels.
        why_size: the size that is taken, in words.
    """

    space: str
    why: str
    size: int
    why_size: str


@dataclass(frozen=True)
class _Known:
    """What a prior says of itself, without its weights being read.

    Attributes:
        name: as it was given.
        style: whether it is a style-based generator.
        denoiser: whether it has one.
        conditional: whether that knows classes.
        classes: their names; empty where they are not said.
        size: side of the images that it was trained on, pixels; None where it isn't said.
        shipped: whether it came with this package.
    """

    name: str
    style: bool
    denoiser: bool
    conditional: bool
    classes: tuple[str, ...]
    size: int | None
    shipped: bool


def choose(found: Glance, given: Mapping[str, Any]) -> Choice:
    """The space and size of a folder's distillation.

    A prior that knows the folder's classes gives "ld3m", any other its autoencoder, and without
    a prior pixels are learned. What the command line says is taken as it is, and checked.

    Args:
        found: the folder, as looked at.
        given: fields of the configuration that were given.

    Raises:
        FileNotFoundError: there is no such prior.
        InputError: the space needs a prior, or another one than was given.
    """
    wanted, prior = given.get("space"), given.get("prior") or None
    known = None if prior is None else _known(str(prior))
    if wanted is not None:
        _check_space(str(wanted), known, found.classes)
        space, why = str(wanted), "as --space says"
    else:
        space, why = _best(known, found.classes)
    size, why_size = found.size, "the largest of 32, 64 and 128 that most images reach"
    if found.enlarged:
        why_size = "the smallest of 32, 64 and 128; most images are smaller, and are enlarged"
    kind = SPACES.get(space)
    if kind is not None and kind.needs_prior and known is not None and known.size:
        size, why_size = known.size, "that of the prior"
    if "size" in given:
        why_size = "as --size says"
    return Choice(space, why, size, why_size)


def _known(prior: str) -> _Known:
    """What a prior says of itself, found as :func:`~ld3m_min.prior.loading.load_prior` finds it."""
    if (config := config_beside(prior)) is not None:
        kind, params = described(config)
        conditional = params.get("cond_stage_config", UNCONDITIONAL) != UNCONDITIONAL
        return _Known(prior, False, kind not in STAND_ALONE, conditional, (), None, False)
    folder = find_prior(prior).folder
    index = {} if autoencoder_alone(folder) else read_index(folder)
    own = index.get("_class_name") == _OWN
    if own:
        check_complete(folder, index)  # before any image is read
    names = index.get("classes", ())
    return _Known(
        prior,
        index.get("_class_name") == STYLE,
        any(part in index for part in ("unet", "transformer")),
        bool(index.get("conditional")) if own else True,
        tuple(map(str, names)) if isinstance(names, list) else (),
        _size(folder) if own else None,
        folder.parent == SHIPPED,
    )


def _size(folder: Path) -> int | None:
    """The images' side that a prior's autoencoder notes."""
    file = folder / "vae" / "config.json"
    noted = read_json(file) if file.is_file() else None
    size = noted.get("sample_size") if isinstance(noted, dict) else None
    return size if isinstance(size, int) and size > 0 else None


def _best(known: _Known | None, classes: tuple[str, ...]) -> tuple[str, str]:
    """The space that a prior allows, and why."""
    if known is None:
        return "pixel", f"no prior was given; {_TRAIN}"
    fits = _knows(known, classes)
    if known.shipped and not fits:
        raise InputError(
            f"the prior {known.name} was trained on other images than these; leave --prior out to "
            f"learn pixels, or give a prior of your own images ({_TRAIN})"
        )
    if known.style:
        return STYLE_SPACES[0], "the prior is a style-based generator"
    if not known.denoiser:
        return "autoencoder", "the prior is an autoencoder alone"
    if fits:
        return "ld3m", "the prior has a denoiser that knows the classes of the folder"
    if not known.conditional:
        return "autoencoder", "the prior's denoiser knows no classes, so its autoencoder is used"
    return "autoencoder", (
        "the prior's denoiser does not know every class of the folder by name, so its autoencoder "
        "is used"
    )


def _knows(known: _Known, classes: tuple[str, ...]) -> bool:
    """Whether a prior knows every class by its name."""
    if not known.conditional and not known.style:
        return False
    try:
        return _by_name(classes, known.classes) is not None
    except InputError:  # some are known, and others not
        return False


def _check_space(space: str, known: _Known | None, classes: tuple[str, ...]) -> None:
    """Refuse a space that the prior is not for, before anything is read.

    Raises:
        InputError: there is no prior, or it is of another kind.
    """
    kind = SPACES.get(space)
    if kind is None or not kind.needs_prior:
        return
    if known is None:
        raise InputError(
            f"--space {space} needs a prior of these images, and none was given; give --prior "
            f"FOLDER ({_TRAIN}), or leave --space out"
        )
    if known.shipped and not _knows(known, classes):
        raise InputError(
            f"the prior {known.name} was trained on other images than these; give a prior of your "
            f"own images ({_TRAIN}), or take --space pixel"
        )
    if space == "ld3m" and not known.denoiser and not known.style:
        raise InputError(
            f"the prior {known.name} is an autoencoder alone and cannot denoise; take --space "
            "autoencoder, or a prior with a denoiser"
        )
