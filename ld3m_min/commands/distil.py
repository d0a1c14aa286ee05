"""`python -m ld3m_min distil`: see :func:`ld3m_min.run.distil`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ld3m_min.backprop import Plan
from ld3m_min.commands.command import Call, Command, ruling
from ld3m_min.commands.fields import option
from ld3m_min.commands.options import DataOptions, begin
from ld3m_min.commands.own_folder import OWN, own_base, run_own
from ld3m_min.config import ALGORITHM_OF, DistilConfig, to_dict, unused_settings
from ld3m_min.data.loading import load_data
from ld3m_min.errors import InputError
from ld3m_min.experts.buffer import experts_name
from ld3m_min.io import several
from ld3m_min.presets import PRESETS, preset
from ld3m_min.prior.class_map import ClassMap
from ld3m_min.run import distil
from ld3m_min.run_folder import check_run_folder

ABOUT = """Distil a data set into OUT/set.

Stopped, it goes on from its last checkpoint when started again with the same words. `--plan NAME`
sets all options of a memory plan: auto, one-pass, decoder, selective, per-step, chunks or two-pass.

Several GPUs share one run: torchrun --nproc-per-node N -m ld3m_min distil ... --device cuda.

A FOLDER of your own images, one subfolder a class, may stand in the preset's place. Its space is
chosen by the prior that `--prior` names, or is that of pixels; OUT/preview.html shows the run while
it goes on, and OUT/report.html what came of it; OUT/report.json has its numbers.
"""


@dataclass(frozen=True, kw_only=True)
class DistilOptions(DataOptions):
    """Of the run.

    Attributes:
        out: folder of the run; the distilled set is written to its subfolder `set`. By default
            runs/distil, or, for a folder of your own images, one below runs/ with its name.
        experts: folder of MTT's experts, by default where `ld3m_min experts` puts them; missing
            ones are trained.
        class_map: file that says which class of the prior each class of the data is, where the
            names don't: YAML, JSON or CSV, a name or row of the prior for each; for a prior that is
            conditioned on text, the whole prompt of each.
        prompt: of a prior that is conditioned on text, with {} where a class's name belongs; by
            default "a photo of a {}".
        licence: of the images, such as CC-BY-4.0, for the card of the set.
        evaluate: of a folder of your own images: train networks on the set, on as many random real
            images and on all of them, for the report.
    """

    out: Path | None = None
    experts: Path | None = None
    class_map: Path | None = None
    prompt: str | None = None
    licence: str | None = None
    evaluate: bool = True


def base(name: str, given: Mapping[str, Any], options: DistilOptions | None) -> DistilConfig:
    """The preset, for what is matched, what is learned, the images per class and their size."""
    made = own_base(given) if name == OWN else preset(name, **ruling(DistilConfig, given))
    _check_plan({**to_dict(made.plan), **given.get("plan", {})})
    if options is not None and options.config is None:  # a file may hold every field
        _say_unused(made, given, options)
    return made


def _say_unused(made: DistilConfig, given: Mapping[str, Any], options: DistilOptions) -> None:
    """Warn of what was given and has no effect.

    Args:
        made: the preset, with the algorithm and space that were given.
        given: fields that were given.
        options: of the run.
    """
    unused = {
        name: made.algorithm if name in ALGORITHM_OF else f"space {made.space}"
        for name in given
        if name in unused_settings(made)
    }
    if options.experts is not None and made.algorithm != "MTT":
        unused["experts"] = made.algorithm
    if unused:
        named = ", ".join(f"{option(k)} with {what}" for k, what in unused.items())
        warnings.warn(f"without effect: {named}", stacklevel=2)


def _check_plan(plan: Mapping[str, Any]) -> None:
    """Refuse what `--plan.auto` would choose otherwise, and so ignore."""
    chosen = Plan()
    kept = {*chosen.backend, "auto", "probe"}
    ignored = [k for k, v in to_dict(chosen).items() if k not in kept and plan[k] != v]
    if plan["auto"] and ignored:
        raise InputError(
            f"plan.{ignored[0]} is chosen by plan.auto; add --plan.no-auto, or leave it out"
        )


def run(call: Call[DistilOptions, DistilConfig]) -> None:
    """Distil, and say where the set is."""
    device = str(several.joined(call.options.device))
    call = replace(call, options=replace(call.options, device=device))
    run_own(call) if call.preset == OWN else _run_preset(call)


def _run_preset(call: Call[DistilOptions, DistilConfig]) -> None:
    config, options = call.config, call.options
    out = Path("runs/distil") if options.out is None else options.out
    begin(options.device, options.max_seconds)
    check_run_folder(out)  # before the images are read
    said = ClassMap.read(options.class_map, options.prompt)
    data = load_data(config.dataset, path=options.data_path, split=options.split, size=config.size)
    experts = options.experts
    if config.algorithm == "MTT" and experts is None:
        experts = Path("runs") / experts_name(config, data)
    made = distil(
        config,
        data=data,
        out=out,
        experts=experts,
        device=options.device,
        class_map=said,
        licence=options.licence,
    )
    print(f"{len(made.labels)} images in {out / 'set'}")


COMMAND = Command(
    "distil",
    ABOUT,
    DistilOptions,
    DistilConfig,
    {name: p.about for name, p in PRESETS.items()},
    "cpu",
    base,
    run,
    OWN,
)
