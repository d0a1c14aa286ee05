"""The records as the explorer "table" takes them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ld3m_min.experiments.cells import Cell
from ld3m_min.experiments.places import RECORDS
from ld3m_min.experiments.records import load_records
from ld3m_min.systems import SYSTEMS

CHANCE = 0.1  # what a training that diverged counts as, of ten classes


def _label(cell: Cell) -> str:
    """What a system is called."""
    variant = f", {cell.variant}" if cell.variant else ""
    algorithm = f", {cell.algorithm}" if cell.algorithm != "none" else ""
    return f"{SYSTEMS[cell.space].label}{variant}{algorithm}"


def _accuracies(record: Mapping[str, Any]) -> dict[str, list[float]]:
    """By network; a training that diverged counts as chance."""
    return {
        name: [CHANCE if x is None or math.isnan(x) else float(x) for x in values]
        for name, values in record["accuracies"].items()
    }


def systems_of(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Records as the page takes them: by experiment, by system, by seed, by network.

    Args:
        records: of cells; any preset, data set and number of seeds.
    """
    groups: dict[str, Any] = {}
    for record in records:
        cell = Cell(**record["cell"])
        name = f"{cell.dataset}, preset {cell.preset}, {cell.ipc} per class"
        group = groups.setdefault(
            name, {"seen": record["config"]["network"]["name"], "systems": {}}
        )
        system = group["systems"].setdefault(
            replace(cell, seed=0).name, {"label": _label(cell), "seeds": {}, "diverged": 0}
        )
        system["seeds"][str(cell.seed)] = _accuracies(record)
        system["diverged"] += sum(
            x is None or math.isnan(x) for v in record["accuracies"].values() for x in v
        )
    return groups


def simulated() -> dict[str, Any]:
    """Made-up accuracies of two systems, to try the intervals on until records have many seeds."""
    import numpy as np

    rng = np.random.default_rng(0)
    networks = ("AlexNet", "VGG11", "ResNet18", "ViT")

    def runs(mean: float) -> dict[str, dict[str, list[float]]]:
        found = {}
        for seed in range(8):
            own = mean + 0.01 * rng.standard_normal()
            draws = own + 0.01 * rng.standard_normal((len(networks), 2))
            found[str(seed)] = {
                n: [round(float(x), 3) for x in row] for n, row in zip(networks, draws, strict=True)
            }
        return found

    systems = {
        "a": {
            "label": "made-up system A, truly 1 point better",
            "seeds": runs(0.81),
            "diverged": 0,
        },
        "b": {"label": "made-up system B", "seeds": runs(0.80), "diverged": 0},
    }
    return {"seen": "", "systems": systems, "made_up": True}


def table_data(folder: str | Path = RECORDS) -> dict[str, Any]:
    """All that the explorer "table" shows: the records, or made-up numbers beside them.

    Args:
        folder: of the records.
    """
    groups = systems_of(load_records(folder))
    several = any(len(s["seeds"]) > 1 for g in groups.values() for s in g["systems"].values())
    # those with most seeds first: there is most to see
    ordered = dict(
        sorted(
            groups.items(), key=lambda g: -max(len(s["seeds"]) for s in g[1]["systems"].values())
        )
    )
    if not several:
        ordered["made-up numbers (no result; to try the intervals)"] = simulated()
    return {"groups": ordered, "chance": CHANCE}


def means_of(group: Mapping[str, Any]) -> dict[str, float]:
    """Mean accuracy on the networks that took no part, by the system's label."""
    found = {}
    for system in group["systems"].values():
        values = [
            sum(x) / len(x)
            for networks in system["seeds"].values()
            for n, x in networks.items()
            if n != group["seen"]
        ]
        if values:
            found[system["label"]] = sum(values) / len(values)
    return found


def still(group: Mapping[str, Any]) -> bytes:
    """The means of one experiment, as a picture for print."""
    import matplotlib.pyplot as plt
    from PIL import Image

    means = means_of(group)
    figure, axis = plt.subplots(figsize=(6.4, 0.8 + 0.28 * len(means)))
    axis.plot([100 * v for v in means.values()], range(len(means)), "o")
    axis.set_yticks(range(len(means)), list(means))
    axis.invert_yaxis()
    axis.set_xlabel("accuracy on unseen networks, %")
    axis.grid(alpha=0.3)
    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, dpi=110, bbox_inches="tight")
    plt.close(figure)
    Image.open(buffer).convert("RGB").save(small, "WEBP", quality=80)
    return small.getvalue()
