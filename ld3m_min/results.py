"""Records, and tables made from records: section 4.2.

One JSON file a run, in `book/_data/records/`. A table is a function of these files; what is missing is a query, and each
missing cell names the command that makes it. The paper's own numbers are in `book/_data/paper/`, as printed.
"""
from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from . import __version__
from .config import ARCHITECTURES, eval_preset
from .errors import InputError
from .evaluate import EvalResult, evaluate
from .experts import experts_name, train_experts
from .grids import (  # noqa: F401
    GRIDS,
    MEASURED,
    RECORDS,
    RUNS,
    SPACE_NAMES,
    Cell,
    commands,
    grid,
    missing,
    prior_folder,
    prior_path,
)
from .run import distil
from .signals import stoppable
from .spaces import SyntheticSet
from .storage import read_json, write_json
from .viz import join_strip, save_strip

PAPER = RECORDS.parent / "paper"


def commit_of(package):
    """The commit of this project's own repository, "+changes" where files differ from it; "" where the package is installed.

    A package in the `.venv` of somebody's repository is not part of it: git has to know the package's files, and the top of
    the repository has to be this project.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*words):
        try:
            done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=package, env=clean, check=False)  # noqa: S603, S607
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != package.parent or git("ls-files", "--error-unmatch", "__init__.py") is None:
        return ""
    commit = git("rev-parse", "--short=12", "HEAD")
    return commit and commit + ("+changes" if git("status", "--porcelain", "--", ".") else "")


def environment(device="cpu"):
    """What a number was measured with on `device`: versions, device, commit."""
    on_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ld3m_min": __version__,
        "commit": commit_of(Path(__file__).resolve().parent),
        "date": datetime.now(UTC).date().isoformat(),
    }


def peak_memory(device="cpu"):
    """Largest memory so far, bytes: of the allocator on a GPU, else of the whole process."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # not on Windows, where psutil would be needed

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def course_iterations(n):
    """After which iterations of n a picture of the course is taken: eight at most, evenly spaced in their logarithm."""
    return sorted({round(n ** (i / 7)) for i in range(8)}) if n else []


def course_callback(folder, iterations):
    """A callback of `distil` that keeps the first image of the set after each of `course_iterations`, as PNG in `folder`."""
    wanted = course_iterations(iterations)

    def keep(progress):
        if progress.iteration + 1 in wanted:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with torch.no_grad():
                save_strip(progress.space.images()[:1], Path(folder) / f"{progress.iteration + 1:08d}.png")

    return keep


def make_record(cell, data, *, records=RECORDS, runs=RUNS, prior=None, device="cpu", progress=True, architectures=ARCHITECTURES):
    """Distil and evaluate one cell and write its record, with pictures of the set and of its first image's course.

    A stopped run goes on where it was.

    The random baseline draws other real images for each repeat, so that its spread is that of the choice as well.
    """
    config, protocol = cell.config(), eval_preset(cell.preset, ipc=cell.ipc)
    data, training = data.to(device), 0.0
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = time.monotonic()
    if cell.space == "random":
        draws = [replace(config, seed=cell.seed + r) for r in range(protocol.repeats)]
        sets = [distil(c, data=data, device=device, progress=False) for c in draws]
        history = []
    else:
        experts = None
        if cell.algorithm == "MTT":
            folder = Path(runs) / experts_name(config, data)
            experts = train_experts(config, data, folder, device=device, progress=progress)
        training = time.monotonic() - began
        course = Path(runs) / cell.name / "course"
        made = distil(config, data=data, prior=prior, out=Path(runs) / cell.name, experts=experts, device=device,
                      progress=progress, callback=course_callback(course, config.iterations))
        sets, history = [made], made.history
    judged, folder = time.monotonic(), Path(runs) / cell.name / "evaluation"
    took = sets[0].recipe["seconds"] if cell.space != "random" else judged - began  # over all its resumptions
    if cell.space == "random":
        one = replace(protocol, repeats=1)
        parts = [evaluate(s, data, architectures, config=one, seed=r, out=folder / str(r))
                 for r, s in enumerate(sets)]
        result = EvalResult({a: tuple(p.accuracies[a][0] for p in parts) for a in architectures}, protocol.split)
    else:
        result = evaluate(sets[0], data, architectures, config=protocol, progress=progress, out=folder)
    record = {
        "schema": 1,
        "cell": asdict(cell),
        "config": asdict(config),
        "evaluation": asdict(protocol),
        "split": result.split,
        "accuracies": {k: [None if math.isnan(x) else x for x in v] for k, v in result.accuracies.items()},
        "data": sets[0].recipe["data"] | {"files": files_of(data)},
        "prior": sets[0].recipe["prior"],
        "loss": [h.get("loss") for h in history],
        "grad_Z": [h.get("grad_Z") for h in history] if cell.space == "ld3m" else None,
        "seconds_per_iteration": round(took / config.iterations, 3) if config.iterations else None,
        "seconds": {"experts": round(training, 2), "distil": round(took, 2), "evaluate": round(time.monotonic() - judged, 2)},
        "peak_memory_bytes": peak_memory(device),
        "environment": environment(device),
    }
    for folder in (Path(records), Path(runs) / cell.name):
        folder.mkdir(parents=True, exist_ok=True)
    # ImageNet's pictures may not be published: real ones, and the first of a course, which nearly are, stay with the run
    private = Path(runs) / cell.name if data.ids else Path(records)
    save_strip(sets[0].images(), (private if cell.space == "random" else Path(records)) / f"{cell.name}.png")
    if cell.space != "random" and (frames := sorted(course.glob("*.png"))):
        join_strip(frames, private / f"{cell.name}-course.png")
    write_json(Path(records) / f"{cell.name}.json", record)
    return record


def files_of(data):
    """What the image files of an ImageNet subset are, as :class:`~ld3m_min.data.DataSplits` has it; None elsewhere."""
    return data.files if data.ids else None


def load_records(folder=RECORDS):
    """All records of cells in a folder, sorted by name; an empty list where there are none."""
    records = [read_json(f) for f in sorted(Path(folder).glob("*.json"))]
    return [r for r in records if isinstance(r, dict) and "cell" in r]


def as_result(record):
    """The :class:`EvalResult` of a record."""
    accuracies = {k: tuple(math.nan if x is None else x for x in v) for k, v in record["accuracies"].items()}
    return EvalResult(accuracies, record["split"], record["config"]["network"]["name"])


def table(records, dataset="digits", preset="cpu"):
    """Accuracies in per cent, one row a cell: the four unseen networks' mean with its 95 % interval, then each network.

    Returns:
        A pandas DataFrame indexed by (ipc, algorithm, space); empty where no record matches.
    """
    chosen = [r for r in records if r["cell"]["dataset"] == dataset and r["cell"]["preset"] == preset]
    order = list(SPACE_NAMES)
    chosen.sort(key=lambda r: (r["cell"]["ipc"], r["cell"]["algorithm"] != "none", r["cell"]["algorithm"],
                               order.index(r["cell"]["space"])))
    rows = []
    for r in chosen:
        result, cell = as_result(r), r["cell"]
        low, high = result.confidence_interval()
        row = {
            "IPC": cell["ipc"],
            "algorithm": cell["algorithm"].replace("none", "–"),
            "space": SPACE_NAMES[cell["space"]] + (f", {v}" if (v := cell.get("variant")) else ""),
            "unseen": 100 * result.mean(),
            "95 % interval": f"{100 * low:.1f} to {100 * high:.1f}" if low == low else "–",  # one repeat has none
        }
        rows.append(row | {a: 100 * result.mean(a) for a in result.accuracies})
    frame = pd.DataFrame(rows)
    return frame.set_index(["IPC", "algorithm", "space"]).round(1) if len(rows) else frame


def comparisons(records, baseline="random", dataset="digits", preset="cpu"):
    """LD3M against a baseline, cell by cell: difference of the unseen networks' mean, and Welch's p value.

    With "random", repeats differ in the images drawn, too; with "pixel" or "autoencoder", both are single distillations.
    """
    from scipy import stats

    chosen = {(c["space"], c["algorithm"], c["ipc"]): as_result(r).values() for r in records
              if (c := r["cell"])["dataset"] == dataset and c["preset"] == preset and not c.get("variant")}
    rows = []
    for (space, algorithm, ipc), values in sorted(chosen.items()):
        other = chosen.get((baseline, "none" if baseline == "random" else algorithm, ipc))
        if space != "ld3m" or other is None:
            continue
        p = stats.ttest_ind(values, other, equal_var=False).pvalue
        difference = 100 * float(np.mean(values) - np.mean(other))
        rows.append({"IPC": ipc, "algorithm": algorithm, "difference": difference, "p": float(p)})
    return pd.DataFrame(rows)


def paper_table(number, folder=PAPER):
    """Table `number` (1 to 5) of the paper as printed, a long DataFrame."""
    file = Path(folder) / f"table{number}.csv"
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist; the paper has tables 1 to 5")
    return pd.read_csv(file)


def cell_set(cell, runs=RUNS):
    """The distilled set of a cell that was run on this machine."""
    return SyntheticSet.load(Path(runs) / cell.name / "set")


def run_grid(name="digits", *, only="", records=RECORDS, runs=RUNS, device="cpu", progress=True):
    """Make every missing record of a grid, one after the other; returns how many were made.

    Raises:
        ValueError: no such grid or cell. Interrupted: it was asked to stop; the same call goes on.
    """
    from .data import load_data

    todo = [c for c in missing(name, records) if not only or c.name == only]
    if only and not todo and only not in [c.name for c in grid(name)]:
        raise InputError(f"grid {name!r} has no cell {only!r}; it has {', '.join(c.name for c in grid(name))}")
    data = None
    for done, cell in enumerate(todo):
        with stoppable() as stop:
            if stop.reason:
                stop.leave(f"{done} of {len(todo)} cells are finished")
        config = cell.config()
        if data is None or (data.name, data.size) != (config.dataset, config.size):
            data = load_data(config.dataset, size=config.size)
        record = make_record(cell, data, records=records, runs=runs, prior=cell.load_prior(device), device=device,
                             progress=progress)
        print(f"{cell.name}: unseen networks {100 * as_result(record).mean():.1f} %  "
              f"({record['seconds']['distil']:.0f} s + {record['seconds']['evaluate']:.0f} s)", flush=True)
    return len(todo)
