"""LD3M's latent and conditioning codes, through the denoising chain (section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.backprop import ONE_PASS, Plan, generate_with_plan
from ld3m_min.config import DistilConfig
from ld3m_min.errors import InputError
from ld3m_min.io.seeds import seeded
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.loading import AnyPrior
from ld3m_min.sampler import SamplerConfig, check_codes, timesteps
from ld3m_min.spaces.autoencoder import decoder_weights, initial_latents
from ld3m_min.spaces.base import Space


class LD3MSpace(Space):
    """Latent codes Z and conditioning codes c, through the denoising chain (section 3).

    Args:
        prior: that makes the images.
        Z: latent codes to start from.
        c: conditioning codes to start from; None for an unconditional prior.
        noise: the forward noise, drawn once: it is part of the set.
        sampler: settings of the chain.
        plan: how gradients pass the generator.
        learn_z: whether Z is learned (a row of table 4).
        learn_c: whether c is learned (a row of table 4).
        z_rate: learning rate of Z as a multiple of the configuration's.

    Example:
        >>> import torch
        >>> from ld3m_min import LatentDiffusionPrior, SamplerConfig, spaces
        >>> prior = LatentDiffusionPrior.from_pretrained("digits")
        >>> Z, c = torch.zeros(1, 3, 8, 8), prior.class_conditioning(torch.tensor([7]))
        >>> space = spaces.LD3MSpace(prior, Z, c, Z, SamplerConfig(2), learn_c=False)
        >>> list(space.parameters), list(space.constants), tuple(space.images().shape)
        (['Z'], ['c', 'noise'], (1, 3, 32, 32))
    """

    saves = ("Z", "c", "noise")
    may_lack = ("c",)  # an unconditional prior has none
    starts_from_classes = True
    drawn = ("noise",)

    def __init__(
        self,
        prior: LatentDiffusionPrior,
        Z: Float[Tensor, "B c h w"],
        c: Float[Tensor, "B L D"] | None,
        noise: Float[Tensor, "B c h w"],
        sampler: SamplerConfig,
        *,
        plan: Plan = ONE_PASS,
        learn_z: bool = True,
        learn_c: bool = True,
        z_rate: float = 1.0,
    ) -> None:
        learned: dict[str, Tensor] = {}
        fixed: dict[str, Tensor] = {}
        for name, code, learn in (("Z", Z, learn_z), ("c", c, learn_c)):
            if code is not None:
                (learned if learn else fixed)[name] = code
        super().__init__(learned, fixed | {"noise": noise}, plan=plan)
        self.prior, self.sampler, self.rates = prior, sampler, {"Z": z_rate}

    @classmethod
    def build(
        cls,
        config: DistilConfig,
        images: Float[Tensor, "B 3 H W"],
        labels: Int[Tensor, " B"],
        prior: AnyPrior | None,
    ) -> LD3MSpace:
        """The latents of images, and the prior's conditioning of their classes.

        Args:
            config: says the sampler, the memory plan, what is learned, and the seed of the noise.
            images: in [0, 1].
            labels: of the images.
            prior: that encodes, and will make the images.

        Returns:
            The space.

        Raises:
            InputError: the prior has fewer classes, or its codes do not fit the sampler.
        """
        assert isinstance(prior, LatentDiffusionPrior)
        Z = initial_latents(prior, images)
        c = None
        if prior.class_embedding is not None:
            known = prior.class_embedding.num_embeddings - prior.has_null
            if labels.max() >= known:
                raise InputError(
                    f"the data has {int(labels.max()) + 1} classes, the prior only {known}"
                )
            c = prior.class_conditioning(labels).clone()
        noise = forward_noise(Z.shape, config.seed).to(Z)
        # at once, and not when the experts have been trained
        timesteps(config.sampler.steps, prior.train_steps)
        check_codes(prior, Z, c, noise, config.sampler)
        return cls(
            prior,
            Z,
            c,
            noise,
            config.sampler,
            plan=config.plan,
            learn_z=config.learn_z,
            learn_c=config.learn_c,
            z_rate=config.z_rate,
        )

    @classmethod
    def restore(
        cls,
        config: DistilConfig,
        state: Mapping[str, Tensor],
        prior: AnyPrior | None,
    ) -> LD3MSpace:
        """The space of saved codes.

        Args:
            config: of the distillation.
            state: holds Z, the noise and, of a conditional prior, c.
            prior: that makes the images.

        Returns:
            The space.
        """
        assert isinstance(prior, LatentDiffusionPrior)
        Z, c, noise = state["Z"], state.get("c"), state["noise"]
        return cls(prior, Z, c, noise, config.sampler, plan=config.plan)

    @classmethod
    def shared_weights(cls, config: DistilConfig, prior: AnyPrior) -> list[Tensor]:
        """Those of the decoder and the denoiser, and the null class; see :class:`Space`."""
        assert isinstance(prior, LatentDiffusionPrior) and prior.denoiser is not None
        weights = [*decoder_weights(prior), *prior.denoiser.parameters()]
        if prior.class_embedding is not None and prior.has_null:
            weights.append(prior.class_embedding.weight[-1])  # c is each set's own
        return weights

    def images(self, noise: Float[Tensor, "B c h w"] | None = None) -> Float[Tensor, "B 3 H W"]:
        """G(Z, c), the generated images.

        Args:
            noise: of the forward process, to draw it anew as the public code does; None takes the
                set's own.

        Returns:
            The images in [0, 1].
        """
        values = self.constants | self.parameters
        noise = values["noise"] if noise is None else noise
        return generate_with_plan(
            self.prior, values["Z"], values.get("c"), noise, self.sampler, self.plan
        )


def forward_noise(shape: Sequence[int], seed: int, *purpose: object) -> Float[Tensor, "B c h w"]:
    """The noise of the forward process, each image's from a generator of its own.

    Args:
        shape: (B, c, h, w) of the latents.
        seed: of the distillation.
        purpose: what else it belongs to, such as the iteration it is drawn for.

    Returns:
        Normal noise, on the CPU.
    """
    generators = (seeded(seed, "forward noise", i, *purpose) for i in range(shape[0]))
    return torch.stack([torch.randn(tuple(shape[1:]), generator=g) for g in generators])
