"""`python -m ld3m_min plan`: see :mod:`ld3m_min.planner`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ld3m_min.commands.command import Call, Command, ruling
from ld3m_min.commands.options import Options
from ld3m_min.config import DistilConfig
from ld3m_min.errors import InputError
from ld3m_min.io.devices import checked_device
from ld3m_min.planner.forecast import Forecast, forecasts
from ld3m_min.planner.machine import SHARE, device_bytes
from ld3m_min.planner.seconds import probe
from ld3m_min.presets import PRESETS, preset
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.loading import load_latent_prior
from ld3m_min.spaces.build import SPACES

ABOUT = """Predict memory and time of one iteration under every plan, and say which one a run takes.

Memory and operations are counted without running anything, also for a GPU that is not there
(`--device cuda --no-probe --memory 80`). Seconds come from short passes on the device. Of
`--plan.*` only precision, channels-last and compile count: the rest is what is compared.
"""


@dataclass(frozen=True, kw_only=True)
class PlanOptions(Options):
    """Of the forecast.

    Attributes:
        memory: GiB to fit in; by default the device's.
        classes: of the data; by default as many as the prior has.
        probe: run short passes on the device, to predict seconds.
    """

    memory: float | None = None
    classes: int | None = None
    probe: bool = True


def base(name: str, given: Mapping[str, Any], options: PlanOptions | None) -> DistilConfig:
    """The preset, by default for DC."""
    return preset(name, **{"algorithm": "DC", **ruling(DistilConfig, given)})


def run(call: Call[PlanOptions, DistilConfig]) -> None:
    """Print a line for each plan, from the fastest on; mark the first that fits."""
    config, options = call.config, call.options
    _check(config, options)
    on = options.device if options.probe else "cpu"
    names = [f"class {k}" for k in range(options.classes or 10)]  # where they are only words
    prior = load_latent_prior(config.prior, device=on, classes=names)
    room = SHARE * (
        device_bytes(options.device) if options.memory is None else options.memory * 2**30
    )
    seconds = f" {'generator s':>12s}" if options.probe else ""
    print(f"{'plan':10s} {'peak MiB':>10s} {'weights':>8s} {'TFLOP':>8s}{seconds}")
    chosen = None
    for row in forecasts(prior, config, device=options.device, classes=options.classes):
        fits = row.total_bytes <= room
        mark = "" if fits else "  does not fit"
        if fits and chosen is None:
            chosen, mark = row, "  <- the fastest that fits"
        measured = ""
        if options.probe and fits:
            took = probe(prior, config, row.plan, device=options.device, classes=options.classes)
            measured = f" {took:12.3f}"
        print(f"{_numbers(row)}{measured}{mark}", flush=True)
    if chosen is None:
        raise InputError(
            f"no plan fits in {room / 2**30:.1f} GiB; lower --ipc or --size, or take --precision "
            "bfloat16"
        )


def _check(config: DistilConfig, options: PlanOptions) -> None:
    """Refuse what is wrong before the prior is loaded."""
    if options.probe:
        checked_device(options.device)  # without a probe it may be one that is not there
    if options.memory is not None and not 0 < options.memory < math.inf:
        raise InputError(f"--memory must be a number of GiB above 0, not {options.memory}")
    if options.classes is not None and options.classes < 1:
        raise InputError(f"--classes must be at least 1, not {options.classes}")
    space = SPACES[config.space]
    if not (space.needs_prior and space.prior_kind is LatentDiffusionPrior):
        raise InputError(
            f"--space {config.space} has no generator to plan for; take autoencoder or ld3m"
        )


def _numbers(row: Forecast) -> str:
    return (
        f"{row.name:10s} {row.peak_bytes / 2**20:10.1f} {row.weight_bytes / 2**20:8.1f} "
        f"{row.flops / 1e12:8.3f}"
    )


COMMAND = Command(
    "plan",
    ABOUT,
    PlanOptions,
    DistilConfig,
    {name: p.about for name, p in PRESETS.items()},
    "cpu",
    base,
    run,
)
