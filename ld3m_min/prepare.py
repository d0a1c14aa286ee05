"""What a distillation starts from, and what is tried before its first long step (section 4.1)."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from ld3m_min.config import DistilConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.io.files import scratch_folder
from ld3m_min.io.seeds import seeded
from ld3m_min.networks import build_network
from ld3m_min.planner.fallback import FallbackPlans
from ld3m_min.prior.class_map import NO_MAP, ClassMap
from ld3m_min.prior.class_matching import ClassMatching, match_classes
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior, check_images
from ld3m_min.prior.loading import AnyPrior, load_prior
from ld3m_min.prior.on_images import PICTURE, is_of, on_images
from ld3m_min.recipe import recipe
from ld3m_min.spaces.base import Space
from ld3m_min.spaces.build import SPACES, build_space, check_kind, draw_initial_images
from ld3m_min.synthetic import SyntheticSet


@dataclass(frozen=True)
class Setup:
    """All that a distillation works on.

    Attributes:
        config: what is asked for.
        data: on the device, with the run's normalisation.
        prior: on the device, its classes in the order of the data's; None in pixel space.
        matching: which of the prior's classes those are; None without classes.
        space: what is learned, at its initial images.
        labels: of the synthetic images, (B,).
        memory: the plan in use and those to fall back on; None in pixel space, or without a step.
        class_map: what the user said of the classes.
    """

    config: DistilConfig
    data: DataSplits
    prior: AnyPrior | None
    matching: ClassMatching | None
    space: Space
    labels: Int[Tensor, " B"]
    memory: FallbackPlans | None
    class_map: ClassMap = NO_MAP

    def recipe(self, seconds: float) -> dict[str, object]:
        """What the set will say of how it was made.

        Args:
            seconds: that the run took.
        """
        return recipe(self.config, self.data, self.prior, self.space, seconds, self.matching)


def prepare(
    config: DistilConfig,
    data: DataSplits,
    prior: AnyPrior | None,
    *,
    device: str | torch.device = "cpu",
    progress: bool = True,
    class_map: ClassMap = NO_MAP,
) -> Setup:
    """Load the prior, match its classes, draw the initial images, build the space.

    Args:
        config: what is asked for.
        data: only its training split is used.
        prior: None loads what `config.prior` names, where the space needs one.
        device: where the work is done.
        progress: print how classes were matched, where that is not the plain order.
        class_map: what the user says of the data's classes in the prior.

    Raises:
        InputError: what does not fit together.
    """
    _ = data.train.digest  # made once for the caller's data, not for each copy on a device
    data = data.with_normalisation(config.normalisation).to(device)
    matching = None
    kind = SPACES[config.space]
    class_map.check(data.classes)
    if not kind.needs_prior:
        prior = None
    else:
        if prior is None:
            prior = load_prior(config.prior, classes=data.classes, said=class_map)
        check_kind(kind, prior, config.space)
        prior = prior.to(device=device)
        if kind.starts_from_classes and prior.class_embedding is not None:
            matching = match_classes(prior, data, class_map)
            if matching.rows != tuple(range(len(prior.classes) or prior.class_count)):
                prior = prior.for_classes(matching.rows, data.classes)
            elif not matching.worth_saying:
                progress = False
            if progress:
                print(matching.table(), file=sys.stderr)
    if class_map and matching is None:
        raise InputError(
            f"a class map or prompt was given, but nothing in space {config.space!r} starts from "
            "this prior's classes; leave it out, or take space 'ld3m' and a prior with classes"
        )
    each = SPACES[config.space].per_class(config, prior)
    initial, labels = draw_initial_images(data, each, config.seed)
    initial, labels = initial.to(device), labels.to(device)
    space, memory = build_space(config, initial, labels, prior), None
    if config.iterations > 0 and not space.parameters:
        raise InputError(
            "nothing would be learned: learn_z is off, and this prior, which knows no classes, has "
            "no c; learn Z, or take a prior with classes"
        )
    wanted = config.iterations > 0 or config.plan.auto
    if wanted and isinstance(prior, LatentDiffusionPrior):  # others have no forecast
        memory = FallbackPlans(prior, config, device=device, classes=len(data.classes))
        space.plan = memory.plan
    return Setup(config, data, prior, matching, space, labels, memory, class_map)


def look_at_prior(setup: Setup, out: Path | None, progress: bool) -> None:
    """Say what the prior makes of the data's images, where it was trained on others.

    Args:
        setup: of the run.
        out: folder of the picture; None for none.
        progress: print what was found.
    """
    prior = setup.prior
    if not isinstance(prior, LatentDiffusionPrior) or is_of(prior, setup.data, setup.matching):
        return
    found = on_images(prior, setup.data)
    if out is not None:
        found.save(out / PICTURE)
    if progress:
        print(found.line, file=sys.stderr)
    if found.warning:
        warnings.warn(f"the prior blurs your images: {found.warning}", stacklevel=3)


@torch.no_grad()
def rehearse(setup: Setup, out: Path) -> None:
    """Try what the run will need at its end, on one image and without learning.

    Args:
        setup: of the run.
        out: where the set will be written, as `out`/set.

    Raises:
        InputError: the prior cannot make images of this size, or the network cannot be built.
        OSError: a set cannot be written.
    """
    config, data = setup.config, setup.data
    if isinstance(setup.prior, LatentDiffusionPrior):  # other spaces have looked at the size
        made = check_images(setup.prior, config.space, data.size)
        if made.shape[-2:] != (data.size, data.size):
            raise InputError(
                f"the prior makes images of {made.shape[-2]} x {made.shape[-1]} from those of "
                f"{data.size} px; take another size, or another prior"
            )
    if config.iterations > 0:
        n = config.network
        build_network(
            n.name,
            classes=len(data.classes),
            size=data.size,
            depth=n.depth,
            width=n.width,
            norm=n.norm,
            generator=seeded(config.seed, "trial"),
        )
    state = {k: v.cpu() for k, v in setup.space.state().items()}
    labels = setup.labels.cpu()
    blank = torch.zeros(len(labels), 3, data.size, data.size)
    trial = SyntheticSet(blank, labels, data.classes, state, setup.recipe(0.0))
    with scratch_folder(out) as scratch:
        trial.save(scratch / "set")
        SyntheticSet.load(scratch / "set")
