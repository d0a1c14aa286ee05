"""What a frozen network is run by: a backend, and the network in that backend's precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ld3m_min.residual import Prior

# the layers that stay float32 under "bfloat16": rounding at the ends of the network costs the
# gradient the most
ENDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "UNet2DConditionModel": (("conv_in", "time_embedding"), ("conv_norm_out", "conv_out")),
    "AutoencoderKL": ((), ("decoder.conv_norm_out", "decoder.conv_out")),
    "VQModel": ((), ("decoder.conv_norm_out", "decoder.conv_out")),
}


class Backend(NamedTuple):
    """How a network is run.

    Attributes:
        precision: "float32" or "bfloat16".
        channels_last: memory format of its convolutions.
        compile: "off", or a mode of `torch.compile`.
    """

    precision: str
    channels_last: bool
    compile: str


PLAIN = Backend("float32", False, "off")


@runtime_checkable
class BackendPlan(Protocol):
    """What a backend reads of a :class:`~ld3m_min.backprop.Plan`."""

    @property
    def precision(self) -> str:
        """Of the networks: "float32" or "bfloat16"."""

    @property
    def channels_last(self) -> bool:
        """Memory format of the convolutions."""

    @property
    def compile(self) -> str:
        """Either "off", or a mode of `torch.compile`."""

    @property
    def auto(self) -> bool:
        """Whether the planner has still to decide."""


class FrozenPrior(Prior, Protocol):
    """What a backend needs of a prior; `ld3m_min.prior` has the real one."""

    @property
    def autoencoder(self) -> Any:  # a model of diffusers, which ships no types
        """Encodes and decodes."""

    @property
    def denoiser(self) -> Any:  # a model of diffusers, or None
        """Predicts the noise."""

    @property
    def modules(self) -> list[nn.Module]:
        """The networks."""

    @property
    def device(self) -> torch.device:
        """Where the networks are."""

    def unscaled(self, z: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        """Latents as the autoencoder has them."""

    def _like(self, **parts: Any) -> FrozenPrior:
        """The same prior with other networks."""


@dataclass(frozen=True)
class Network:
    """A network of a :class:`~ld3m_min.backends.Prepared`.

    Attributes:
        holder: the prior that holds it.
        dtype: what it computes in.
    """

    holder: FrozenPrior
    dtype: torch.dtype

    def predict_noise(
        self, z: Float[Tensor, "B c h w"], t: Int[Tensor, " B"], c: Float[Tensor, "B L D"] | None
    ) -> Float[Tensor, "B c h w"]:
        """As the prior's: f_theta of equation (4).

        Args:
            z: the state.
            t: the training step of each latent.
            c: the conditioning; None for an unconditional prior.

        Returns:
            The noise, in the type of z.
        """
        ends = type(self.holder.denoiser).__name__ in ENDS  # its first layer takes float32
        c = None if c is None else c.to(self.dtype)
        return self.holder.predict_noise(z if ends else z.to(self.dtype), t, c).to(z.dtype)

    def decode(self, z: Float[Tensor, "B c h w"]) -> Float[Tensor, "B 3 H W"]:
        """As the autoencoder decodes, before the images are brought to [0, 1] and clamped.

        Args:
            z: latents, quantised where there is a codebook.

        Returns:
            Images, mostly in [-1, 1], in the type of z.
        """
        autoencoder = self.holder.autoencoder
        options = {"force_not_quantize": True} if hasattr(autoencoder, "quantize") else {}
        latents = self.holder.unscaled(z).to(self.dtype)
        images: Tensor = autoencoder.decode(latents, **options).sample
        return images.to(z.dtype)


def lowered(module: nn.Module) -> nn.Module:
    """A network in bfloat16 but for its ends, with casts at the border.

    Args:
        module: changed in place.

    Returns:
        The same module.
    """
    first, last = ENDS.get(type(module).__name__, ((), ()))
    nn.Module.to(module, torch.bfloat16)
    for name in (*first, *last):
        module.get_submodule(name).float()
    for name in first:
        module.get_submodule(name).register_forward_hook(_to_bfloat16)
    if last:
        module.get_submodule(last[0]).register_forward_pre_hook(_to_float32)
    return module


def _to_bfloat16(module: nn.Module, inputs: object, out: Tensor) -> Tensor:
    """A hook after a layer."""
    return out.to(torch.bfloat16)


def _to_float32(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A hook before a layer."""
    return (inputs[0].float(), *inputs[1:])
