"""What a run is and how a set was made, by content: for its checkpoints and for its readers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ld3m_min.backends import backend_of
from ld3m_min.config import DistilConfig, own_settings, unused_settings
from ld3m_min.data.splits import DataSplits
from ld3m_min.frozen import PLAIN
from ld3m_min.prior.class_matching import ClassMatching
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.loading import AnyPrior
from ld3m_min.set_files import OWN_PRIOR
from ld3m_min.spaces.base import Space

_TOUCH_NO_NUMBER = ("dataset", "prior", "iterations", "checkpoint_every", "patience", "plan")


def identity(
    config: DistilConfig, data: DataSplits, prior: AnyPrior | None = None
) -> dict[str, Any]:
    """What two runs must share for one to go on from the other's checkpoint.

    The configuration without what touches no number (how often is saved, patience, memory plans,
    settings of other spaces and algorithms) or only says how far to go (iterations), and the
    content of the training images and of the prior in place of their names.

    Args:
        config: of the run.
        data: with the run's normalisation.
        prior: None in pixel space.
    """
    unused = unused_settings(config)
    values = {
        k: v
        for k, v in own_settings(config).items()
        if k not in _TOUCH_NO_NUMBER and k not in unused
    }
    if "plan" not in unused:
        values["plan"] = config.plan.backend
    content = {"data": data.train.digest, "mean": list(data.mean), "std": list(data.std)}
    if prior is not None:
        content["prior"] = prior.digest
    return values | {"content": content}


def recipe(
    config: DistilConfig,
    data: DataSplits,
    prior: AnyPrior | None,
    space: Space,
    seconds: float,
    matching: ClassMatching | None,
) -> dict[str, Any]:
    """What a set says of how it was made, JSON-able.

    Args:
        config: of the run.
        data: with the run's normalisation.
        prior: None in pixel space.
        space: what was learned; its plan is the one that ran in the end.
        seconds: that the run took, over all its sittings.
        matching: which of the prior's classes each class of the data is; None without classes.
    """
    made: dict[str, Any] = {
        "config": asdict(config),
        "normalisation": {
            "kind": config.normalisation,
            "mean": list(data.mean),
            "std": list(data.std),
        },
        "data": {
            "name": data.name,
            "source": data.source,
            "size": data.size,
            "splits": {s: len(data.split(s)) for s in ("train", "validation", "test")},
            "digest": data.train.digest,
        },
        "prior": None,
        "plan": None,
        "backend": None,
        "seconds": round(seconds, 2),
    }
    if prior is not None:
        plan = getattr(space, "plan", config.plan)
        shared = 4 * sum(weight.numel() for weight in space.shared_weights(config, prior))
        made["prior"] = {
            "source": str(prior.source or OWN_PRIOR),
            "digest": prior.networks_digest,
            "classes": None if matching is None else matching.record,
            "bytes": shared,  # as float32
        }
        plain = {"synthesis": PLAIN._asdict()}
        backend = backend_of(prior, plan) if isinstance(prior, LatentDiffusionPrior) else plain
        made |= {"plan": asdict(plan), "backend": backend}
    if space.notes:
        made["start"] = space.notes
    return made
