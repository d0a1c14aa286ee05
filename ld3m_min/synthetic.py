"""The distilled set: its images, what they were made from, and how to train on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ld3m_min.backprop import Plan
from ld3m_min.config import DistilConfig
from ld3m_min.errors import InputError, InputTypeError
from ld3m_min.io.files import current_version, replace_folder
from ld3m_min.io.values import from_dict
from ld3m_min.licences import with_licence
from ld3m_min.prior.loading import AnyPrior, load_prior
from ld3m_min.set_contents import SetContents
from ld3m_min.set_files import (
    OWN_PRIOR,
    by_class,
    check_place,
    check_set,
    check_soft_labels,
    is_path,
)
from ld3m_min.set_folder import read_set, write_set
from ld3m_min.spaces.build import SPACES
from ld3m_min.storage import Storage, storage_of

if TYPE_CHECKING:
    from ld3m_min.sharing import Pushed

_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {  # field -> what it must be, and the test
    "pixels": ("a tensor", lambda x: isinstance(x, Tensor)),
    "labels": ("a tensor", lambda x: isinstance(x, Tensor)),
    "classes": ("a tuple of names", lambda x: isinstance(x, Iterable)),
    "state": (
        "a dict of tensors by name",
        lambda x: (
            isinstance(x, Mapping)
            and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in x.items())
        ),
    ),
    "recipe": ("a dict", lambda x: isinstance(x, Mapping)),
    "history": (
        "a tuple of dicts",
        lambda x: isinstance(x, tuple | list) and all(isinstance(h, dict) for h in x),
    ),
    "prior": ("a prior or None", lambda x: x is None or isinstance(x, AnyPrior)),
    "soft_labels": ("a tensor or None", lambda x: x is None or isinstance(x, Tensor)),
    "home": ("a path or None", lambda x: x is None or isinstance(x, str | PathLike)),
}


@dataclass(frozen=True)
class SyntheticSet:
    """A distilled set: its images, what they were made from, and how to train on it.

    Attributes:
        pixels: in [0, 1], or bytes from 0 to 255, which `images()` divides by 255.
        labels: of the images, int64.
        classes: names, in the order of the labels.
        state: the learned codes and constants, by name.
        recipe: how it was made, as JSON has it: configuration, normalisation, data, prior.
        history: one dict for each iteration: loss, gradient norms; "skipped" where not finite.
        prior: what decodes the codes, where it has no name, folder or hub id of its own: then it
            is saved with the set.
        home: the folder it was loaded from, if it was.
        soft_labels: probabilities of the K classes for each image, for who trains on them; None
            where each image has its class and no more. `evaluate` takes `labels`, unless these are
            given to it.

    Raises:
        InputTypeError: a value of another kind.
        InputError: values that could not be trained on, or do not fit together.

    Example:
        >>> import torch
        >>> from ld3m_min import SyntheticSet
        >>> images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 0, 1, 1])
        >>> pets = SyntheticSet(images, labels, ("cat", "dog"))
        >>> pets.ipc, len(pets.classes), tuple(pets.images().shape)
        (2, 2, (4, 3, 32, 32))
    """

    __no_type_check__ = True  # what is given is looked at below, and refused in a sentence

    pixels: Float[Tensor, "B 3 H W"] | UInt8[Tensor, "B 3 H W"]
    labels: Int[Tensor, " B"]
    classes: tuple[str, ...]
    state: dict[str, Tensor] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    history: tuple[dict[str, Any], ...] = ()
    prior: AnyPrior | None = None
    home: Path | None = None
    soft_labels: Float[Tensor, "B K"] | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be trained on or saved, wherever it comes from."""
        for name, (what, fine) in _KINDS.items():
            if not fine(value := getattr(self, name)):
                raise InputTypeError(f"a set's {name} must be {what}, not {_kind(value)}")
        if self.pixels.dtype != torch.uint8:
            object.__setattr__(self, "pixels", self.pixels.float())
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "state", dict(self.state))
        object.__setattr__(self, "recipe", dict(self.recipe))
        object.__setattr__(self, "history", tuple(self.history))
        if self.home is not None:
            object.__setattr__(self, "home", Path(self.home))
        check_set(
            _unit_range(self.pixels),
            self.labels,
            self.classes,
            self.state,
            by_class=by_class(self.recipe),
        )
        check_soft_labels(self.soft_labels, len(self.labels), len(self.classes))

    def images(self) -> Float[Tensor, "B 3 H W"]:
        """The images S, float32 in [0, 1].

        Example:
            >>> import torch
            >>> from ld3m_min import SyntheticSet
            >>> white = torch.full((2, 3, 16, 16), 255, dtype=torch.uint8)
            >>> found = SyntheticSet(white, torch.tensor([0, 1]), ("cat", "dog"))
            >>> found.images().dtype, found.images().max().item()
            (torch.float32, 1.0)
        """
        return _unit_range(self.pixels)

    @property
    def ipc(self) -> int:
        """Images per class."""
        return len(self.labels) // len(self.classes)

    @property
    def config(self) -> DistilConfig:
        """Of the distillation; its `ipc` counts storage, :attr:`ipc` images."""
        return from_dict(DistilConfig, self.recipe.get("config"), "recipe.config")

    @property
    def contents(self) -> SetContents:
        """All that a folder or a file of the set holds, but for a prior."""
        return SetContents(
            self.images(),
            self.labels,
            self.classes,
            self.state,
            self.recipe,
            self.history,
            self.soft_labels,
        )

    def storage(self) -> Storage:
        """The bytes that the set takes, as images and as codes, and what its prior's sets share."""
        return storage_of(self.images(), self.labels, self.classes, self.state, self.recipe)

    @torch.no_grad()
    def regenerate(self, prior: AnyPrior | None = None) -> Float[Tensor, "B 3 H W"]:
        """Decode the codes again, S = G(Z, c) of section 3.1: the same images as `images()`.

        Args:
            prior: what decodes; None takes the set's own, or loads the one that the recipe names.

        Returns:
            Images in [0, 1], on the CPU.

        Raises:
            InputError: a loaded set names a path of the machine that made it, so the prior has to
                be given; or the prior is another one.
        """
        config = self.config
        space = SPACES[config.space]
        if not space.needs_prior:
            return space.restore(config, self.state, None).images().detach()
        prior = prior or self.prior or self._loaded_prior()
        made_with = self.recipe["prior"].get("digest")
        if made_with not in (None, prior.networks_digest):
            raise InputError(
                f"the set was made with another prior than this one (digest {made_with[:12]}, not "
                f"{prior.networks_digest[:12]}): other weights, or another precision; "
                "give the one it was made with"
            )
        codes = {k: v.to(prior.device) for k, v in self.state.items()}
        # nothing is differentiated, so nothing has to be recomputed
        ran = self.recipe.get("plan") or {}  # where a probe chose, it says what
        plan = Plan(
            precision=ran.get("precision", config.plan.precision),
            channels_last=config.plan.channels_last,
        )
        return space.restore(replace(config, plan=plan), codes, prior).images().cpu()

    def _loaded_prior(self) -> AnyPrior:
        """The prior that the recipe names."""
        return load_prior(self._prior_source(), classes=self.classes)

    def _prior_source(self) -> str | Path:
        """What :func:`~ld3m_min.prior.loading.load_prior` is to be given.

        Raises:
            InputError: it is a path that a file names.
        """
        source: str = self.recipe["prior"]["source"]
        if self.home is None:
            return source
        if source == OWN_PRIOR:
            return current_version(self.home) / "prior"
        if is_path(source):  # what a file says never leads out of its folder
            raise InputError(
                f"the set in {self.home} was made with a prior from the path {source!r}; load it "
                "yourself, if you trust it, and give it: "
                "regenerate(ld3m_min.prior.load_prior(path))"
            )
        return source

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the set as a folder that says all: codes and exact pixels, PNG files by class,
        recipe, card, and the prior where nothing else names it.

        The folder is replaced as a whole: a kill leaves the earlier set or this one.

        Args:
            folder: where to.

        Raises:
            InputError: the folder holds anything but a set, or the recipe lacks what a folder has
                to say.
            OSError: it cannot be written; an earlier set is intact.

        Example:
            >>> from os import listdir
            >>> from tempfile import TemporaryDirectory
            >>> from ld3m_min import load_data, select
            >>> with TemporaryDirectory() as folder:
            ...     select(load_data("digits"), ipc=1, method="random").save(folder)
            ...     sorted(name for name in listdir(folder) if name.startswith("set"))
            ['set.json', 'set.safetensors']
        """
        check_place(folder)
        with replace_folder(folder) as empty:
            if self.prior is not None:
                self.prior.save_pretrained(empty / "prior")
            elif self.home is not None and self._has_own_prior():
                shutil.copytree(current_version(self.home) / "prior", empty / "prior")
            write_set(empty, self.contents)

    def with_licence(self, licence: str) -> SyntheticSet:
        """The same set, whose recipe and card state a licence.

        Args:
            licence: such as "CC-BY-4.0", or any text.

        Raises:
            InputError: the text is empty.
        """
        return replace(self, recipe=with_licence(self.recipe, licence))

    def with_evaluation(
        self, accuracies: Mapping[str, Iterable[float]], *, data: str, split: str
    ) -> SyntheticSet:
        """The same set, whose recipe and card say how well networks did that were trained on it.

        Args:
            accuracies: in [0, 1], of each network's trainings, as an `EvalResult` has them; those
                that diverged are left out.
            data: name of the real images that they were measured on.
            split: of these.

        Raises:
            InputError: all of them diverged.
        """
        finite = {k: [float(v) for v in values if v == v] for k, values in accuracies.items()}
        if not any(finite.values()):
            raise InputError("every training diverged, so there is no accuracy to be written down")
        measured = {"accuracies": {k: v for k, v in finite.items() if v}, "data": data}
        measured["split"] = split
        return replace(self, recipe={**self.recipe, "evaluation": measured})

    def export(self, path: str | PathLike[str], format: str, *, licence: str | None = None) -> Path:
        """Write the set as others read it; see :func:`~ld3m_min.export.export_set`.

        An earlier export in the place is replaced, nothing else is.

        Args:
            path: the folder of "imagefolder"; the file of the other formats.
            format: "imagefolder", "webdataset", "parquet" or "npz".
            licence: of the images; None keeps what the recipe states.

        Returns:
            Where it is.

        Raises:
            InputError: no such format, a package that it needs isn't there, a field of the recipe
                is of another kind, or something else than such an export is in the place.
            OSError: it cannot be written; what was there is intact.
        """
        from ld3m_min.export import export_set

        return export_set(self.contents, path, format, licence=licence, home=self.home)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        licence: str | None = None,
        real_images: bool = False,
        token: str | None = None,
        message: str = "A distilled set",
    ) -> Pushed:
        """Upload the set to the Hugging Face Hub as a data set: images, labels, card, checksums.

        No path of this machine, no prior's weights and no other file goes with it. It is private
        unless said otherwise: what was published can't be taken back.

        Args:
            repo_id: "name" or "owner/name"; it is made where it isn't there.
            private: whether its owner alone is to see it.
            licence: of the images; None keeps what the recipe states.
            real_images: whether the images may be real ones, as those of a selection are.
            token: of the Hub; None takes the one that `hf auth login` kept.
            message: of the commit.

        Returns:
            Where the set is.

        Raises:
            InputError: the id is none, the images are real ones and were not said to be, the recipe
                lacks something, or the repository is public where a private one is meant, or holds
                something else than a set.
            OSError: the Hub can't be reached, or refuses.
        """
        from ld3m_min.sharing import push_contents

        return push_contents(
            self.contents,
            repo_id,
            private=private,
            licence=licence,
            real_images=real_images,
            token=token,
            message=message,
        )

    def _has_own_prior(self) -> bool:
        """Whether the prior is saved with the set."""
        return (self.recipe.get("prior") or {}).get("source") == OWN_PRIOR

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> SyntheticSet:
        """Read a folder written by :meth:`save`; no flags: the folder says all.

        Args:
            folder: of the set.

        Raises:
            FileNotFoundError: no such set, or a part of it is missing.
            InputError: damaged, or not one of ours.

        Example:
            >>> from tempfile import TemporaryDirectory
            >>> from ld3m_min import SyntheticSet, load_data, select
            >>> with TemporaryDirectory() as folder:
            ...     select(load_data("digits"), ipc=2, method="random").save(folder)
            ...     found = SyntheticSet.load(folder)
            >>> found.labels.tolist()[:6], found.recipe["selection"]["method"]
            ([0, 0, 1, 1, 2, 2], 'random')
        """
        found = read_set(folder)
        return cls(
            found.images,
            found.labels,
            found.classes,
            found.state,
            found.recipe,
            found.history,
            home=Path(folder).absolute(),
            soft_labels=found.soft_labels,
        )


def _unit_range(pixels: Tensor) -> Tensor:
    """Bytes from 0 to 255 as numbers in [0, 1]; others as they are."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def _kind(value: object) -> str:
    """What a value is, in words: its type, and the types of what it holds."""
    inside = value.values() if isinstance(value, Mapping) else value
    name = type(value).__name__
    if not isinstance(inside, Iterable) or isinstance(value, str | Tensor) or name == "ndarray":
        return name
    kinds = sorted({type(x).__name__ for x in inside})
    return f"{name} of {', '.join(kinds)}" if kinds else name
