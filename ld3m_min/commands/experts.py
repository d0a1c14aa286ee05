"""`python -m ld3m_min experts`: see :func:`ld3m_min.experts.train.train_experts`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ld3m_min.commands.command import Call, Command, ruling
from ld3m_min.commands.options import DataOptions, begin
from ld3m_min.config import DistilConfig
from ld3m_min.data.loading import load_data
from ld3m_min.experts.buffer import experts_name
from ld3m_min.experts.train import train_experts
from ld3m_min.io.text import counted
from ld3m_min.presets import PRESETS, preset

ABOUT = """Train the expert trajectories of a preset.

Those already there are kept, unfinished ones go on after their last epoch. Of the configuration the
data set, the network, the augmentation, the seed and `--mtt.*` matter.
"""


@dataclass(frozen=True, kw_only=True)
class ExpertsOptions(DataOptions):
    """Of the run.

    Attributes:
        out: folder of the experts; by default runs/experts-..., named after all they depend on.
    """

    out: Path | None = None


def base(name: str, given: Mapping[str, Any], options: ExpertsOptions | None) -> DistilConfig:
    """The preset for MTT, at the given image size."""
    return preset(name, **{"algorithm": "MTT", **ruling(DistilConfig, given)})


def run(call: Call[ExpertsOptions, DistilConfig]) -> None:
    """Train the experts, and say where they are."""
    config, options = call.config, call.options
    begin(options.device, options.max_seconds)
    data = load_data(config.dataset, path=options.data_path, split=options.split, size=config.size)
    folder = options.out or Path("runs") / experts_name(config, data)
    buffer = train_experts(config, data, folder, device=options.device)
    print(f"{counted(len(buffer), 'expert')} in {folder}")


COMMAND = Command(
    "experts",
    ABOUT,
    ExpertsOptions,
    DistilConfig,
    {name: p.about for name, p in PRESETS.items()},
    "cpu",
    base,
    run,
)
