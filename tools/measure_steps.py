"""Time steps and the residual on digits: what figures 4 and 5 and table 4 ask, small.

    python tools/measure_steps.py

DM through the shipped prior with T = 5, 10, 20, 40, and with T = 10 without the residual: seconds
per iteration, the norm of the gradient of Z, accuracies. Written to
book/_data/records/steps-digits.json, with the first image of each set beside it, and the snapshots
of three spaces; a stopped run goes on with the next.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from ld3m_min.data import load_data
from ld3m_min.evaluate import evaluate
from ld3m_min.experiments.cells import Cell
from ld3m_min.experiments.places import RECORDS, RUNS
from ld3m_min.experiments.running import snapshot_callback
from ld3m_min.io.environment import environment
from ld3m_min.io.files import read_json, write_json
from ld3m_min.io.pictures import first_of_each, join_strip, save_strip
from ld3m_min.presets import eval_preset
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.residual import NO_RESIDUAL
from ld3m_min.run import distil

VARIANTS = ["", "no-residual", "T5", "T20", "T40"]  # of the grids; "" is T = 10 with the residual
NETWORKS, REPEATS = ("ConvNet", "VGG11"), 3


def main(records=RECORDS, runs=RUNS):
    records, runs = Path(records), Path(runs) / "steps-digits"
    file, data = records / "steps-digits.json", load_data("digits")
    prior = LatentDiffusionPrior.from_pretrained("digits")
    protocol = eval_preset("cpu", repeats=REPEATS)
    for space in ("pixel", "autoencoder", "ld3m-code"):
        config = Cell("digits", "cpu", space, "DM", 1).config()
        folder = runs / space / "snapshots"
        keep = snapshot_callback(folder, config.iterations)
        distil(config, data=data, prior=prior, out=runs / space, progress=False, callback=keep)
        join_strip(
            sorted(folder.glob("*.png")),
            records / f"digits-cpu-{space}-DM-ipc1-course.png",
        )
    empty = {"schema": 1, "what": "time steps and residual, digits, DM, IPC 1", "points": []}
    record = read_json(file) if file.exists() else empty
    done = {(p["T"], p["residual"]) for p in record["points"]}
    for variant in VARIANTS:
        config = Cell("digits", "cpu", "ld3m-code", "DM", 1, variant=variant).config()
        steps, residual = config.sampler.steps, config.sampler.residual != NO_RESIDUAL
        if (steps, residual) in done:
            continue
        name = f"T{steps:02d}" + ("" if residual else "-no-residual")
        made = distil(config, data=data, prior=prior, out=runs / name, progress=False)
        result = evaluate(made, data, NETWORKS, config=protocol)
        record["points"].append(
            {
                "T": steps,
                "residual": residual,
                "accuracies": {a: list(v) for a, v in result.accuracies.items()},
                "seconds_per_iteration": round(made.recipe["seconds"] / config.iterations, 3),
                "grad_Z": [h["grad_Z"] for h in made.history],
                "loss": [h["loss"] for h in made.history],
            }
        )
        save_strip(made.images(), runs / f"{name}.png")
        shown = [f for t in (5, 10, 20, 40) if (f := runs / f"T{t:02d}.png").exists()]
        first_of_each(shown, records / "steps-digits.png")
        write_json(
            file,
            record
            | {
                "config": asdict(config),
                "evaluation": asdict(protocol),
                "environment": environment(),
            },
        )
        print(name, record["points"][-1]["accuracies"], flush=True)


if __name__ == "__main__":
    sys.exit(main())
