"""Reading image files that may be anything: one allow-list, one pixel limit, no file lost silently.

A folder of classes is listed; every image is decoded, brought upright, to RGB and to one size.
Whatever cannot be used is named, all of it in one message. A few such files among many may be left
out, which is said (:mod:`ld3m_min.data.report`). The only things passed over without a word are
hidden files and `CLUTTER`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ld3m_min.data.report import Unusable, is_safe, named
from ld3m_min.errors import InputError
from ld3m_min.io.disk import StrPath, why
from ld3m_min.io.text import shown

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
# what file managers leave in every folder, and a Mac's zip beside the folder
CLUTTER = ("thumbs.db", "desktop.ini", ".ds_store", "__macosx")
MAX_PIXELS = 80_000_000  # what is larger is a mistake or a decompression bomb


@dataclass(frozen=True)
class ClassFolder:
    """A class and its image files.

    Attributes:
        name: of the folder.
        files: in alphabetical order.
    """

    name: str
    files: tuple[Path, ...]


def list_images(
    root: StrPath, only: Sequence[str] | None = None, *, left_out: dict[Path, str] | None = None
) -> list[ClassFolder]:
    """The class folders of `root` and their image files.

    Args:
        root: the folder of class folders.
        only: names of the class folders to read, in this order; None reads all that are not hidden.
        left_out: takes up what is no image file, and why, where it is so little that it may be left
            out; None refuses it.

    Returns:
        The classes, in alphabetical order or that of `only`.

    Raises:
        FileNotFoundError: there is no class folder, or one of `only` is missing.
        InputError: class folders that are empty, the same twice, named alike but for case, or by
            what is no text; images beside the class folders; anything in a class folder that is no
            image file. Names all of them.
    """
    root = Path(root)
    found = _class_folders(root, only)
    listing: list[ClassFolder] = []
    odd: dict[Path, str] = {}
    counts: dict[Path, int] = {}
    for name, folder in found.items():
        inside = sorted(f for f in _entries(folder) if not is_clutter(f))
        files = tuple(f for f in inside if f.suffix.lower() in SUFFIXES and f.is_file())
        listing.append(ClassFolder(name, files))
        good = set(files)
        odd |= {f: _why_not(f) for f in inside if f not in good}
        counts[folder] = len(inside)
    if any(f.is_dir() for f in odd) or left_out is None or not is_safe(odd, counts):
        _refuse_odd(root, listing, odd)
    else:
        left_out |= odd
    if empty := [c.name for c in listing if not c.files]:
        first = ", ".join(map(repr, empty[:10]))
        raise InputError(
            f"class folder {first} of {root.name!r} holds no image ({', '.join(SUFFIXES)}); "
            "add some or remove it"
        )
    return listing


def _refuse_odd(root: Path, listing: Sequence[ClassFolder], odd: Mapping[Path, str]) -> None:
    """Refuse what is no image file, where there is any.

    Args:
        root: the folder of class folders.
        listing: what was found.
        odd: why a file is none.

    Raises:
        InputError: there is such a file; names all.
    """
    if odd and not any(c.files for c in listing) and all(f.is_dir() for f in odd):
        deeper = sorted({f.parent for f in odd})
        where = f"{str(deeper[0])!r}" if len(deeper) == 1 else "the folder that holds the classes"
        if any(f.name.lower().startswith(("train", "test", "val")) for f in deeper):
            where += "; if these are splits, call them train, val and test"
        raise InputError(
            f"{root.name!r} holds folders of folders, e.g. {shown_path(next(iter(odd)))}, and no "
            f"images in them; one subfolder for each class is expected: give {where}"
        )
    if odd:
        lines = [f"{f.parent.name}/{f.name}: {reason}" for f, reason in odd.items()]
        raise Unusable(
            _named(
                lines,
                f"in class folders are no image files ({', '.join(SUFFIXES)}); move or remove them",
            ),
            odd,
        )


def shown_path(file: Path) -> str:
    """A file's folder and name, as they may be shown."""
    return shown(f"{file.parent.name}/{file.name}")


def is_clutter(path: Path) -> bool:
    """Whether a file or folder is hidden, or in `CLUTTER`: nobody put it there to be read."""
    return path.name.startswith(".") or path.name.lower() in CLUTTER


def _entries(folder: Path) -> list[Path]:
    """What is in a folder.

    Raises:
        InputError: it may not be looked into.
    """
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"the folder {shown(folder.name)!r} can't be listed: {why(error)}; allow it to be "
            "read, or move it away"
        ) from error


def _class_folders(root: Path, only: Sequence[str] | None) -> dict[str, Path]:
    """The folders that are read, by name; refuses what :func:`list_images` says of them."""
    entries = sorted(e for e in _entries(root) if not is_clutter(e))
    found = {e.name: e for e in entries if e.is_dir()}
    if only is not None:
        absent = [name for name in only if name not in found]
        if absent:
            flat = (
                "; its images lie in no class folder: sort them into folders named by wnid"
                if not found
                else ""
            )
            raise FileNotFoundError(
                f"{str(root)!r} lacks the class folder {', '.join(absent)}{flat}"
            )
        found = {name: found[name] for name in only}
    elif stray := [
        e.name
        for e in entries
        if e not in found.values() and (e.suffix.lower() in SUFFIXES or _broken(e))
    ]:
        raise InputError(
            _named(stray, f"in {root.name!r} lie in no class folder; move or remove them")
        )
    if odd := [name for name in found if name != name.encode(errors="ignore").decode()]:
        # no set could say which class it is: records, cards and digests are UTF-8
        raise InputError(
            f"the name of the class folder {odd[0]!r} of {root.name!r} is not UTF-8 text; rename it"
        )
    if not found:
        raise FileNotFoundError(
            f"{str(root)!r} holds no class folder; expected one subfolder of images per class"
        )
    keys: dict[str, Callable[[str], object]] = {
        "differ in case alone": str.lower,
        "are one and the same": lambda name: found[name].resolve(),
    }
    for how, key in keys.items():
        if len({key(name) for name in found}) < len(found):
            raise InputError(f"class folders of {root.name!r} {how}; give each class one folder")
    return found


def _broken(entry: Path) -> bool:
    return entry.is_symlink() and not entry.exists()


def _why_not(file: Path) -> str:
    if _broken(file):
        return "a link that leads nowhere"
    if file.is_dir():
        return "a folder; images must lie in the class folder itself"
    return "no ordinary file" if not file.is_file() else "not an image suffix"


def _named(items: Sequence[str], what: str) -> str:
    """A message about files that names the first ten."""
    return named(items, f"{len(items)} file(s) {what}:")


def read_image(file: StrPath, size: int) -> UInt8[Tensor, "3 H H"]:
    """One image file, upright and in RGB.

    Its short side is resized (antialiased bicubic) to `size`, and the centre cropped.

    Args:
        file: of one of `FORMATS`, whatever its suffix.
        size: H, pixels.

    Returns:
        The image.

    Raises:
        InputError: the file is not a still image of the allowed formats, is truncated, or is too
            large. Names the file.
    """
    file = Path(file)
    try:
        image = _decoded(file, size)
    except UnidentifiedImageError:
        empty = file.stat().st_size == 0
        why_not = (
            "it is empty, as after a copy that stopped"
            if empty
            else (f"it is no image of a format that is read ({', '.join(FORMATS)})")
        )
        raise InputError(f"{file.parent.name}/{file.name}: {why_not}") from None
    except Exception as error:
        # decoders fail on hostile bytes with any exception; here each becomes the file's name
        reason = str(error).replace(repr(str(file)), "it") or type(error).__name__
        raise InputError(f"{file.parent.name}/{file.name}: {reason}") from None
    # a strip must not grow into a picture of a million columns
    image = _centre(image, 3 * min(image.size))
    short = min(image.size)
    width, height = (size if s == short else int(size * s / short) for s in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(_centre(image, size))).permute(2, 0, 1)


def _decoded(file: Path, size: int) -> Image.Image:
    """A file's picture, upright and in RGB, at its own size or at a fraction of it.

    Args:
        file: the image file.
        size: what the short side will be, pixels; a JPEG is decoded at no less than twice of it.

    Returns:
        The picture.
    """
    with Image.open(file, formats=FORMATS) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise InputError(
                f"{opened.width} x {opened.height} pixels are more than {MAX_PIXELS:,}"
            )
        frames = getattr(opened, "n_frames", 1) if opened.format in ("WEBP", "PNG", "TIFF") else 1
        if frames > 1:
            raise InputError(f"holds {frames} pictures; give one still image")
        if opened.mode == "F" or (opened.mode == "I" and opened.format == "TIFF"):
            raise InputError("32-bit pixels have no agreed white; save it with 8 or 16 bits")
        opened.draft("RGB", (2 * size, 2 * size))
        opened.load()
        image: Image.Image = opened
        with suppress(Exception):  # an orientation that cannot be read is none
            image = ImageOps.exif_transpose(opened)
        return to_rgb(image)


def file_kind(file: StrPath) -> str:
    """What an image file is, such as "JPEG, 500 x 375 px"."""
    with Image.open(file, formats=FORMATS) as image:
        return f"{image.format}, {image.width} x {image.height} px"


def _centre(image: Image.Image, side: int) -> Image.Image:
    """The central part, at most `side` pixels wide and high."""
    w, h = min(side, image.width), min(side, image.height)
    left, top = round((image.width - w) / 2), round((image.height - h) / 2)
    return image.crop((left, top, left + w, top + h))


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode of 8 or 16 bits in RGB.

    16-bit grey is scaled (Pillow would clip it). With no value above 4095 it is taken for 12 bits
    in a file of 16. Transparency is laid on white.

    Args:
        image: the picture.

    Returns:
        The same in RGB.

    Raises:
        InputError: it is wholly transparent.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        # cameras store 12 bits in files of 16
        white = 4095 if 255 < values.max(initial=0) <= 4095 else 65535
        image = Image.fromarray((255 / white * values).round().clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[1] == 0:
            raise InputError("wholly transparent: it shows nothing")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
