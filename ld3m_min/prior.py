"""The frozen generative prior: sections 2.2 and 4.1 of the paper.

A latent diffusion model is an autoencoder, a noise predictor f_theta on its latents, a conditioning (here: an embedding
of the class) and a noise schedule. The networks and their files are diffusers'; this module gives them the six
functions that distillation needs. All weights are frozen: gradients flow through them, to Z and c, never into them.
"""
from __future__ import annotations

import copy
import math
from pathlib import Path

import torch
from torch import nn

from . import adapters, hub
from .digests import digest, versions
from .errors import InputError, InputTypeError
from .hub import SHIPPED as SHIPPED
from .storage import write_json


def alphas_cumprod(scheduler):
    """alpha_bar_t for t = 0 ... N-1, float64 (N,): the paper's gamma_t, equation (4).

    Computed from the schedule's own definition in float64, since diffusers keeps it in float32.
    """
    c = scheduler.config
    n, start, end = c.get("num_train_timesteps"), c.get("beta_start"), c.get("beta_end")
    adapters.check_length(n)
    named = c.get("trained_betas") is None and not c.get("rescale_betas_zero_snr")
    if named and c.get("beta_schedule") == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, n, dtype=torch.float64) ** 2
    elif named and c.get("beta_schedule") == "linear":
        betas = torch.linspace(start, end, n, dtype=torch.float64)
    elif getattr(scheduler, "betas", None) is not None:
        betas = scheduler.betas.double()
    elif getattr(scheduler, "alphas_cumprod", None) is not None:
        found = scheduler.alphas_cumprod.double()
        betas = 1 - found / torch.cat([found.new_ones(1), found[:-1]])
    else:
        raise InputError(f"{type(scheduler).__name__} gives neither betas nor alphas_cumprod; LD3M needs the noise schedule of a "
                         "diffusion model")
    if betas.shape != (n,) or not bool(((betas > 0) & (betas <= 1)).all()):
        raise InputError(f"the noise schedule is impossible: its betas must be {n} numbers above 0, at most 1; see beta_start = {start}, "
                         f"beta_end = {end} and trained_betas in the scheduler's configuration")
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
        denoiser: `UNet2DConditionModel` or `DiTTransformer2DModel` (conditional), `UNet2DModel` (either); None for an
            autoencoder alone, which encodes, quantises and decodes, but does not generate.
        scheduler: any diffusers scheduler; only its noise schedule and prediction type are used.
        class_embedding: `torch.nn.Embedding` (K + 1, L D) of the classes and, last, the null class; None if unconditional.
        classes: names of the classes, if known. null: whether the last row is the null class; without one there is no
            guidance.
        source: how `SyntheticSet.load` finds this prior again: a shipped name, a folder, a hub id.

    Shapes: images (B, 3, H, W) in [0, 1]; latents (B, c, h, w), scaled as the denoiser expects; conditioning (B, L, D).

    Raises:
        ValueError: parts that do not fit each other, or that the sampler has no equations for.
    """

    def __init__(self, autoencoder, denoiser, scheduler, class_embedding=None, *, classes=(), null=True, source=None):
        self.autoencoder, self.denoiser, self.scheduler = autoencoder, denoiser, scheduler
        self.class_embedding, self.classes, self.source = class_embedding, tuple(classes), source
        self.has_null = null and class_embedding is not None
        self._digest = None
        if type(autoencoder).__name__ not in adapters.AUTOENCODERS:
            raise InputError(f"autoencoder {type(autoencoder).__name__} is not supported; {', '.join(adapters.AUTOENCODERS)} are")
        config = autoencoder.config
        scale = config.get("scaling_factor")
        if not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale <= 0:
            raise InputError(f"the autoencoder's scaling_factor is {scale}; latents need a positive factor: set it in the autoencoder's "
                             "configuration (1.0 for the public VQ-f4)")
        self.scale = float(scale)
        self._check_classes()
        self.latent_channels = config.get("vq_embed_dim") or config.latent_channels
        self.factor = 2 ** (len(config.block_out_channels) - 1)
        self._centre, self._spread = adapters.latent_statistics(config, self.latent_channels)
        if denoiser is not None:
            adapters.check_fit(denoiser, scheduler, self.latent_channels, class_embedding)
            adapters.skip_single_token_attention(denoiser)
            self.prediction_type = scheduler.config.get("prediction_type", "epsilon")
            self.alpha_bar = alphas_cumprod(scheduler)
            if self.alpha_bar[-1] <= 0:
                raise InputError(
                    "the schedule ends without any signal (zero terminal SNR), where the clean latent cannot be predicted "
                    "from the noise; use a scheduler without rescale_betas_zero_snr"
                )
            self._keyword, self._width = adapters.conditioning(denoiser)
        for module in self.modules:
            module.requires_grad_(False).eval()

    def _check_classes(self):
        table, names = self.class_embedding, self.classes
        if table is not None and not isinstance(table, nn.Embedding):
            raise InputTypeError(f"class_embedding must be a torch.nn.Embedding, not {type(table).__name__}")
        if not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
            raise InputError(f"class names must be text, each another, not {', '.join(map(repr, names[:5]))}")
        if table is not None and names and len(names) != table.num_embeddings - self.has_null:
            rows = f"{table.num_embeddings} rows, {'with' if self.has_null else 'without'} a null class"
            raise InputError(f"{len(names)} class names for a class embedding of {rows}; they differ")

    @property
    def modules(self):
        """The networks, for moving, counting and hashing."""
        return [m for m in (self.autoencoder, self.denoiser, self.class_embedding) if m is not None]

    @property
    def digest(self):
        """What this prior is, whatever it is called: a digest of its networks and schedule, its classes and their order."""
        rows = [] if self.class_embedding is None else [self.class_embedding.weight]
        return digest(*rows, [self.networks_digest, list(self.classes), self.has_null])

    @property
    def networks_digest(self):
        """What turns codes (Z, c, noise) into images: weights, scale, schedule, null class. Choosing classes leaves it."""
        parts = [m for m in (self.autoencoder, self.denoiser) if m is not None]
        tensors = {f"{i}.{k}": v for i, m in enumerate(parts) for k, v in sorted(m.state_dict(keep_vars=True).items())}
        now = versions(tensors.values())
        if self._digest is None or now is None or self._digest[0] != now:
            extra = [] if self.denoiser is None else [self.alpha_bar]
            extra += [self.class_embedding.weight[-1]] if self.has_null else []
            about = [self.scale, getattr(self, "prediction_type", None), sorted(tensors)]
            self._digest = now, digest(*tensors.values(), *extra, about)
        return self._digest[1]

    @property
    def conditional(self):
        """Whether there is a conditioning c to learn and a null class to guide away from."""
        return self.class_embedding is not None

    @property
    def condition_shape(self):
        """(L, D): tokens and width of one image's conditioning c."""
        self._need_condition()
        return self.class_embedding.embedding_dim // self._width, self._width

    @property
    def train_steps(self):
        """How many steps the noise schedule has."""
        if self.denoiser is None:
            raise InputError("this prior is an autoencoder alone: it encodes and decodes, but does not generate; use space "
                             "'autoencoder', or a prior with a denoiser")
        return len(self.alpha_bar)

    def to(self, device=None, dtype=None):
        """Move and cast all networks, in place; returns self."""
        for module in self.modules:
            # torch's own: diffusers' warns of casts that cannot matter here
            nn.Module.to(module, **{k: v for k, v in (("device", device), ("dtype", dtype)) if v is not None})
        return self

    @property
    def device(self):
        return next(self.autoencoder.parameters()).device

    # -- the six functions of section 3 ------------------------------------------------------------------------------

    def encode(self, images):
        """Images (B, 3, H, W) in [0, 1] -> latents (B, c, H/f, W/f), not quantised (section 3.2)."""
        if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError(f"images are {tuple(images.shape)} {images.dtype}; expected (B, 3, H, W) of floats in [0, 1]")
        if images.shape[-1] % self.factor or images.shape[-2] % self.factor:
            raise InputError(
                f"images of {images.shape[-2]} x {images.shape[-1]} do not fit an autoencoder of factor {self.factor}; "
                f"use a size that is a multiple of {self.factor}"
            )
        if len(images) and not images.is_meta and not bool((images.abs() < 10).all()):
            raise InputError("images are not finite, or far from [0, 1]; divide bytes by 255")
        encoded = self.autoencoder.encode(2 * images - 1)
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        if self._centre is None:
            return latents * self.scale
        return (latents - self._centre.to(latents)) * self.scale / self._spread.to(latents)

    def unscaled(self, z):
        """Latents as the denoiser has them -> as the autoencoder has them, undoing its scale, shift, mean and deviation."""
        return z / self.scale if self._centre is None else z * self._spread.to(z) / self.scale + self._centre.to(z)

    def quantize(self, z):
        """Nearest codebook entry of each latent pixel, straight-through; identity where there is no codebook."""
        if not hasattr(self.autoencoder, "quantize"):
            return z
        found = self.autoencoder.quantize(self.unscaled(z))[0]
        return found * self.scale if self._centre is None else (found - self._centre.to(z)) * self.scale / self._spread.to(z)

    def decode(self, z):
        """Latents (B, c, h, w) -> images (B, 3, H, W) in [0, 1]; quantises first where there is a codebook.

        Differentiable; the gradient is zero where the image is clamped.
        """
        if z.dim() != 4 or z.shape[1] != self.latent_channels:
            raise InputError(f"latents are {tuple(z.shape)}; this prior decodes (B, {self.latent_channels}, h, w)")
        return ((self.autoencoder.decode(self.unscaled(z)).sample + 1) / 2).clamp(0, 1)

    def predict_noise(self, z, t, c):
        """f_theta of equation (4): the noise in z. z (B, c, h, w), t (B,) int64, c (B, L, D) or None."""
        out = self.denoiser(z, t, **({self._keyword: c} if self.conditional else {})).sample[:, : self.latent_channels]
        if self.prediction_type == "epsilon":
            return out
        a = self.alpha_bar.to(z.device, z.dtype)[t].view(-1, 1, 1, 1)
        if self.prediction_type == "v_prediction":  # v = sqrt(a) noise - sqrt(1 - a) x0
            return a.sqrt() * out + (1 - a).sqrt() * z
        return (z - a.sqrt() * out) / (1 - a).sqrt()  # "sample": the network predicts x0

    def class_conditioning(self, labels):
        """Labels (B,) int64 -> c (B, L, D), what c is initialised with (section 3.2); the last label is the null class."""
        self._need_condition()
        if labels.dim() != 1 or labels.dtype not in (torch.int64, torch.int32):
            raise InputError(f"labels are {tuple(labels.shape)} {labels.dtype}; expected (B,) of whole numbers")
        last = self.class_embedding.num_embeddings - 1
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) <= last:
            found = f"{int(labels.min())} to {int(labels.max())}"
            raise InputError(f"labels reach from {found}, the prior's class embedding from 0 to {last}")
        return self.class_embedding(labels.to(self.class_embedding.weight.device)).unflatten(1, (-1, self._width))

    def null_conditioning(self, n):
        """The conditioning of no class, (n, L, D): the unconditional half of the guidance."""
        self._need_condition()
        if not self.has_null:
            raise InputError("this prior has classes but no null class to guide away from; set guidance_scale=1")
        return self.class_embedding.weight[-1].view(1, -1, self._width).expand(n, -1, -1)

    def _need_condition(self):
        if not self.conditional:
            raise InputError("this prior is unconditional: it has no class to condition on; learn Z alone, guidance 1")

    # -- other priors ------------------------------------------------------------------------------------------------

    def for_classes(self, ids, names=None):
        """The same networks for some of the classes, renumbered 0, 1, ... in the order of `ids`: a subset of ImageNet."""
        self._need_condition()
        ids = [int(i) for i in ids]
        self.class_conditioning(torch.tensor(ids))  # refuses what is out of range
        names = names or ([self.classes[i] for i in ids] if self.classes else ())
        if names and len(names) != len(ids):
            raise InputError(f"{len(ids)} classes, but {len(names)} names")
        rows = [*ids, self.class_embedding.num_embeddings - 1][: len(ids) + self.has_null]
        table = nn.Embedding.from_pretrained(self.class_embedding.weight[rows].clone())
        new = self._like(class_embedding=table, classes=names)
        new.source = self.source  # c is stored with a set, and the null class is the same: this source decodes it
        return new

    def randomised(self, kind, generator, *, autoencoder=False):
        """A new prior whose denoiser knows nothing: what the paper's row "Random" stands for (table 3).

        Args:
            kind: "zero-output" has new weights and an output layer of zeros, as the public code's untrained U-Net has:
                the predicted noise is zero, so nothing is denoised, and the generator is the autoencoder alone. "weights"
                draws every weight as the architecture's initialisation does. That the paper means the first is an
                inference from the public code.
            generator: CPU generator of the weights. autoencoder: draw a new autoencoder too; else it stays trained.
        """
        if kind not in ("zero-output", "weights"):
            raise InputError(f"randomised({kind!r}) is unknown; choose zero-output, weights")
        if self.denoiser is None or (kind == "zero-output" and self.prediction_type != "epsilon"):
            raise InputError(f"randomised({kind!r}) needs a denoiser{' that predicts the noise' if self.denoiser else ''}")
        denoiser = adapters.redrawn(self.denoiser, generator)
        if kind == "zero-output":
            for p in getattr(denoiser, adapters.OUTPUT_LAYER[type(denoiser).__name__]).parameters():
                nn.init.zeros_(p)
        new = adapters.redrawn(self.autoencoder, generator) if autoencoder else copy.deepcopy(self.autoencoder)
        return self._like(denoiser=denoiser, autoencoder=new, class_embedding=copy.deepcopy(self.class_embedding))

    def _like(self, **changes):
        parts = {k: getattr(self, k) for k in ("autoencoder", "denoiser", "scheduler", "class_embedding", "classes")}
        return type(self)(**parts | changes, null=self.has_null)  # no source: no file holds it

    @classmethod
    def from_compvis(cls, checkpoint, config, *, ema=False, classes=(), dtype=torch.float32, device="cpu"):
        """A prior from the public latent-diffusion code's files; see :func:`ld3m_min.compvis.convert`.

        Args:
            checkpoint: path (.ckpt, .pt, .safetensors) or state dict. config: path to the yaml, or its mapping.
            ema: take the averaged weights of the U-Net. classes: names, in the order of the class embedding.
        """
        from .compvis import convert

        found = convert(checkpoint, config, ema=ema)
        prior = cls(found.autoencoder, found.denoiser, found.scheduler, found.class_embedding, classes=classes)
        hub.check_finite(prior.modules, "the checkpoint")
        return prior.to(device, dtype)

    @classmethod
    def from_diffusers(cls, pipeline, *, classes=(), prompt="a photo of a {}"):
        """A prior from a diffusers pipeline (latent diffusion, DiT, Stable Diffusion), or an autoencoder alone.

        The networks are the pipeline's own, from now on frozen. See :func:`ld3m_min.adapters.parts_of`.

        Args:
            classes: class names; a text-conditioned pipeline needs them. prompt: the text around a name.
        """
        prior = cls(**adapters.parts_of(pipeline, classes=classes, prompt=prompt))
        hub.check_finite(prior.modules, type(pipeline).__name__)
        return prior

    # -- files -------------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder):
        """Write the prior in diffusers' layout, plus `class_embedding/`; `from_pretrained` reads it back."""
        from safetensors.torch import save_file

        folder = Path(folder)
        index = {"_class_name": type(self).__name__, "conditional": self.conditional, "null": self.has_null,
                 "classes": list(self.classes)}
        for name, part in self._parts().items():
            part.save_pretrained(folder / name)
            index[name] = type(part).__name__
        if self.conditional:
            (folder / "class_embedding").mkdir(exist_ok=True)
            weight = self.class_embedding.weight.detach().cpu().contiguous()
            save_file({"weight": weight}, folder / "class_embedding" / "model.safetensors")
        write_json(folder / "model_index.json", index)

    def _parts(self):
        """Folder -> part, as diffusers names them."""
        network = "transformer" if "Transformer" in type(self.denoiser).__name__ else "unet"
        parts = {"vae": self.autoencoder, network: self.denoiser, "scheduler": self.scheduler}
        return {k: v for k, v in parts.items() if v is not None}

    @classmethod
    def from_pretrained(cls, path_or_id, *, dtype=torch.float32, device="cpu", classes=(), prompt="a photo of a {}",
                        revision=None, sha256=None):
        """Load a prior: a shipped one ("digits"), a folder written by `save_pretrained`, a folder that holds a pipeline of
        diffusers, or the hub id of either. Weights are read from safetensors alone; no code in the folder is run.

        Args:
            classes, prompt: for a pipeline, as in :meth:`from_diffusers`.
            revision: branch, tag or commit of a hub id, as in "org/name@revision". Whatever is given, `source` has the
                commit, so a set names the very files it was made with.
            sha256: the digest that :func:`ld3m_min.hub.folder_digest` must give.

        Raises:
            FileNotFoundError: neither a shipped name nor a folder, and the hub cannot be reached or has no such id.
            ValueError: the folder lacks a part, a part does not fit, or it is not what `sha256` says.
        """
        import diffusers

        found = hub.find_prior(path_or_id, revision=revision, sha256=sha256)
        folder, index = found.folder, hub.read_index(found.folder)
        options = {"low_cpu_mem_usage": False, "use_safetensors": True}  # the sparing way would need accelerate
        if index["_class_name"] != cls.__name__:
            # a filter of images has no part in this
            unused = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in index else {}
            parts = hub.pipeline_parts(folder, index, options)
            pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **options, **unused, **parts)
            prior = cls.from_diffusers(pipeline, classes=classes, prompt=prompt)
            prior.source = found.source
        else:
            prior = cls._assembled(folder, index, found.source, options)
        hub.check_finite(prior.modules, found.source)
        return prior.to(device, dtype)

    @classmethod
    def _assembled(cls, folder, index, source, options):
        """A prior from a folder of :meth:`save_pretrained`."""
        import diffusers

        hub.check_own_index(folder / "model_index.json", index)
        schedulers = tuple(n for n in dir(diffusers) if n.endswith("Scheduler"))
        known = {"vae": adapters.AUTOENCODERS, "unet": adapters.DENOISERS, "transformer": adapters.DENOISERS,
                 "scheduler": schedulers}
        parts = {}
        for name in ("vae", *(n for n in known if n != "vae" and n in index)):
            if index.get(name) not in known[name]:
                raise InputError(f"{source}: model_index.json names {index.get(name)!r} as {name}; expected one of {known[name]}")
            part = getattr(diffusers, index[name])
            parts[name] = part.from_pretrained(folder / name) if name == "scheduler" else hub.loaded(part, folder / name, options)
        embedding, classes = None, index.get("classes", ())
        if index.get("conditional"):
            embedding = nn.Embedding.from_pretrained(hub.read_embedding(folder / "class_embedding" / "model.safetensors"))
        return cls(parts["vae"], parts.get("unet") or parts.get("transformer"), parts.get("scheduler"), embedding,
                   classes=classes, null=index.get("null", True), source=source)


@torch.no_grad()
def check_images(prior, space, size):
    """One image of `size` pixels through everything that space "autoencoder" or "ld3m" needs: (1, 3, H, W).

    Raises:
        InputError: the prior's networks cannot take images or latents of this size.
    """
    image = torch.full((1, 3, size, size), 0.5, device=prior.device)
    try:
        z = prior.encode(image)
        if space == "ld3m":
            c = prior.class_conditioning(torch.zeros(1, dtype=torch.long)) if prior.conditional else None
            z = prior.predict_noise(z, torch.zeros(1, dtype=torch.long, device=z.device), c)
        return prior.decode(z)
    except InputError:
        raise
    except RuntimeError as error:
        raise InputError(f"the prior cannot make images of {size} px ({str(error).splitlines()[0]}); take a size whose latents "
                         "halve as often as its networks do, or another prior") from error
