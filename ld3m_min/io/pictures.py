"""Pictures as files: images side by side, at their own size."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ld3m_min.io.disk import StrPath
from ld3m_min.io.files import write_bytes


def save_strip(images: Float[Tensor, "B 3 H W"], path: StrPath, columns: int = 10) -> None:
    """Write images as one PNG, at their own size.

    A last row that is shorter than the others is filled up with white.

    Args:
        images: in [0, 1].
        path: the PNG file.
        columns: images in a row.
    """
    from PIL import Image

    x = (images.detach().cpu().clamp(0, 1) * 255).round().byte()
    if len(x) > columns and len(x) % columns:
        x = torch.cat([x, x.new_full((columns - len(x) % columns, *x.shape[1:]), 255)])
    rows = [
        np.concatenate(list(row.permute(0, 2, 3, 1).numpy()), axis=1)
        for row in torch.split(x, columns)
    ]
    png = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(png, "PNG", optimize=True)
    write_bytes(path, png.getvalue())  # whole or not there


def join_strip(files: Iterable[StrPath], path: StrPath) -> None:
    """Put pictures of one height side by side into one.

    Args:
        files: the pictures, from left to right.
        path: the PNG file that they become.
    """
    from PIL import Image

    Image.fromarray(
        np.concatenate([np.asarray(Image.open(f).convert("RGB")) for f in files], axis=1)
    ).save(path, optimize=True)
