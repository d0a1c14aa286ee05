"""Expert trajectories for MTT: networks trained on the real data, their parameters kept after every epoch (section 2.1).

Experts train side by side (:mod:`ld3m_min.training`). One safetensors file an expert, with its checksum, written whole or
not at all; while it trains, one small file an epoch in `parts/`, so that a stopped training loses its last epoch at most.
"""
from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from .augment import DSA
from .data import check_outside
from .digests import digest as digest_of
from .errors import InputError, NotFinite
from .modes import ordinary_modes
from .networks import build_network, flat_parameters
from .progress import bar
from .signals import stoppable
from .storage import config_difference, locked, read_json, seeded, write_bytes, write_json
from .training import Group, Schedule, fast_layout, group_size, side_by_side, stacks


@dataclass(frozen=True)
class ExpertBuffer:
    """Trajectories in a folder: each (train_epochs + 1, P), the first row the initial parameters.

    Attributes:
        folder: where they are. description: what they were trained as; compared with what a distillation needs.
    """

    folder: Path
    description: dict
    _verified: dict = field(default_factory=dict, repr=False, compare=False)

    def __len__(self):
        return self.description["experts"]

    def file(self, which):
        """Where the trajectory of expert `which` is, or will be."""
        return self.folder / f"expert-{which:05d}.safetensors"

    def read(self, which, epochs):
        """Parameters of expert `which` after the given epochs: (len(epochs), P) float32. Only those rows are read.

        A file is checked in full when it is read first: name, shape and type of what it holds, and its checksum.

        Raises:
            ValueError: the file is damaged or holds something else, or values that are not finite; no such epoch.
        """
        file, last = self.file(which), self.description["train_epochs"]
        if any(not 0 <= e <= last for e in epochs):
            raise InputError(f"experts in {self.folder} have epochs 0 to {last}, not {', '.join(map(str, epochs))}")
        try:
            self._verify(file)
            with safe_open(file, framework="pt") as f:
                rows = f.get_slice("theta")
                found = torch.cat([rows[e : e + 1] for e in epochs])
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file} cannot be read ({error}); remove it and train the experts again") from error
        if not torch.isfinite(found).all():
            raise InputError(f"{file} holds values that are not finite; remove it and train the experts again")
        return found

    def _verify(self, file):
        stamp = (file.stat().st_size, file.stat().st_mtime_ns)
        if self._verified.get(file.name) == stamp:
            return
        theta, digest = _read(file)
        n = self.description["train_epochs"] + 1
        if theta.shape != (n, self._parameters()):
            raise InputError(f"{file} holds {tuple(theta.shape)} values, not ({n}, {self._parameters()}); it is not one of "
                             f"these experts: remove it and train them again")
        if digest not in (None, _digest(theta)):
            raise InputError(f"{file} cannot be read (it does not match its checksum); remove it and train the experts again")
        self._verified[file.name] = stamp

    def _parameters(self):
        if "parameters" not in self._verified:
            d = self.description
            network = build_network(**d["network"], size=d["size"], classes=len(d["classes"]))
            self._verified["parameters"] = sum(p.numel() for p in network.parameters())
        return self._verified["parameters"]

    def check(self, config, data):
        """Refuse experts that do not fit a distillation, before it starts.

        Raises:
            ValueError: other network, data or protocol, too few epochs, missing files; says which.
        """
        need = describe_experts(config, data)
        trained = self.description["train_epochs"]
        if need["train_epochs"] > trained:
            raise InputError(f"experts in {self.folder} have {trained} epochs; "
                             f"{config.mtt.max_start_epoch} + {config.mtt.expert_epochs} are needed")
        difference = config_difference({**self.description, "experts": 0, "train_epochs": 0},
                                       {**need, "experts": 0, "train_epochs": 0})
        if difference:
            raise InputError(f"experts in {self.folder} do not fit this distillation:\n  " + "\n  ".join(difference))
        missing = [i for i in range(len(self)) if not self.file(i).exists()]
        if missing:
            raise InputError(f"{self.folder} lacks {len(missing)} expert(s), first number {missing[0]}; train them again")

    @classmethod
    def open(cls, folder):
        """The experts in a folder. FileNotFoundError, ValueError: none there, or not ours."""
        folder = Path(folder).absolute()  # whatever becomes of the working directory
        found = read_json(folder / "experts.json")
        whole = isinstance(found, dict) and all(isinstance(found.get(k), int) for k in ("experts", "train_epochs", "size"))
        if not whole or not isinstance(found.get("network"), dict) or not isinstance(found.get("classes"), list):
            raise InputError(f"{folder / 'experts.json'} does not describe expert trajectories")
        if "content" not in found:
            raise InputError(f"experts in {folder} are of a version that didn't note which images they were trained on; train "
                             "them again in another folder")
        return cls(folder, found)


def describe_experts(config, data):
    """What makes two sets of experts interchangeable: data, network, training.

    `train_epochs` is the last epoch that a distillation reads, `max_start_epoch + expert_epochs`: what the configuration's
    own `train_epochs` allows beyond it would be trained and stored for nobody.
    """
    m = config.mtt
    return {
        "content": digest_of([data.train.digest, list(data.mean), list(data.std)]),
        "size": data.size,
        "classes": list(data.classes),
        "network": asdict(config.network),
        "experts": m.experts,
        "train_epochs": m.max_start_epoch + m.expert_epochs,
        "lr": m.expert_lr,
        "batch": m.expert_batch,
        "dsa": config.dsa,
        "seed": config.seed,
    }


def experts_name(config, data):
    """A folder name for the experts a configuration needs: distillations that can share them get the same."""
    digest = hashlib.sha256(repr(sorted(describe_experts(config, data).items())).encode()).hexdigest()
    return f"experts-{data.name}-{digest[:10]}"


@ordinary_modes()
def train_experts(config, data, folder, *, device="cpu", progress=True):
    """Train the experts that `config` asks for into `folder`; those already there are kept.

    Plain SGD without momentum or decay, DSA per image, as in the public code. On the CPU as many experts at a time as PyTorch
    has threads, each in one; on a GPU stacked. Stopped or killed, the same call goes on after the last epoch of each, and
    the files come out the same, bit for bit. Experts of the same kind with more epochs than needed are taken as they are.

    Returns:
        An :class:`ExpertBuffer`.

    Raises:
        ValueError: the folder holds experts of another kind.
        FloatingPointError: an expert diverged. RuntimeError: another process works in the folder.
        Interrupted: asked to stop, see :mod:`ld3m_min.signals`.
    """
    folder, need = Path(folder).expanduser().absolute(), describe_experts(config, data)
    check_outside(folder, data)
    data = data.to(device)
    if (finished := _finished(folder, config, data)) is not None:
        return finished
    with locked(folder):
        if (folder / "experts.json").exists():
            found = ExpertBuffer.open(folder).description
            if found["train_epochs"] >= need["train_epochs"]:
                need["train_epochs"] = found["train_epochs"]
            difference = config_difference(found, need)
            if difference:
                raise InputError(f"{folder} holds other experts; use another folder:\n  " + "\n  ".join(difference))
        write_json(folder / "experts.json", need)  # first: what is begun here is never finished as something else
        buffer = ExpertBuffer.open(folder)
        jobs = _jobs(config, data, device, buffer)
        total = sum(map(len, jobs))
        with bar(total=len(buffer), initial=len(buffer) - total, desc="experts", show=progress) as shown, stoppable() as stop:
            threads = torch.get_num_threads()
            fit = group_size(threads, min(config.mtt.expert_batch, len(data.train)), data.size)
            workers = 1 if torch.device(device).type == "cuda" else max(1, min(fit, len(buffer)))
            done = side_by_side(lambda group, halted: _train(config, data, group, buffer, halted), jobs, workers=workers,
                                threads=max(1, threads // workers), stop=stop,
                                finished=lambda group, _: shown.update(len(group)))
            if len(done) < len(jobs):
                kept = len(buffer) - total + sum(map(len, done))
                stop.leave(f"{kept} of {len(buffer)} experts are finished and saved, the running ones up to their last epoch")
    return buffer


def _finished(folder, config, data):
    """The experts of a folder where none is missing: they are only read, so that several jobs can use them; else None."""
    if not (folder / "experts.json").exists():
        return None
    buffer = ExpertBuffer.open(folder)
    try:
        buffer.check(config, data)
    except InputError:  # to be finished, or to be refused with the folder held
        return None
    return buffer


def _jobs(config, data, device, buffer):
    """Groups of experts to train, as tuples: the same groups whichever are finished, for stacking rounds by the group."""
    fit = group_size(len(buffer), min(config.mtt.expert_batch, len(data.train)), data.size)
    n = min(fit, 64) if stacks(config.network.name, device) else 1
    groups = [tuple(range(i, min(i + n, len(buffer)))) for i in range(0, len(buffer), n)]
    return [g for g in groups if not all(buffer.file(i).exists() for i in g)]


def _train(config, data, which, buffer, halted):
    """Train a group of experts to the end and write their files; True, or None where halted."""
    m, epochs = config.mtt, buffer.description["train_epochs"]
    group = _group(config, data, which)
    schedule = Schedule(len(data.train), m.expert_batch, data.size, DSA(config.dsa))
    rows = [group.flat().cpu()]
    for tensors in _parts(buffer, which, epochs):  # what was trained before a stop
        rows.append(tensors.pop("theta"))
        latest = tensors
    if len(rows) > 1:
        group.load_flat(rows[-1])
        group.load_dropout_state(latest)
    for epoch in range(len(rows) - 1, epochs):
        if halted():
            return None
        generators = [seeded(config.seed, "expert epoch", i, epoch) for i in which]
        for index, draws in schedule.epoch(generators):
            index = index.to(data.train.images.device)
            x = data.normalise(data.train.take(index.flatten())).unflatten(0, index.shape)
            group.step(schedule.augmented(x, draws), data.train.labels[index], m.expert_lr)
        rows.append(group.flat().cpu())
        _check_finite(rows[-1], which, epoch, m)
        if epoch + 1 < epochs:
            write_bytes(_part(buffer, which, epoch + 1), _pack({"theta": rows[-1], **group.dropout_state()}))
    for i, theta in zip(which, torch.stack(rows, 1), strict=True):
        if not buffer.file(i).exists():
            write_bytes(buffer.file(i), _pack({"theta": theta.contiguous()}))
    for epoch in range(1, epochs):
        _part(buffer, which, epoch).unlink(missing_ok=True)
    return True


def _group(config, data, which):
    n, device = config.network, data.train.images.device
    networks = [build_network(**asdict(n), classes=len(data.classes), size=data.size,
                              generator=seeded(config.seed, "expert network", i)).to(device) for i in which]
    return Group(fast_layout(networks, n.name), stacked=stacks(n.name, device))


def _check_finite(rows, which, epoch, m):
    for i, row in zip(which, rows, strict=True):
        if not torch.isfinite(row).all():
            raise NotFinite(f"expert {i} diverged in epoch {epoch}; lower mtt.expert_lr = {m.expert_lr}")


def _part(buffer, which, epoch):
    return buffer.folder / "parts" / f"expert-{which[0]:05d}-{which[-1]:05d}-epoch-{epoch:03d}.safetensors"


def _parts(buffer, which, epochs):
    """The epochs of an unfinished group, from the first on, as far as their files are whole."""
    for epoch in range(1, epochs):
        try:
            data = _part(buffer, which, epoch).read_bytes()
            tensors = load(data)
            digest = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["sha256"]
            if digest != _digest(*(tensors[k] for k in sorted(tensors))):
                return
        except (OSError, ValueError, KeyError, SafetensorError):
            return  # from here on it is trained again
        yield tensors


def _pack(tensors):
    digest = _digest(*(tensors[k] for k in sorted(tensors)))
    return save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata={"sha256": digest})


def _digest(*tensors):
    digest = hashlib.sha256()
    for t in tensors:
        digest.update(t.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(file):
    """theta and the checksum that its file states (None in files of earlier versions); ValueError: something else is in it."""
    with safe_open(file, framework="pt") as f:
        names, digest = list(f.keys()), (f.metadata() or {}).get("sha256")
        theta = f.get_tensor("theta") if names == ["theta"] else None
    if theta is None or theta.dtype != torch.float32:
        raise InputError(f"{file} holds {', '.join(names) or 'nothing'}, not the float32 tensor theta alone; remove it and "
                         "train the experts again")
    return theta, digest


def train_expert(config, data, which, *, device="cpu"):
    """One trajectory in the plainest way, (max_start_epoch + expert_epochs + 1, P) float32 on the CPU.

    The reference for :func:`train_experts`, which gives the same up to rounding, on the same draws.
    """
    m = config.mtt
    network = build_network(**asdict(config.network), classes=len(data.classes), size=data.size,
                            generator=seeded(config.seed, "expert network", which)).to(device).train()
    sgd = torch.optim.SGD(network.parameters(), lr=m.expert_lr)
    dsa, labels, theta = DSA(config.dsa), data.train.labels.to(device), [flat_parameters(network)]
    for epoch in range(m.max_start_epoch + m.expert_epochs):
        generator = seeded(config.seed, "expert epoch", which, epoch)
        for index in torch.randperm(len(data.train), generator=generator).split(m.expert_batch):
            x = dsa(data.normalise(data.train.take(index).to(device)), generator)
            loss = F.cross_entropy(network(x), labels[index.to(device)])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        theta.append(flat_parameters(network))
        _check_finite(theta[-1][None], [which], epoch, m)
    return torch.stack(theta).cpu()
