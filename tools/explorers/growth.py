"""How ten digits change while they are distilled, from the record of `measure_growth.py`."""

from __future__ import annotations

import numpy as np
from PIL import Image

from explorers import output
from ld3m_min.experiments.growth import accuracies_after, picture_of
from ld3m_min.experiments.places import RECORDS
from ld3m_min.io.files import read_json
from ld3m_min.systems import SYSTEMS

RECORD = RECORDS / "growth-digits.json"
CHANCE = 0.1  # of ten classes
SHOWN = (0, 4, 30, 60)  # iterations in the still picture


def growth() -> None:
    """Images after some iterations, the loss, and what networks read that were trained on them."""
    import matplotlib.pyplot as plt

    record = read_json(RECORD)
    sheets, systems = {}, {}
    for i, entry in enumerate(record["systems"]):
        name = entry["system"]
        sheets[name] = np.asarray(Image.open(picture_of(RECORD, name)).convert("L"))
        systems[name] = {
            "label": SYSTEMS[name].label,
            "row": i * len(record["frames"]),  # of the sheet, where its pictures begin
            "loss": output.significant(entry["loss"], 3),
            "accuracy": output.significant(accuracies_after(entry, CHANCE), 3),
        }
    output.write_sprite("growth", np.concatenate(list(sheets.values())))
    output.write_data("growth", {"frames": record["frames"], "systems": systems})

    first = next(iter(systems))
    figure, axes = plt.subplots(len(SHOWN), 1, figsize=(6.4, 0.62 * len(SHOWN)))
    for axis, n in zip(axes, SHOWN, strict=True):
        top = output.SIDE * record["frames"].index(n)
        axis.imshow(sheets[first][top : top + output.SIDE], cmap="gray", vmin=0, vmax=255)
        percent = 100 * systems[first]["accuracy"][n]
        axis.set_ylabel(f"after {n}: {percent:.0f} %", rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)
    figure.tight_layout(pad=0.2)
    output.write_still("growth", figure)
