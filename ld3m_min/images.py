"""Reading image files that may be anything: one allow-list, one pixel limit, one error per bad file."""
from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
MAX_PIXELS = 100_000_000  # a 10,000 x 10,000 picture; what is larger is a mistake or a decompression bomb


def list_images(root):
    """Class folders below `root` in alphabetical order, each with its image files: [(class name, [file, ...]), ...].

    Raises:
        FileNotFoundError: there is no class folder.
        ValueError: a class folder holds no image, or two class names differ in case alone.
    """
    root = Path(root)
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise FileNotFoundError(f"{root.name!r} holds no class folder; expected one subfolder of images per class")
    if len({f.name.lower() for f in folders}) < len(folders):
        raise ValueError(f"class folders of {root.name!r} differ in case alone; rename them")
    listing = []
    for folder in folders:
        files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file())
        if not files:
            raise ValueError(f"class folder {folder.name!r} holds no image ({', '.join(SUFFIXES)}); add some or remove it")
        listing.append((folder.name, files))
    return listing


def read_image(file, size):
    """One image file -> (3, size, size) uint8: upright, RGB, short side resized (antialiased), centre cropped.

    Raises:
        ValueError: the file is not an image of the allowed formats, is truncated, or is too large. Names the file.
    """
    file = Path(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
                image.draft("RGB", (2 * size, 2 * size))  # JPEG: decode at a fraction of the size, never below twice ours
                image = to_rgb(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{file.parent.name}/{file.name}: {error}") from None
    scale = size / min(image.size)
    image = image.resize(tuple(max(size, round(scale * s)) for s in image.size), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return torch.from_numpy(np.array(image.crop((left, top, left + size, top + size)))).permute(2, 0, 1)


def to_rgb(image):
    """Any mode -> RGB: 16-bit grey is scaled (Pillow would clip it), transparency is laid on white."""
    if image.mode.startswith("I") or image.mode == "F":
        x = np.asarray(image, dtype=np.float64)
        top = 65535.0 if x.max() > 255 else 255.0
        image = Image.fromarray((x / top * 255).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
