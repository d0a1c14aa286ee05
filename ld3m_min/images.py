"""Reading image files that may be anything: one allow-list, one pixel limit, and no file that is dropped in silence.

A folder of classes is listed, every image is decoded once by several threads, brought upright, to RGB and to one size,
and kept as uint8: in memory, or in a memory-mapped file of the cache folder. Whatever cannot be used is named, all of
it in one message; the only things passed over without a word are hidden files and `CLUTTER`.
"""
from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from .digests import digest
from .errors import InputError
from .files import fsync, hold, shown, sweep
from .progress import bar

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
CLUTTER = ("thumbs.db", "desktop.ini", ".ds_store")  # what file managers leave in every folder
MAX_PIXELS = 80_000_000  # an 80-megapixel picture; what is larger is a mistake or a decompression bomb
DECODING = 2  # part of the cache's key: raise it when `read_image` gives other pixels than before


def list_images(root, only=None):
    """The class folders of `root` and their image files, both in alphabetical order: [(class name, [file, ...]), ...].

    Args:
        only: names of the class folders to read, in this order; None reads all that are not hidden.

    Raises:
        FileNotFoundError: there is no class folder, or one of `only` is missing.
        ValueError: class folders that are empty, the same twice, or named alike but for case; images beside the class
            folders; anything in a class folder that is no image file. Names all of them.
    """
    root = Path(root)
    entries = sorted(e for e in root.iterdir() if not e.name.startswith("."))
    found = {e.name: e for e in entries if e.is_dir()}
    if only is not None:
        absent = [name for name in only if name not in found]
        if absent:
            flat = "; its images lie in no class folder: sort them into folders named by wnid" if not found else ""
            raise FileNotFoundError(f"{str(root)!r} lacks the class folder {', '.join(absent)}{flat}")
        found = {name: found[name] for name in only}
    elif stray := [e.name for e in entries if e not in found.values() and (e.suffix.lower() in SUFFIXES or _broken(e))]:
        raise InputError(_named(stray, f"in {root.name!r} lie in no class folder; move or remove them"))
    if not found:
        raise FileNotFoundError(f"{str(root)!r} holds no class folder; expected one subfolder of images per class")
    for key, how in ((str.lower, "differ in case alone"), (lambda name: found[name].resolve(), "are one and the same")):
        if len({key(name) for name in found}) < len(found):
            raise InputError(f"class folders of {root.name!r} {how}; give each class one folder")
    listing, odd = [], []
    for name, folder in found.items():
        inside = sorted(f for f in folder.iterdir() if not f.name.startswith(".") and f.name.lower() not in CLUTTER)
        files = [f for f in inside if f.suffix.lower() in SUFFIXES and f.is_file()]
        listing.append((name, files))
        good = set(files)
        odd += [f"{name}/{f.name}: {_why_not(f)}" for f in inside if f not in good]
    if odd:
        raise InputError(_named(odd, f"in class folders are no image files ({', '.join(SUFFIXES)}); move or remove them"))
    if empty := [name for name, files in listing if not files]:
        shown = ", ".join(map(repr, empty[:10]))
        raise InputError(f"class folder {shown} of {root.name!r} holds no image ({', '.join(SUFFIXES)}); add some or remove it")
    return listing


def _broken(entry):
    return entry.is_symlink() and not entry.exists()


def _why_not(file):
    if _broken(file):
        return "a link that leads nowhere"
    if file.is_dir():
        return "a folder; images must lie in the class folder itself"
    return "no ordinary file" if not file.is_file() else "not an image suffix"


def _named(items, what):
    more = f"\n  and {len(items) - 10} more" if len(items) > 10 else ""
    lines = "".join(f"\n  {shown(line)}" for line in items[:10]) + more
    return f"{len(items)} file(s) {what}:{lines}"


def read_image(file, size):
    """One image file -> (3, size, size) uint8: upright, RGB, short side resized (antialiased bicubic), centre cropped.

    Raises:
        ValueError: the file is not a still image of the allowed formats, is truncated, or is too large. Names the file.
    """
    file = Path(file)
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
            if image.format in ("WEBP", "PNG", "TIFF") and getattr(image, "n_frames", 1) > 1:
                raise InputError(f"holds {image.n_frames} pictures; give one still image")
            if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
                raise InputError("32-bit pixels have no agreed white; save it with 8 or 16 bits")
            image.draft("RGB", (2 * size, 2 * size))  # JPEG: decode at a fraction of the size, never below twice ours
            image.load()
            with suppress(Exception):  # an orientation that cannot be read is none
                image = ImageOps.exif_transpose(image)
            image = to_rgb(image)
    except Exception as error:  # decoders fail on hostile bytes with any exception; here each becomes the file's name
        reason = str(error).replace(repr(str(file)), "it") or type(error).__name__
        raise InputError(f"{file.parent.name}/{file.name}: {reason}") from None
    image = _centre(image, 3 * min(image.size))  # a strip must not grow into a picture of a million columns
    short = min(image.size)
    image = image.resize(tuple(size if s == short else int(size * s / short) for s in image.size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(_centre(image, size))).permute(2, 0, 1)


def file_kind(file):
    """What an image file is, such as "JPEG, 500 x 375 px"."""
    with Image.open(file, formats=FORMATS) as image:
        return f"{image.format}, {image.width} x {image.height} px"


def _centre(image, side):
    """The central part, at most `side` wide and high."""
    w, h = min(side, image.width), min(side, image.height)
    left, top = round((image.width - w) / 2), round((image.height - h) / 2)
    return image.crop((left, top, left + w, top + h))


def to_rgb(image):
    """Any mode of 8 or 16 bits -> RGB: 16-bit grey is scaled (Pillow would clip it), transparency is laid on white.

    Grey of 16 bits with no value above 4095 is taken for 12 bits in a file of 16.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        white = 4095 if 255 < values.max(initial=0) <= 4095 else 65535  # cameras store 12 bits in files of 16
        image = Image.fromarray((255 / white * values).round().clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[1] == 0:
            raise InputError("wholly transparent: it shows nothing")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


# -- all images of a data set ----------------------------------------------------------------------------------------


def cache_folder():
    """Where decoded images are kept: `LD3M_CACHE`, else the user's cache folder. It may be deleted at any time."""
    if given := os.environ.get("LD3M_CACHE"):
        return Path(given).expanduser()
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # a user without a home, as in some containers
        home = Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
    return home / "ld3m_min"


def decode(files, size, *, cache=None, name="images", progress=True, workers=None):
    """Image files -> (N, 3, size, size) uint8, decoded by `workers` threads (None: one per core, at most 8).

    Args:
        cache: folder of the memory-mapped copy, or None for memory alone. The copy's name says size and checksum of the
            contents of the files, so changed files are decoded anew; its own checksum stands at its end, and one that
            doesn't fit is made again. A tensor from the cache may be written to; the file stays as it is.
        name: what the progress bar and the file in the cache are called.

    Raises:
        ValueError: names every file that cannot be used.
        OSError: the cache has no room.
    """
    shape = (len(files), 3, size, size)
    target = None if cache is None else Path(cache) / f"{_safe(name)}-{size}px-{_checksum(files, size, workers)}.npy"
    if target and (images := _open_cached(target, shape)) is not None:
        return images
    handle = _begin(target, int(np.prod(shape))) if target else None
    if handle is None:
        images = np.empty(shape, dtype=np.uint8)
        for i, image in enumerate(_decoded(files, size, name, progress, workers)):
            images[i] = image
        return torch.from_numpy(images)
    try:
        with handle:
            np.lib.format.write_array_header_1_0(handle, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for image in _decoded(files, size, name, progress, workers):
                handle.write(image.numpy().tobytes())
            handle.flush()
            handle.write(digest(torch.from_numpy(np.load(handle.name, mmap_mode="c"))).encode())
            handle.flush()
            fsync(handle.fileno())
        os.replace(handle.name, target)
    except OSError as error:
        need = np.prod(shape) / 2**20
        raise OSError(f"cannot keep {need:.0f} MiB of decoded images in {target.parent}: {error.strerror or error}; "
                      "name another folder in LD3M_CACHE, or load with cache=False") from error
    finally:
        Path(handle.name).unlink(missing_ok=True)
    return _open_cached(target, shape)


def _checksum(files, size, workers):
    """Of the contents of all files, in order: times and sizes can stay while a picture changes."""
    def content(file):
        return hashlib.blake2b(Path(file).read_bytes(), digest_size=16).digest()

    whole = hashlib.blake2b(f"{DECODING} {size}".encode(), digest_size=16)
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for part in pool.map(content, files):
            whole.update(part)
    return whole.hexdigest()


def _safe(name):
    """A data set's name as part of a file's: letters, digits, '-' and '_' stay."""
    return "".join(ch if ch.isalnum() or ch in "-_" else "_" for ch in name)[:80]


def _open_cached(target, shape):
    if not target.exists():
        return None
    try:
        images = np.load(target, mmap_mode="c")
        if images.shape == shape and images.dtype == np.uint8:
            with target.open("rb") as file:
                file.seek(-32, os.SEEK_END)
                stated = file.read()
            if digest(torch.from_numpy(images)).encode() == stated:
                return torch.from_numpy(images)
    except (ValueError, OSError, EOFError):
        pass
    warnings.warn(f"{target.name} in the cache is damaged; decoding the images again", stacklevel=3)
    return None


def _begin(target, need):
    """A new file beside `target`; None, with a warning, where the cache cannot be written to."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        if shutil.disk_usage(target.parent).free < need + 2**20:
            raise OSError(f"{need / 2**20:.0f} MiB are needed, less is free")
        handle = open(target.with_name(f".tmp-{uuid.uuid4().hex}-{target.name}"), "wb")  # noqa: SIM115
        hold(handle.fileno())
        return handle
    except OSError as error:
        warnings.warn(f"no cache in {target.parent} ({error.strerror or error}): the images are kept in memory", stacklevel=3)
        return None


def _decoded(files, size, name, progress, workers):
    """The images in order; after the last, one error for all that failed."""
    def job(file):
        try:
            return read_image(file, size)
        except ValueError as error:
            return error

    bad = []
    pool = ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1))
    try:
        for result in bar(pool.map(job, files), desc=f"decoding {name}", total=len(files), unit="image", show=progress):
            if isinstance(result, ValueError):
                bad.append(str(result))
            elif not bad:  # after a failure only names are gathered
                yield result
    finally:
        pool.shutdown(cancel_futures=True)
    if bad:
        raise InputError(_named(bad, "cannot be used; repair or remove them"))
