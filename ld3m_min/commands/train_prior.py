"""`python -m ld3m_min train-prior`: see :mod:`ld3m_min.prior.train` and `style_train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ld3m_min.commands.command import Call, Command
from ld3m_min.commands.old_names import translated
from ld3m_min.commands.options import LongOptions, begin
from ld3m_min.data.loading import load_data
from ld3m_min.experiments.grids import RECORDS, prior_folder
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.card import finish_prior
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.presets import PRIOR_PRESETS, prior_preset
from ld3m_min.prior.style_card import finish_style
from ld3m_min.prior.style_config import STYLE_PRESETS, StyleConfig, style_preset
from ld3m_min.prior.style_train import train_style
from ld3m_min.prior.train import train_prior

ABOUT = """Train a prior, measure it on held-out images, and write it with its card to OUT/model.

Stopped, it goes on from its last checkpoint when started again with the same words; exit code 75
says that there is more to do. The presets that begin with `style-` are GLaD's style-based
generators, and have options of their own: `train-prior style-digits --help`.
"""
ABOUT_STYLE = """Train a style-based generator, measure it, and write it with its card to OUT/model.

Stopped, it goes on from its last checkpoint when started again with the same words; exit code 75
says that there is more to do.
"""


@dataclass(frozen=True, kw_only=True)
class PriorOptions(LongOptions):
    """Of the run.

    Attributes:
        out: folder of the run; by default runs/prior-PRESET, where the grids look for it.
        records: folder for the record of what was measured; by default that of the project, or
            OUT/record outside of it.
    """

    out: Path | None = None
    records: Path | None = None

    def record_folder(self, out: Path) -> Path:
        """Where the record is to be written, for a run in a folder."""
        # outside of the project nothing is made in its folders
        return self.records or (RECORDS if RECORDS.is_dir() else out / "record")


@dataclass(frozen=True, kw_only=True)
class TrainPriorOptions(PriorOptions):
    """Of the run.

    Attributes:
        dtype: of the forward passes; by default bfloat16 on a GPU and float32 elsewhere.
        start: folder or hub id of a prior to go on from: its autoencoder is kept, and its denoiser
            trained `--unet-steps` further. An autoencoder alone gets a denoiser.
    """

    dtype: Literal["float32", "bfloat16"] | None = None
    start: str | None = None


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
    quality = finish_prior(
        config,
        data,
        prior,
        out,
        records=options.record_folder(out),
        start=options.start,
        device=options.device,
    )
    _print(asdict(quality), out)


def run_style(call: Call[PriorOptions, StyleConfig]) -> None:
    """Train, measure and write the generator; print what was measured."""
    config, options = call.config, call.options
    begin(options.device, options.max_seconds)
    out = options.out or prior_folder(call.preset, config.seed)
    data = load_data(config.dataset, size=config.size)
    generator = train_style(config, data, out, device=options.device)
    records = options.record_folder(out)
    quality = finish_style(config, data, generator, out, records=records, device=options.device)
    _print(asdict(quality), out)


def _print(quality: Mapping[str, Any], out: Path) -> None:
    """What was measured, and where the prior is."""
    print("\n".join(f"{k}: {v}" for k, v in quality.items()))
    print(f"prior in {out / 'model'}")


STYLE = Command(
    "train-prior",
    ABOUT_STYLE,
    PriorOptions,
    StyleConfig,
    {name: p.about for name, p in STYLE_PRESETS.items()},
    "style-digits",
    lambda name, given, options: style_preset(name),
    run_style,
)


class TrainPrior(Command[TrainPriorOptions, PriorConfig]):
    """The command, whose presets are of two kinds of prior."""

    def parse(self, words: Sequence[str]) -> Callable[[], None]:
        """What the words after the command ask for; the preset says of which kind.

        Raises:
            InputError: a preset, field or value is unknown or doesn't fit.
            SystemExit: help was asked for (code 0), or an option is unknown (code 2).
        """
        preset = next(iter(translated(self.name, words)), self.preset)
        return STYLE.parse(words) if preset in STYLE_PRESETS else super().parse(words)


COMMAND = TrainPrior(
    "train-prior",
    ABOUT,
    TrainPriorOptions,
    PriorConfig,
    {name: p.about or "the shipped prior of the digits" for name, p in PRIOR_PRESETS.items()},
    "digits",
    base,
    run,
)
