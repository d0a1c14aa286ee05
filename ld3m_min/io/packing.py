"""Images as the bytes of image files, and back: PNG, WebP and JPEG, written by Pillow."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

FileFormat = Literal["PNG", "WebP", "JPEG"]
_CODECS = {"PNG": "zlib", "WebP": "webp", "JPEG": "jpg"}  # as Pillow calls them
_PLAIN: dict[str, dict[str, object]] = {"PNG": {}, "WebP": {"lossless": True}}
_LOSSY: dict[str, dict[str, object]] = {"WebP": {"method": 6}, "JPEG": {"optimize": True}}


def available(kind: FileFormat) -> bool:
    """Whether this installation of Pillow can write a format."""
    from PIL import features

    return bool(features.check(_CODECS[kind]))


def codec(kind: FileFormat) -> str:
    """What writes a format here, with its version: another one may give other bytes."""
    from PIL import features

    name = {"PNG": "zlib", "WebP": "libwebp", "JPEG": "libjpeg"}[kind]
    return f"{name} {features.version(_CODECS[kind])}"


def eight_bits(images: Float[Tensor, "B 3 H W"]) -> UInt8[Tensor, "B 3 H W"]:
    """Images as image files have them: numbers from 0 to 255, on the CPU.

    Args:
        images: in [0, 1].
    """
    return (images.detach().cpu() * 255).round().to(torch.uint8)


def packed(image: UInt8[Tensor, "3 H W"], kind: FileFormat, quality: int | None = None) -> bytes:
    """The content of an image file.

    A grey image becomes a grey JPEG, which needs fewer tables; the other formats are told that its
    channels are equal by what they compress.

    Args:
        image: numbers from 0 to 255.
        kind: of the file.
        quality: of a lossy file, from 1 to 100; None for a lossless one, which JPEG has not.

    Returns:
        All bytes of the file, its header too.
    """
    from PIL import Image

    array = image.permute(1, 2, 0).cpu().numpy()
    made = Image.fromarray(array)
    if kind == "JPEG" and bool((array == array[..., :1]).all()):
        made = Image.fromarray(np.ascontiguousarray(array[..., 0]))
    settings = _PLAIN[kind] if quality is None else {"quality": quality, **_LOSSY[kind]}
    file = io.BytesIO()
    made.save(file, kind.upper(), **settings)
    return file.getvalue()


def unpacked(data: bytes) -> UInt8[Tensor, "3 H W"]:
    """The image in a file that :func:`packed` wrote, as a reader of the file sees it.

    Args:
        data: the content of the file.
    """
    from PIL import Image

    array = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    return torch.from_numpy(array.copy()).permute(2, 0, 1).contiguous()


def lossless_bytes(images: Float[Tensor, "B 3 H W"]) -> dict[str, int]:
    """How many bytes images take as lossless files of 8 bits a channel, one file each.

    Args:
        images: in [0, 1].

    Returns:
        The sum of the files' sizes for PNG and, where Pillow has it, for WebP.
    """
    whole = eight_bits(images)
    kinds: tuple[FileFormat, ...] = ("PNG", "WebP")
    return {k: sum(len(packed(x, k)) for x in whole) for k in kinds if available(k)}
