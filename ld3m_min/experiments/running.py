"""Run the cells of a grid: distil, evaluate, write the record (section 4.2)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ld3m_min.config import ARCHITECTURES, DistilConfig, EvalConfig
from ld3m_min.coresets import select
from ld3m_min.data.loading import load_data
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.evaluate.cross_architecture import EvalResult, evaluate
from ld3m_min.evaluate.teacher import teacher_labels
from ld3m_min.experiments.cells import SOFT_LABELS, Cell
from ld3m_min.experiments.grids import grid, missing
from ld3m_min.experiments.places import RECORDS, RUNS
from ld3m_min.experiments.records import as_result
from ld3m_min.experts.train import experts_below
from ld3m_min.generated import DRAWS, draw
from ld3m_min.io.environment import environment, files_of, peak_memory
from ld3m_min.io.files import write_json
from ld3m_min.io.pictures import join_strip, save_strip
from ld3m_min.io.stop import stoppable
from ld3m_min.presets import eval_preset, for_larger_sets
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.loading import AnyPrior
from ld3m_min.run import Progress, distil
from ld3m_min.synthetic import SyntheticSet

SNAPSHOTS = "snapshots"  # folder of a run, and end of a picture's name
SEEDS_APART = 1000  # between the draws of one seed and those of the next


@dataclass(frozen=True)
class Made:
    """The sets of a cell, and what they took.

    Attributes:
        sets: one; of the random baseline, one for each repeat of the evaluation.
        history: of the distillation; nothing of the random baseline.
        expert_seconds: that the training of the experts took.
        seconds: that the rest took; of a distillation, over all its resumptions.
    """

    sets: list[SyntheticSet]
    history: tuple[dict[str, Any], ...]
    expert_seconds: float
    seconds: float


def snapshot_iterations(n: int) -> list[int]:
    """After which iterations a snapshot of the images is taken.

    These are eight at most, evenly spaced in their logarithm.

    Args:
        n: how many iterations there are.
    """
    return sorted({round(n ** (i / 7)) for i in range(8)}) if n else []


def snapshot_callback(folder: str | Path, iterations: int) -> Callable[[Progress], None]:
    """A callback of `distil` that keeps the first image after each of `snapshot_iterations`.

    Args:
        folder: of the PNG files, each named by its iteration.
        iterations: how many there are.
    """
    wanted = snapshot_iterations(iterations)

    def keep(progress: Progress) -> None:
        done = progress.iteration + 1
        if done in wanted:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with torch.no_grad():
                save_strip(progress.space.images()[:1], Path(folder) / f"{done:08d}.png")

    return keep


def make_record(
    cell: Cell,
    data: DataSplits,
    *,
    records: str | Path = RECORDS,
    runs: str | Path = RUNS,
    prior: AnyPrior | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
    architectures: Sequence[str] = ARCHITECTURES,
) -> dict[str, Any]:
    """Distil and evaluate one cell and write its record.

    Beside it stand pictures of the set and of its first image's snapshots. A stopped run goes on
    where it was. The random baseline draws other real images for each repeat, so that its spread is
    that of the choice as well.

    Args:
        cell: of a grid.
        data: at the cell's size.
        records: folder of the records.
        runs: folder of the runs.
        prior: of the cell's space; None loads what its configuration names.
        device: where it is run.
        progress: show bars.
        architectures: that are evaluated.

    Returns:
        What the file holds.

    Raises:
        Interrupted: it was asked to stop; the same call goes on.
    """
    config, data, run = cell.config(), data.to(device), Path(runs) / cell.name
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    if cell.space == "random":
        made = _draw(config, data, eval_preset(cell.preset).repeats, device)
    elif cell.system.how == "chosen":
        made = _timed(lambda: select(data, cell.ipc, cell.space, seed=cell.seed))
    elif cell.space in DRAWS:
        found = prior or cell.load_prior(device)
        assert isinstance(found, LatentDiffusionPrior), "samples are drawn from such a prior"
        latent = found
        made = _timed(lambda: draw(cell.space, config, data, latent))
    else:
        made = _distil(cell, config, data, prior, Path(runs), device, progress)
    per_class = len(made.sets[0].labels) / len(data.classes)
    protocol = eval_preset(cell.preset, ipc=cell.ipc, per_class=per_class)
    began, labels = time.monotonic(), _taught(cell, made.sets, data)
    if cell.space == "random":
        result = _evaluate_each(made.sets, labels, data, architectures, protocol, run)
    else:
        result = evaluate(
            made.sets[0],
            data,
            architectures,
            config=protocol,
            progress=progress,
            out=run / "evaluation",
            labels=labels[0],
        )
    record = _record(cell, config, protocol, data, made, result, time.monotonic() - began, device)
    _write(cell, record, made.sets[0], Path(records), run, private=bool(data.ids))
    return record


def _taught(
    cell: Cell, sets: Sequence[SyntheticSet], data: DataSplits
) -> list[Float[Tensor, "B K"]] | list[None]:
    """A teacher's labels for each set, where the cell is of that variant.

    Args:
        cell: of a grid.
        sets: of the cell, of equal size.
        data: on the device.
    """
    if cell.variant != SOFT_LABELS:
        return [None] * len(sets)
    each = len(data.train) / len(data.classes)
    protocol = for_larger_sets(eval_preset(cell.preset), each)
    images = torch.cat([one.images() for one in sets])
    return list(teacher_labels(images, data, protocol, seed=cell.seed).chunk(len(sets)))


def _timed(make: Callable[[], SyntheticSet]) -> Made:
    """A set that is not learned, and how long it took.

    Args:
        make: makes the set.
    """
    began = time.monotonic()
    one = make()
    return Made([one], (), 0.0, time.monotonic() - began)


def _draw(config: DistilConfig, data: DataSplits, repeats: int, device: str | torch.device) -> Made:
    """The random baseline: sets of real images, drawn anew for each repeat.

    Cells of other seeds share none of them, so that they can be compared as units.

    Args:
        config: of no iterations.
        data: on the device.
        repeats: how many sets.
        device: where the data is.
    """
    began = time.monotonic()
    draws = [replace(config, seed=SEEDS_APART * config.seed + r) for r in range(repeats)]
    sets = [distil(c, data=data, device=device, progress=False) for c in draws]
    return Made(sets, (), 0.0, time.monotonic() - began)


def _distil(
    cell: Cell,
    config: DistilConfig,
    data: DataSplits,
    prior: AnyPrior | None,
    runs: Path,
    device: str | torch.device,
    progress: bool,
) -> Made:
    """The distilled set of a cell, with snapshots; its experts first, where it needs them.

    Args:
        cell: of a grid.
        config: of the cell.
        data: on the device.
        prior: None loads what the configuration names, where one is needed.
        runs: folder of the runs; experts are shared between them.
        device: where it is run.
        progress: show bars.
    """
    began, run = time.monotonic(), runs / cell.distilled.name
    experts = experts_below(runs, config, data, device=device, progress=progress)
    expert_seconds = time.monotonic() - began
    made = distil(
        config,
        data=data,
        prior=prior,
        out=run,
        experts=experts,
        device=device,
        progress=progress,
        callback=snapshot_callback(run / SNAPSHOTS, config.iterations),
    )
    return Made([made], made.history, expert_seconds, made.recipe["seconds"])


def _evaluate_each(
    sets: Sequence[SyntheticSet],
    labels: Sequence[Float[Tensor, "B K"] | None],
    data: DataSplits,
    architectures: Sequence[str],
    protocol: EvalConfig,
    run: Path,
) -> EvalResult:
    """One training of each architecture on each set, as the repeats of one result.

    Args:
        sets: one for each repeat.
        labels: of each to train on; None for its own.
        data: whose held-out images are classified.
        architectures: that are trained.
        protocol: of the evaluation.
        run: folder of the cell's run, which keeps what is finished.
    """
    one = replace(protocol, repeats=1)
    parts = [
        evaluate(
            s, data, architectures, config=one, seed=r, out=run / "evaluation" / str(r), labels=y
        )
        for r, (s, y) in enumerate(zip(sets, labels, strict=True))
    ]
    accuracies = {a: tuple(p.accuracies[a][0] for p in parts) for a in architectures}
    return EvalResult(accuracies, protocol.split)


def _record(
    cell: Cell,
    config: DistilConfig,
    protocol: EvalConfig,
    data: DataSplits,
    made: Made,
    result: EvalResult,
    seconds: float,
    device: str | torch.device,
) -> dict[str, Any]:
    """What the record of a cell holds, as JSON has it.

    Args:
        cell: of a grid.
        config: of the cell.
        protocol: of the evaluation.
        data: that was distilled.
        made: its sets.
        result: the accuracies.
        seconds: that the evaluation took.
        device: where all of it was run.
    """
    recipe, n = made.sets[0].recipe, config.iterations
    learned = ("Z", "c") if n > 0 and config.space == "ld3m" else ()
    return {
        "schema": 1,
        "cell": asdict(cell),
        "config": asdict(config),
        "evaluation": asdict(protocol),
        "split": result.split,
        "accuracies": {
            k: [None if math.isnan(x) else x for x in v] for k, v in result.accuracies.items()
        },
        "data": recipe["data"] | {"files": files_of(data)},
        "prior": recipe["prior"] or recipe.get("drawn", {}).get("prior"),
        "bytes": asdict(made.sets[0].storage()),
        "selection": _without_positions(recipe.get("selection")),
        "loss": [h.get("loss") for h in made.history],
        **{
            f"grad_{k}": [h.get(f"grad_{k}") for h in made.history] if k in learned else None
            for k in ("Z", "c")
        },
        "seconds_per_iteration": round(made.seconds / n, 3) if n else None,
        "seconds": {
            "experts": round(made.expert_seconds, 2),
            "distil": round(made.seconds, 2),
            "evaluate": round(seconds, 2),
        },
        "peak_memory_bytes": peak_memory(device),
        "environment": environment(device),
    }


def _without_positions(selection: dict[str, Any] | None) -> dict[str, Any] | None:
    """How real images were chosen, without the list of them; None where none were."""
    return selection and {k: v for k, v in selection.items() if k != "positions"}


def _write(
    cell: Cell,
    record: dict[str, Any],
    made: SyntheticSet,
    records: Path,
    run: Path,
    *,
    private: bool,
) -> None:
    """Write a record, and pictures of the set and of its snapshots.

    Args:
        cell: of a grid.
        record: of the cell.
        made: the set that is shown.
        records: folder of the records.
        run: folder of the cell's run.
        private: whether real images may not be published, as ImageNet's: they stay with the run.
            So do snapshots in pixel and autoencoder space, the first of which nearly are real
            images.
    """
    for folder in (records, run):
        folder.mkdir(parents=True, exist_ok=True)
    real = run if private else records
    chosen = cell.system.how == "chosen"
    save_strip(made.images(), (real if chosen else records) / f"{cell.name}.png")
    if not chosen and (frames := sorted((run / SNAPSHOTS).glob("*.png"))):
        place = records if cell.system.space == "ld3m" else real
        join_strip(frames, place / f"{cell.name}-{SNAPSHOTS}.png")
    write_json(records / f"{cell.name}.json", record)


def run_grid(
    name: str = "digits",
    *,
    only: str = "",
    records: str | Path = RECORDS,
    runs: str | Path = RUNS,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> int:
    """Make every missing record of a grid, one after the other.

    Args:
        name: of the grid.
        only: the name of one cell; "" for all.
        records: folder of the records.
        runs: folder of the runs.
        device: where they are run.
        progress: show bars.

    Returns:
        How many were made.

    Raises:
        InputError: no such grid or cell.
        Interrupted: it was asked to stop; the same call goes on.
    """
    todo = [c for c in missing(name, records) if not only or c.name == only]
    names = [c.name for c in grid(name)]
    if only and not todo and only not in names:
        near = [n for n in names if only in n] or get_close_matches(only, names, 3, 0) or names
        raise InputError(
            f"grid {name!r} has no cell {only!r}; of its {len(names)} cells the nearest are "
            f"{', '.join(near[:3])}"
        )
    data = None
    for done, cell in enumerate(todo):
        with stoppable() as stop:
            if stop.reason:
                stop.leave(f"{done} of {len(todo)} cells are finished")
        config = cell.config()
        if data is None or (data.name, data.size) != (config.dataset, config.size):
            data = load_data(config.dataset, size=config.size)
        record = make_record(
            cell,
            data,
            records=records,
            runs=runs,
            prior=cell.load_prior(device),
            device=device,
            progress=progress,
        )
        print(
            f"{cell.name}: unseen networks {100 * as_result(record).mean():.1f} %  "
            f"({record['seconds']['distil']:.0f} s + {record['seconds']['evaluate']:.0f} s)",
            flush=True,
        )
    return len(todo)
