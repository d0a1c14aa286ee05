"""Figures. Each function takes numbers or images and returns a matplotlib figure; nothing is computed here."""
from __future__ import annotations

import numpy as np


def _pyplot():
    import matplotlib.pyplot as plt

    return plt


def image_grid(images, columns=10, titles=None, row_labels=None, scale=0.9):
    """Images (B, 3, H, W) in [0, 1] as a grid, row by row.

    Args:
        titles: one per column of the first row. row_labels: one per row.
    """
    plt = _pyplot()
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(scale * columns, scale * rows + 0.25), squeeze=False)
    for i, axis in enumerate(axes.flat):
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
        if i < len(images):
            axis.imshow(np.clip(images[i].detach().cpu().permute(1, 2, 0).numpy(), 0, 1), interpolation="nearest")
        if titles and i < min(columns, len(titles)):
            axis.set_title(titles[i], fontsize=8)
        if row_labels and i % columns == 0 and i // columns < len(row_labels):
            axis.set_ylabel(row_labels[i // columns], fontsize=8, rotation=0, ha="right", va="center")
    figure.tight_layout(pad=0.3)
    return figure


def curve(values, ylabel, xlabel="iteration", logy=False):
    """One line against its index; or several, given as {label: values}."""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(6, 2.6))
    for label, v in (values if isinstance(values, dict) else {None: values}).items():
        axis.plot(v, label=label, lw=1.5)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if logy:
        axis.set_yscale("log")
    if isinstance(values, dict):
        axis.legend(frameon=False)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    return figure


def accuracy_bars(results, chance=None):
    """{name: EvalResult} -> mean accuracy per architecture as bars, each repeat as a dot, 95 % intervals from 3 repeats on."""
    plt = _pyplot()
    architectures = list(next(iter(results.values())).accuracies)
    figure, axis = plt.subplots(figsize=(7, 3))
    width = 0.8 / len(results)
    for i, (name, result) in enumerate(results.items()):
        place = np.arange(len(architectures)) + (i - (len(results) - 1) / 2) * width
        middle = np.array([100 * result.mean(a) for a in architectures])
        error = None
        if len(result.values()) >= 3:
            interval = np.array([[100 * v for v in result.confidence_interval(a)] for a in architectures])
            error = np.abs(interval - middle[:, None]).T
        axis.bar(place, middle, width, yerr=error, label=name, error_kw={"lw": 0.8})
        for x, a in zip(place, architectures, strict=True):
            repeats = 100 * result.values(a)
            axis.plot([x] * len(repeats), repeats, ".", ms=3, color="black")
    axis.set_ylim(0, 100)
    axis.set_xticks(range(len(architectures)), architectures)
    axis.set_ylabel("accuracy, %")
    if chance is not None:
        axis.axhline(100 * chance, ls=":", c="grey", lw=1)
    axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=len(results))
    axis.grid(axis="y", alpha=0.3)
    figure.tight_layout()
    return figure


def save_strip(images, path, columns=10):
    """Write images (B, 3, H, W) in [0, 1] as one PNG at their own size, `columns` in a row."""
    from PIL import Image

    x = (images.detach().cpu().clamp(0, 1) * 255).round().byte()
    rows = [np.concatenate(list(row.permute(0, 2, 3, 1).numpy()), axis=1) for row in x.split(columns)]
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)


def join_strip(files, path):
    """Put PNG pictures of one height side by side into one."""
    from PIL import Image

    Image.fromarray(np.concatenate([np.asarray(Image.open(f).convert("RGB")) for f in files], axis=1)).save(path, optimize=True)


def strips(files, titles=None, side=0.62):
    """PNG strips one below the other, {label: file}; those that do not exist are left out; None where none does.

    Args:
        titles: one per picture of a strip, evenly spaced. side: of a picture, inches.
    """
    from pathlib import Path

    found = {label: _pyplot().imread(file) for label, file in files.items() if Path(file).exists()}
    if not found:
        return None
    columns = max(x.shape[1] / x.shape[0] for x in found.values())
    figure, axes = _pyplot().subplots(len(found), 1, figsize=(side * columns + 1.2, side * len(found) + 0.2), squeeze=False)
    for axis, (label, x) in zip(axes.flat, found.items(), strict=True):
        axis.imshow(x, interpolation="nearest")
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)
    for i, title in enumerate(titles or ()):
        axes[0, 0].text((i + 0.5) * x.shape[0], -2, title, ha="center", va="bottom", fontsize=7)
    figure.tight_layout(pad=0.2)
    return figure


def first_of_each(files, path):
    """The first picture of each strip, side by side: one class over some setting."""
    from PIL import Image

    pictures = [Image.open(f).convert("RGB") for f in files]
    Image.fromarray(np.concatenate([np.asarray(p)[:, : p.height] for p in pictures], axis=1)).save(path, optimize=True)
