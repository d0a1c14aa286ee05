"""`python -m ld3m_min rate-search`: see :func:`ld3m_min.experiments.rate_search.search`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ld3m_min.commands.command import Call, Command, ruling
from ld3m_min.commands.options import LongOptions, begin
from ld3m_min.config import DistilConfig
from ld3m_min.data.loading import load_data
from ld3m_min.errors import InputError
from ld3m_min.experiments.network_rates import network_rates
from ld3m_min.experiments.places import RECORDS
from ld3m_min.experiments.rate_search import PAIRS, search
from ld3m_min.presets import PRESETS, preset, preset_with
from ld3m_min.systems import SYSTEMS

ABOUT = """Search the learning rates of a preset on held-out training images.

Every system gets as many tries, from the scale of its own gradient on, until its best rate has a
worse one on both sides. Every try is recorded, and none made twice. All algorithms and systems are
searched unless `--algorithm`, `--space` or `--only` says which; `--iterations` shortens every try.
A search with other changes of the configuration has a record of its own. With `--networks` the
rates of the evaluated networks are searched, on random real images.
"""
NO_CHANGE = ("dataset", "iterations", "algorithm", "space")  # `search` has arguments for these


@dataclass(frozen=True, kw_only=True)
class RateSearchOptions(LongOptions):
    """Of the run.

    Attributes:
        seeds: distillations that a rate is tested with.
        repeats: trainings of each network on each of them.
        only: one algorithm and system, as in "DM-ld3m-paper"; with `--networks`, one network.
        networks: search the rates of the evaluated networks instead.
        records: folder of the record; by default that of the project.
    """

    seeds: int = 1
    repeats: int = 1
    only: str = ""
    networks: bool = False
    records: Path | None = None


def base(name: str, given: Mapping[str, Any], options: RateSearchOptions | None) -> DistilConfig:
    """The preset, for the images per class and their size."""
    return preset(name, **ruling(DistilConfig, given))


def run(call: Call[RateSearchOptions, DistilConfig]) -> None:
    """Search, and print the best rate of each algorithm and space."""
    config, options = call.config, call.options
    begin(options.device, options.max_seconds)
    if "lr" in call.given:
        raise InputError("--lr is what is searched for; leave it out")
    _refuse_without_use(call)
    data = load_data(config.dataset, size=config.size)
    best: dict[tuple[str, str], float] = {}
    changes = {k: v for k, v in call.given.items() if k not in NO_CHANGE}
    if options.networks:
        found = network_rates(
            call.preset,
            data,
            ipc=config.ipc,
            records=options.records or RECORDS,
            only=options.only,
            device=options.device,
        )
        print("\n".join(f"{name:8s} lr = {lr:g}" for name, lr in found.items()))
        return
    with preset_with(call.preset, changes) as name:
        for only in _searched(call):
            best |= search(
                name,
                data,
                records=options.records or RECORDS,
                seeds=options.seeds,
                repeats=options.repeats,
                iterations=config.iterations if "iterations" in call.given else None,
                only=only,
                device=options.device,
            )
    for (algorithm, system), lr in best.items():
        print(f"{algorithm:4s} {system:12s} lr = {lr:g}")


def _refuse_without_use(call: Call[RateSearchOptions, DistilConfig]) -> None:
    """InputError where an option was given that this search has no use for."""
    options, other = call.options, {"dataset", "size", "ipc"}
    if options.networks:
        lost = [k for k in ("seeds", "repeats") if getattr(options, k) != 1]
        lost += [k for k in call.given if k not in other]
        what = "--networks searches rates on random real images"
    else:
        lost = [k for k in ("algorithm", "space") if options.only and k in call.given]
        what = f"--only {options.only} says what is searched"
    if lost:
        names = ", ".join("--" + k.replace("_", "-") for k in lost)
        raise InputError(f"{what}, and has no use for {names}; leave it out")


def _searched(call: Call[RateSearchOptions, DistilConfig]) -> list[str]:
    """The values of `search`'s argument `only`: "" for all, else one for each pair."""
    wanted = {k: call.given[k] for k in ("algorithm", "space") if k in call.given}
    if call.options.only or not wanted:
        return [call.options.only]
    return [
        f"{algorithm}-{system}"
        for algorithm, system in PAIRS
        if wanted.items()
        <= {"algorithm": algorithm, "space": SYSTEMS[system.partition(":")[0]].space}.items()
    ]


COMMAND = Command(
    "rate-search",
    ABOUT,
    RateSearchOptions,
    DistilConfig,
    {name: p.about for name, p in PRESETS.items()},
    "cpu",
    base,
    run,
)
