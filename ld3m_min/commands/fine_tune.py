"""`python -m ld3m_min fine-tune`: see :func:`ld3m_min.prior.minimax.fine_tune`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ld3m_min.commands.command import Call, Command
from ld3m_min.commands.options import LongOptions, begin
from ld3m_min.data.loading import check_outside, load_data
from ld3m_min.experiments.places import RECORDS, prior_folder, prior_path
from ld3m_min.prior.class_map import ClassMap
from ld3m_min.prior.criteria import learned_latents
from ld3m_min.prior.fine_tuned_card import finish_fine_tuning
from ld3m_min.prior.fine_tuning_config import FineTuneConfig
from ld3m_min.prior.loading import load_latent_prior
from ld3m_min.prior.minimax import fine_tune
from ld3m_min.prior.presets import FINE_TUNE_PRESETS, fine_tune_preset
from ld3m_min.synthetic import SyntheticSet

ABOUT = """Fine-tune a prior by Minimax's criteria, and write it with its card to OUT/model.

Stopped, it goes on from its last checkpoint when started again with the same words. `distil
--prior OUT/model` then distils through the fine-tuned prior.
"""


@dataclass(frozen=True, kw_only=True)
class FineTuneOptions(LongOptions):
    """Of the run.

    Attributes:
        out: folder of the run; by default runs/prior-PRESET, where the grids look for it.
        codes: folder of a set whose learned latents are remembered in place of real ones, so that
            LD3M comes first and Minimax after it.
        records: folder for the record of what was measured; by default that of the project, or
            OUT/record outside of it.
        class_map: file that says which class of the prior each class of the data is, where the
            names don't: YAML, JSON or CSV, a name or row of the prior for each.
    """

    out: Path | None = None
    codes: Path | None = None
    records: Path | None = None
    class_map: Path | None = None


def base(name: str, given: Mapping[str, Any], options: FineTuneOptions | None) -> FineTuneConfig:
    """The preset."""
    return fine_tune_preset(name)


def run(call: Call[FineTuneOptions, FineTuneConfig]) -> None:
    """Fine-tune, measure and write the prior; print what was measured."""
    config, options = call.config, call.options
    begin(options.device, options.max_seconds)
    out = options.out or prior_folder(call.preset, config.seed)
    said = ClassMap.read(options.class_map)
    found = prior_path(config.prior)
    made = None if options.codes is None else SyntheticSet.load(options.codes)
    data = load_data(config.dataset, size=config.size)
    check_outside(out, data)
    check_outside(options.records, data)
    prior = load_latent_prior(found, device=options.device, classes=data.classes, said=said)
    codes = None if made is None else learned_latents(prior, made, data.classes)
    tuned = fine_tune(prior, data, config, out, codes=codes, device=options.device, class_map=said)
    records = options.records
    if records is None:  # outside of the project nothing is made in its folders
        records = RECORDS if RECORDS.is_dir() else out / "record"
    quality = finish_fine_tuning(
        config, data, tuned, out, records=records, start=found, device=options.device
    )
    for name, before in tuned.before.items():
        print(f"{name}: {before:.4f} -> {tuned.after[name]:.4f}")
    print("\n".join(f"{k}: {v}" for k, v in asdict(quality).items()))
    print(f"prior in {out / 'model'}")


COMMAND = Command(
    "fine-tune",
    ABOUT,
    FineTuneOptions,
    FineTuneConfig,
    {name: p.about for name, p in FINE_TUNE_PRESETS.items()},
    "minimax-digits",
    base,
    run,
)
