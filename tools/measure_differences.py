"""What the differences between paper and public code do to the first gradient, on digits.

    python tools/measure_differences.py

Written to book/_data/records/differences-gradients.json after each difference and seed; a stopped
run goes on with the next. What they do to accuracy is in the records of the grids
`evidence-differences` and `evidence`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ld3m_min.data import load_data
from ld3m_min.experiments.differences import measure
from ld3m_min.experiments.places import RECORDS


def main(records=RECORDS):
    measure(Path(records) / "differences-gradients.json", load_data("digits"))


if __name__ == "__main__":
    sys.exit(main())
