"""`python -m ld3m_min real-images`: see :func:`ld3m_min.experiments.real_images.measure`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ld3m_min.commands.options import begin
from ld3m_min.commands.plain import PlainCommand
from ld3m_min.data.loading import load_data
from ld3m_min.experiments.places import RECORDS
from ld3m_min.experiments.real_images import COUNTS, curve, measure
from ld3m_min.presets import preset

ABOUT = """Train the tables' networks on n random real images of each class, and on all of them.

That is what a distilled set is measured by: how many real images it is worth, and how far it stays
below all of them. After `--max-seconds` it saves and leaves with exit code 75; the same command
goes on.
"""


@dataclass(frozen=True, kw_only=True)
class RealImagesOptions:
    """Of the run.

    Attributes:
        preset: whose data and evaluation are meant.
        counts: real images of each class; 0 for all.
        seeds: sets of each count.
        device: "cpu", "cuda", "cuda:1" or "mps".
        max_seconds: seconds after which a run stops, with what is done saved and exit code 75.
        records: folder of the record; by default that of the project.
    """

    preset: str = "cpu"
    counts: tuple[int, ...] = COUNTS
    seeds: int = 3
    device: str = "cpu"
    max_seconds: float | None = None
    records: Path | None = None


def run(options: RealImagesOptions) -> None:
    """Measure, and print the curve."""
    config = preset(options.preset)
    begin(options.device, options.max_seconds)
    record = measure(
        options.preset,
        load_data(config.dataset, size=config.size),
        counts=options.counts,
        seeds=options.seeds,
        records=RECORDS if options.records is None else options.records,
        device=options.device,
    )
    for n, found in curve(record).items():
        what = f"{n} of each class" if n else "all"
        print(f"{what:18s} unseen networks {100 * found.mean():.1f} %")


COMMAND = PlainCommand("real-images", ABOUT, RealImagesOptions, run)
