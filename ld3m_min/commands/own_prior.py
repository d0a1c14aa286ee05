"""`python -m ld3m_min train-prior FOLDER`: a prior for a folder of one's own images.

The sizes are chosen here from the images, the hours and a probe of this machine; the choices
themselves are in :mod:`ld3m_min.prior.own_images`.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ld3m_min.commands.fields import with_options
from ld3m_min.config import joined, to_dict
from ld3m_min.data.dataset import ImageDataset
from ld3m_min.data.sides import FolderLook, look_at_folder
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.io.text import in_card
from ld3m_min.io.values import from_dict
from ld3m_min.planner.machine import SHARE, device_bytes
from ld3m_min.planner.training_speed import training_speeds
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.card import called
from ld3m_min.prior.image_card import measured_table, verdict
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.own_images import SIDES, check_side, largest_scale, reached, sized
from ld3m_min.prior.quality import ImageQuality
from ld3m_min.prior.start import can_go_on, like_start, own_side
from ld3m_min.prior.training_plan import TrainingPlan, gib
from ld3m_min.prior.training_time import Images, Speeds, checked_hours, is_enough, with_steps

HOURS = 2.0


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        hours: for all of it.
        given: fields of the configuration that were set.
        start: what the training starts from; None for nothing.
        start_name: its name or folder.
        device: where it is trained.
        dtype: of the forward passes.
    """

    hours: float = HOURS
    given: Mapping[str, Any] = field(default_factory=dict)
    start: LatentDiffusionPrior | None = None
    start_name: str = ""
    device: str = "cpu"
    dtype: torch.dtype = torch.float32


def plan_of(folder: str | Path, wish: Wish) -> TrainingPlan:
    """Choose the sizes of a prior; takes a probe of some seconds.

    Args:
        folder: of the images.
        wish: what is asked for.

    Raises:
        FileNotFoundError: no such folder, or no class in it.
        InputError: no two classes, hours or a size that cannot be, or too little memory.
    """
    checked_hours(wish.hours)
    look = look_at_folder(folder)
    if len(look.classes) < 2:
        raise InputError(
            f"{look.name!r} has one class, {look.classes[0]!r}; a prior is of 2 classes or more: "
            "give the folder above, or sort the images into a folder for each class"
        )
    print("measuring how fast this machine trains, a minute or so", file=sys.stderr, flush=True)
    found = _Chooser(look, wish).chosen()
    room = SHARE * device_bytes(wish.device)
    if found.speeds.peak_bytes > room:
        raise InputError(
            f"a step needs {gib(found.speeds.peak_bytes)}, and {gib(room)} are free; give a "
            "smaller --size, --unet-batch or --vae-batch"
        )
    return found


class _Chooser:
    """Sizes for a folder, tried from the images' own side downwards, and then from small to large.

    Args:
        look: at the folder.
        wish: what is asked for.
    """

    def __init__(self, look: FolderLook, wish: Wish) -> None:
        self.look, self.wish = look, wish
        self.images = Images(max(1, look.trained_on), len(look.classes))
        self.notes: list[str] = [_counted(look)]

    def chosen(self) -> TrainingPlan:
        """The plan."""
        wish = self.wish
        config, speeds = self._sized()
        goes_on = wish.start is not None and can_go_on(wish.start)
        if not goes_on:
            for scale in range(1, largest_scale(self.images.trained_on) + 1):
                larger = self._enough(config.size, scale)
                if larger is None:
                    break
                config, speeds = larger
        if config.flip:
            self.notes.append(
                "half of the images are shown mirrored; --no-flip where left and right matter"
            )
        return TrainingPlan(
            config, wish.hours, self.images, speeds, wish.start_name, tuple(self.notes), goes_on
        )

    def _sized(self) -> tuple[PriorConfig, Speeds]:
        """The side, and the smallest networks for it."""
        given, start = self.wish.given.get("size"), self.wish.start
        side = None if start is None else own_side(start)
        if given is not None or side is not None:
            wanted = side if given is None else int(given)
            assert wanted is not None
            check_side(wanted)
            if given is None:
                self.notes.append(f"{wanted} px, as the prior to start from has them")
            elif self.look.short_sides and wanted > max(self.look.short_sides):
                self.notes.append(f"no image has {wanted} px: all of them are enlarged")
            return self._tried(wanted, 0)
        sides = reached(self.look.short_sides)
        for size in sides[:-1]:
            if (found := self._enough(size, 0)) is not None:
                break
        else:
            found = self._tried(sides[-1], 0)
        self.notes.append(_side_chosen(found[0].size, sides))
        return found

    def _enough(self, size: int, scale: int) -> tuple[PriorConfig, Speeds] | None:
        """A configuration and its speeds, if it can take enough steps in the hours; or None."""
        try:
            found = self._tried(size, scale)
        except InputError:  # not a step: a smaller one may
            return None
        return found if is_enough(*found) else None

    def _tried(self, size: int, scale: int) -> tuple[PriorConfig, Speeds]:
        """A configuration with its steps, and its speeds."""
        wish = self.wish
        config = replace(sized(size, scale, slug(self.look.name)), dataset=str(self.look.name))
        if wish.start is not None:
            config = _going_on(config, wish.start, wish.start_name)
        config = laid(config, wish.given)
        speeds = training_speeds(
            config, len(self.look.classes), device=wish.device, dtype=wish.dtype, start=wish.start
        )
        config = with_steps(config, speeds, self.images, wish.hours, wish.given.keys())
        return laid(config, wish.given), speeds


def _going_on(config: PriorConfig, start: LatentDiffusionPrior, name: str) -> PriorConfig:
    """A configuration for a training that starts from a prior, or from its autoencoder."""
    config, name = like_start(config, start), in_card(called(name))
    if can_go_on(start):  # gently: it has learned what it will be needed for
        return replace(config, unet_lr=2e-4, about=f"{name}, trained further on a folder of images")
    return replace(config, about=f"a denoiser for the autoencoder of {name}, trained on a folder")


def laid(config: PriorConfig, given: Mapping[str, Any]) -> PriorConfig:
    """A configuration with the given fields over it.

    Args:
        config: below.
        given: nested fields.

    Raises:
        InputError: one of them doesn't fit.
    """
    values = joined(to_dict(config), given, PriorConfig)
    try:
        return from_dict(PriorConfig, values)
    except InputError as error:
        error.args = (with_options(str(error), PriorConfig),)
        raise


def _counted(look: FolderLook) -> str:
    """How many images there are, and whether classes are of very different sizes."""
    least, most = min(look.counts), max(look.counts)
    each = f"{least:,} a class" if least == most else f"{least:,} to {most:,} a class"
    said = f"{sum(look.counts):,} images of {len(look.classes)} classes, {each}"
    if most > 3 * least:
        rare = look.classes[look.counts.index(least)]
        said += f"; classes with few, such as {rare!r}, will be drawn worse than the others"
    return said


def _side_chosen(size: int, sides: tuple[int, ...]) -> str:
    """Why this side."""
    if size == sides[0]:
        more = "" if size == SIDES[0] else f"; --size {2 * size} enlarges most"
        return f"{size} px, the largest of 32, 64, 128 and 256 that most images reach{more}"
    return f"{size} px: most images reach {sides[0]}, but the hours do not allow enough steps there"


def slug(name: str) -> str:
    """A folder's name as a part of file names.

    Args:
        name: of the folder, whatever characters it has.
    """
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.")[:40] or "own"


def check_own(data: DataSplits) -> None:
    """Refuse images of which nothing can be learned, and say where there are hardly any.

    Args:
        data: that were read.

    Raises:
        InputError: all training images are one and the same.
    """
    different = len(_different(data.train))
    if different == 1:
        raise InputError(
            f"all {len(data.train)} training images of {data.name!r} are one and the same picture; "
            "there is nothing to learn: check the folder"
        )
    if different < len(data.train):
        warnings.warn(
            f"{len(data.train) - different} of {len(data.train)} training images are copies of "
            "others; they count twice",
            stacklevel=3,
        )


def _different(split: ImageDataset) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images.cpu()}


def report(plan: TrainingPlan, quality: ImageQuality, out: Path) -> None:
    """Print what was measured, the verdict, and where everything is.

    Args:
        plan: of the training.
        quality: of the prior.
        out: folder of the training.
    """
    asked = plan.config.classifier
    assert asked is not None
    classes = plan.images.classes
    print(measured_table(asked, quality, classes))
    print(verdict(quality, classes).replace("**", ""))
    print(f"prior and card in {out / 'model'}, pictures in {out / 'samples'} and")
    print(f"{out / 'beside-real-images.png'}: real, reconstructed, drawn, nearest training image")
    print(
        f"distil with it: python -m ld3m_min distil FOLDER --prior {out / 'model'} --out runs/NEW"
    )


def say(plan: TrainingPlan, *, again: bool) -> None:
    """Print a plan before it starts.

    Args:
        plan: to print.
        again: whether it was kept from before.
    """
    of = f"prior of {plan.config.name!r}, {plan.config.size} px, {plan.hours:g} hours"
    print(f"{of}{' (the plan of before)' if again else ''}\n{plan.table()}", flush=True)
    if plan.warning:
        warnings.warn(f"too little time: {plan.warning}", stacklevel=2)
