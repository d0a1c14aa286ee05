"""The commands: `python -m ld3m_min distil | evaluate | experts | train-prior | tune | table | plan`."""
from __future__ import annotations

import itertools
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro

from . import config as settings
from .devices import checked_device
from .errors import InputError
from .signals import stop_after

Device = Annotated[str, tyro.conf.arg(help="cpu, cuda, ...")]
DataPath = Annotated[Path | None, tyro.conf.arg(help="where the images of a named data set lie; default: LD3M_DATA")]
Seconds = Annotated[float | None, tyro.conf.arg(help="stop after this long, with what is done saved and exit code 75")]
Split = Annotated[Literal["paper", "fastai"] | None, tyro.conf.arg(help="of ImageNet subsets")]


def _begin(device, max_seconds=None):
    """Refuse what is wrong before anything is loaded, and start the clock."""
    checked_device(device)
    if max_seconds is not None and not 0 <= max_seconds < math.inf:
        raise InputError(f"--max-seconds must be a number of seconds from 0 on, not {max_seconds}")
    stop_after(max_seconds)


def distil(
    preset: str = "cpu",
    algorithm: Literal["DC", "DM", "MTT"] = "DM",
    space: Literal["pixel", "autoencoder", "ld3m"] = "ld3m",
    dataset: str | None = None,
    ipc: int = 1,
    size: int | None = None,
    iterations: int | None = None,
    lr: float | None = None,
    prior: str | None = None,
    seed: int = 0,
    plan: Literal["auto", "one-pass", "decoder", "selective", "per-step", "chunks", "two-pass"] | None = None,
    precision: Literal["float32", "bfloat16"] | None = None,
    experts: Path | None = None,
    out: Path = Path("runs/distil"),
    data_path: DataPath = None,
    split: Split = None,
    device: Device = "cpu",
    max_seconds: Seconds = None,
) -> None:
    """Distil a data set ("digits", "imagenette", ..., or a folder with one subfolder of images per class) into `out`/set.

    `dataset` defaults to the preset's. MTT's experts are those in `experts`, by default where `ld3m_min experts` puts
    them; missing ones are trained. Stopped, it goes on from its last checkpoint when started again with the same arguments.
    """
    from dataclasses import replace

    from .backprop import AUTO, PLANS
    from .data import load_data
    from .experts import experts_name
    from .run import distil as run

    _begin(device, max_seconds)
    given = {"size": size, "iterations": iterations, "lr": lr, "prior": prior, "plan": plan and ({"auto": AUTO} | PLANS)[plan]}
    overrides = {k: v for k, v in given.items() if v is not None}
    config = settings.preset(preset, algorithm=algorithm, space=space, ipc=ipc, seed=seed, **overrides)
    if precision:
        config = replace(config, plan=replace(config.plan, precision=precision))
    data = load_data(config.dataset if dataset is None else dataset, path=data_path, split=split, size=config.size)
    if algorithm == "MTT" and experts is None:
        experts = Path("runs") / experts_name(config, data)
    run(config, data=data, out=out, experts=experts, device=device)
    print(f"{len(data.classes) * ipc} images in {out / 'set'}")


def evaluate(
    folder: tyro.conf.Positional[Path],
    dataset: str = "digits",
    preset: str = "cpu",
    architectures: tuple[str, ...] = settings.ARCHITECTURES,
    repeats: int | None = None,
    split: Literal["validation", "test"] = "test",
    seed: int = 0,
    data_path: DataPath = None,
    data_split: Split = None,
    out: Path | None = None,
    device: Device = "cpu",
    max_seconds: Seconds = None,
) -> None:
    """Train networks on the set in `folder` and print their accuracy on real images.

    With `out`, each training is kept there: stopped, the evaluation goes on when started again with the same arguments.
    """
    from .data import load_data
    from .evaluate import evaluate as run
    from .spaces import SyntheticSet

    _begin(device, max_seconds)
    synthetic = SyntheticSet.load(folder)
    data = load_data(dataset, path=data_path, split=data_split, size=synthetic.images().shape[-1]).to(device)
    changes = {"split": split} | ({} if repeats is None else {"repeats": repeats})
    protocol = settings.eval_preset(preset, ipc=synthetic.ipc, **changes)
    result = run(synthetic, data, architectures, config=protocol, seed=seed, progress=True, out=out)
    for a in result.accuracies:
        low, high = result.confidence_interval(a)
        print(f"{a:10s} {100 * result.mean(a):5.1f} %   95 % interval {100 * low:.1f} to {100 * high:.1f}")
    print(f"{'unseen':10s} {100 * result.mean():5.1f} %   ({split} split, {len(result.values())} repeats)")


def experts(
    preset: str = "cpu",
    dataset: str | None = None,
    size: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    data_path: DataPath = None,
    split: Split = None,
    device: Device = "cpu",
    max_seconds: Seconds = None,
) -> None:
    """Train the expert trajectories of a preset; those already there are kept, unfinished ones go on after their last epoch."""
    from .data import load_data
    from .experts import experts_name, train_experts

    _begin(device, max_seconds)
    config = settings.preset(preset, algorithm="MTT", seed=seed, **({} if size is None else {"size": size}))
    data = load_data(config.dataset if dataset is None else dataset, path=data_path, split=split, size=config.size)
    folder = out or Path("runs") / experts_name(config, data)
    buffer = train_experts(config, data, folder, device=device)
    print(f"{len(buffer)} experts in {folder}")


def train_prior(
    preset: str = "digits",
    out: Path | None = None,
    seed: int = 0,
    device: Device = "cpu",
    dtype: Literal["float32", "bfloat16"] | None = None,
    max_seconds: Seconds = None,
    records: Path | None = None,
) -> None:
    """Train a prior, measure it on held-out images, and write it with its model card to `out`/model.

    `out` defaults to runs/prior-PRESET, where the grids look for it. `dtype` is of the forward passes: bfloat16 on a GPU,
    float32 elsewhere, unless given. Stopped, or after `max_seconds`, it goes on from its last checkpoint when started again
    with the same arguments; exit code 75 says that there is more to do.
    """
    import torch

    from .data import load_data
    from .results import RECORDS, prior_folder
    from .train_prior import finish_prior, prior_preset
    from .train_prior import train_prior as run

    _begin(device, max_seconds)
    config = prior_preset(preset, seed=seed)
    out = out or prior_folder(preset, seed)
    data = load_data(config.dataset, size=config.size)
    prior = run(config, data, out, device=device, dtype=dtype and getattr(torch, dtype))
    if records is None:
        records = RECORDS if RECORDS.is_dir() else out / "record"  # outside of the project nothing is made in its folders
    quality = finish_prior(config, data, prior, out, records=records, device=device)
    print("\n".join(f"{k}: {v}" for k, v in asdict(quality).items()))
    print(f"prior in {out / 'model'}")


def table(grid: str | None = None, missing: bool = False, run: bool = False, only: str = "", device: Device = "cpu",
          max_seconds: Seconds = None, records: Path | None = None) -> None:
    """Print a grid's table from its records; list what is missing, of that grid or of all; or run it (`--run`).

    The grid defaults to that of the digits. After `max_seconds` a run saves and leaves with exit code 75; the same command
    goes on.
    """
    from . import results

    _begin(device, max_seconds)
    records = results.RECORDS if records is None else records
    if missing:
        print("\n".join(results.commands((grid,) if grid else results.MEASURED, records)) or "nothing is missing")
        return
    grid = grid or "digits"
    if run:
        results.run_grid(grid, only=only, records=records, device=device)
    absent, cells = results.missing(grid, records), results.grid(grid)
    frame = results.table([r for r in results.load_records(records) if results.Cell(**r["cell"]) in cells],
                          cells[0].dataset, cells[0].preset)
    print(frame.to_string() if len(frame) else "no records yet")
    if absent:
        print(f"{len(absent)} of {len(cells)} cells are missing; `table --missing` lists them with their commands")


def tune(preset: str = "cpu", dataset: str | None = None, repeats: int = 1, iterations: int | None = None,
         only: str = "", device: Device = "cpu", max_seconds: float | None = None,
         records: Path | None = None) -> None:
    """Search the learning rates of a preset on held-out training images; every try is recorded, and none made twice.

    `only`, as in "DM-ld3m", searches one algorithm and space; `iterations` shortens every try. After `max_seconds` it
    leaves with exit code 75; the same command goes on.
    """
    from .data import load_data
    from .results import RECORDS
    from .tune import search

    _begin(device, max_seconds)
    config = settings.preset(preset)
    data = load_data(config.dataset if dataset is None else dataset, size=config.size)
    records = RECORDS if records is None else records
    best = search(preset, data, records=records, repeats=repeats, iterations=iterations, only=only, device=device)
    for (algorithm, space), lr in best.items():
        print(f"{algorithm:4s} {space:12s} lr = {lr:g}")


def plan(
    preset: str = "cpu",
    algorithm: Literal["DC", "DM", "MTT"] = "DC",
    space: Literal["autoencoder", "ld3m"] = "ld3m",
    ipc: int = 1,
    size: int | None = None,
    steps: Annotated[int | None, tyro.conf.arg(help="T")] = None,
    prior: str | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    memory: Annotated[float | None, tyro.conf.arg(help="GiB to fit in; default: the device's")] = None,
    classes: Annotated[int | None, tyro.conf.arg(help="of the data; default: the prior's")] = None,
    probe: Annotated[bool, tyro.conf.arg(help="measure some passes, to predict seconds")] = True,
    device: Device = "cpu",
) -> None:
    """Predict memory and time of one iteration under every plan, and say which one a run would take.

    Memory and operations are counted without running anything, also for a GPU that is not there (`--device cuda
    --no-probe --memory 80`); seconds come from short passes on the device.
    """
    from dataclasses import replace

    from .backprop import Plan
    from .planner import SHARE, device_bytes, forecasts
    from .planner import probe as seconds
    from .prior import LatentDiffusionPrior

    if probe:
        checked_device(device)  # without a probe it may be one that is not there
    if memory is not None and not 0 < memory < math.inf:
        raise InputError(f"--memory must be a number of GiB above 0, not {memory}")
    if classes is not None and classes < 1:
        raise InputError(f"--classes must be at least 1, not {classes}")
    given = {k: v for k, v in {"size": size, "prior": prior}.items() if v is not None}
    config = settings.preset(preset, algorithm=algorithm, space=space, ipc=ipc, plan=Plan(precision=precision), **given)
    if steps is not None:
        config = replace(config, sampler=replace(config.sampler, steps=steps))
    loaded = LatentDiffusionPrior.from_pretrained(config.prior, device=device if probe else "cpu")
    room = SHARE * (device_bytes(device) if memory is None else memory * 2**30)
    chosen = None
    print(f"{'plan':10s} {'peak MiB':>10s} {'weights':>8s} {'TFLOP':>8s}" + (f" {'generator s':>12s}" if probe else ""))
    for row in forecasts(loaded, config, device=device, classes=classes):
        fits = row.total_bytes <= room
        mark = "" if fits else "  does not fit"
        if fits and chosen is None:
            chosen, mark = row, "  <- the fastest that fits"
        measured = f" {seconds(loaded, config, row.plan, device=device, classes=classes):12.3f}" if probe and fits else ""
        numbers = f"{row.peak_bytes / 2**20:10.1f} {row.weight_bytes / 2**20:8.1f} {row.flops / 1e12:8.3f}"
        print(f"{row.name:10s} {numbers}{measured}{mark}", flush=True)
    if chosen is None:
        raise InputError(f"no plan fits in {room / 2**30:.1f} GiB; lower --ipc or --size, or take --precision bfloat16")


def run() -> None:
    """Parse the command line and run its command; what goes wrong is the caller's to say (`__main__`)."""
    if empty := [before for before, word in itertools.pairwise(sys.argv) if not word.strip()]:
        raise InputError(f"an empty value was given after {empty[0]!r}; leave the option out for its default")
    commands = {"distil": distil, "evaluate": evaluate, "experts": experts, "train-prior": train_prior, "tune": tune,
                "table": table, "plan": plan}
    tyro.extras.subcommand_cli_from_dict(commands, prog="ld3m_min", description=__doc__)
