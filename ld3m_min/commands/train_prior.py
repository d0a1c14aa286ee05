"""`python -m ld3m_min train-prior`: see :mod:`ld3m_min.prior.train` and `style_train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from ld3m_min.commands.command import Call, Command
from ld3m_min.commands.old_names import translated
from ld3m_min.commands.options import LongOptions, begin
from ld3m_min.commands.own_prior import HOURS, Wish, check_own, laid, plan_of, report, say, slug
from ld3m_min.data.loading import check_outside, load_data
from ld3m_min.data.sides import look_at_folder
from ld3m_min.errors import InputError
from ld3m_min.experiments.places import RECORDS, prior_folder
from ld3m_min.io.devices import checked_device
from ld3m_min.io.paths import expanded, resolved
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.card import called, finish_prior
from ld3m_min.prior.class_map import ClassMap
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.loading import load_latent_prior
from ld3m_min.prior.own_images import OWN
from ld3m_min.prior.presets import PRIOR_PRESETS, prior_preset
from ld3m_min.prior.quality import ImageQuality
from ld3m_min.prior.style_card import finish_style
from ld3m_min.prior.style_config import STYLE_PRESETS, StyleConfig, style_preset
from ld3m_min.prior.style_train import train_style
from ld3m_min.prior.train import train_prior
from ld3m_min.prior.training_log import TrainingLog
from ld3m_min.prior.training_plan import TrainingPlan

ABOUT = """Train a prior, measure it on held-out images, and write it with its card to OUT/model.

Stopped, it goes on from its last checkpoint when started again with the same words; exit code 75
says that there is more to do. `train-prior FOLDER --hours 2` is for a folder with one subfolder of
images per class: it chooses networks and steps by the images, the time and this machine, says so
before it starts, and ends with a verdict. The presets that begin with `style-` are GLaD's
style-based generators, and have options of their own: `train-prior style-digits --help`.
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
        start: name, folder or hub id of a prior to go on from: its autoencoder is kept, but for
            `--decoder-steps` of a decoder that had none, and its denoiser trained `--unet-steps`
            further, for other classes with a new class embedding. An autoencoder alone gets a
            denoiser.
        hours: for a folder of one's own images, all of it together; 2 by default. A training that
            goes on has those that it began with.
        licence: of the images, for the card.
        class_map: file that says which class of the prior to start from each class of the data is,
            where the names don't: YAML, JSON or CSV, a name or row of that prior for each.
    """

    dtype: Literal["float32", "bfloat16"] | None = None
    start: str | None = None
    hours: float | None = None
    licence: str = ""
    class_map: Path | None = None

    def loaded_start(self, classes: Sequence[str] = ()) -> LatentDiffusionPrior | None:
        """The prior to go on from; None for none.

        Args:
            classes: of the data, for a prior that is conditioned on text.
        """
        if self.start is None:
            return None
        return load_latent_prior(self.start, classes=classes)

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """Of the forward passes; None where it wasn't given."""
        return None if self.dtype is None else getattr(torch, self.dtype)


def base(name: str, given: Mapping[str, Any], options: TrainPriorOptions | None) -> PriorConfig:
    """The preset; of a folder of one's own images what does not depend on them."""
    return OWN if name == OWN.name else prior_preset(name)


@dataclass(frozen=True)
class OwnCall(Call[TrainPriorOptions, PriorConfig]):
    """What a command line asks for, with the plan for a folder of one's own images.

    Attributes:
        plan: of the training.
        out: its folder.
        again: whether the plan was kept there.
    """

    plan: TrainingPlan
    out: Path
    again: bool


def run(call: Call[TrainPriorOptions, PriorConfig]) -> None:
    """Train, measure and write the prior; print what was measured."""
    if isinstance(call, OwnCall):
        _run_own(call)
        return
    config, options = call.config, call.options
    begin(options.device, options.max_seconds)
    out = options.out or prior_folder(call.preset, config.seed)
    data = load_data(config.dataset, size=config.size)
    check_outside(out, data)
    check_outside(options.records, data)
    start, said = options.loaded_start(data.classes), ClassMap.read(options.class_map)
    if config.decoder_steps and (had := TrainingLog.of(options.start).decoder_steps):
        print(f"the decoder of {options.start} has had its own {had:,} steps; none are added")
        config = replace(config, decoder_steps=0)
    prior = train_prior(
        config,
        data,
        out,
        device=options.device,
        dtype=options.torch_dtype,
        start=start,
        class_map=said,
    )
    quality = finish_prior(
        config,
        data,
        prior,
        out,
        records=options.record_folder(out),
        start=options.start,
        device=options.device,
        licence=options.licence,
    )
    _print(asdict(quality), out)


def _run_own(call: OwnCall) -> None:
    """Train a prior of one's own images by its plan; print its card's figures and the verdict."""
    config, options, out, plan = call.config, call.options, call.out, call.plan
    begin(options.device, options.max_seconds)
    said = ClassMap.read(options.class_map)
    data = load_data(config.dataset, size=config.size)
    check_outside(out, data)
    check_outside(options.records, data)
    check_own(data)
    start = options.loaded_start(data.classes)
    say(plan, again=call.again)
    config = replace(config, dataset=data.name)  # known by its content, wherever it lies
    prior = train_prior(
        config,
        data,
        out,
        device=options.device,
        dtype=options.torch_dtype,
        start=start,
        pictures=plan.pictures,
        class_map=said,
        # a plan that was kept stays: what is said beside it may be a slip
        begun=None if call.again else partial(plan.save, out),
    )
    quality = finish_prior(
        config,
        data,
        prior,
        out,
        records=options.records or out / "record",  # never among the project's own
        start=options.start,
        device=options.device,
        licence=options.licence,
        made_by=f"train-prior FOLDER --hours {plan.hours:g}"
        + (f" --start {called(options.start)}" if options.start else ""),
    )
    assert isinstance(quality, ImageQuality), "its classifier is a network"
    report(plan, quality, out)


def _planned(call: Call[TrainPriorOptions, PriorConfig]) -> OwnCall:
    """The call with its plan: the one that its folder keeps, or else a new one.

    Raises:
        InputError: no folder of images was given, other hours than before, or no plan can be made.
    """
    options, given = call.options, {k: v for k, v in call.given.items() if k != "dataset"}
    folder = call.given.get("dataset")
    if folder is None:
        raise InputError("train-prior own needs the folder of the images: train-prior FOLDER")
    checked_device(options.device)
    out = options.out or prior_folder(slug(resolved(expanded(folder)).name))
    for place in (out, options.records):  # before the time that a plan takes
        check_outside(place, resolved(expanded(folder)))
    kept = TrainingPlan.read(out)
    if kept is not None and options.hours not in (None, kept.hours):
        raise InputError(
            f"{out} has a training of {kept.hours:g} hours, not {options.hours:g}; give the same "
            "or leave --hours out to go on with it, or give another --out"
        )
    if kept is not None:
        plan = replace(kept, config=laid(kept.config, given))
    else:
        on_gpu = torch.device(options.device).type == "cuda"
        dtype = options.torch_dtype or (torch.bfloat16 if on_gpu else torch.float32)
        start = options.loaded_start(look_at_folder(folder).classes)
        hours = HOURS if options.hours is None else options.hours
        wish = Wish(hours, given, start, options.start or "", options.device, dtype)
        plan = plan_of(folder, wish)
    config = replace(plan.config, dataset=str(folder))
    return OwnCall(call.preset, call.given, config, options, plan, Path(out), kept is not None)


def run_style(call: Call[PriorOptions, StyleConfig]) -> None:
    """Train, measure and write the generator; print what was measured."""
    config, options = call.config, call.options
    begin(options.device, options.max_seconds)
    out = options.out or prior_folder(call.preset, config.seed)
    data = load_data(config.dataset, size=config.size)
    check_outside(out, data)
    check_outside(options.records, data)
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

    def resolved(self, words: Sequence[str]) -> Call[TrainPriorOptions, PriorConfig]:
        """What the words ask for; a folder of one's own images has its sizes chosen.

        Raises:
            InputError: a preset, field or value is unknown or doesn't fit.
            SystemExit: an option is unknown (code 2).
        """
        call = super().resolved(words)
        if call.preset == self.own:
            return _planned(call)
        if call.options.hours is not None:
            raise InputError(
                f"--hours is for a folder of one's own images; the preset {call.preset} has its "
                "own steps, see --vae-steps and --unet-steps"
            )
        return call

    def _print(self, call: Call[TrainPriorOptions, PriorConfig]) -> None:
        """The configuration as YAML, below the plan of a folder of one's own images."""
        if isinstance(call, OwnCall):
            print("\n".join(f"# {line}" for line in call.plan.table().splitlines()))
            if call.plan.warning:
                print(f"# too little time: {call.plan.warning}")
        super()._print(call)


COMMAND = TrainPrior(
    "train-prior",
    ABOUT,
    TrainPriorOptions,
    PriorConfig,
    {
        **{name: p.about or "the shipped prior of the digits" for name, p in PRIOR_PRESETS.items()},
        OWN.name: "a folder of your own images, whose name may stand here in its place",
    },
    "digits",
    base,
    run,
    own=OWN.name,
)
