"""The frozen generative prior: sections 2.2 and 4.1 of the paper.

A latent diffusion model is an autoencoder, a noise predictor f_theta on its latents, a conditioning (here: an embedding
of the class) and a noise schedule. The networks and their files are diffusers'; this module gives them the six
functions that distillation needs. All weights are frozen: gradients flow through them, to Z and c, never into them.
"""
from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .storage import read_json, write_json

SHIPPED = Path(__file__).parent / "priors"


def alphas_cumprod(scheduler):
    """alpha_bar_t for t = 0 ... N-1, float64 (N,): the paper's gamma_t, equation (4).

    Computed from the schedule's own definition in float64, since diffusers keeps it in float32.
    """
    c = scheduler.config
    n, start, end = c.num_train_timesteps, c.get("beta_start"), c.get("beta_end")
    if c.get("trained_betas") is None and c.get("beta_schedule") == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, n, dtype=torch.float64) ** 2
    elif c.get("trained_betas") is None and c.get("beta_schedule") == "linear":
        betas = torch.linspace(start, end, n, dtype=torch.float64)
    else:
        betas = scheduler.betas.double()
    return torch.cumprod(1 - betas, dim=0)


def ldm_scheduler(**changes):
    """The public latent diffusion model's schedule: 1000 steps, scaled-linear betas from .0015 to .0195."""
    from diffusers import DDIMScheduler

    values = {
        "num_train_timesteps": 1000,
        "beta_start": 0.0015,
        "beta_end": 0.0195,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": "epsilon",
    }
    return DDIMScheduler(**values | changes)


class LatentDiffusionPrior:
    """A frozen latent diffusion model, as a distillation sees it.

    Args:
        autoencoder: diffusers' `AutoencoderKL` (continuous latents) or `VQModel` (with a codebook).
        denoiser: `UNet2DConditionModel` (class-conditional) or `UNet2DModel` (unconditional).
        scheduler: any diffusers scheduler; only its noise schedule and prediction type are used.
        class_embedding: `torch.nn.Embedding` of the classes and, last, the null class; None if unconditional.
        classes: names of the classes, if known.
        source: how `SyntheticSet.load` finds this prior again: a shipped name, a folder, a hub id.

    Shapes: images (B, 3, H, W) in [0, 1]; latents (B, c, h, w), scaled as the denoiser expects; conditioning (B, L, D).
    """

    def __init__(self, autoencoder, denoiser, scheduler, class_embedding=None, *, classes=(), source=None):
        self.autoencoder, self.denoiser, self.scheduler = autoencoder, denoiser, scheduler
        self.class_embedding, self.classes, self.source = class_embedding, tuple(classes), source
        self.prediction_type = scheduler.config.get("prediction_type", "epsilon")
        if self.prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(
                f"prediction type {self.prediction_type!r} is not supported; epsilon, v_prediction and sample are"
            )
        self.alpha_bar = alphas_cumprod(scheduler)
        self.scale = float(autoencoder.config.get("scaling_factor") or 1.0)
        self.latent_channels = autoencoder.config.latent_channels
        if denoiser.config.in_channels != self.latent_channels:
            raise ValueError(
                f"the denoiser takes {denoiser.config.in_channels} channels, but the autoencoder's latents have "
                f"{self.latent_channels}; they do not belong together"
            )
        self.factor = 2 ** (len(autoencoder.config.block_out_channels) - 1)
        for module in self.modules:
            module.requires_grad_(False).eval()

    @property
    def modules(self):
        """The networks, for moving, counting and hashing."""
        return [m for m in (self.autoencoder, self.denoiser, self.class_embedding) if m is not None]

    @property
    def conditional(self):
        """Whether there is a conditioning c to learn and a null class to guide away from."""
        return self.class_embedding is not None

    @property
    def train_steps(self):
        return len(self.alpha_bar)

    def to(self, device=None, dtype=None):
        """Move and cast all networks, in place; returns self."""
        for module in self.modules:
            module.to(**{k: v for k, v in (("device", device), ("dtype", dtype)) if v is not None})
        return self

    @property
    def device(self):
        return next(self.denoiser.parameters()).device

    # -- the six functions of section 3 ------------------------------------------------------------------------------

    def encode(self, images):
        """Images (B, 3, H, W) in [0, 1] -> latents (B, c, H/f, W/f), not quantised (section 3.2)."""
        if images.shape[-1] % self.factor or images.shape[-2] % self.factor:
            raise ValueError(
                f"images of {images.shape[-2]} x {images.shape[-1]} do not fit an autoencoder of factor {self.factor}; "
                f"use a size that is a multiple of {self.factor}"
            )
        encoded = self.autoencoder.encode(2 * images - 1)
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return latents * self.scale

    def quantize(self, z):
        """Nearest codebook entry of each latent pixel, straight-through; identity where there is no codebook."""
        if not hasattr(self.autoencoder, "quantize"):
            return z
        return self.autoencoder.quantize(z / self.scale)[0] * self.scale

    def decode(self, z):
        """Latents (B, c, h, w) -> images (B, 3, H, W) in [0, 1]; quantises first where there is a codebook.

        Differentiable; the gradient is zero where the image is clamped.
        """
        return ((self.autoencoder.decode(z / self.scale).sample + 1) / 2).clamp(0, 1)

    def predict_noise(self, z, t, c):
        """f_theta of equation (4): the noise in z. z (B, c, h, w), t (B,) int64, c (B, L, D) or None."""
        if self.conditional:
            out = self.denoiser(z, t, encoder_hidden_states=c).sample
        else:
            out = self.denoiser(z, t).sample
        if self.prediction_type == "epsilon":
            return out
        a = self.alpha_bar.to(z.device, z.dtype)[t].view(-1, 1, 1, 1)
        if self.prediction_type == "v_prediction":  # v = sqrt(a) noise - sqrt(1 - a) x0
            return a.sqrt() * out + (1 - a).sqrt() * z
        return (z - a.sqrt() * out) / (1 - a).sqrt()  # "sample": the network predicts x0

    def class_conditioning(self, labels):
        """Labels (B,) int64 -> c (B, L, D), what c is initialised with (section 3.2)."""
        self._need_condition()
        return self.class_embedding(labels.to(self.class_embedding.weight.device))[:, None]

    def null_conditioning(self, n):
        """The conditioning of no class, (n, L, D): the unconditional half of the guidance."""
        self._need_condition()
        return self.class_embedding.weight[-1].expand(n, 1, -1)

    def _need_condition(self):
        if not self.conditional:
            raise ValueError("this prior is unconditional: it has no class to condition on; learn Z alone, guidance 1")

    # -- files -------------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder):
        """Write the prior in diffusers' layout, plus `class_embedding/`; `from_pretrained` reads it back."""
        from safetensors.torch import save_file

        folder = Path(folder)
        self.autoencoder.save_pretrained(folder / "vae")
        self.denoiser.save_pretrained(folder / "unet")
        self.scheduler.save_pretrained(folder / "scheduler")
        if self.class_embedding is not None:
            (folder / "class_embedding").mkdir(exist_ok=True)
            weight = self.class_embedding.weight.detach().cpu().contiguous()
            save_file({"weight": weight}, folder / "class_embedding" / "model.safetensors")
        index = {
            "_class_name": type(self).__name__,
            "vae": type(self.autoencoder).__name__,
            "unet": type(self.denoiser).__name__,
            "scheduler": type(self.scheduler).__name__,
            "conditional": self.conditional,
            "classes": list(self.classes),
        }
        write_json(folder / "model_index.json", index)

    @classmethod
    def from_pretrained(cls, path_or_id, *, dtype=torch.float32, device="cpu"):
        """Load a prior: a shipped one ("digits"), a folder written by `save_pretrained`, or a hub id of such a folder.

        Raises:
            FileNotFoundError: neither a shipped name nor a folder, and the hub cannot be reached or has no such id.
            ValueError: the folder lacks a part, or a part does not fit.
        """
        import diffusers
        from safetensors.torch import load_file

        folder = _find(path_or_id)
        index = read_json(folder / "model_index.json")
        if index.get("_class_name") != cls.__name__:
            raise ValueError(f"{path_or_id} holds a {index.get('_class_name')}, not a {cls.__name__}; use from_diffusers")

        def part(name, known):
            kind = index.get(name)
            if kind not in known:
                raise ValueError(f"{path_or_id}: model_index.json names {kind!r} as {name}; expected one of {known}")
            return getattr(diffusers, kind)

        options = {"torch_dtype": dtype, "low_cpu_mem_usage": False}  # the sparing way would need accelerate
        autoencoder = part("vae", ("AutoencoderKL", "VQModel")).from_pretrained(folder / "vae", **options)
        denoiser = part("unet", ("UNet2DConditionModel", "UNet2DModel")).from_pretrained(folder / "unet", **options)
        kinds = tuple(n for n in dir(diffusers) if n.endswith("Scheduler"))
        scheduler = part("scheduler", kinds).from_pretrained(folder / "scheduler")
        embedding = None
        if index.get("conditional"):
            weight = load_file(folder / "class_embedding" / "model.safetensors")["weight"]
            width = denoiser.config.cross_attention_dim
            if weight.dim() != 2 or weight.shape[1] != width:
                raise ValueError(f"{path_or_id}: class embedding {tuple(weight.shape)} does not fit a U-Net of width {width}")
            embedding = nn.Embedding.from_pretrained(weight.to(dtype))
        prior = cls(autoencoder, denoiser, scheduler, embedding, classes=index.get("classes", ()), source=str(path_or_id))
        return prior.to(device=device)


def _find(path_or_id):
    """Folder of a shipped prior, of a path, or of a hub snapshot."""
    if (SHIPPED / str(path_or_id) / "model_index.json").exists():
        return SHIPPED / str(path_or_id)
    if Path(path_or_id).exists():
        return Path(path_or_id)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path_or_id), allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))
    except Exception as error:
        shipped = sorted(p.name for p in SHIPPED.iterdir() if p.is_dir()) if SHIPPED.is_dir() else []
        raise FileNotFoundError(
            f"no prior {str(path_or_id)!r}: it is neither shipped ({', '.join(shipped)}), nor a folder here, "
            f"nor to be had from the hub ({type(error).__name__})"
        ) from error
