"""`python -m ld3m_min distil FOLDER`: from a folder of one's own images to a set and its report."""

from __future__ import annotations

import shlex
import time
import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld3m_min.commands.command import Call, ruling
from ld3m_min.commands.fields import option
from ld3m_min.commands.options import begin
from ld3m_min.config import DistilConfig, to_dict
from ld3m_min.data.glance import Glance, glance
from ld3m_min.data.loading import load_data
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.experts.buffer import experts_name
from ld3m_min.io import several
from ld3m_min.io.environment import environment, peak_memory
from ld3m_min.io.files import write_json
from ld3m_min.io.paths import expanded, resolved
from ld3m_min.io.progress import say
from ld3m_min.own_folder import Choice, choose
from ld3m_min.presets import eval_preset, preset
from ld3m_min.prior.class_map import ClassMap
from ld3m_min.report.accuracy import DISTILLED, NETWORKS, Judged, judge
from ld3m_min.report.preview import Preview
from ld3m_min.report.report import Run, verdict, write_report
from ld3m_min.report.snapshots import SnapshotKeeper, snapshots
from ld3m_min.report.watch import Watch
from ld3m_min.run import distil
from ld3m_min.run_folder import check_run_folder
from ld3m_min.synthetic import SyntheticSet

if TYPE_CHECKING:
    from ld3m_min.commands.distil import DistilOptions

OWN = "own"  # the preset of such a folder


def own_base(given: Mapping[str, Any]) -> DistilConfig:
    """The preset for a folder: its space by the prior there is, its size by the images' own.

    Args:
        given: fields that were given.

    Raises:
        FileNotFoundError: there is no such prior.
        InputError: the folder is a distilled set, or no folder at all, or the prior does not fit.
    """
    if not given.get("dataset"):
        return preset(OWN, space="pixel", **_ruling(given, ("algorithm", "ipc", "size")))
    chosen = choose(_seen(given), given)
    found: dict[str, Any] = {"space": chosen.space, "size": chosen.size}
    return own_preset(**found | ruling(DistilConfig, given))


def own_preset(**fields: Any) -> DistilConfig:
    """The preset of a folder, with the rate of as many images per class.

    DM matches means: each of ten images of a class gets a tenth of the gradient, so its rate is ten
    times that of one.

    Args:
        **fields: as of :func:`~ld3m_min.presets.preset`.
    """
    made = preset(OWN, **fields)
    if made.algorithm != "DM":
        return made
    return replace(made, lr=float(f"{made.lr * made.ipc:.3g}"))


def _ruling(given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {k: v for k, v in ruling(DistilConfig, given).items() if k in names}


def _seen(given: Mapping[str, Any]) -> Glance:
    """The folder, as looked at."""
    folder = expanded(str(given["dataset"]))
    if not folder.exists():
        raise InputError(
            f"the preset {OWN} is for a folder of images, and there is none called "
            f"{given['dataset']!r}; for a data set by its name take another preset"
        )
    return glance(folder)


def own_out(options: DistilOptions, given: Mapping[str, Any]) -> Path:
    """The folder of the run: the one that was given, or one below runs/ with the images' name."""
    if options.out is not None:
        return options.out
    root = resolved(expanded(str(given["dataset"])))
    return Path("runs") / (root.name if root.is_dir() else root.stem)


def run_own(call: Call[DistilOptions, DistilConfig]) -> None:
    """Distil the folder, measure what the set is worth, write the report.

    Args:
        call: what the command line asks for.

    Raises:
        InputError: what does not fit together.
        Interrupted: it was asked to stop; the same command goes on.
    """
    config, options = call.config, call.options
    if not call.given.get("dataset"):
        raise InputError(
            f"the preset {OWN} is for a folder of images; give it: python -m ld3m_min distil FOLDER"
        )
    seen = _seen(call.given)
    out = own_out(options, call.given)
    _check(seen, out)
    begin(options.device, options.max_seconds)
    check_run_folder(out)
    said = ClassMap.read(options.class_map, options.prompt)
    chosen = choose(seen, call.given)
    data = load_data(config.dataset, path=options.data_path, split=options.split, size=config.size)
    _say_plan(config, data, chosen, out)
    title = f"{data.name}: {config.algorithm} in {config.space} space"
    preview = Preview(out / "preview.html", title, config.iterations, data.classes)
    try:
        made = _distilled(call, data, out, preview, said)
        if not several.is_first():
            return
        _finish(call, chosen, made, data, out, preview)
    except BaseException as error:  # a stop too: the page must not say that it runs
        if preview.begun:  # else the page there is, if any, is of an earlier run
            preview.end(f"It stopped: {error or type(error).__name__}")
        raise


def _check(seen: Glance, out: Path) -> None:
    """Refuse what is wrong before images are read."""
    if resolved(out).is_relative_to(seen.root):
        raise InputError(
            f"the run's folder {out} lies in the folder of the images, where the next reading "
            "would take its pictures for yours; give --out a place outside of it"
        )
    if len(seen.classes) == 1:
        raise InputError(
            f"{seen.root} holds one class, {seen.classes[0]!r}; networks are trained to tell "
            "classes apart: give at least two, each in a subfolder of its own"
        )


def _say_plan(config: DistilConfig, data: DataSplits, chosen: Choice, out: Path) -> None:
    """Print what will be done."""
    held = f"{len(data.validation):,} held out to choose by, {len(data.test):,} to test on"
    each = config.ipc
    say(f"images      {len(data.train):,} to learn from; {held}")
    say(f"classes     {len(data.classes)}: {_shortened(data.classes)}")
    if len(data.train) <= each * len(data.classes):
        warnings.warn(
            f"{len(data.train)} images to learn from make a set of {each * len(data.classes)}: "
            "there is nothing to distil; give more images, or fewer per class",
            stacklevel=2,
        )
    say(f"size        {config.size} px ({chosen.why_size})")
    say(f"space       {config.space} ({chosen.why})")
    say(f"plan        {config.iterations:,} iterations of {config.algorithm}, {each} per class")
    say(f"look        {out / 'preview.html'} in a browser, while it runs")


def _shortened(classes: tuple[str, ...], most: int = 8) -> str:
    """Some class names on one line."""
    from ld3m_min.io.text import shown

    names = [n if len(n) <= 30 else n[:29] + "…" for n in map(shown, classes[:most])]
    return ", ".join(names) + (", ..." if len(classes) > most else "")


def _distilled(
    call: Call[DistilOptions, DistilConfig],
    data: DataSplits,
    out: Path,
    preview: Preview,
    said: ClassMap,
) -> SyntheticSet:
    config, options = call.config, call.options
    keeper = SnapshotKeeper(out / "snapshots", config.iterations, len(data.classes))
    watch = Watch(config.iterations, preview, keeper, say, options.device)
    experts = options.experts
    if config.algorithm == "MTT" and experts is None:
        experts = Path("runs") / experts_name(config, data)
    return distil(
        config,
        data=data,
        out=out,
        callback=watch,
        experts=experts,
        device=options.device,
        class_map=said,
        licence=options.licence,
    )


def _finish(
    call: Call[DistilOptions, DistilConfig],
    chosen: Choice,
    made: SyntheticSet,
    data: DataSplits,
    out: Path,
    preview: Preview,
) -> None:
    """Measure what the set is worth, if asked to, and write the report."""
    config, options = call.config, call.options
    say(f"set         {len(made.labels)} images in {out / 'set'}")
    preview.draw(made.images(), made.history)
    judged, began = None, time.monotonic()
    if options.evaluate:
        judged = _judged(call, made, data, out, preview)
        measured = judged.results[DISTILLED]
        noted = made.with_evaluation(measured.accuracies, data=data.name, split=measured.split)
        noted.save(out / "set")  # whoever is given the set sees what it is worth
    run = Run(
        made=made,
        data=data,
        out=out,
        command=command_line(call),
        changed=changes(config),
        space=f"{config.space} ({chosen.why})",
        size=f"{config.size} px ({chosen.why_size})",
        judged=judged,
        snapshots=tuple(snapshots(out / "snapshots", config.iterations)),
        environment=environment(options.device),
        memory=peak_memory(options.device),
        seconds=time.monotonic() - began,
    )
    write_report(run, out / "report.html")
    write_json(out / "report.json", _record(run))
    preview.end("The run is finished; report.html beside this page says what came of it.")
    if judged is not None:
        say(f"accuracy    {verdict(judged)}")
    say(f"report      {out / 'report.html'}")


def _record(run: Run) -> dict[str, Any]:
    """The numbers of the page, for programs."""
    return {
        "command": run.command,
        "data": run.data.name,
        "images": len(run.made.labels),
        "classes": len(run.data.classes),
        "seconds": {
            "distil": run.made.recipe["seconds"],
            "evaluate_last_sitting": round(run.seconds, 2),
        },
        "peak_memory_bytes": run.memory,
        "environment": dict(run.environment),
        "evaluation": None if run.judged is None else run.judged.record,
    }


def _judged(
    call: Call[DistilOptions, DistilConfig],
    made: SyntheticSet,
    data: DataSplits,
    out: Path,
    preview: Preview,
) -> Judged:
    base = eval_preset(OWN)

    def stage(what: str) -> None:
        say(f"accuracy    {what}")
        preview.stage(what)

    say(
        f"accuracy    {', '.join(NETWORKS)} are trained {base.repeats} times each on the distilled "
        f"images, on as many random ones, and on all; tested on {len(data.test):,} images"
    )
    return judge(
        made,
        data.to(call.options.device),
        base,
        out / "evaluation",
        seed=call.config.seed,
        stage=stage,
    )


def command_line(call: Call[DistilOptions, DistilConfig]) -> str:
    """The command that asks for the same again, word for word as a shell takes it.

    Args:
        call: what a command line asked for.
    """
    given = dict(call.given)
    words = ["python", "-m", "ld3m_min", "distil", str(given.pop("dataset", OWN))]
    words += _words(given)
    for known in fields(call.options):
        value = getattr(call.options, known.name)
        if known.name not in ("config", "dry_run", "max_seconds") and value != known.default:
            words += _word(known.name, value)
    return shlex.join(words)


def _words(given: Mapping[str, Any], before: str = "") -> list[str]:
    """Nested fields as options."""
    words: list[str] = []
    for key, value in given.items():
        if isinstance(value, Mapping):
            words += _words(value, f"{before}{key}.")
        else:
            words += _word(f"{before}{key}", value)
    return words


def _word(path: str, value: object) -> list[str]:
    """One field as an option."""
    if isinstance(value, bool):
        group, _, last = path.rpartition(".")
        named = last if value else f"no_{last}"
        return [option(f"{group}.{named}" if group else named)]
    return [option(path), str(value)]


def changes(config: DistilConfig) -> dict[str, tuple[str, str]]:
    """Settings that differ from the preset's: option -> the preset's value and the run's.

    Args:
        config: of the run.
    """
    plain = own_preset(
        algorithm=config.algorithm, space=config.space, ipc=config.ipc, size=config.size
    )
    was, now = _flat(to_dict(plain)), _flat(to_dict(config))
    found = {option(k): (str(was[k]), str(v)) for k, v in now.items() if was.get(k) != v}
    return {k: v for k, v in found.items() if k != "--dataset"}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested fields by their dotted paths."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{key}.")
        else:
            found[before + key] = value
    return found
