"""`python -m ld3m_min export`: see :func:`ld3m_min.export.export_set`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from ld3m_min.commands.plain import PlainCommand
from ld3m_min.io.text import shown
from ld3m_min.synthetic import SyntheticSet

ABOUT = """Write the set in SET as others read it, so that this package isn't needed.

A folder with a card, as the Hugging Face Hub has it; a tar for WebDataset; a Parquet table with the
images in it (needs pyarrow); or a NumPy file. The same set gives the same bytes. What is in the
place stays, unless it is an earlier export.
"""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is written where.

    Attributes:
        set: folder of the distilled set, as `distil` and `select` write it.
        out: the folder of an imagefolder; the file of the other formats.
        format: "imagefolder" is a folder of PNG files with labels, card and checksums;
            "webdataset" a tar; "parquet" a table; "npz" arrays of NumPy.
        licence: of the images, such as CC-BY-4.0; by default what the set says.
    """

    set: tyro.conf.Positional[Path]
    out: Path
    format: Literal["imagefolder", "webdataset", "parquet", "npz"] = "imagefolder"
    licence: str | None = None


def run(options: ExportOptions) -> None:
    """Export, and say what is where and under which licence."""
    made = SyntheticSet.load(options.set)
    place = made.export(options.out, options.format, licence=options.licence)
    licence = options.licence or made.recipe.get("licence")
    stated = f"licence: {shown(licence)}" if licence else "no licence is stated (--licence)"
    print(f"{len(made.labels)} images as {options.format} in {place}; {stated}")


COMMAND = PlainCommand("export", ABOUT, ExportOptions, run)
