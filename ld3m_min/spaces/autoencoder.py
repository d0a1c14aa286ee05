"""Latents of the prior's autoencoder, decoded without diffusion (section 2.3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.backprop import ONE_PASS, Plan, decode_with_plan
from ld3m_min.config import DistilConfig
from ld3m_min.errors import InputError
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.loading import AnyPrior
from ld3m_min.spaces.base import Space

AT_ONCE = 64  # images that are encoded together
CODE_BYTES = 4  # of a number of a code, float32


class AutoencoderSpace(Space):
    """Latents Z of the prior's autoencoder, decoded without any diffusion (Duan et al.).

    Args:
        prior: whose autoencoder decodes.
        Z: latents to start from.
        plan: how gradients pass the decoder.

    Example:
        >>> import torch
        >>> from ld3m_min import LatentDiffusionPrior
        >>> from ld3m_min.spaces import AutoencoderSpace
        >>> prior = LatentDiffusionPrior.from_pretrained("digits")
        >>> space = AutoencoderSpace(prior, Z=torch.zeros(2, 3, 8, 8))
        >>> tuple(space.images().shape)
        (2, 3, 32, 32)
    """

    saves = ("Z",)

    def __init__(
        self, prior: LatentDiffusionPrior, Z: Float[Tensor, "B c h w"], *, plan: Plan = ONE_PASS
    ) -> None:
        super().__init__({"Z": Z}, plan=plan)
        self.prior = prior

    @classmethod
    def build(
        cls,
        config: DistilConfig,
        images: Float[Tensor, "B 3 H W"],
        labels: Int[Tensor, " B"],
        prior: AnyPrior | None,
    ) -> AutoencoderSpace:
        """The latents of images.

        Args:
            config: says the memory plan.
            images: in [0, 1].
            labels: not looked at.
            prior: whose autoencoder encodes and decodes.

        Returns:
            The space.
        """
        assert isinstance(prior, LatentDiffusionPrior)
        return cls(prior, initial_latents(prior, images), plan=config.plan)

    @classmethod
    def restore(
        cls,
        config: DistilConfig,
        state: Mapping[str, Tensor],
        prior: AnyPrior | None,
    ) -> AutoencoderSpace:
        """The space of saved latents.

        Args:
            config: of the distillation.
            state: holds Z.
            prior: whose autoencoder decodes.

        Returns:
            The space.
        """
        assert isinstance(prior, LatentDiffusionPrior)
        return cls(prior, state["Z"], plan=config.plan)

    @classmethod
    def shared_weights(cls, config: DistilConfig, prior: AnyPrior) -> list[Tensor]:
        """Those of the decoder; arguments are those of :class:`Space`."""
        assert isinstance(prior, LatentDiffusionPrior)
        return decoder_weights(prior)

    def images(self) -> Float[Tensor, "B 3 H W"]:
        """The decoded latents."""
        return decode_with_plan(self.prior, self.parameters["Z"], self.plan)


class AutoencoderBytesSpace(AutoencoderSpace):
    """As many latents as fit into the bytes of `ipc` images (Duan et al., arXiv 2311.15547).

    An image counts 3 H W bytes, 8-bit RGB; a latent code counts 4 bytes for each number, as it is
    learned and saved. The decoder, which all codes share, is not counted.

    Example:
        >>> from ld3m_min import LatentDiffusionPrior, preset
        >>> from ld3m_min.spaces import AutoencoderBytesSpace
        >>> prior = LatentDiffusionPrior.from_pretrained("digits")
        >>> config = preset("smoke", space="autoencoder-bytes")
        >>> config.ipc, AutoencoderBytesSpace.per_class(config, prior)
        (1, 4)
    """

    @classmethod
    def per_class(cls, config: DistilConfig, prior: AnyPrior | None = None) -> int:
        """Codes per class.

        Args:
            config: says images per class and size.
            prior: says the size of a code.

        Raises:
            InputError: a code takes more bytes than the images.
        """
        assert isinstance(prior, LatentDiffusionPrior)
        return codes_in_bytes(config, prior.latent_channels, prior.factor)


def codes_in_bytes(config: DistilConfig, channels: int, factor: int) -> int:
    """How many latent codes, of float32, have the bytes of `ipc` images of 8-bit RGB.

    Args:
        config: says images per class and size.
        channels: of a code.
        factor: pixels of a side that are one position of a code.

    Raises:
        InputError: not one.
    """
    # an image of less than one position is the encoder's to refuse
    code = CODE_BYTES * channels * max(1, config.size // factor) ** 2
    room = config.ipc * 3 * config.size**2
    if room < code:
        raise InputError(
            f"a latent code of {code} bytes does not fit into the {room} bytes of ipc = "
            f"{config.ipc}; raise ipc, or take a prior with smaller latents"
        )
    return room // code


def decoder_weights(prior: LatentDiffusionPrior) -> list[Tensor]:
    """Weights of an autoencoder that latents meet on their way to images, its codebook too.

    Args:
        prior: whose autoencoder it is.
    """
    encodes = ("encoder.", "quant_conv.")
    named = prior.autoencoder.named_parameters()
    return [p for name, p in named if not name.startswith(encodes)]


@torch.no_grad()
def initial_latents(
    prior: LatentDiffusionPrior, images: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, "B c h w"]:
    """Latents of real images, by the encoder alone; nothing is inverted (section 3.2).

    Args:
        prior: whose autoencoder encodes.
        images: in [0, 1].

    Returns:
        The latents Z, not quantised.
    """
    return torch.cat([prior.encode(x) for x in torch.split(images, AT_ONCE)])
