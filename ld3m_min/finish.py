"""How a distillation ends: with its set, or with the last state that made finite images."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from ld3m_min.errors import InputError, NotFinite
from ld3m_min.io import several
from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.io.stop import Stop
from ld3m_min.learner import Learner
from ld3m_min.prepare import Setup
from ld3m_min.synthetic import SyntheticSet


def give_up(setup: Setup, learner: Learner) -> NoReturn:
    """Save the last state whose images were finite, and leave.

    Args:
        setup: of the run.
        learner: whose patience is at its end.

    Raises:
        NotFinite: always; says where the state is, and what to lower.
    """
    folder, history = learner.checkpoints.folder, learner.history
    if not learner.gave_up:
        learner.undo()
        if not learner.misses:  # the last step itself led there
            why = "generated images after the step"
            history[-1] = {"iteration": history[-1]["iteration"], "skipped": True, "why": why}
        learner.gave_up = True
        learner.save()
        several.wait()  # the others leave when the first has saved
    last, kept = history[-1], "give `out` to keep the last good state"
    if folder:
        with torch.no_grad():
            good = bool(torch.isfinite(setup.space.images()).all())
        what = "the last good state" if good else "a state that makes no finite images either"
        kept = f"{what} is in {folder.parent}"
    raise NotFinite(
        f"not finite in {learner.misses} iterations in a row, the last one {last['iteration']} "
        f"({last.get('why')}); {kept}. Start anew, in another folder, with a lower lr than "
        f"{setup.config.lr:g} or a lower guidance scale"
    )


def finish(
    setup: Setup,
    learner: Learner | None,
    checkpoints: Checkpointer,
    stop: Stop,
    licence: str | None,
) -> SyntheticSet:
    """Decode the set once more, say what was odd, save it.

    Args:
        setup: of the run.
        learner: after the last iteration; None where nothing is learned.
        checkpoints: in the run's folder, or in none.
        stop: whether a stop was asked for meanwhile.
        licence: of the images; None keeps that of an earlier set in the place.

    Returns:
        The set.

    Raises:
        NotFinite: the last step led to images that are not finite.
        Interrupted: a stop was asked for; the set is saved.
        OSError: it cannot be saved; what was there is intact.
    """
    history = [] if learner is None else learner.history
    with torch.no_grad():
        pixels = setup.space.images()
    if learner is not None and not torch.isfinite(pixels).all():
        give_up(setup, learner)
    skipped, held = (sum(k in h for h in history) for k in ("skipped", "lr_held"))
    if skipped:
        warnings.warn(
            f"{skipped} of {len(history)} iterations were skipped: not finite", stacklevel=4
        )
    if held:
        warnings.warn(
            f"the learned rate of MTT was held at its bound in {held} of {len(history)} "
            f"iterations; lower mtt.lr_lr = {setup.config.mtt.lr_lr:g}",
            stacklevel=4,
        )
    grads = [f"grad_{k}" for k in setup.space.parameters]
    still = sum(all(h.get(k) == 0 for k in grads) for h in history)
    if still:
        warnings.warn(
            f"all gradients were 0 in {still} of {len(history)} iterations: what is learned has "
            f"left the range in which the images follow it; lower lr = {setup.config.lr:g}",
            stacklevel=4,
        )
    elif skipped < len(history) and ((pixels == 0) | (pixels == 1)).float().mean() > 0.99:
        # not each value: some pixels have no gradient for a while
        warnings.warn(
            "nearly every value of the images is 0 or 1: the steps lead far beyond them; lower "
            f"lr = {setup.config.lr:g}",
            stacklevel=4,
        )
    result = _decoded(setup, pixels, history, checkpoints.elapsed)
    if checkpoints.folder is not None and several.is_first():
        result = _with_notes(result, checkpoints.folder.parent / "set")
    if licence is not None:
        result = result.with_licence(licence)
    if checkpoints.folder is not None and several.is_first():
        checkpoints.check_place()
        result.save(checkpoints.folder.parent / "set")
    stop.leave_if_signalled(
        "the distillation is finished, its set saved", kept=checkpoints.folder is not None
    )
    return result


def _with_notes(made: SyntheticSet, place: Path) -> SyntheticSet:
    """A set with what was noted in the one that it replaces: its licence, and its accuracies.

    Args:
        made: the set.
        place: of the earlier one; it need not exist.
    """
    try:
        earlier = SyntheticSet.load(place)
    except (FileNotFoundError, InputError):
        return made
    if earlier.recipe.get("data") != made.recipe["data"]:
        return made  # a licence is one of the images that it was said of
    kept = {"licence"}
    if torch.equal(earlier.images(), made.images()):  # else they were of other images
        kept.add("evaluation")
    noted = {k: v for k, v in earlier.recipe.items() if k in kept}
    return replace(made, recipe={**made.recipe, **noted})


def _decoded(
    setup: Setup, pixels: Tensor, history: list[dict[str, Any]], seconds: float
) -> SyntheticSet:
    # as a set read from its files is: channels_last images, which decoders give, crash ResNet18
    # in oneDNN (torch 2.13, CPU)
    pixels = pixels.detach().cpu().contiguous()
    state = {k: v.cpu() for k, v in setup.space.state().items()}
    prior = setup.prior
    own = prior if prior is not None and prior.source is None else None  # the folder must say all
    return SyntheticSet(
        pixels,
        setup.labels.cpu(),
        setup.data.classes,
        state,
        setup.recipe(seconds),
        tuple(history),
        own,
    )
