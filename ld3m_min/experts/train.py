"""Networks trained on the real data, their parameters kept after every epoch (section 2.1).

Experts train side by side (:mod:`ld3m_min.training`). Each ends as one safetensors file with its
checksum. While a group of them trains, a checkpoint an epoch lies in `parts/`, so that a stopped
training loses its last epoch at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ld3m_min.augment import DSA
from ld3m_min.config import DistilConfig
from ld3m_min.data.loading import check_outside
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError, NotFinite
from ld3m_min.experts.buffer import ExpertBuffer, describe_experts, experts_name
from ld3m_min.io.checkpoints import Checkpointer, config_difference
from ld3m_min.io.files import write_json
from ld3m_min.io.lock import locked
from ld3m_min.io.modes import ordinary_modes
from ld3m_min.io.paths import expanded
from ld3m_min.io.progress import bar
from ld3m_min.io.seeds import seeded
from ld3m_min.io.stop import stoppable
from ld3m_min.io.threads import side_by_side
from ld3m_min.networks import Network, build_network, flat_parameters
from ld3m_min.training import Draws, Group, batch_sizes, fast_layout, group_size, stacks


@ordinary_modes()
def train_experts(
    config: DistilConfig,
    data: DataSplits,
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> ExpertBuffer:
    """Train the experts that `config` asks for into `folder`; those already there are kept.

    Plain SGD without momentum or decay, DSA per image, as in the public code. On the CPU as many
    experts at a time as PyTorch has threads, each in one; on a GPU stacked. Stopped or killed, the
    same call goes on after the last epoch of each, and the files come out the same, bit for bit.
    Experts of the same kind with more epochs than needed are taken as they are; of more experts
    than needed the first, and to fewer the others are added.

    Args:
        config: of the distillation.
        data: its training split is trained on.
        folder: where they are to be.
        device: where they are trained.
        progress: show a bar.

    Returns:
        As many experts as `config` asks for.

    Raises:
        InputError: the folder holds experts of another kind.
        NotFinite: an expert diverged.
        Busy: another process works in the folder.
        Interrupted: asked to stop, see :mod:`ld3m_min.io.stop`.

    Example:
        >>> from tempfile import mkdtemp
        >>> from ld3m_min import load_data, preset
        >>> from ld3m_min.experts import train_experts
        >>> config, data = preset("smoke", algorithm="MTT"), load_data("digits")
        >>> found = train_experts(config, data, mkdtemp(), progress=False)
        >>> len(found), tuple(found.read(0, epochs=(0, 2)).shape)
        (2, (2, 7754))
    """
    folder = expanded(folder).absolute()
    check_outside(folder, data)
    data = data.to(device)
    if (finished := _finished(folder, config, data)) is not None:
        return finished
    with locked(folder):
        buffer = _begun(folder, config, data)
        jobs = _jobs(config, data, device, buffer)
        total = sum(map(len, jobs))
        threads = torch.get_num_threads()
        fit = group_size(threads, min(config.mtt.expert_batch, len(data.train)), data.size)
        workers = 1 if torch.device(device).type == "cuda" else max(1, min(fit, len(buffer)))
        shown = bar(total=len(buffer), initial=len(buffer) - total, desc="experts", show=progress)
        with shown, stoppable() as stop:
            done = side_by_side(
                lambda group, halted: _train(config, data, group, buffer, halted),
                jobs,
                workers=workers,
                threads=max(1, threads // workers),
                stop=stop,
                finished=lambda group, _: shown.update(len(group)),
            )
            if len(done) < len(jobs):
                kept = len(buffer) - total + sum(map(len, done))
                stop.leave(
                    f"{kept} of {len(buffer)} experts are finished and saved, the running ones up "
                    "to their last epoch"
                )
        for left in (folder / "parts").glob("experts-*"):  # of groups whose files are all written
            Checkpointer(left, None).clear()
    stop.leave_if_signalled(f"{len(buffer)} of {len(buffer)} experts are finished and saved")
    return buffer.first(config.mtt.experts)


def experts_below(
    runs: str | Path,
    config: DistilConfig,
    data: DataSplits,
    *,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> ExpertBuffer | None:
    """The experts that `config` asks for, which all runs share; None where it asks for none.

    Args:
        runs: folder of the runs; what is missing is trained there.
        config: of the distillation.
        data: its training split is trained on.
        device: where they are trained.
        progress: show a bar.

    Raises:
        InputError, Interrupted: as :func:`train_experts`.

    Example:
        >>> from tempfile import mkdtemp
        >>> from ld3m_min import load_data, preset
        >>> from ld3m_min.experts import experts_below
        >>> config, data = preset("smoke", algorithm="MTT"), load_data("digits")
        >>> found = experts_below(mkdtemp(), config, data, progress=False)
        >>> found.folder.name.rpartition("-")[0], len(found)
        ('experts-digits', 2)
    """
    if config.algorithm != "MTT":
        return None
    place = Path(runs) / experts_name(config, data)
    return train_experts(config, data, place, device=device, progress=progress)


def _finished(folder: Path, config: DistilConfig, data: DataSplits) -> ExpertBuffer | None:
    """The experts of a folder where none is missing: several jobs may read them at a time."""
    if not (folder / "experts.json").exists():
        return None
    buffer = ExpertBuffer.open(folder)
    if any((folder / "parts").glob("experts-*")):  # a kill came before they were removed
        return None
    try:
        buffer.check(config, data)
    except InputError:  # to be finished, or to be refused with the folder held
        return None
    return buffer.first(config.mtt.experts)


def _begun(folder: Path, config: DistilConfig, data: DataSplits) -> ExpertBuffer:
    """The buffer in a folder, described before anything is trained.

    What is begun there is never finished as something else; experts may be added, for how many
    there are changes none of them.
    """
    need = describe_experts(config, data)
    if (folder / "experts.json").exists():
        found = ExpertBuffer.open(folder).description
        for most in ("experts", "train_epochs"):
            need[most] = max(found[most], need[most])
        difference = config_difference({**found, "experts": need["experts"]}, need)
        if difference:
            raise InputError(
                f"{folder} holds other experts; use another folder:\n  " + "\n  ".join(difference)
            )
    write_json(folder / "experts.json", need)
    return ExpertBuffer.open(folder)


def _jobs(
    config: DistilConfig, data: DataSplits, device: str | torch.device, buffer: ExpertBuffer
) -> list[tuple[int, ...]]:
    """Groups of experts to train: the same whichever are finished, for stacking rounds by group."""
    fit = group_size(len(buffer), min(config.mtt.expert_batch, len(data.train)), data.size)
    n = min(fit, 64) if stacks(config.network.name, device) else 1
    groups = [tuple(range(i, min(i + n, len(buffer)))) for i in range(0, len(buffer), n)]
    return [g for g in groups if not all(buffer.file(i).exists() for i in g)]


def _train(
    config: DistilConfig,
    data: DataSplits,
    which: tuple[int, ...],
    buffer: ExpertBuffer,
    halted: Callable[[], bool],
) -> bool | None:
    """Train a group of experts to the end and write their files; True, or None where halted."""
    m, epochs = config.mtt, buffer.description["train_epochs"]
    group = _group(config, data, which)
    draws = Draws(len(data.train), m.expert_batch, data.size, DSA(config.dsa))
    checkpoints = _parts(buffer, which)
    rows = [group.flat().cpu()]
    for found in checkpoints.chain():  # what was trained before a stop
        rows.append(found.tensors.pop("theta"))
        latest = found.tensors
    rows = rows[: epochs + 1]
    if len(rows) > 1:
        group.load_flat(rows[-1])
        group.load_dropout_state(latest)
    for epoch in range(len(rows) - 1, epochs):
        if halted():
            return None
        generators = [seeded(config.seed, "expert epoch", i, epoch) for i in which]
        for index, drawn in draws.epoch(generators):
            index = index.to(data.train.images.device)
            x = data.normalise(data.train.take(index.flatten())).unflatten(0, index.shape)
            group.step(draws.augmented(x, drawn), data.train.labels[index], m.expert_lr)
        rows.append(group.flat().cpu())
        _check_finite(rows[-1], which, epoch, m.expert_lr)
        if epoch + 1 < epochs:
            checkpoints.save(epoch + 1, {"theta": rows[-1], **group.dropout_state()})
    for i, theta in zip(which, torch.stack(rows, 1), strict=True):
        if not buffer.file(i).exists():
            buffer.write(i, theta)
    checkpoints.clear()
    return True


def _parts(buffer: ExpertBuffer, which: tuple[int, ...]) -> Checkpointer:
    """The checkpoints of a group: one an epoch, all kept until its files are written."""
    apart = ("experts", "train_epochs")  # how many and how long changes none of them
    known = {k: v for k, v in buffer.description.items() if k not in apart}
    folder = buffer.folder / "parts" / f"experts-{which[0]:05d}-{which[-1]:05d}"
    return Checkpointer(folder, known, keep=None)


def _group(config: DistilConfig, data: DataSplits, which: tuple[int, ...]) -> Group:
    device, name = data.train.images.device, config.network.name
    networks = [_network(config, data, i).to(device) for i in which]
    return Group(fast_layout(networks, name), stacked=stacks(name, device))


def _network(config: DistilConfig, data: DataSplits, which: int) -> Network:
    generator = seeded(config.seed, "expert network", which)
    n = asdict(config.network)
    return build_network(**n, classes=len(data.classes), size=data.size, generator=generator)


def _check_finite(
    rows: Float[Tensor, "R P"], which: tuple[int, ...], epoch: int, lr: float
) -> None:
    for i, row in zip(which, rows, strict=True):
        if not torch.isfinite(row).all():
            raise NotFinite(f"expert {i} diverged in epoch {epoch}; lower mtt.expert_lr = {lr}")


def train_expert(
    config: DistilConfig, data: DataSplits, which: int, *, device: str | torch.device = "cpu"
) -> Float[Tensor, "E P"]:
    """One trajectory in the plainest way, on the CPU: a row an epoch, from the initial parameters.

    The reference for :func:`train_experts`, which gives the same up to rounding, on the same draws.

    Args:
        config: of the distillation.
        data: its training split is trained on.
        which: the expert's number.
        device: where it is trained.
    """
    m = config.mtt
    network = _network(config, data, which).to(device).train()
    sgd = torch.optim.SGD(network.parameters(), lr=m.expert_lr)
    dsa, labels, theta = DSA(config.dsa), data.train.labels.to(device), [flat_parameters(network)]
    sizes = batch_sizes(len(data.train), m.expert_batch)
    for epoch in range(m.max_start_epoch + m.expert_epochs):
        generator = seeded(config.seed, "expert epoch", which, epoch)
        for index in torch.randperm(len(data.train), generator=generator).split(sizes):
            x = dsa(data.normalise(data.train.take(index).to(device)), generator)
            loss = F.cross_entropy(network(x), labels[index.to(device)])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        theta.append(flat_parameters(network))
        _check_finite(theta[-1][None], (which,), epoch, m.expert_lr)
    return torch.stack(theta).cpu()
