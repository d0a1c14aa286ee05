"""Trajectories on the disk, and what says which networks and images they are of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ld3m_min.config import DistilConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.io.checkpoints import config_difference
from ld3m_min.io.digests import digest as digest_of
from ld3m_min.io.files import read_json, write_bytes
from ld3m_min.networks import build_network


@dataclass(frozen=True)
class ExpertBuffer:
    """Trajectories in a folder: each (train_epochs + 1, P), the first row the initial parameters.

    Attributes:
        folder: where they are.
        description: what they were trained as; compared with what a distillation needs.

    Example:
        >>> from pathlib import Path
        >>> from ld3m_min.experts import ExpertBuffer
        >>> buffer = ExpertBuffer(Path("mine"), {"experts": 100, "train_epochs": 8})
        >>> len(buffer), buffer.file(7).as_posix()
        (100, 'mine/expert-00007.safetensors')
    """

    folder: Path
    description: dict[str, Any]
    _verified: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return int(self.description["experts"])

    def file(self, which: int) -> Path:
        """Where the trajectory of an expert is, or will be.

        Args:
            which: the expert's number, from 0.
        """
        return self.folder / f"expert-{which:05d}.safetensors"

    def write(self, which: int, theta: Float[Tensor, "E P"]) -> None:
        """Keep the trajectory of an expert, with its checksum.

        Args:
            which: the expert's number.
            theta: its parameters at the start and after each epoch.
        """
        theta = theta.detach().cpu().contiguous()
        data = save({"theta": theta}, metadata={"sha256": _sha256(theta)})
        write_bytes(self.file(which), data)

    def read(self, which: int, epochs: Sequence[int]) -> Float[Tensor, "E P"]:
        """Parameters of an expert after the given epochs. Only those rows are read.

        A file is checked in full when it is read first: name, shape and type of what it holds, and
        its checksum.

        Args:
            which: the expert's number.
            epochs: 0 for the initial parameters.

        Raises:
            InputError: the file is damaged or holds something else, or values that are not finite;
                no such epoch.
        """
        file, last = self.file(which), self.description["train_epochs"]
        if any(not 0 <= e <= last for e in epochs):
            raise InputError(
                f"experts in {self.folder} have epochs 0 to {last}, not "
                f"{', '.join(map(str, epochs))}"
            )
        try:
            self._verify(file)
            with safe_open(file, framework="pt") as f:
                rows = f.get_slice("theta")
                found = torch.cat([rows[e : e + 1] for e in epochs])
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file} cannot be read ({error}); remove it and train the experts again"
            ) from error
        if not torch.isfinite(found).all():
            raise InputError(
                f"{file} holds values that are not finite; remove it and train the experts again"
            )
        return found

    def _verify(self, file: Path) -> None:
        stamp = (file.stat().st_size, file.stat().st_mtime_ns)
        if self._verified.get(file.name) == stamp:
            return
        theta, digest = _read(file)
        n = self.description["train_epochs"] + 1
        if theta.shape != (n, self._parameters()):
            raise InputError(
                f"{file} holds {tuple(theta.shape)} values, not ({n}, {self._parameters()}); it is "
                "not one of these experts: remove it and train them again"
            )
        if digest not in (None, _sha256(theta)):
            raise InputError(
                f"{file} cannot be read (it does not match its checksum); remove it and train the "
                "experts again"
            )
        self._verified[file.name] = stamp

    def _parameters(self) -> int:
        if "parameters" not in self._verified:
            d = self.description
            network = build_network(**d["network"], size=d["size"], classes=len(d["classes"]))
            self._verified["parameters"] = sum(p.numel() for p in network.parameters())
        return int(self._verified["parameters"])

    def first(self, count: int) -> ExpertBuffer:
        """The first experts of the folder alone.

        Args:
            count: how many.

        Example:
            >>> from pathlib import Path
            >>> from ld3m_min.experts import ExpertBuffer
            >>> len(ExpertBuffer(Path("mine"), {"experts": 100, "train_epochs": 8}).first(3))
            3
        """
        return replace(self, description=self.description | {"experts": count})

    def check(self, config: DistilConfig, data: DataSplits) -> None:
        """Refuse experts that do not fit a distillation, before it starts.

        Of more than it asks for, the first are followed.

        Args:
            config: of the distillation.
            data: with its normalisation.

        Raises:
            InputError: other network, data or protocol, too few experts or epochs, missing files;
                says which.
        """
        need = describe_experts(config, data)
        trained = self.description["train_epochs"]
        if need["train_epochs"] > trained:
            raise InputError(
                f"experts in {self.folder} have {trained} epochs; "
                f"{config.mtt.max_start_epoch} + {config.mtt.expert_epochs} are needed"
            )
        difference = config_difference(
            {**self.description, "experts": 0, "train_epochs": 0},
            {**need, "experts": 0, "train_epochs": 0},
        )
        if difference:
            raise InputError(
                f"experts in {self.folder} do not fit this distillation:\n  "
                + "\n  ".join(difference)
            )
        if len(self) < need["experts"]:
            raise InputError(
                f"{self.folder} holds {len(self)} expert(s), but mtt.experts = {need['experts']} "
                "are needed; train the others there, by the same command with that number"
            )
        missing = [i for i in range(need["experts"]) if not self.file(i).exists()]
        if missing:
            raise InputError(
                f"{self.folder} lacks {len(missing)} expert(s), first number {missing[0]}; train "
                "them again"
            )

    @classmethod
    def open(cls, folder: str | Path) -> ExpertBuffer:
        """The experts in a folder.

        Args:
            folder: where `train_experts` put them.

        Raises:
            FileNotFoundError: there are none.
            InputError: they are not ours, or of a version that did not note its images.
        """
        folder = Path(folder).absolute()  # whatever becomes of the working directory
        found = read_json(folder / "experts.json")
        kinds = {"experts": int, "train_epochs": int, "size": int, "network": dict, "classes": list}
        if not isinstance(found, dict) or not all(
            isinstance(found.get(k), kind) for k, kind in kinds.items()
        ):
            raise InputError(f"{folder / 'experts.json'} does not describe expert trajectories")
        if "content" not in found:
            raise InputError(
                f"experts in {folder} are of a version that didn't note which images they were "
                "trained on; train them again in another folder"
            )
        return cls(folder, found)


def describe_experts(config: DistilConfig, data: DataSplits) -> dict[str, Any]:
    """What makes two sets of experts interchangeable: data, network, training.

    `train_epochs` is the last epoch that a distillation reads, `max_start_epoch + expert_epochs`:
    what the configuration's own `train_epochs` allows beyond it would be trained and stored for
    nobody.

    Args:
        config: of the distillation.
        data: with its normalisation.
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


def experts_name(config: DistilConfig, data: DataSplits) -> str:
    """A folder name for the experts that a configuration needs; those that can share them get it.

    Args:
        config: of the distillation.
        data: with its normalisation.

    Example:
        >>> from ld3m_min import load_data, preset
        >>> from ld3m_min.experts import experts_name
        >>> data, changes = load_data("digits"), ({}, {"ipc": 10}, {"seed": 1})
        >>> names = [experts_name(preset("smoke", **c), data) for c in changes]
        >>> [names.index(name) for name in names]  # sets of any size share them
        [0, 0, 2]
    """
    described = repr(sorted(describe_experts(config, data).items()))
    return f"experts-{data.name}-{hashlib.sha256(described.encode()).hexdigest()[:10]}"


def _sha256(theta: Tensor) -> str:
    return hashlib.sha256(theta.numpy().tobytes()).hexdigest()


def _read(file: Path) -> tuple[Tensor, str | None]:
    """`theta` and the checksum that its file states, which those of earlier versions lack."""
    with safe_open(file, framework="pt") as f:
        names, digest = list(f.keys()), (f.metadata() or {}).get("sha256")
        theta = f.get_tensor("theta") if names == ["theta"] else None
    if theta is None or theta.dtype != torch.float32:
        raise InputError(
            f"{file} holds {', '.join(names) or 'nothing'}, not the float32 tensor theta alone; "
            "remove it and train the experts again"
        )
    return theta, digest
