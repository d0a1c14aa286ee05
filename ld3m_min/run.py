"""The distillation loop: section 4 of the paper.

:func:`distil` reads as the paper does: prepare, then iterate (generate, match, step, save), then
finish. A run that stopped or was killed goes on from its last checkpoint, on the CPU bit for bit.

Several processes, as `torchrun` starts them, share the images of each iteration. All hold the whole
state and take the same step, and the first of them alone writes.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ld3m_min.config import DistilConfig, unused_settings
from ld3m_min.data.loading import check_outside
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.experts import ExpertBuffer, train_experts
from ld3m_min.experts.buffer import describe_experts
from ld3m_min.finish import finish, give_up
from ld3m_min.io import several
from ld3m_min.io.checkpoints import Checkpoint, Checkpointer
from ld3m_min.io.devices import checked_device
from ld3m_min.io.digests import digest as digest_of
from ld3m_min.io.lock import Lock, locked
from ld3m_min.io.modes import ordinary_modes
from ld3m_min.io.paths import expanded
from ld3m_min.io.progress import bar
from ld3m_min.io.stop import REASONS, Interrupted, Stop
from ld3m_min.learner import Learner, make_learner
from ld3m_min.licences import with_licence
from ld3m_min.planner.machine import out_of_memory
from ld3m_min.prepare import Setup, look_at_prior, prepare, rehearse
from ld3m_min.prior.class_map import NO_MAP, ClassMap
from ld3m_min.prior.loading import AnyPrior
from ld3m_min.recipe import identity
from ld3m_min.run_folder import check_run_folder
from ld3m_min.spaces.base import Space
from ld3m_min.spaces.ld3m import LD3MSpace, forward_noise
from ld3m_min.synthetic import SyntheticSet


@dataclass(frozen=True)
class Progress:
    """What the callback sees after each iteration.

    Attributes:
        iteration: 0-based.
        loss: of this iteration.
        grad_norms: norm of the gradient of each learned tensor.
        space: the live space; call `space.images()` under `torch.no_grad()` to look at it.
        history: one entry for each iteration so far, those before a stop too; only to be read.
    """

    iteration: int
    loss: float
    grad_norms: dict[str, float]
    space: Space
    history: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Match:
    """What one iteration's matching gave; the gradients are in the learned tensors' `.grad`.

    Attributes:
        loss: the distillation loss.
        norms: norm of the gradient of each learned tensor, by name.
        wrong: what was not finite, in words; None where all was.
    """

    loss: float
    norms: dict[str, float]
    wrong: str | None


@ordinary_modes()
def distil(
    config: DistilConfig,
    *,
    data: DataSplits,
    prior: AnyPrior | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    callback: Callable[[Progress], object] | None = None,
    experts: ExpertBuffer | str | Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
    class_map: ClassMap = NO_MAP,
    licence: str | None = None,
) -> SyntheticSet:
    """Distil `data` as `config` says.

    Args:
        config: what is distilled, how, and for how long.
        data: only its training split is used.
        prior: moved to `device`; None loads what `config.prior` names.
        out: folder for checkpoints and the finished set; None keeps nothing.
        resume: go on from the newest checkpoint in `out` that verifies.
        callback: called with a :class:`Progress` after each iteration; of several processes, in the
            first.
        experts: for MTT, or the folder where they are or are to be trained; None trains them below
            `out` if given.
        device: where the work is done; of several processes, "cuda" gives each its own GPU.
        progress: show a bar.
        class_map: what the user says of the data's classes in the prior; part of what the run is.
        licence: of the images, for the set's recipe and card; None states none.

    Returns:
        The distilled set, also in `out`/set.

    Raises:
        InputError: what doesn't fit together, before the first iteration.
        NotFinite: `config.patience` iterations in a row were not finite, or the images at the end
            are not; the last good state is in `out`.
        OSError: `out` cannot be written to, or vanished; earlier checkpoints are whole.
        Interrupted: SIGTERM, Ctrl-C or a deadline, after saving.

    Example:
        >>> from ld3m_min import distil, load_data, preset
        >>> config = preset("smoke", iterations=1)
        >>> found = distil(config, data=load_data("digits"), progress=False)
        >>> tuple(found.images().shape), len(found.history)
        ((10, 3, 32, 32), 1)
        >>> {name: tuple(code.shape) for name, code in found.state.items()}
        {'Z': (10, 3, 8, 8), 'c': (10, 1, 32), 'noise': (10, 3, 8, 8)}
    """
    if data.size != config.size:
        raise InputError(
            f"the data has {data.size} px, the configuration says size={config.size}; load it at "
            "that size"
        )
    checked_device(device)
    out = None if out is None else expanded(out)  # once, before it is checked
    check_outside(out, data)
    with_licence({}, licence)  # an empty one is refused before the work, not after it
    config = replace(config, dataset=data.name)  # what the set and its checkpoints are of
    with ExitStack() as held:
        device = several.joined(device)
        first = several.is_first()
        progress = progress and first
        if out is None:
            work = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="ld3m-")))
            lock = None
        else:
            work, lock = out.absolute(), None  # whatever becomes of the working directory
            if first:
                check_run_folder(work)  # before anything is made there
                lock = held.enter_context(locked(work))
        setup = prepare(config, data, prior, device=device, progress=progress, class_map=class_map)
        if first:
            rehearse(setup, work)
        checkpoints = _checkpoints(setup, None if out is None else work, lock)
        _check_same(checkpoints)
        if config.iterations == 0:
            found = several.from_first(checkpoints.load) if resume else None
            _check_length(found, setup, checkpoints)
            setup.space.begin()
            return finish(setup, None, checkpoints, Stop(), licence)
        kept = out is not None
        trained = several.from_first(lambda: _experts(setup, experts, work, progress, kept))
        learner = make_learner(setup, trained, checkpoints)
        found = learner.go_on() if resume else None
        _check_length(found, setup, checkpoints)
        if found is None:
            if first:
                look_at_prior(setup, None if out is None else work, progress)
            setup.space.begin()
            several.spread(setup.space.state().values())  # GPUs may round differently
        with checkpoints.stoppable() as stop:
            _iterate(setup, learner, callback, progress)
            return finish(setup, learner, checkpoints, stop, licence)


def _checkpoints(setup: Setup, out: Path | None, lock: Lock | None) -> Checkpointer:
    known = identity(setup.config, setup.data, setup.prior)
    if setup.config.algorithm == "MTT":
        known |= {"experts": digest_of(describe_experts(setup.config, setup.data))}
    if setup.class_map:  # what said nothing is no part of it, as in the runs of before
        known |= {"class_map": setup.class_map.record}
    folder = None if out is None else out / "checkpoints"
    every, unused = setup.config.checkpoint_every, unused_settings(setup.config)
    return Checkpointer(folder, known, every=every, lock=lock, unused=unused)


def _check_same(checkpoints: Checkpointer) -> None:
    """Refuse several processes that were given different work."""
    if several.from_first(lambda: checkpoints.identity) != checkpoints.identity:
        raise InputError(
            "the processes of this run have different configurations, images or priors; start all "
            "with the same words and the same files"
        )


def _experts(
    setup: Setup,
    experts: ExpertBuffer | str | Path | None,
    work: Path,
    progress: bool,
    kept: bool,
) -> ExpertBuffer | None:
    """The experts that MTT follows, trained where they are missing; None for the others.

    Args:
        setup: of the run.
        experts: their buffer or its folder; None for a folder of the run.
        work: folder of the run.
        progress: show bars.
        kept: whether that folder stays.
    """
    if setup.config.algorithm != "MTT" or isinstance(experts, ExpertBuffer):
        return experts if isinstance(experts, ExpertBuffer) else None
    folder = work / "experts" if experts is None else Path(experts)
    device = setup.labels.device
    try:
        return train_experts(setup.config, setup.data, folder, device=device, progress=progress)
    except Interrupted as stopped:  # theirs is a folder for the time of the run
        if kept or experts is not None:
            raise
        raise Interrupted(stopped.reason, str(stopped), kept=False) from None


def _check_length(found: Checkpoint | None, setup: Setup, checkpoints: Checkpointer) -> None:
    """A longer run in the same folder is never cut short: its set would be lost."""
    if found and checkpoints.folder and found.step > setup.config.iterations:
        raise InputError(
            f"{checkpoints.folder.parent} holds a run of {found.step} iterations, more than the "
            f"{setup.config.iterations} asked for; ask for as many or more, or use another folder"
        )


def _iterate(
    setup: Setup,
    learner: Learner,
    callback: Callable[[Progress], object] | None,
    progress: bool,
) -> None:
    """Every iteration that is still to be done: generate, match, step, save."""
    config, checkpoints, history = setup.config, learner.checkpoints, learner.history
    start = len(history)
    if learner.gave_up or learner.misses >= config.patience:  # it had given up before
        give_up(setup, learner)
    name, n = f"{config.algorithm} {config.space}", config.iterations
    shown = bar(range(start, n), initial=start, total=n, desc=name, show=progress)
    for iteration in shown:
        match = _within_memory(setup, learner, iteration)
        entry = _step(setup, learner, match, iteration)
        history.append(entry)
        skipped = sum("skipped" in h for h in history)
        said = {"loss": f"{match.loss:.4g}", "skipped": skipped}
        shown.set_postfix(said | ({"lr": f"{entry['lr']:.4g}"} if "lr" in entry else {}))
        lost, last = learner.misses >= config.patience, iteration + 1 == n
        if not lost and callback is not None and several.is_first():
            callback(Progress(iteration, match.loss, match.norms, setup.space, history))
        if lost:
            give_up(setup, learner)
        asked = several.agreed(checkpoints.asked, tuple(REASONS))
        if checkpoints.due(iteration + 1, last=last, asked=asked is not None):
            learner.save()
        if asked and not last:
            several.wait()  # the others leave when the first has saved
            saved = f"{iteration + 1} of {n} iterations are saved"
            raise Interrupted(asked, saved, kept=checkpoints.folder is not None)


def _within_memory(setup: Setup, learner: Learner, iteration: int) -> Match:
    """Match; where memory runs out, once more under a plan that needs less."""
    try:
        return _match(setup, learner, iteration)
    except (RuntimeError, MemoryError) as error:
        # the others are ahead in the same iteration and can't be called back
        alone = several.count() == 1
        if setup.memory is None or not alone or not out_of_memory(error):
            raise
        short = str(error).splitlines()[0]
    # past the handler: the exception held the activations
    setup.space.plan = setup.memory.step_down(short)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return _within_memory(setup, learner, iteration)


def _match(setup: Setup, learner: Learner, iteration: int) -> Match:
    """Generate the images, compare them with real ones, bring the gradient to what is learned."""
    config, space, learned = setup.config, setup.space, learner.learned
    for p in learned.values():
        p.grad = None
    rows, again = learner.share.rows, None
    part = space if rows is None else space.part(rows)
    if config.redraw_noise and isinstance(space, LD3MSpace) and isinstance(part, LD3MSpace):
        # the public code evaluates one sample and differentiates another
        kept = space.constants["noise"]
        evaluated, again = (
            forward_noise(kept.shape, config.seed, iteration, which).to(kept)
            for which in ("judged", "differentiated")  # names of draws: they stay
        )
        if rows is not None:
            evaluated, again = evaluated[rows], again[rows]
        with torch.no_grad():
            images = part.images(evaluated)
    else:
        images = part.images()
    S, loss, slope = _compared(learner, images.detach(), len(setup.labels), iteration)
    if again is not None and isinstance(part, LD3MSpace):
        images = part.images(again)
    images.backward(slope)  # equation (7): dL/dZ and dL/dc by the chain rule
    for p in learned.values():
        if p.grad is not None:
            several.summed(p.grad)
    # the one wait for the device: what the guard has to know comes over together
    whole = torch.isfinite(S).all().to(loss)
    if rows is not None:
        whole = (several.summed(whole) == several.count()).to(loss)
        several.summed(loss)
    numbers = torch.stack([whole, loss, *(_norm(p) for p in learned.values())]).tolist()
    norms = dict(zip(learned, numbers[2:], strict=True))
    if numbers[0]:
        learner.before = {}  # what the last step led to is good
    named = {"generated images": numbers[0] or math.nan, "loss": numbers[1]}
    named |= {f"gradient of {k.split('.')[-1]}": v for k, v in norms.items()}
    wrong = next((name for name, value in named.items() if not math.isfinite(value)), None)
    return Match(numbers[1], norms, wrong)


def _compared(
    learner: Learner, images: Float[Tensor, "b 3 H W"], n: int, iteration: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The images that were compared, this process's part of the loss, and its images' gradient.

    Args:
        learner: says which images of which processes are compared here.
        images: of this process.
        n: images of all processes.
        iteration: 0-based.
    """
    share = learner.share
    S = images
    if share.gathers:
        S = images.new_zeros(n, *images.shape[1:])
        S[share.rows] = images
        several.summed(S)
    S.requires_grad_()
    if share.compares:
        loss = learner.distiller.step(S, share.labels, iteration)  # fills dL/dS
    else:  # adds nothing to what the first process found
        loss, S.grad = images.new_zeros(()), torch.zeros_like(S)
        for p in learner.distiller.parameters.values():
            p.grad = torch.zeros_like(p)
    if not share.gathers:
        return S, loss, S.grad
    assert S.grad is not None
    return S, loss, several.summed(S.grad)[share.rows]


def _norm(p: Tensor) -> Tensor:
    assert p.grad is not None, "every learned tensor takes part in the loss"
    norm: Tensor = p.grad.norm()
    return norm


def _step(setup: Setup, learner: Learner, match: Match, iteration: int) -> dict[str, Any]:
    """One optimiser step; the iteration's entry of the history.

    Where the step leads to what is not finite, or the match already was not, nothing of it stays.
    """
    entry: dict[str, Any] = {"iteration": iteration, "loss": match.loss}
    entry |= {f"grad_{k.split('.')[-1]}": v for k, v in match.norms.items()}
    wrong = match.wrong or learner.step()
    if wrong:
        return {"iteration": iteration, "skipped": True, "why": wrong}
    setup.space.project()
    rate = learner.distiller.parameters.get("lr")
    before = None if rate is None else rate.item()
    learner.distiller.project()
    if rate is not None:
        entry["lr"] = rate.item()
        if entry["lr"] != before:
            entry["lr_held"] = True
    return entry


def random_real(config: DistilConfig, *, data: DataSplits) -> SyntheticSet:
    """The baseline to beat: the real images that the set of `config` starts from, unchanged.

    Args:
        config: its images per class and seed count.
        data: the images are drawn from its training split.
    """
    return distil(replace(config, space="pixel", iterations=0), data=data, progress=False)
