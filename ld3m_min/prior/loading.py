"""A prior of whatever kind, by its name, folder or hub id (sections 2.2 and 2.3)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeAlias

import torch

from ld3m_min.errors import InputError
from ld3m_min.io.files import read_json
from ld3m_min.prior.class_map import NO_MAP, PROMPT, ClassMap
from ld3m_min.prior.compvis_files import config_beside
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.saving import STYLE, is_text_conditioned
from ld3m_min.prior.style_gan import StyleGenerator
from ld3m_min.prior.weights import find_prior

AnyPrior: TypeAlias = LatentDiffusionPrior | StyleGenerator


def load_prior(
    path_or_id: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    classes: Iterable[object] = (),
    said: ClassMap = NO_MAP,
) -> AnyPrior:
    """The prior that a name stands for: the file says of which kind it is.

    Args:
        path_or_id: as of the `from_pretrained` of both kinds.
        device: where its networks are to be.
        classes: class names, for a pipeline that is conditioned on text; others know their own.
        said: prompts of such a pipeline's classes, and the text around a name.

    Raises:
        FileNotFoundError: there is no such prior.
        InputError: it is damaged, or something else.

    Example:
        >>> from ld3m_min.prior import load_prior
        >>> [type(load_prior(name)).__name__ for name in ("digits", "style-digits")]
        ['LatentDiffusionPrior', 'StyleGenerator']
    """
    if config_beside(path_or_id) is not None:
        return LatentDiffusionPrior.from_pretrained(path_or_id, device=device)
    folder = find_prior(path_or_id).folder
    if not is_text_conditioned(folder):
        index = folder / "model_index.json"
        if index.exists() and read_json(index).get("_class_name") == STYLE:
            return StyleGenerator.from_pretrained(path_or_id, device=device)
        return LatentDiffusionPrior.from_pretrained(path_or_id, device=device)
    return LatentDiffusionPrior.from_pretrained(
        path_or_id,
        device=device,
        classes=classes,
        prompt=said.prompt or PROMPT,
        prompts=said.entries,
    )


def load_latent_prior(
    path_or_id: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    classes: Iterable[object] = (),
    said: ClassMap = NO_MAP,
) -> LatentDiffusionPrior:
    """The latent diffusion prior, or autoencoder alone, that a name stands for.

    Args:
        path_or_id: as of :func:`load_prior`.
        device: where its networks are to be.
        classes: class names, for a pipeline that is conditioned on text.
        said: prompts of such a pipeline's classes.

    Raises:
        FileNotFoundError: there is no such prior.
        InputError: it is damaged, or a style-based generator.
    """
    found = load_prior(path_or_id, device=device, classes=classes, said=said)
    if isinstance(found, StyleGenerator):
        raise InputError(
            f"{os.fspath(path_or_id)} is a style-based generator, which has no autoencoder; give a "
            "latent diffusion prior"
        )
    return found
