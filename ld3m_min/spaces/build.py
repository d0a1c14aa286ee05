"""Initial images, and the space that a configuration names (section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.config import DistilConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.io.seeds import seeded
from ld3m_min.prior.loading import AnyPrior
from ld3m_min.prior.style_gan import StyleGenerator
from ld3m_min.spaces.autoencoder import AutoencoderBytesSpace, AutoencoderSpace
from ld3m_min.spaces.base import Space
from ld3m_min.spaces.ddif import DDiFSpace
from ld3m_min.spaces.fred import FreDSpace
from ld3m_min.spaces.glad import FeatureSpace, WPlusSpace
from ld3m_min.spaces.ld3m import LD3MSpace
from ld3m_min.spaces.pixel import PixelSpace

# by the name that configurations and sets know them by; each says which tensors a set saves of it
SPACES: dict[str, type[Space]] = {
    "pixel": PixelSpace,
    "autoencoder": AutoencoderSpace,
    "autoencoder-bytes": AutoencoderBytesSpace,
    "fred": FreDSpace,
    "ddif": DDiFSpace,
    "ld3m": LD3MSpace,
    "glad-w": WPlusSpace,
    "glad-f": FeatureSpace,
}


class InitialImages(NamedTuple):
    """Real images that a synthetic set starts from, class by class.

    Attributes:
        images: (B, 3, H, W) in [0, 1].
        labels: (B,), int64.
    """

    images: Tensor
    labels: Tensor


def draw_initial_images(data: DataSplits, ipc: int, seed: int) -> InitialImages:
    """One real training image per synthetic one.

    Args:
        data: whose training split they are drawn from.
        ipc: images per class, as :meth:`Space.per_class` says.
        seed: of the distillation.

    Returns:
        The images, on the data's device, and their labels.

    Raises:
        InputError: a class has fewer than `ipc` images.

    Example:
        >>> from ld3m_min import load_data
        >>> from ld3m_min.spaces import draw_initial_images
        >>> images, labels = draw_initial_images(load_data("digits"), ipc=3, seed=0)
        >>> tuple(images.shape), labels.tolist()[:6]
        ((30, 3, 32, 32), [0, 0, 0, 1, 1, 1])
    """
    images: list[Tensor] = []
    labels: list[int] = []
    for label, name in enumerate(data.classes):
        x = data.train.sample_class(label, ipc, seeded(seed, "initial images", label))
        if len(x) < ipc:
            raise InputError(
                f"class {name!r} has {len(x)} training images, fewer than the {ipc} that the set "
                "starts from in each; lower ipc, add images, or take another space"
            )
        images.append(x)
        labels += [label] * ipc
    return InitialImages(torch.cat(images), torch.tensor(labels))


def build_space(
    config: DistilConfig,
    images: Float[Tensor, "B 3 H W"],
    labels: Int[Tensor, " B"],
    prior: AnyPrior | None = None,
) -> Space:
    """The space that a configuration names, starting from the given images.

    Args:
        config: of the distillation.
        images: in [0, 1].
        labels: of the images.
        prior: for the latent spaces.

    Returns:
        The space.

    Raises:
        InputError: there is no prior where one is needed, it is of another kind, or it does not
            fit the images.

    Example:
        >>> import torch
        >>> from ld3m_min import LatentDiffusionPrior, preset
        >>> from ld3m_min.spaces import build_space
        >>> prior = LatentDiffusionPrior.from_pretrained("digits")
        >>> images, labels = torch.rand(2, 3, 32, 32), torch.tensor([3, 7])
        >>> list(build_space(preset("smoke"), images, labels, prior).parameters)
        ['Z', 'c']
    """
    space = SPACES[config.space]
    if space.needs_prior:
        if prior is None:
            raise InputError(f"space {config.space!r} needs a prior")
        check_kind(space, prior, config.space)
        if prior.dtype != images.dtype:
            raise InputError(
                f"the prior is {prior.dtype}, the images are {images.dtype}; "
                f"load it with dtype={images.dtype}"
            )
    return space.build(config, images, labels, prior)


def check_kind(space: type[Space], prior: AnyPrior, name: str) -> None:
    """Refuse a prior of a kind that a space cannot make images with.

    Args:
        space: the class.
        prior: that was given or loaded.
        name: of the space, as configurations know it.

    Raises:
        InputError: it is of another kind.
    """
    if not isinstance(prior, space.prior_kind):
        example = "style-digits" if space.prior_kind is StyleGenerator else "digits"
        raise InputError(
            f"space {name!r} makes images with a {space.prior_kind.__name__}, but the prior "
            f"{prior.source or ''} is a {type(prior).__name__}; take another prior, such as "
            f"{example!r}, or another space"
        )
