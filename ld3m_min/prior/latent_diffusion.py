"""The frozen generative prior: sections 2.2 and 4.1 of the paper.

`model` has the functions that a distillation calls. Here is where a prior comes from: files of this
package, of diffusers and of the public latent-diffusion code, or another prior.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ld3m_min.errors import InputError
from ld3m_min.io.digests import digest, versions
from ld3m_min.prior.class_map import PROMPT
from ld3m_min.prior.compvis import convert, last_is_null
from ld3m_min.prior.compvis_files import config_beside
from ld3m_min.prior.diffusers_pipelines import parts_of
from ld3m_min.prior.kinds import OUTPUT_LAYER, redrawn
from ld3m_min.prior.model import LatentDiffusionModel
from ld3m_min.prior.parts import GivenParts
from ld3m_min.prior.saving import check_finite, read_parts, write_parts
from ld3m_min.prior.weights import find_prior


class LatentDiffusionPrior(LatentDiffusionModel):
    """A frozen latent diffusion model, as a distillation sees it.

    Arguments, attributes and the six functions of section 3 (`encode`, `quantize`, `decode`,
    `predict_noise`, `class_conditioning`, `null_conditioning`) are those of
    :class:`~ld3m_min.prior.model.LatentDiffusionModel`.

    Example:
        >>> from ld3m_min import LatentDiffusionPrior
        >>> prior = LatentDiffusionPrior.from_pretrained("digits")
        >>> prior.latent_channels, prior.factor, prior.condition_shape
        (3, 4, (1, 32))
        >>> prior.for_classes([3, 8]).classes
        ('3', '8')
    """

    _digest: tuple[object, str] | None = None  # of the networks, and which weights it belongs to
    prompts: tuple[str, ...] = ()  # that its classes are, where it is conditioned on text

    @property
    def digest(self) -> str:
        """What this prior is, whatever it is called.

        A digest of its networks and schedule, its classes and their order.
        """
        rows = [] if self.class_embedding is None else [self.class_embedding.weight]
        return digest(*rows, [self.networks_digest, list(self.classes), self.has_null])

    @property
    def networks_digest(self) -> str:
        """What turns codes (Z, c, noise) into images: a digest of weights, scale and schedule.

        The null class counts as well; choosing among the classes leaves it.
        """
        parts = [m for m in (self.autoencoder, self.denoiser) if m is not None]
        tensors = {
            f"{i}.{k}": v
            for i, m in enumerate(parts)
            for k, v in sorted(m.state_dict(keep_vars=True).items())
        }
        table = [] if self.class_embedding is None else [self.class_embedding.weight]
        now = versions([*tensors.values(), *table])
        if self._digest is None or now is None or self._digest[0] != now:
            extra = [] if self.denoiser is None else [self.alpha_bar]
            if self.class_embedding is not None and self.has_null:
                extra.append(self.class_embedding.weight[-1])
            about = [self.scale, getattr(self, "prediction_type", None), sorted(tensors)]
            self._digest = now, digest(*tensors.values(), *extra, about)
        return self._digest[1]

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> LatentDiffusionPrior:
        """Move and cast all networks, in place.

        Args:
            device: None leaves them where they are.
            dtype: None leaves them as they are.

        Returns:
            This prior.
        """
        changes: dict[str, Any] = {"device": device, "dtype": dtype}
        for module in self.modules:
            # torch's own: diffusers' warns of casts that cannot matter here
            nn.Module.to(module, **{k: v for k, v in changes.items() if v is not None})
        return self

    # -- other priors ------------------------------------------------------------------------------

    def for_classes(
        self, ids: Iterable[int], names: Iterable[str] | None = None
    ) -> LatentDiffusionPrior:
        """The same networks for some of the classes: a subset of ImageNet (section 4.1).

        Args:
            ids: rows of the class embedding, which become the classes 0, 1, ... in this order.
            names: of the classes; None takes those that this prior has.

        Raises:
            InputError: an unconditional prior, a row that isn't there, or more or fewer names.
        """
        table, rows = self._table(), [int(i) for i in ids]
        self.class_conditioning(torch.tensor(rows))  # refuses what is out of range
        called = tuple(names or ()) or tuple(self.classes[i] for i in rows if self.classes)
        if called and len(called) != len(rows):
            raise InputError(f"{len(rows)} classes, but {len(called)} names")
        kept = [*rows, table.num_embeddings - 1] if self.has_null else rows
        chosen = nn.Embedding.from_pretrained(table.weight[kept].clone())
        # c is stored with a set, and the null class is the same: this source decodes it
        return self._like(class_embedding=chosen, classes=called, source=self.source)

    def randomised(
        self, kind: object, generator: torch.Generator, *, autoencoder: bool = False
    ) -> LatentDiffusionPrior:
        """A prior whose denoiser knows nothing: what the row "Random" of table 3 stands for.

        Args:
            kind: "zero-output" has random weights and an output layer of zeros, as the public
                code's untrained U-Net has: the predicted noise is zero, so nothing is denoised, and
                the generator is the autoencoder alone. "weights" draws every weight as the
                architecture's initialisation does. That the paper means the first is an inference
                from the public code.
            generator: CPU generator of the weights.
            autoencoder: draw the autoencoder's weights too; else they stay trained.

        Raises:
            InputError: an unknown kind, or a prior without the denoiser that it needs.
        """
        if kind not in ("zero-output", "weights"):
            raise InputError(f"randomised({kind!r}) is unknown; choose zero-output, weights")
        if self.denoiser is None or (kind == "zero-output" and self.prediction_type != "epsilon"):
            which = " that predicts the noise" if self.denoiser else ""
            raise InputError(f"randomised({kind!r}) needs a denoiser{which}")
        denoiser = redrawn(self.denoiser, generator)
        if kind == "zero-output":
            for p in getattr(denoiser, OUTPUT_LAYER[type(denoiser).__name__]).parameters():
                nn.init.zeros_(p)
        return self._like(
            denoiser=denoiser,
            autoencoder=redrawn(self.autoencoder, generator)
            if autoencoder
            else copy.deepcopy(self.autoencoder),
            class_embedding=copy.deepcopy(self.class_embedding),
        )

    def _like(self, **changes: Any) -> LatentDiffusionPrior:
        """The same prior with some parts changed, and without a source: no file holds it.

        Args:
            **changes: fields of :class:`~ld3m_min.prior.parts.GivenParts` and their values.
        """
        parts = GivenParts(
            self.autoencoder,
            self.denoiser,
            self.scheduler,
            self.class_embedding,
            self.classes,
            self.has_null,
        )
        return self._of(replace(parts, **changes))

    @classmethod
    def _of(cls, parts: GivenParts) -> LatentDiffusionPrior:
        """The prior that some parts make."""
        prior = cls(
            parts.autoencoder,
            parts.denoiser,
            parts.scheduler,
            parts.class_embedding,
            classes=parts.classes,
            null=parts.null,
            source=parts.source,
        )
        prior.prompts = parts.prompts
        return prior

    # -- files -------------------------------------------------------------------------------------

    @classmethod
    def from_compvis(
        cls,
        checkpoint: str | os.PathLike[str] | Mapping[str, Any],
        config: str | os.PathLike[str] | Mapping[str, Any],
        *,
        ema: bool = False,
        classes: Iterable[object] = (),
        null: bool | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> LatentDiffusionPrior:
        """A prior from files of the public latent-diffusion code, as the paper's is (section 4.1).

        See :func:`ld3m_min.prior.compvis.convert`.

        Args:
            checkpoint: path (.ckpt, .pt, .safetensors) or state dict.
            config: path to the yaml, or its mapping.
            ema: take the averaged weights of the U-Net.
            classes: names, in the order of the class embedding, without that of a null class.
            null: whether the last row of the class embedding is a null class, which guidance needs;
                None infers it from the names, or from the 1,000 classes of ImageNet, and warns
                where it takes it for one without knowing.
            dtype: of the networks.
            device: of the networks.

        Raises:
            FileNotFoundError: no such file.
            InputError: files that are damaged, do not belong together or have no counterpart.

        Example:
            >>> from ld3m_min import LatentDiffusionPrior
            >>> try:  # the released files, where you have them
            ...     LatentDiffusionPrior.from_compvis("cin256.ckpt", "cin256.yaml")
            ... except FileNotFoundError as error:
            ...     print(error)
            no checkpoint cin256.ckpt
        """
        found, names = convert(checkpoint, config, ema=ema), tuple(classes)
        prior = cls(
            found.autoencoder,
            found.denoiser,
            found.scheduler,
            found.class_embedding,
            classes=names,
            null=last_is_null(found.class_embedding, names, null),
        )
        check_finite(prior.modules, "the checkpoint")
        return prior.to(device, dtype)

    @classmethod
    def from_diffusers(
        cls,
        pipeline: object,
        *,
        classes: Iterable[object] = (),
        prompt: str = PROMPT,
        prompts: Mapping[str, str] | None = None,
    ) -> LatentDiffusionPrior:
        """A prior from a diffusers pipeline, or from an autoencoder alone.

        Latent diffusion, DiT and Stable Diffusion are supported. The networks are the pipeline's
        own, from now on frozen. See :func:`ld3m_min.prior.diffusers_pipelines.parts_of`.

        Args:
            pipeline: the pipeline, its components, or an autoencoder.
            classes: class names; a text-conditioned pipeline needs them.
            prompt: the text around a name.
            prompts: whole texts of some classes.

        Raises:
            InputTypeError: the pipeline is something else.
            InputError: it lacks something, or has no counterpart.

        Example:
            >>> from diffusers import AutoencoderKL
            >>> from ld3m_min import LatentDiffusionPrior
            >>> prior = LatentDiffusionPrior.from_diffusers(AutoencoderKL())
            >>> prior.latent_channels, prior.conditional, prior.denoiser
            (4, False, None)
        """
        prior = cls._of(parts_of(pipeline, classes=classes, prompt=prompt, prompts=prompts))
        check_finite(prior.modules, type(pipeline).__name__)
        return prior

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike[str],
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        classes: Iterable[object] = (),
        prompt: str = PROMPT,
        prompts: Mapping[str, str] | None = None,
        revision: str | None = None,
        sha256: str | None = None,
    ) -> LatentDiffusionPrior:
        """Load a prior. Weights are read from safetensors alone; no code in the folder is run.

        Args:
            path_or_id: a shipped name ("digits"), a folder written by `save_pretrained`, a folder
                that holds a pipeline of diffusers or an autoencoder alone, the hub id of either,
                or a released checkpoint with its yaml beside it under the same name.
            dtype: of the networks.
            device: of the networks.
            classes: class names of a pipeline, as in :meth:`from_diffusers`.
            prompt: the text around a name, as in :meth:`from_diffusers`.
            prompts: whole texts of some classes, as in :meth:`from_diffusers`.
            revision: branch, tag or commit of a hub id, as in "org/name@revision". Whatever is
                given, `source` has the commit, so a set names the very files it was made with.
            sha256: the digest that :func:`ld3m_min.prior.weights.folder_digest` must give.

        Raises:
            FileNotFoundError: neither a shipped name nor a folder, and the hub cannot be reached or
                has no such id.
            InputError: the folder lacks a part, a part does not fit, or it is not what `sha256`
                says.

        Example:
            >>> import torch
            >>> from ld3m_min import LatentDiffusionPrior
            >>> half = LatentDiffusionPrior.from_pretrained("digits", dtype=torch.bfloat16)
            >>> half.source, half.dtype, half.train_steps
            ('digits', torch.bfloat16, 1000)
        """
        yaml = config_beside(path_or_id)
        if yaml is not None and revision is None and sha256 is None:
            prior = cls.from_compvis(path_or_id, yaml, classes=classes, dtype=dtype, device=device)
            prior.source = os.fspath(path_or_id)
            return prior
        found = find_prior(path_or_id, revision=revision, sha256=sha256)
        prior = cls._of(
            read_parts(found, cls.__name__, classes=classes, prompt=prompt, prompts=prompts)
        )
        check_finite(prior.modules, found.source)
        return prior.to(device, dtype)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the prior in diffusers' layout, plus `class_embedding/`.

        Args:
            folder: what :meth:`from_pretrained` reads it from.

        Example:
            >>> from os import listdir
            >>> from tempfile import TemporaryDirectory
            >>> from ld3m_min import LatentDiffusionPrior
            >>> with TemporaryDirectory() as folder:
            ...     LatentDiffusionPrior.from_pretrained("digits").save_pretrained(folder)
            ...     sorted(listdir(folder))
            ['class_embedding', 'model_index.json', 'scheduler', 'unet', 'vae']
        """
        index = {
            "_class_name": type(self).__name__,
            "conditional": self.conditional,
            "null": self.has_null,
            "classes": list(self.classes),
        }
        write_parts(
            Path(folder),
            index,
            self.autoencoder,
            self.denoiser,
            self.scheduler,
            self.class_embedding,
        )


@torch.no_grad()
def check_images(prior: LatentDiffusionPrior, space: str, size: int) -> Float[Tensor, "1 3 H W"]:
    """Take one image through everything that a space needs of the prior.

    Args:
        prior: the prior.
        space: "ld3m", which needs the denoiser too, or another.
        size: side of the image, pixels.

    Returns:
        What the prior makes of it.

    Raises:
        InputError: the prior's networks cannot take images or latents of this size.
    """
    image = torch.full((1, 3, size, size), 0.5, device=prior.device)
    try:
        z = prior.encode(image)
        if space == "ld3m":
            first = torch.zeros(1, dtype=torch.long)
            c = prior.class_conditioning(first) if prior.conditional else None
            z = prior.predict_noise(z, first.to(z.device), c)
        return prior.decode(z)
    except InputError:
        raise
    except RuntimeError as error:
        raise InputError(
            f"the prior cannot make images of {size} px ({str(error).splitlines()[0]}); take a "
            "size whose latents halve as often as its networks do, or another prior"
        ) from error
