"""The distillation loop: section 4 of the paper. Draw, generate, match, step; record; save; go on where it stopped."""
from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from .distillers import DISTILLERS
from .experts import train_experts
from .prior import LatentDiffusionPrior
from .progress import bar
from .spaces import SyntheticSet, build_space, draw_initial_images, forward_noise
from .storage import load_checkpoint, locked, save_checkpoint


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


def distil(config, *, data, prior=None, out=None, resume=True, callback=None, experts=None, device="cpu", progress=True):
    """Distil `data` as `config` says.

    Args:
        config: :class:`~ld3m_min.config.DistilConfig`.
        data: :class:`~ld3m_min.data.DataSplits`; only its training split is used.
        prior: :class:`~ld3m_min.prior.LatentDiffusionPrior`, moved to `device`; None loads what `config.prior` names.
        out: folder for checkpoints and the finished set; None keeps nothing.
        resume: go on from the newest checkpoint in `out` that verifies.
        callback: called with a :class:`Progress` after each iteration.
        experts: :class:`~ld3m_min.experts.ExpertBuffer` for MTT; None trains them, below `out` if given.

    Returns:
        A :class:`~ld3m_min.spaces.SyntheticSet`, also in `out/set`.

    Raises:
        ValueError: what doesn't fit together, before the first iteration. FloatingPointError: `config.patience`
            iterations in a row were not finite; the last good state is in `out`.
    """
    if data.size != config.size:
        raise ValueError(f"the data has {data.size} px, the configuration says size={config.size}; load it at that size")
    config = replace(config, dataset=data.name)  # what the set and its checkpoints are of
    if out is None:
        with tempfile.TemporaryDirectory(prefix="ld3m-") as scratch:
            return _distil(config, data, prior, None, Path(scratch), False, callback, experts, device, progress)
    with locked(out):
        return _distil(config, data, prior, Path(out), Path(out), resume, callback, experts, device, progress)


def _distil(config, data, prior, out, work, resume, callback, experts, device, progress):
    data = data.with_normalisation(config.normalisation).to(device)
    if config.space != "pixel":
        prior = (prior or LatentDiffusionPrior.from_pretrained(config.prior)).to(device=device)
        if data.ids and prior.conditional and len(prior.class_embedding.weight) > max(data.ids):
            prior = prior.for_classes(data.ids, data.classes)  # a prior of all of ImageNet: label 0 is not its class 0
        if config.space == "ld3m" and prior.conditional and prior.classes and set(prior.classes) != set(data.classes):
            warnings.warn(f"the prior knows other classes ({', '.join(prior.classes[:3])}, ...) than the data "
                          f"({', '.join(data.classes[:3])}, ...); c starts from what is not theirs", stacklevel=3)
    initial, labels = draw_initial_images(data, config.ipc, config.seed)
    initial, labels = initial.to(device), labels.to(device)
    space = build_space(config, initial, labels, prior)
    options = {}
    if config.algorithm == "MTT" and config.iterations > 0:
        options["experts"] = experts or train_experts(config, data, work / "experts", device=device, progress=progress)
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
        found = load_checkpoint(out / "checkpoints", config=asdict(config)) if out and resume else None
        if found:
            start, history, before = found.step, found.notes["history"], found.notes["seconds"]
            _restore(learned, sgd, found.tensors)

    def save(step):
        if out:
            momenta = {f"momentum.{k}": sgd.state[p]["momentum_buffer"] for k, p in learned.items() if sgd.state.get(p)}
            tensors = learned | momenta
            notes = {"history": history, "seconds": before + time.monotonic() - began}
            save_checkpoint(out / "checkpoints", step, tensors, config=asdict(config), notes=notes)

    misses = 0
    shown = bar(range(start, config.iterations), initial=start, total=config.iterations,
                desc=f"{config.algorithm} {config.space}", show=progress)
    for it in shown:
        loss, norms = _gradients(config, space, distiller, learned, labels, it)
        finite = all(torch.isfinite(torch.tensor([loss, *norms.values()])).tolist())
        entry = {"iteration": it, "loss": loss, **{f"grad_{k.split('.')[-1]}": v for k, v in norms.items()}}
        if finite:
            misses = 0
            sgd.step()
            space.project()
            distiller.project()
            if "lr" in distiller.parameters:
                entry["lr"] = distiller.parameters["lr"].item()
        else:  # caught before the optimiser: nothing of it enters the state
            misses += 1
            entry = {"iteration": it, "skipped": True}
        history.append(entry)
        shown.set_postfix(loss=f"{loss:.4g}", skipped=sum("skipped" in h for h in history))
        if misses >= config.patience:
            save(it + 1)
            kept = f"the last good state is in {out}" if out else "give `out` to keep the last good state"
            raise FloatingPointError(
                f"loss or gradient was not finite in {misses} iterations in a row, the last one {it} (loss {loss}); "
                f"{kept}. Start anew, in another folder, with a lower lr than {config.lr:g} or a lower guidance scale"
            )
        if callback is not None:
            callback(Progress(it, loss, norms, space))
        if (it + 1) % config.checkpoint_every == 0 or it + 1 == config.iterations:
            save(it + 1)
    skipped = sum("skipped" in h for h in history)
    if skipped:
        warnings.warn(f"{skipped} of {len(history)} iterations were skipped: not finite", stacklevel=3)
    result = _finish(config, data, prior, space, labels, history, before + time.monotonic() - began)
    if out:
        result.save(out / "set")
    return result


def _gradients(config, space, distiller, learned, labels, it):
    """Loss and gradients of one iteration: dL/dS at the images, then the chain rule through the generator (7)."""
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
    loss = distiller.step(leaf, labels, it).item()
    if again:
        images = space.images(other)
    images.backward(leaf.grad)
    return loss, {k: p.grad.norm().item() for k, p in learned.items()}


def _restore(learned, sgd, tensors):
    with torch.no_grad():
        for k, p in learned.items():
            p.copy_(tensors[k])
            if f"momentum.{k}" in tensors:
                sgd.state[p]["momentum_buffer"] = tensors[f"momentum.{k}"].to(p.device)


@torch.no_grad()
def _finish(config, data, prior, space, labels, history, seconds):
    # as a set read from its files is; channels_last images, which decoders give, crash ResNet18 in oneDNN (torch 2.13, CPU)
    pixels = space.images().cpu().contiguous()
    used = None if config.space == "pixel" else prior
    recipe = {
        "config": asdict(config),
        "normalisation": {"kind": config.normalisation, "mean": list(data.mean), "std": list(data.std)},
        "data": {"name": data.name, "source": data.source, "size": data.size,
                 "splits": {s: len(data.split(s)) for s in ("train", "validation", "test")}},
        "prior": used and {"source": used.source or "saved with the set"},
        "seconds": round(seconds, 2),
    }
    state = {k: v.cpu() for k, v in space.state().items()}
    own = used if used is not None and used.source is None else None  # the folder must say all
    return SyntheticSet(pixels, labels.cpu(), data.classes, state, recipe, tuple(history), own)


def random_real(config, *, data):
    """The baseline every method must beat: the real images that the set of `config` starts from, unchanged."""
    return distil(replace(config, space="pixel", iterations=0), data=data, progress=False)
