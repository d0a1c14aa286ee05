"""The distillation loop: section 4 of the paper. Draw, generate, match, step; record; save; go on where it stopped."""
from __future__ import annotations

import math
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from .backprop import engine_of
from .data import check_outside
from .devices import checked_device
from .distillers import DISTILLERS
from .errors import InputError, NotFinite
from .experts import ExpertBuffer, train_experts
from .files import scratch_folder
from .matching import match_classes
from .modes import ordinary_modes
from .networks import build_network
from .planner import Descent, out_of_memory
from .prior import LatentDiffusionPrior, check_images
from .progress import bar
from .set_files import OWN_PRIOR, check_place
from .signals import DEADLINE, stoppable
from .spaces import SyntheticSet, build_space, draw_initial_images, forward_noise
from .storage import load_checkpoint, locked, save_checkpoint, seeded


@dataclass(frozen=True)
class Progress:
    """What the callback sees after each iteration.

    Attributes:
        iteration: 0-based. loss: of this iteration. grad_norms: norm of the gradient of each learned tensor.
        space: the live :class:`~ld3m_min.spaces.Space`; call `space.images()` under `torch.no_grad()` to look at it.
    """

    iteration: int
    loss: float
    grad_norms: dict[str, float]
    space: object


@ordinary_modes()
def distil(config, *, data, prior=None, out=None, resume=True, callback=None, experts=None, device="cpu", progress=True):
    """Distil `data` as `config` says.

    Args:
        config: :class:`~ld3m_min.config.DistilConfig`.
        data: :class:`~ld3m_min.data.DataSplits`; only its training split is used.
        prior: :class:`~ld3m_min.prior.LatentDiffusionPrior`, moved to `device`; None loads what `config.prior` names.
        out: folder for checkpoints and the finished set; None keeps nothing.
        resume: go on from the newest checkpoint in `out` that verifies.
        callback: called with a :class:`Progress` after each iteration.
        experts: :class:`~ld3m_min.experts.ExpertBuffer` for MTT, or the folder where they are or are to be trained; None trains
            them below `out` if given.

    Returns:
        A :class:`~ld3m_min.spaces.SyntheticSet`, also in `out/set`.

    Raises:
        ValueError: what doesn't fit together, before the first iteration. FloatingPointError: `config.patience`
            iterations in a row were not finite; the last good state is in `out`. OSError: `out` cannot be written to, or
            vanished; earlier checkpoints are whole. Interrupted: SIGTERM, Ctrl-C or a deadline, after saving.
    """
    if data.size != config.size:
        raise InputError(f"the data has {data.size} px, the configuration says size={config.size}; load it at that size")
    checked_device(device)
    check_outside(out, data)
    config = replace(config, dataset=data.name)  # what the set and its checkpoints are of
    if out is None:
        with tempfile.TemporaryDirectory(prefix="ld3m-") as scratch:
            return _distil(config, data, prior, None, Path(scratch), False, callback, experts, device, progress, None)
    out = Path(out).expanduser().absolute()  # whatever becomes of the working directory
    with locked(out) as lock:
        return _distil(config, data, prior, out, out, resume, callback, experts, device, progress, lock)


def _distil(config, data, prior, out, work, resume, callback, experts, device, progress, lock):
    matching = None
    _ = data.train.digest  # made once for the caller's data, not for each copy on a device
    data = data.with_normalisation(config.normalisation).to(device)
    if config.space != "pixel":
        prior = (prior or LatentDiffusionPrior.from_pretrained(config.prior)).to(device=device)
        if config.space == "ld3m" and prior.conditional:
            matching = match_classes(prior, data)
            if matching.rows != tuple(range(len(prior.classes) or prior.class_embedding.num_embeddings - prior.has_null)):
                prior = prior.for_classes(matching.rows, data.classes)
                if progress:
                    print(matching.table(), file=sys.stderr)
    initial, labels = draw_initial_images(data, config.ipc, config.seed)
    initial, labels = initial.to(device), labels.to(device)
    space = build_space(config, initial, labels, prior)
    memory = None
    if config.space != "pixel" and (config.iterations > 0 or config.plan.auto):
        memory = Descent(prior, config, device=device, classes=len(data.classes))
        space.plan = memory.plan
    _rehearse(config, data, prior, space, labels, out or work)
    options = {}
    if config.algorithm == "MTT" and config.iterations > 0:
        if not isinstance(experts, ExpertBuffer):
            folder = work / "experts" if experts is None else experts
            experts = train_experts(config, data, folder, device=device, progress=progress)
        options["experts"] = experts
    known = identity(config, data, prior)
    if out and resume and config.iterations == 0:
        _check_length(load_checkpoint(out / "checkpoints", config=known), config, out)
    start, history, learned, sgd, distiller = 0, [], {}, None, None
    before, began = 0.0, time.monotonic()
    if config.iterations > 0:
        distiller = DISTILLERS[config.algorithm](config, data, device, **options)
        learned = {f"space.{k}": p for k, p in space.parameters.items()}
        groups = [{"params": list(learned.values()), "lr": config.lr}]
        if distiller.parameters:
            learned |= {f"distiller.{k}": p for k, p in distiller.parameters.items()}
            groups.append({"params": list(distiller.parameters.values()), "lr": config.mtt.lr_lr})
        sgd = torch.optim.SGD(groups, momentum=config.momentum)
        found = None
        if out and resume:
            momenta = {f"momentum.{k}": p for k, p in learned.items()}
            found = load_checkpoint(out / "checkpoints", config=known, like=learned, optional=momenta)
            _check_length(found, config, out)
        if found:
            start, history, before = found.step, _history(found), float(found.notes.get("seconds", 0.0))
            _restore(learned, sgd, found.tensors)

    def save(step):
        if out:
            lock.check()
            momenta = {f"momentum.{k}": sgd.state[p]["momentum_buffer"] for k, p in learned.items() if sgd.state.get(p)}
            tensors = learned | momenta
            notes = {"history": history, "seconds": before + time.monotonic() - began}
            save_checkpoint(out / "checkpoints", step, tensors, config=known, notes=notes)

    def give_up_after(misses, why):
        kept = f"the last good state is in {out}" if out else "give `out` to keep the last good state"
        raise NotFinite(
            f"not finite in {misses} iterations in a row, the last one {history[-1]['iteration']} ({why}); {kept}. "
            f"Start anew, in another folder, with a lower lr than {config.lr:g} or a lower guidance scale"
        )

    if (misses := _misses(history)) >= config.patience:  # it had given up before
        give_up_after(misses, history[-1].get("why"))
    shown = bar(range(start, config.iterations), initial=start, total=config.iterations,
                desc=f"{config.algorithm} {config.space}", show=progress)
    with stoppable() as stop:
        for it in shown:
            loss, norms, wrong = _within_memory(memory, space, _gradients, config, space, distiller, learned, labels, it)
            entry = {"iteration": it, "loss": loss, **{f"grad_{k.split('.')[-1]}": v for k, v in norms.items()}}
            if not wrong:
                wrong = _step(sgd, learned, space, distiller, entry)
            if wrong:  # nothing of it is in the state
                entry = {"iteration": it, "skipped": True, "why": wrong}
            history.append(entry)
            shown.set_postfix(loss=f"{loss:.4g}", skipped=sum("skipped" in h for h in history),
                              **{k: f"{v:.4g}" for k, v in entry.items() if k == "lr"})
            if (misses := _misses(history)) >= config.patience:
                save(it + 1)
                give_up_after(misses, wrong)
            if callback is not None:
                callback(Progress(it, loss, norms, space))
            last, due = it + 1 == config.iterations, (it + 1) % config.checkpoint_every == 0
            if last or due or stop.reason:
                save(it + 1)
            if stop.reason and not last:
                stop.leave(f"{it + 1} of {config.iterations} iterations are saved" if out else "nothing is kept without `out`")
        skipped, held = (sum(k in h for h in history) for k in ("skipped", "lr_held"))
        if skipped:
            warnings.warn(f"{skipped} of {len(history)} iterations were skipped: not finite", stacklevel=3)
        if held:
            warnings.warn(f"the learned rate of MTT was held at its bound in {held} of {len(history)} iterations; "
                          f"lower mtt.lr_lr = {config.mtt.lr_lr:g}", stacklevel=3)
        result = _finish(config, data, prior, space, labels, history, before + time.monotonic() - began, matching)
        if out:
            lock.check()
            result.save(out / "set")
        if stop.reason and stop.reason != DEADLINE:  # whoever called this must not go on either; a deadline it sees itself
            stop.leave("the distillation is finished" + (", its set saved" if out else ""))
    return result


@torch.no_grad()
def _rehearse(config, data, prior, space, labels, out):
    """What the run will need at its end is tried before its first long step, on one image and without learning.

    Raises:
        InputError: the prior cannot make images of this size, the network cannot be built, or `out`/set is taken.
        OSError: a set cannot be written.
    """
    check_place(out / "set")
    if config.space != "pixel":
        made = check_images(prior, config.space, data.size)
        if made.shape[-2:] != (data.size, data.size):
            raise InputError(f"the prior makes images of {made.shape[-2]} x {made.shape[-1]} from those of {data.size} px; take "
                             "another size, or another prior")
    if config.iterations > 0:
        n = config.network
        build_network(n.name, classes=len(data.classes), size=data.size, depth=n.depth, width=n.width, norm=n.norm,
                      generator=seeded(config.seed, "trial"))
    state = {k: v.cpu() for k, v in space.state().items()}
    trial = SyntheticSet(torch.zeros(len(labels), 3, data.size, data.size), labels.cpu(), data.classes, state,
                         _recipe(config, data, prior, space, 0.0, None))
    with scratch_folder(out) as scratch:
        trial.save(scratch / "set")
        SyntheticSet.load(scratch / "set")


def _misses(history):
    """How many iterations at the end of the history were skipped, so that patience survives a resume."""
    return next((i for i, h in enumerate(reversed(history)) if "skipped" not in h), len(history))


def _history(found):
    history = found.notes.get("history")
    if not isinstance(history, list) or len(history) != found.step or not all(isinstance(h, dict) for h in history):
        raise InputError(f"checkpoint {found.step} has no history of {found.step} iterations; it is not of a distillation")
    return history


def _step(sgd, learned, space, distiller, entry):
    """One optimiser step, undone where it leads to what is not finite; returns what that was, or None."""
    before = {k: p.detach().clone() for k, p in learned.items()}
    momenta = {p: s["momentum_buffer"].clone() for p, s in sgd.state.items() if s.get("momentum_buffer") is not None}
    sgd.step()
    buffers = [sgd.state[p].get("momentum_buffer") for p in learned.values()]
    fine = torch.stack([torch.isfinite(p if b is None else p + b).all() for p, b in zip(learned.values(), buffers, strict=True)])
    wrong = next((k for k, ok in zip(learned, fine.tolist(), strict=True) if not ok), None)
    if wrong:
        with torch.no_grad():
            for k, p in learned.items():
                p.copy_(before[k])
                sgd.state[p] = {"momentum_buffer": momenta[p]} if p in momenta else {}
        return f"{wrong.split('.')[-1]} after the step"
    space.project()
    rate = distiller.parameters["lr"].item() if "lr" in distiller.parameters else None
    distiller.project()
    if rate is not None:
        entry["lr"] = distiller.parameters["lr"].item()
        if entry["lr"] != rate:
            entry["lr_held"] = True
    return None


def _within_memory(memory, space, function, *args):
    """`function(*args)`; where memory runs out, once more under a plan that needs less."""
    try:
        return function(*args)
    except (RuntimeError, MemoryError) as error:
        if memory is None or not out_of_memory(error):
            raise
        short = str(error).splitlines()[0]
    # past the handler: the exception held the activations
    space.plan = memory.step_down(short)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return _within_memory(memory, space, function, *args)


def identity(config, data, prior=None):
    """What two runs must share for one to go on from the other's checkpoint.

    The configuration without what touches no number (how often is saved, patience, memory plans) or only says how far to go
    (iterations), and the content of the training split and of the prior in place of their names.
    """
    values = {k: v for k, v in asdict(config).items()
              if k not in ("dataset", "prior", "iterations", "checkpoint_every", "patience")}
    content = {"data": data.train.digest, "mean": list(data.mean), "std": list(data.std)}
    if config.space != "pixel":
        content["prior"] = prior.digest
    return values | {"plan": config.plan.engine, "content": content}


def _check_length(found, config, out):
    """A longer run in the same folder is never cut short: its set would be lost."""
    if found and found.step > config.iterations:
        raise InputError(f"{out} holds a run of {found.step} iterations, more than the {config.iterations} asked for; ask for as "
                         "many or more, or use another folder")


def _gradients(config, space, distiller, learned, labels, it):
    """Loss, gradient norms and what was not finite of one iteration: dL/dS at the images, then the chain rule (7)."""
    for p in learned.values():
        p.grad = None
    again = config.redraw_noise and config.space == "ld3m"  # the public code judges one sample, differentiates another
    if again:
        kept = space.constants["noise"]
        judged, other = (forward_noise(kept.shape, config.seed, it, which).to(kept) for which in ("judged", "differentiated"))
        with torch.no_grad():
            images = space.images(judged)
    else:
        images = space.images()
    leaf = images.detach().requires_grad_()
    loss = distiller.step(leaf, labels, it)
    if again:
        images = space.images(other)
    images.backward(leaf.grad)
    # the one wait for the device: what the guard has to know comes over together
    whole = torch.isfinite(leaf).all().to(loss)
    whole, loss, *norms = torch.stack([whole, loss, *(p.grad.norm() for p in learned.values())]).tolist()
    named = {"generated images": whole or math.nan, "loss": loss}
    named |= {f"gradient of {k.split('.')[-1]}": v for k, v in zip(learned, norms, strict=True)}
    wrong = next((name for name, value in named.items() if not math.isfinite(value)), None)
    return loss, dict(zip(learned, norms, strict=True)), wrong


def _restore(learned, sgd, tensors):
    with torch.no_grad():
        for k, p in learned.items():
            p.copy_(tensors[k])
            if f"momentum.{k}" in tensors:
                sgd.state[p]["momentum_buffer"] = tensors[f"momentum.{k}"].to(p.device)


@torch.no_grad()
def _finish(config, data, prior, space, labels, history, seconds, matching):
    # as a set read from its files is; channels_last images, which decoders give, crash ResNet18 in oneDNN (torch 2.13, CPU)
    pixels = space.images().cpu().contiguous()
    state = {k: v.cpu() for k, v in space.state().items()}
    own = prior if config.space != "pixel" and prior.source is None else None  # the folder must say all
    recipe = _recipe(config, data, prior, space, seconds, matching)
    return SyntheticSet(pixels, labels.cpu(), data.classes, state, recipe, tuple(history), own)


def _recipe(config, data, prior, space, seconds, matching):
    """What a set says of how it was made: JSON-able."""
    used = None if config.space == "pixel" else prior
    return {
        "config": asdict(config),
        "normalisation": {"kind": config.normalisation, "mean": list(data.mean), "std": list(data.std)},
        "data": {"name": data.name, "source": data.source, "size": data.size,
                 "splits": {s: len(data.split(s)) for s in ("train", "validation", "test")}, "digest": data.train.digest},
        "prior": used and {"source": str(used.source or OWN_PRIOR), "digest": used.networks_digest,
                           "classes": matching and matching.record},
        "plan": used and asdict(space.plan),
        "engine": used and engine_of(used, space.plan),
        "seconds": round(seconds, 2),
    }


def random_real(config, *, data):
    """The baseline every method must beat: the real images that the set of `config` starts from, unchanged."""
    return distil(replace(config, space="pixel", iterations=0), data=data, progress=False)
