"""`python -m ld3m_min train-prior`: see :func:`ld3m_min.prior.train.train_prior`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ld3m_min.commands.command import Call, Command
from ld3m_min.commands.options import LongOptions, begin
from ld3m_min.data.loading import load_data
from ld3m_min.experiments.grids import RECORDS, prior_folder
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.card import finish_prior
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.presets import PRIOR_PRESETS, prior_preset
from ld3m_min.prior.train import train_prior

ABOUT = """Train a prior, measure it on held-out images, and write it with its card to OUT/model.

Stopped, it goes on from its last checkpoint when started again with the same words; exit code 75
says that there is more to do.
"""


@dataclass(frozen=True, kw_only=True)
class TrainPriorOptions(LongOptions):
    """Of the run.

    Attributes:
        out: folder of the run; by default runs/prior-PRESET, where the grids look for it.
        dtype: of the forward passes; by default bfloat16 on a GPU and float32 elsewhere.
        start: folder or hub id of a prior to go on from: its autoencoder is kept, and its denoiser
            trained `--unet-steps` further. An autoencoder alone gets a denoiser.
        records: folder for the record of what was measured; by default that of the project, or
            OUT/record outside of it.
    """

    out: Path | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    start: str | None = None
    records: Path | None = None


def base(name: str, given: Mapping[str, Any], options: TrainPriorOptions | None) -> PriorConfig:
    """The preset."""
    return prior_preset(name)


def run(call: Call[TrainPriorOptions, PriorConfig]) -> None:
    """Train, measure and write the prior; print what was measured."""
    config, options = call.config, call.options
    begin(options.device, options.max_seconds)
    out = options.out or prior_folder(call.preset, config.seed)
    data = load_data(config.dataset, size=config.size)
    dtype = None if options.dtype is None else getattr(torch, options.dtype)
    start = None if options.start is None else LatentDiffusionPrior.from_pretrained(options.start)
    prior = train_prior(config, data, out, device=options.device, dtype=dtype, start=start)
    records = options.records
    if records is None:  # outside of the project nothing is made in its folders
        records = RECORDS if RECORDS.is_dir() else out / "record"
    quality = finish_prior(
        config, data, prior, out, records=records, start=options.start, device=options.device
    )
    print("\n".join(f"{k}: {v}" for k, v in asdict(quality).items()))
    print(f"prior in {out / 'model'}")


COMMAND = Command(
    "train-prior",
    ABOUT,
    TrainPriorOptions,
    PriorConfig,
    {name: p.about or "the shipped prior of the digits" for name, p in PRIOR_PRESETS.items()},
    "digits",
    base,
    run,
)
