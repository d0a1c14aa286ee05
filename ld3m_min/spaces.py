"""What is learned: pixels, autoencoder latents, or LD3M's latent and conditioning codes (sections 2.3 and 3.2).

A space turns its parameters into images, differentiably; a distiller never knows which one it drives. Whatever the
space, the synthetic set starts from real images drawn at random, one for each synthetic image.
"""
from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .backprop import ONE_PASS, Plan, decode_with_plan, generate_with_plan
from .config import from_dict
from .errors import InputError, InputTypeError
from .files import in_card
from .prior import LatentDiffusionPrior
from .sampler import SamplerConfig, check_codes, timesteps
from .set_files import FORMAT, OWN_PRIOR, VERSION, check_index, check_place, check_set, check_tensors, is_path
from .storage import from_bytes, read_json, replace_folder, seeded, signature, signed, standing, to_bytes, write_bytes, write_json


class Space:
    """Parameters that are learned, constants that belong to the set, and the map from both to images.

    Attributes:
        parameters: name -> leaf tensor that requires grad. constants: name -> tensor (the forward noise).
    """

    def __init__(self, parameters, constants=None):
        # one memory layout, as a saved set has: kernels round differently on another, and a set shall decode bit for bit
        self.parameters = {k: _plain(v).requires_grad_() for k, v in parameters.items()}
        self.constants = {k: _plain(v) for k, v in (constants or {}).items()}

    def images(self):
        """(B, 3, H, W) in [0, 1], differentiable in every parameter."""
        raise TypeError(f"{type(self).__name__} is abstract; use PixelSpace, AutoencoderSpace or LD3MSpace")

    def project(self):
        """Bring the parameters back to where they make sense, after an optimiser step."""

    def state(self):
        """Every tensor that the images depend on, detached: name -> tensor."""
        return {k: v.detach() for k, v in self.parameters.items()} | self.constants


def _plain(tensor):
    return tensor.detach().clone(memory_format=torch.contiguous_format)


class PixelSpace(Space):
    """The pixels themselves, kept in [0, 1] by projection."""

    def images(self):
        return self.parameters["pixels"]

    @torch.no_grad()
    def project(self):
        self.parameters["pixels"].clamp_(0, 1)


class AutoencoderSpace(Space):
    """Latents Z of the prior's autoencoder, decoded without any diffusion (Duan et al.)."""

    def __init__(self, prior, Z, *, plan=ONE_PASS):
        super().__init__({"Z": Z})
        self.prior, self.plan = prior, plan

    def images(self):
        return decode_with_plan(self.prior, self.parameters["Z"], self.plan)


class LD3MSpace(Space):
    """Latent codes Z and conditioning codes c, through the denoising chain (section 3).

    Args:
        noise: the forward noise, drawn once: part of the set. learn_z, learn_c: what is learned (table 4's rows).
        redraw: a function iteration -> fresh noise, to do as the public code does; None keeps `noise`.
    """

    def __init__(self, prior, Z, c, noise, sampler, *, plan=ONE_PASS, learn_z=True, learn_c=True):
        codes = {"Z": (Z, learn_z), "c": (c, learn_c)}
        learned = {k: v for k, (v, learn) in codes.items() if learn and v is not None}
        fixed = {k: v.detach() for k, (v, learn) in codes.items() if not learn and v is not None}
        super().__init__(learned, fixed | {"noise": noise})
        self.prior, self.sampler, self.plan = prior, sampler, plan

    def images(self, noise=None):
        values = self.constants | self.parameters
        noise = values["noise"] if noise is None else noise
        return generate_with_plan(self.prior, values["Z"], values.get("c"), noise, self.sampler, self.plan)


def draw_initial_images(data, ipc, seed):
    """One real training image per synthetic one: images (K ipc, 3, H, W), labels (K ipc,), class by class.

    Raises:
        ValueError: a class has fewer than `ipc` images.
    """
    images, labels = [], []
    for label, name in enumerate(data.classes):
        x = data.train.sample_class(label, ipc, seeded(seed, "initial images", label))
        if len(x) < ipc:
            raise InputError(f"class {name!r} has {len(x)} training images, fewer than ipc = {ipc}; lower ipc or add images")
        images.append(x)
        labels += [label] * ipc
    return torch.cat(images), torch.tensor(labels)


def build_space(config, images, labels, prior=None):
    """The space that `config` names, starting from the given images.

    Args:
        images: (B, 3, H, W) in [0, 1]. labels: (B,). prior: for the latent spaces.
    """
    if config.space == "pixel":
        return PixelSpace({"pixels": images})
    if prior is None:
        raise InputError(f"space {config.space!r} needs a prior")
    dtype = next(prior.autoencoder.parameters()).dtype
    if dtype != images.dtype:
        raise InputError(f"the prior is {dtype}, the images are {images.dtype}; load it with dtype={images.dtype}")
    with torch.no_grad():
        Z = torch.cat([prior.encode(x) for x in images.split(64)])  # section 3.2: the encoder, no inversion
    if config.space == "autoencoder":
        return AutoencoderSpace(prior, Z, plan=config.plan)
    if prior.conditional and labels.max() >= (known := prior.class_embedding.num_embeddings - prior.has_null):
        raise InputError(f"the data has {int(labels.max()) + 1} classes, the prior only {known}")
    c = prior.class_conditioning(labels).clone() if prior.conditional else None
    noise = forward_noise(Z.shape, config.seed).to(Z)
    timesteps(config.sampler.steps, prior.train_steps)
    check_codes(prior, Z, c, noise, config.sampler)  # now, not when the experts have been trained
    return LD3MSpace(
        prior, Z, c, noise, config.sampler, plan=config.plan, learn_z=config.learn_z, learn_c=config.learn_c
    )


def forward_noise(shape, seed, *purpose):
    """The noise of the forward process of each synthetic image, (B, c, h, w)."""
    return torch.stack([torch.randn(shape[1:], generator=seeded(seed, "forward noise", i, *purpose)) for i in range(shape[0])])


@dataclass(frozen=True)
class SyntheticSet:
    """A distilled set: its images, what they were made from, and how to train on it.

    Attributes:
        pixels: (B, 3, H, W) in [0, 1], or bytes from 0 to 255, which `images()` divides by 255. labels: (B,) int64.
        classes: names.
        state: the learned codes and constants, name -> tensor. recipe: JSON-able: configuration, normalisation, prior.
        history: one dict per iteration (loss, gradient norms; "skipped" where it was not finite).
        prior: what decodes the codes, where it has no name, folder or hub id of its own: then it is saved with the set.
        home: the folder it was loaded from, if it was.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    recipe: dict = field(default_factory=dict)
    history: tuple[dict, ...] = ()
    prior: object = None
    home: Path | None = None

    def __post_init__(self):
        """Refuse what could not be trained on or saved, whatever door it comes through."""
        for name in ("pixels", "labels"):
            if not isinstance(getattr(self, name), torch.Tensor):
                raise InputTypeError(f"a set's {name} must be a tensor, not {type(getattr(self, name)).__name__}")
        if self.pixels.dtype != torch.uint8:
            object.__setattr__(self, "pixels", self.pixels.float())
        object.__setattr__(self, "classes", tuple(self.classes))
        check_set(self.images(), self.labels, self.classes, self.state)

    def images(self):
        """(B, 3, H, W) float32 in [0, 1]."""
        return self.pixels.float() / 255 if self.pixels.dtype == torch.uint8 else self.pixels

    @property
    def ipc(self):
        """Images per class."""
        return len(self.labels) // len(self.classes)

    @torch.no_grad()
    def regenerate(self, prior=None):
        """Decode the codes again: the same images as `images()`. Loads the prior the recipe names, if none is given.

        Raises:
            ValueError: a loaded set names a path of the machine that made it; give the prior.
        """
        config = self.recipe["config"]
        if config["space"] == "pixel":
            return self.state["pixels"]
        prior = prior or self.prior or LatentDiffusionPrior.from_pretrained(self._prior_source(), classes=self.classes)
        made_with = self.recipe["prior"].get("digest")
        if made_with not in (None, prior.networks_digest):
            raise InputError(f"the set was made with another prior than this one (digest {made_with[:12]}, not "
                             f"{prior.networks_digest[:12]}): other weights, or another precision; give the one it was made with")
        codes = {k: v.to(prior.device) for k, v in self.state.items()}
        plan = Plan(**{k: v for k, v in config["plan"].items() if k in ("precision", "channels_last")})
        if config["space"] == "autoencoder":
            return decode_with_plan(prior, codes["Z"], plan).cpu()
        sampler = from_dict(SamplerConfig, config["sampler"])
        return generate_with_plan(prior, codes["Z"], codes.get("c"), codes["noise"], sampler, plan).cpu()

    def _prior_source(self):
        source = self.recipe["prior"]["source"]
        if self.home is None:
            return source
        if source == OWN_PRIOR:
            return standing(self.home) / "prior"
        if is_path(source):  # what a file says never leads out of its folder
            raise InputError(f"the set in {self.home} was made with a prior from the path {source!r}; load it yourself, if you "
                             "trust it, and give it: regenerate(LatentDiffusionPrior.from_pretrained(path))")
        return source

    def save(self, folder):
        """Write the set as a folder that says all: codes and exact pixels, PNG files by class, recipe, card.

        The folder is replaced as a whole: a kill leaves the earlier set or the new one.

        Raises:
            ValueError: the folder holds anything but a set. OSError: it cannot be written; an earlier set is intact.
        """
        check_place(folder)
        with replace_folder(folder) as new:
            self._write(new)

    def _write(self, folder):
        from PIL import Image

        tensors = {f"state.{k}": v for k, v in self.state.items()} | {"images": self.images(), "labels": self.labels}
        data = to_bytes(tensors)
        lines, digits = [], max(3, len(str(len(self.classes) - 1)))  # so that folders sort as labels do
        for i, (image, label) in enumerate(zip(self.images(), self.labels.tolist(), strict=True)):
            place = Path("images") / f"{label:0{digits}d}" / f"{i:05d}.png"
            (folder / place.parent).mkdir(parents=True, exist_ok=True)
            array = (image.permute(1, 2, 0).cpu() * 255).round().to(torch.uint8).numpy()
            Image.fromarray(array).save(folder / place)
            lines.append(json.dumps({"file_name": place.as_posix(), "label": label, "class": self.classes[label]}))
        if self.prior is not None:
            self.prior.save_pretrained(folder / "prior")
        elif self.home is not None and (self.recipe.get("prior") or {}).get("source") == OWN_PRIOR:
            shutil.copytree(standing(self.home) / "prior", folder / "prior")
        write_bytes(folder / "metadata.jsonl", ("\n".join(lines) + "\n").encode())
        write_bytes(folder / "README.md", self._card().encode())
        write_bytes(folder / "set.safetensors", data)
        index = {"format": FORMAT, "version": VERSION, "classes": list(self.classes), "recipe": self.recipe,
                 "history": list(self.history), "sha256": hashlib.sha256(data).hexdigest(),
                 "files": sorted([f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()] + ["set.json"])}
        write_json(folder / "set.json", signed(index))

    @classmethod
    def load(cls, folder):
        """Read a folder written by :meth:`save`; no flags: the folder says all.

        Raises:
            FileNotFoundError: no such set. ValueError: damaged, or not one of ours.
        """
        folder = Path(folder).absolute()
        for _ in range(20):  # another process may be replacing it: then it is read again
            before = _stamp(folder)
            try:
                return cls._load(folder)
            except (InputError, FileNotFoundError):
                if _stamp(folder) == before:
                    raise
        return cls._load(folder)

    @classmethod
    def _load(cls, folder):
        place = standing(folder)
        index = read_json(place / "set.json")
        version = index.get("version") if isinstance(index, dict) else None
        if version not in (1, VERSION) or index.get("format") != FORMAT:
            raise InputError(f"{folder / 'set.json'} does not describe a synthetic set of version {VERSION}")
        if version > 1 and index.get("checksum") != signature(index):  # version 1 had none
            raise InputError(f"{folder / 'set.json'} does not match its own checksum; the file is damaged")
        check_index(folder, index)
        try:
            data = (place / "set.safetensors").read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder} lacks set.safetensors; the set is incomplete") from None
        if hashlib.sha256(data).hexdigest() != index["sha256"]:
            raise InputError(f"{folder / 'set.safetensors'} does not match the checksum in set.json; the file is damaged")
        tensors = from_bytes(data, folder / "set.safetensors")
        check_tensors(folder, tensors, index)
        images, labels = tensors.pop("images"), tensors.pop("labels")
        state = {k.removeprefix("state."): v for k, v in tensors.items()}
        return cls(images, labels, tuple(index["classes"]), state, index["recipe"], tuple(index["history"]), home=folder)

    def _card(self):
        c, n = self.recipe["config"], self.recipe["normalisation"]
        mean, std = ([round(v, 4) for v in n[k]] for k in ("mean", "std"))
        return (
            "---\ntask_categories: [image-classification]\ntags: [dataset-distillation]\n---\n"
            f"# {in_card(c['dataset'])}, distilled by {c['algorithm']} in {c['space']} space\n\n"
            f"{len(self.labels)} images ({self.ipc} per class) of {c['size']} px, {len(self.history)} iterations, "
            f"seed {c['seed']}.\n\n"
            f"Train on `images/` with the labels of `metadata.jsonl`; normalise with mean {mean} and std {std}; augment "
            f"with DSA ({c['dsa']}). `set.safetensors` has the exact pixels and the codes; `set.json` the whole recipe.\n"
        )


def _stamp(folder):
    """What changes when a set is replaced: the folder that stands there."""
    place = standing(folder)
    try:
        found = place.stat()
    except OSError:
        return None
    return place, found.st_ino, found.st_mtime_ns
