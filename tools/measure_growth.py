"""How sets of digits change while they are distilled, and what they are worth on the way.

    python tools/measure_growth.py

DM, one image per class, preset `evidence`, the first seed of each system. Written to
book/_data/records/growth-digits.json, one entry a system, each with a picture; a stopped run goes
on with the next.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ld3m_min.data import load_data
from ld3m_min.experiments.growth import accuracies_after, measure
from ld3m_min.experiments.places import RECORDS, RUNS
from ld3m_min.presets import eval_preset, preset
from ld3m_min.prior import LatentDiffusionPrior

CHANCE = 0.1  # of ten classes
SYSTEMS = ("ld3m-code", "ld3m-paper", "autoencoder", "pixel")


def main(records=RECORDS, runs=RUNS):
    entries = measure(
        Path(records) / "growth-digits.json",
        {s: preset("evidence", algorithm="DM", space=s) for s in SYSTEMS},
        load_data("digits"),
        LatentDiffusionPrior.from_pretrained("digits"),
        eval_preset("evidence"),
        runs=Path(runs) / "growth-digits",
    )
    for entry in entries:
        means = accuracies_after(entry, CHANCE)
        print(entry["system"], ", ".join(f"{n}: {100 * v:.1f} %" for n, v in means.items()))


if __name__ == "__main__":
    sys.exit(main())
