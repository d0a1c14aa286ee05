"""Expert trajectories for MTT: networks trained on the real data, their parameters kept after every epoch (section 2.1).

One safetensors file an expert, written whole or not at all: a stopped training goes on with the missing ones.
"""
from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open

from .augment import DSA
from .networks import build_network, flat_parameters
from .progress import bar
from .storage import config_difference, locked, read_json, seeded, to_bytes, write_bytes, write_json


@dataclass(frozen=True)
class ExpertBuffer:
    """Trajectories in a folder: each (train_epochs + 1, P), the first row the initial parameters.

    Attributes:
        folder: where they are. description: what they were trained as; compared with what a distillation needs.
    """

    folder: Path
    description: dict

    def __len__(self):
        return self.description["experts"]

    def read(self, which, epochs):
        """Parameters of expert `which` after the given epochs: (len(epochs), P) float32. Only those rows are read."""
        file = self.folder / f"expert-{which:05d}.safetensors"
        try:
            with safe_open(file, framework="pt") as f:
                rows = f.get_slice("theta")
                return torch.cat([rows[e : e + 1] for e in epochs])
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file} cannot be read ({error}); remove it and train the experts again") from error

    def check(self, config, data):
        """Refuse experts that do not fit a distillation, before it starts.

        Raises:
            ValueError: other network, data or protocol, too few epochs, missing files; says which.
        """
        need = describe_experts(config, data)
        trained = self.description["train_epochs"]
        if config.mtt.max_start_epoch + config.mtt.expert_epochs > trained:
            raise ValueError(f"experts in {self.folder} have {trained} epochs; "
                             f"{config.mtt.max_start_epoch} + {config.mtt.expert_epochs} are needed")
        difference = config_difference({**self.description, "experts": 0, "train_epochs": 0},
                                       {**need, "experts": 0, "train_epochs": 0})
        if difference:
            raise ValueError(f"experts in {self.folder} do not fit this distillation:\n  " + "\n  ".join(difference))
        missing = [i for i in range(len(self)) if not (self.folder / f"expert-{i:05d}.safetensors").exists()]
        if missing:
            raise ValueError(f"{self.folder} lacks {len(missing)} expert(s), first number {missing[0]}; train them again")

    @classmethod
    def open(cls, folder):
        """The experts in a folder. FileNotFoundError, ValueError: none there, or not ours."""
        folder = Path(folder)
        description = read_json(folder / "experts.json")
        if not isinstance(description, dict) or not isinstance(description.get("experts"), int):
            raise ValueError(f"{folder / 'experts.json'} does not describe expert trajectories")
        return cls(folder, description)


def describe_experts(config, data):
    """What makes two sets of experts interchangeable: data, network, training."""
    m = config.mtt
    return {
        "dataset": data.name,
        "size": data.size,
        "training_images": len(data.train),
        "classes": list(data.classes),
        "network": asdict(config.network),
        "experts": m.experts,
        "train_epochs": m.train_epochs,
        "lr": m.expert_lr,
        "batch": m.expert_batch,
        "dsa": config.dsa,
        "seed": config.seed,
    }


def experts_name(config, data):
    """A folder name for the experts a configuration needs: distillations that can share them get the same."""
    digest = hashlib.sha256(repr(sorted(describe_experts(config, data).items())).encode()).hexdigest()
    return f"experts-{data.name}-{digest[:10]}"


def train_experts(config, data, folder, *, device="cpu", progress=True):
    """Train the experts that `config` asks for into `folder`; those already there are kept.

    Plain SGD without momentum or decay, DSA per image, as in the public code. Returns an :class:`ExpertBuffer`.

    Raises:
        ValueError: the folder holds experts of another kind.
    """
    folder, need = Path(folder), describe_experts(config, data)
    with locked(folder):
        if (folder / "experts.json").exists():
            difference = config_difference(ExpertBuffer.open(folder).description, need)
            if difference:
                raise ValueError(f"{folder} holds other experts; use another folder:\n  " + "\n  ".join(difference))
        write_json(folder / "experts.json", need)  # first: what is begun here is never finished as something else
        missing = [i for i in range(need["experts"]) if not (folder / f"expert-{i:05d}.safetensors").exists()]
        for which in bar(missing, desc="experts", show=progress):
            theta = train_expert(config, data, which, device=device)
            write_bytes(folder / f"expert-{which:05d}.safetensors", to_bytes({"theta": theta}))
    return ExpertBuffer.open(folder)


def train_expert(config, data, which, *, device="cpu"):
    """One trajectory, (train_epochs + 1, P) float32 on the CPU."""
    m, n = config.mtt, config.network
    network = build_network(n.name, classes=len(data.classes), size=data.size, depth=n.depth, width=n.width, norm=n.norm,
                            generator=seeded(config.seed, "expert network", which)).to(device).train()
    sgd = torch.optim.SGD(network.parameters(), lr=m.expert_lr)
    dsa, labels, theta = DSA(config.dsa), data.train.labels.to(device), [flat_parameters(network)]
    for epoch in range(m.train_epochs):
        generator = seeded(config.seed, "expert epoch", which, epoch)
        for index in torch.randperm(len(data.train), generator=generator).split(m.expert_batch):
            x = dsa(data.normalise(data.train.take(index).to(device)), generator)
            loss = F.cross_entropy(network(x), labels[index.to(device)])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        theta.append(flat_parameters(network))
        if not torch.isfinite(theta[-1]).all():
            raise FloatingPointError(f"expert {which} diverged in epoch {epoch}; lower mtt.expert_lr = {m.expert_lr}")
    return torch.stack(theta).cpu()
