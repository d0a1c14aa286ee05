"""Gradient norms of Z and c on digits, for every route and decay of the residual, T from 5 to 100.

    python tools/measure_gradients.py

What is measured, and at which loss, is said in `ld3m_min/experiments/gradient_norms.py`. Written to
book/_data/records/gradient-norms-digits.json after each number; a stopped run goes on with the
next.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ld3m_min.data import load_data
from ld3m_min.experiments.gradient_norms import measure, table
from ld3m_min.experiments.places import RECORDS
from ld3m_min.presets import preset
from ld3m_min.prior import LatentDiffusionPrior


def main(records=RECORDS):
    prior = LatentDiffusionPrior.from_pretrained("digits")
    file = Path(records) / "gradient-norms-digits.json"
    record = measure(file, preset("cpu"), load_data("digits"), prior)
    for code in ("Z", "c"):
        print(f"norm of the gradient of {code}\n{table(record, code).to_string()}")


if __name__ == "__main__":
    sys.exit(main())
