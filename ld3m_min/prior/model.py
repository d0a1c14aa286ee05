"""A frozen latent diffusion model and the six functions that a distillation needs of it.

Sections 2.2 and 3.2 of the paper. The model is an autoencoder, a noise predictor f_theta on its
latents, a conditioning (here: an embedding of the class) and a noise schedule. All weights are
frozen: gradients flow through them, to Z and c, never into them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from ld3m_min.errors import InputError
from ld3m_min.prior.conditioning import ConditionInput, skip_single_token_attention, take_condition
from ld3m_min.prior.kinds import (
    Autoencoder,
    Denoiser,
    supported_autoencoder,
    supported_denoiser,
    supported_embedding,
)
from ld3m_min.prior.parts import (
    check_channels,
    check_condition,
    class_names,
    latent_scale,
    latent_statistics,
    prediction_type,
)
from ld3m_min.prior.schedule import Scheduler, alphas_cumprod


class LatentDiffusionModel:
    """The parts of a latent diffusion model, checked, and what they compute.

    Shapes: images (B, 3, H, W) in [0, 1]; latents (B, c, h, w), scaled as the denoiser expects;
    conditioning (B, L, D). The arguments are declared as `object`: whatever is given, the
    constructor says what is wrong with it.

    Args:
        autoencoder: diffusers' `AutoencoderKL` (continuous latents) or `VQModel` (with a codebook).
        denoiser: `UNet2DConditionModel` or `DiTTransformer2DModel` (conditional), `UNet2DModel`
            (either); None for an autoencoder alone, which encodes, quantises and decodes, but does
            not generate.
        scheduler: any diffusers scheduler; only its noise schedule and prediction type are used.
        class_embedding: `torch.nn.Embedding` (K + 1, L D) of the classes and, last, the null class;
            None if unconditional.
        classes: names of the classes, if known.
        null: whether the last row is the null class; without one there is no guidance.
        source: how `SyntheticSet.load` finds this prior again: a shipped name, a folder, a hub id.

    Attributes:
        autoencoder: frozen.
        denoiser: frozen; None for an autoencoder alone.
        scheduler: as it was given; None without one.
        class_embedding: frozen; None if unconditional.
        classes: names of the classes, () if they are not known.
        has_null: whether there is a null class.
        source: as it was given.
        scale: the factor of the latents.
        latent_channels: how many, c.
        factor: how many pixels of an image, along a side, are one of a latent.
        alpha_bar: the paper's gamma_t; only with a denoiser.
        prediction_type: what the network predicts, "epsilon", "v_prediction" or "sample"; only with
            a denoiser.

    Raises:
        InputTypeError: the class embedding is something else.
        InputError: parts that do not fit each other, or that the sampler has no equations for.
    """

    alpha_bar: Float64[Tensor, " N"]
    prediction_type: str

    def __init__(
        self,
        autoencoder: object,
        denoiser: object,
        scheduler: object,
        class_embedding: object = None,
        *,
        classes: Iterable[object] = (),
        null: bool = True,
        source: str | None = None,
    ) -> None:
        self.source = source
        self.autoencoder: Autoencoder = supported_autoencoder(autoencoder)
        self.scale = latent_scale(self.autoencoder)
        self.class_embedding = supported_embedding(class_embedding)
        self.has_null = null and self.class_embedding is not None
        self.classes = class_names(classes, self.class_embedding, self.has_null)
        config = self.autoencoder.config
        self.latent_channels: int = config.get("vq_embed_dim") or config.latent_channels
        self.factor: int = 2 ** (len(config.block_out_channels) - 1)
        self._statistics = latent_statistics(self.autoencoder, self.latent_channels)
        self.scheduler: Scheduler | None = scheduler if isinstance(scheduler, Scheduler) else None
        self.denoiser: Denoiser | None = None
        self._condition: ConditionInput | None = None
        if denoiser is not None:
            self._take_denoiser(denoiser)
        for module in self.modules:
            module.requires_grad_(False).eval()

    def _take_denoiser(self, given: object) -> None:
        """Check a denoiser against the other parts, and make it take the conditioning.

        Args:
            given: anything.

        Raises:
            InputError: it does not fit them.
        """
        denoiser = supported_denoiser(given)
        self.prediction_type = prediction_type(self.scheduler)
        check_channels(denoiser, self.latent_channels)
        check_condition(denoiser, self.class_embedding)
        assert self.scheduler is not None  # or there would be no prediction type
        self.alpha_bar = alphas_cumprod(self.scheduler)
        if self.alpha_bar[-1] <= 0:
            raise InputError(
                "the schedule ends without any signal (zero terminal SNR), where the clean latent "
                "cannot be predicted from the noise; use a scheduler without rescale_betas_zero_snr"
            )
        skip_single_token_attention(denoiser)
        self.denoiser, self._condition = denoiser, take_condition(denoiser)

    @property
    def modules(self) -> list[nn.Module]:
        """The networks, for moving, counting and hashing."""
        return [m for m in (self.autoencoder, self.denoiser, self.class_embedding) if m is not None]

    @property
    def conditional(self) -> bool:
        """Whether there is a conditioning c to learn and a null class to guide away from."""
        return self.class_embedding is not None

    @property
    def class_count(self) -> int:
        """K: rows of the class embedding without the null class; 0 for an unconditional prior."""
        rows = 0 if self.class_embedding is None else self.class_embedding.num_embeddings
        return rows - self.has_null

    @property
    def condition_shape(self) -> tuple[int, int]:
        """(L, D): tokens and width of one image's conditioning c."""
        table, width = self._table(), self._width()
        return table.embedding_dim // width, width

    @property
    def train_steps(self) -> int:
        """How many steps the noise schedule has.

        Raises:
            InputError: this is an autoencoder alone.
        """
        if self.denoiser is None:
            raise InputError(
                "this prior is an autoencoder alone: it encodes and decodes, but does not "
                "generate; use space 'autoencoder', or a prior with a denoiser"
            )
        return len(self.alpha_bar)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        first: Tensor = next(self.autoencoder.parameters())
        return first.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the networks."""
        first: Tensor = next(self.autoencoder.parameters())
        return first.dtype

    # -- the six functions of section 3 ------------------------------------------------------------

    def encode(self, images: Tensor) -> Float[Tensor, "B c h w"]:
        """Images as latents, scaled as the denoiser expects them and not quantised (section 3.2).

        Args:
            images: (B, 3, H, W) in [0, 1], whose sides are multiples of the factor.

        Raises:
            InputError: images of another shape, type or range.

        Example:
            >>> from ld3m_min import LatentDiffusionPrior, load_data
            >>> prior = LatentDiffusionPrior.from_pretrained("digits")
            >>> images = load_data("digits").test.float()[:2]
            >>> tuple(images.shape), tuple(prior.encode(images).shape)
            ((2, 3, 32, 32), (2, 3, 8, 8))
        """
        if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError(
                f"images are {tuple(images.shape)} {images.dtype}; expected (B, 3, H, W) of floats "
                "in [0, 1]"
            )
        if images.shape[-1] % self.factor or images.shape[-2] % self.factor:
            raise InputError(
                f"images of {images.shape[-2]} x {images.shape[-1]} do not fit an autoencoder of "
                f"factor {self.factor}; use a size that is a multiple of {self.factor}"
            )
        if len(images) and not images.is_meta and not bool((images.abs() < 10).all()):
            raise InputError("images are not finite, or far from [0, 1]; divide bytes by 255")
        encoded = self.autoencoder.encode(2 * images - 1)
        return self._scaled(
            encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        )

    def _scaled(self, z: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        """Latents of the autoencoder as the denoiser has them."""
        if self._statistics is None:
            return z * self.scale
        centre, spread = self._statistics.centre.to(z), self._statistics.spread.to(z)
        return (z - centre) * self.scale / spread

    def unscaled(self, z: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        """Latents of the denoiser as the autoencoder has them: the inverse of the scaling."""
        if self._statistics is None:
            return z / self.scale
        centre, spread = self._statistics.centre.to(z), self._statistics.spread.to(z)
        return z * spread / self.scale + centre

    def quantize(self, z: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        """Nearest codebook entry of each latent pixel, straight-through (section 3.2).

        Equal to an entry up to rounding; the identity where there is no codebook.

        Example:
            >>> import torch
            >>> from diffusers import VQModel
            >>> from ld3m_min import LatentDiffusionPrior
            >>> prior = LatentDiffusionPrior.from_diffusers(VQModel(scaling_factor=1.0))
            >>> entries = prior.autoencoder.quantize.embedding.weight.sign_()  # 1 and -1
            >>> prior.quantize(torch.full((1, 3, 2, 2), 0.25)).unique().tolist()
            [1.0]
        """
        if not hasattr(self.autoencoder, "quantize"):
            return z
        return self._scaled(self.autoencoder.quantize(self.unscaled(z))[0])

    def decode(self, z: Tensor) -> Float[Tensor, "B 3 H W"]:
        """Latents as images in [0, 1]; quantises first where there is a codebook (section 3.1).

        Differentiable; the gradient is zero where the image is clamped.

        Args:
            z: latents (B, c, h, w).

        Raises:
            InputError: latents of another shape.

        Example:
            >>> from ld3m_min import LatentDiffusionPrior, load_data
            >>> prior = LatentDiffusionPrior.from_pretrained("digits")
            >>> images = load_data("digits").test.float()[:8]
            >>> error = (prior.decode(prior.encode(images)) - images).square().mean()
            >>> f"PSNR {-10 * error.log10():.0f} dB"
            'PSNR 40 dB'
        """
        if z.dim() != 4 or z.shape[1] != self.latent_channels:
            raise InputError(
                f"latents are {tuple(z.shape)}; this prior decodes (B, {self.latent_channels}, h, "
                "w)"
            )
        images: Tensor = self.autoencoder.decode(self.unscaled(z)).sample
        return ((images + 1) / 2).clamp(0, 1)

    def predict_noise(
        self,
        z: Float[Tensor, "B c h w"],
        t: Int[Tensor, " B"],
        c: Float[Tensor, "B L D"] | None,
    ) -> Float[Tensor, "B c h w"]:
        """f_theta of equation (4): the noise in z.

        Args:
            z: latents at training step t.
            t: the training step of each.
            c: conditioning; None for an unconditional prior.

        Example:
            >>> import torch
            >>> from ld3m_min import LatentDiffusionPrior
            >>> prior = LatentDiffusionPrior.from_pretrained("digits")
            >>> z, c = torch.randn(1, 3, 8, 8), prior.class_conditioning(torch.tensor([5]))
            >>> noise = prior.predict_noise(z, torch.tensor([999]), c)  # z is noise here
            >>> f"{torch.cosine_similarity(noise.flatten(), z.flatten(), dim=0):.1f}"
            '1.0'
        """
        assert self.denoiser is not None, "an autoencoder alone predicts no noise"
        taken = {} if self._condition is None else {self._condition.keyword: c}
        # some networks predict a variance as well, in further channels
        out: Tensor = self.denoiser(z, t, **taken).sample[:, : self.latent_channels]
        if self.prediction_type == "epsilon":
            return out
        a = self.alpha_bar.to(z.device, z.dtype)[t].view(-1, 1, 1, 1)
        if self.prediction_type == "v_prediction":  # v = sqrt(a) noise - sqrt(1 - a) x0
            return a.sqrt() * out + (1 - a).sqrt() * z
        return (z - a.sqrt() * out) / (1 - a).sqrt()  # "sample": the network predicts x0

    def class_conditioning(self, labels: Tensor) -> Float[Tensor, "B L D"]:
        """The conditioning of classes: what c is initialised with (section 3.2).

        Args:
            labels: (B,) whole numbers; the last row of the embedding is the null class.

        Raises:
            InputError: the prior is unconditional, or labels of another shape, type or range.

        Example:
            >>> import torch
            >>> from ld3m_min import LatentDiffusionPrior
            >>> prior = LatentDiffusionPrior.from_pretrained("digits")
            >>> c = prior.class_conditioning(torch.tensor([1, 8, 1]))
            >>> tuple(c.shape), len(c.unique(dim=0))
            ((3, 1, 32), 2)
        """
        table = self._table()
        if labels.dim() != 1 or labels.dtype not in (torch.int64, torch.int32):
            raise InputError(
                f"labels are {tuple(labels.shape)} {labels.dtype}; expected (B,) of whole numbers"
            )
        last = table.num_embeddings - 1
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) <= last:
            found = f"{int(labels.min())} to {int(labels.max())}"
            raise InputError(
                f"labels reach from {found}, the prior's class embedding from 0 to {last}"
            )
        rows: Tensor = table(labels.to(table.weight.device))
        return rows.view(len(labels), *self.condition_shape)

    def null_conditioning(self, n: int) -> Float[Tensor, "{n} L D"]:
        """The conditioning of no class: the unconditional half of the guidance.

        Args:
            n: how many times.

        Raises:
            InputError: there is no null class.

        Example:
            >>> import torch
            >>> from ld3m_min import LatentDiffusionPrior
            >>> prior = LatentDiffusionPrior.from_pretrained("digits")
            >>> null = prior.null_conditioning(4)
            >>> tuple(null.shape), len(null.unique(dim=0))
            ((4, 1, 32), 1)
        """
        table = self._table()
        if not self.has_null:
            raise InputError(
                "this prior has classes but no null class to guide away from; set guidance_scale=1"
            )
        return table.weight[-1].view(1, -1, self._width()).expand(n, -1, -1)

    def _table(self) -> nn.Embedding:
        """The class embedding.

        Raises:
            InputError: there is none.
        """
        if self.class_embedding is None:
            raise InputError(
                "this prior is unconditional: it has no class to condition on; learn Z alone, "
                "guidance 1"
            )
        return self.class_embedding

    def _width(self) -> int:
        """D, the width of one token of the conditioning."""
        assert self._condition is not None, "an autoencoder alone takes no conditioning"
        return self._condition.width
