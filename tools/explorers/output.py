"""How the explorers' files are written: data as a script, pictures as one sprite, a still."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image

from ld3m_min.data import load_data
from ld3m_min.io.files import write_bytes
from ld3m_min.presets import preset
from ld3m_min.prior import LatentDiffusionPrior

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "book" / "_assets" / "explorers"
SEED = 0  # of images and noise, in every explorer
SIDE = 32  # of a picture, pixels


def command(name: str) -> str:
    """What makes the files of an explorer."""
    return f"python tools/make_explorers.py {name}"


def significant(value: Any, digits: int = 4) -> Any:
    """Numbers with so many significant digits, through lists and dictionaries."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {k: significant(v, digits) for k, v in value.items()}
    return [significant(v, digits) for v in value] if isinstance(value, list | tuple) else value


def as_script(name: str, values: dict[str, Any]) -> str:
    """Data as a script: a page that was opened from a disk may load it, and may not fetch."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return f'"use strict";\nglobalThis.LD3M.data["{name}"] = {text};\n'


def read_script(text: str) -> dict[str, Any]:
    """The values in a script of :func:`as_script`."""
    found: dict[str, Any] = json.loads(text.split(" = ", 1)[1].rstrip().rstrip(";"))
    return found


def write_data(name: str, values: dict[str, Any], folder: Path = FOLDER) -> None:
    """Write `NAME.data.js`, with the command that made it."""
    data = {"command": command(name), "seed": SEED, "prior": "digits"} | values
    write_bytes(folder / f"{name}.data.js", as_script(name, data).encode())


def grey(images: torch.Tensor) -> np.ndarray:
    """Images (n, 3, H, W) in [0, 1] as bytes (n, H, W): the digits have no colour."""
    means: np.ndarray = (255 * images.detach().mean(1)).round().clamp(0, 255).byte().numpy()
    return means


def sprite(rows: list[torch.Tensor]) -> np.ndarray:
    """One picture of many: a row for each tensor of images."""
    return np.concatenate([np.concatenate(list(grey(r)), axis=1) for r in rows], axis=0)


def write_sprite(name: str, picture: np.ndarray, folder: Path = FOLDER) -> None:
    """Write `NAME.webp`."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=82, method=6)
    write_bytes(folder / f"{name}.webp", buffer.getvalue())


def write_still(name: str, figure: Any, folder: Path = FOLDER) -> None:
    """Write `NAME.still.webp`: what is printed, and shown where no script runs."""
    import matplotlib.pyplot as plt

    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, dpi=110, bbox_inches="tight")
    plt.close(figure)
    Image.open(buffer).convert("RGB").save(small, "WEBP", quality=80, method=6)
    write_bytes(folder / f"{name}.still.webp", small.getvalue())


def strips(rows: list[tuple[str, torch.Tensor]]) -> Any:
    """A figure of rows of digits, each with its name."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(rows), 1, figsize=(6.4, 0.62 * len(rows)), squeeze=False)
    for axis, (label, images) in zip(axes.flat, rows, strict=True):
        axis.imshow(sprite([images]), cmap="gray", vmin=0, vmax=255)
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)
    figure.tight_layout(pad=0.2)
    return figure


def digits_start() -> Any:
    """Codes, noise and DM's gradient that a distillation of the digits starts from."""
    from ld3m_min.experiments.gradient_norms import start

    prior = LatentDiffusionPrior.from_pretrained("digits")
    return start(preset("cpu", seed=SEED), load_data("digits"), prior)
