"""A set in the formats that others read: a folder of images, WebDataset, Parquet, NumPy.

The same set gives the same bytes, with one version of the libraries: no time, no user, no path is
written.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ld3m_min.errors import InputError
from ld3m_min.io.extras import needed
from ld3m_min.io.files import current_version, read_json, replace_folder, write_bytes
from ld3m_min.io.packing import eight_bits, packed
from ld3m_min.io.paths import resolved
from ld3m_min.set_contents import SetContents
from ld3m_min.set_files import check_place, is_index
from ld3m_min.set_folder import write_set
from ld3m_min.sharing import shareable

_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say
_ARRAYS = ("images", "labels", "classes", "mean", "std", "about")  # of an npz; soft labels may come
_NOTES = "ld3m_min"  # under this name a table says how the set was made


class _Sample(NamedTuple):
    """One image as a file and what is known of it.

    Attributes:
        key: its number, of at least five digits.
        png: the file's content.
        about: label, class, and soft labels where there are any.
    """

    key: str
    png: bytes
    about: dict[str, Any]


def export_set(
    contents: SetContents,
    path: str | PathLike[str],
    format: str,
    *,
    licence: str | None = None,
    home: Path | None = None,
) -> Path:
    """Write a set in one of `FORMATS`. An earlier export in the place is replaced, nothing else is.

    Args:
        contents: of the set.
        path: the folder of "imagefolder"; the file of the others.
        format: one of `FORMATS`.
        licence: of the images; None keeps what the recipe states.
        home: folder of the set itself, which stays as it is; None where it was not loaded.

    Returns:
        Where it is.

    Raises:
        InputError: no such format, a package that it needs isn't there, a field of the recipe is
            of another kind, or something else than such an export is in the place.
        OSError: it cannot be written; what was there is intact.
    """
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}; choose {', '.join(FORMATS)}")
    place, shared = Path(path), shareable(contents, licence)
    _check_apart(place, home)
    if format == "imagefolder":
        check_place(place)
        _check_no_other_set(current_version(place))
        with replace_folder(place) as empty:
            write_set(empty, shared, exported=True)
        return place
    _check_file(place, format)
    data = FORMATS[format](shared)
    if shutil.disk_usage(_existing(place)).free < len(data):
        raise OSError(f"{len(data):,} bytes are needed for {place}, and less is free; free some")
    write_bytes(place, data)
    return place


def _check_apart(place: Path, home: Path | None) -> None:
    """Refuse to write over the set that is exported.

    Args:
        place: where the export is to be.
        home: folder of the set; None where it has none.

    Raises:
        InputError: one lies in the other, or they are the same.
    """
    if home is None:
        return
    there, source = resolved(place), resolved(home)
    if there.is_relative_to(source) or source.is_relative_to(there):
        raise InputError(
            f"{place} is, holds or lies in the folder of the set itself, which would be lost; give "
            "--out a place outside of it"
        )


def _check_no_other_set(place: Path) -> None:
    """Refuse to replace a set that is no export: it may be the only one, with its prior.

    Args:
        place: a folder that holds a set and nothing else, or an empty one, or none.

    Raises:
        InputError: it holds such a set.
    """
    file = place / "set.json"
    if not file.exists():
        return
    index = read_json(file)
    if not is_index(index) or not index.get("exported"):
        raise InputError(
            f"{place} holds a set that is no export, and it may be the only copy; give another "
            "place, or move it"
        )


def _check_file(place: Path, format: str) -> None:
    """Refuse to replace what is no earlier export.

    Args:
        place: of the file.
        format: one of `FORMATS`, but not "imagefolder".

    Raises:
        InputError: a folder, link or device is there, or a file of something else.
    """
    if place.is_dir():
        raise InputError(f"{place} is a folder; the format {format} is one file, give its name")
    if place.is_symlink() or (place.exists() and not place.is_file()):
        raise InputError(f"{place} is no ordinary file and stays as it is; give another name")
    if place.exists() and not _OURS[format](place):
        raise InputError(
            f"{place} is there already and is no {format} of an export, so it stays as it is; move "
            "it, or give another name"
        )


def _is_webdataset(file: Path) -> bool:
    """Whether a file begins as `_webdataset` writes it."""
    odd = (tarfile.TarError, OSError, ValueError, KeyError)
    with suppress(*odd), tarfile.open(file, "r:") as tar:
        png, label, about = (tar.next() for _ in range(3))
        if png is None or label is None or about is None:
            return False
        key = png.name.removesuffix(".png")
        named = re.fullmatch(r"0{5,}", key) and label.name == f"{key}.cls"
        content = tar.extractfile(about) if named and about.name == f"{key}.json" else None
        known = json.loads(content.read(2**20)) if content is not None else None
        return isinstance(known, dict) and {"label", "class", "licence"} <= known.keys()
    return False


def _is_npz(file: Path) -> bool:
    """Whether a file has the arrays that `_npz` writes, and no others."""
    with suppress(zipfile.BadZipFile, OSError, ValueError), zipfile.ZipFile(file) as archive:
        return {*archive.namelist()} - {"soft_labels.npy"} == {f"{a}.npy" for a in _ARRAYS}
    return False


def _is_parquet(file: Path) -> bool:
    """Whether a file is a table with the notes that `_parquet` leaves in its last part."""
    with suppress(OSError), file.open("rb") as opened:
        begins = opened.read(4)
        opened.seek(-8, io.SEEK_END)
        length, ends = int.from_bytes(opened.read(4), "little"), opened.read(4)
        opened.seek(-8 - length, io.SEEK_END)
        return begins == ends == b"PAR1" and _NOTES.encode() in opened.read(length)
    return False


# whether a file is an earlier export, and may be replaced
_OURS: dict[str, Callable[[Path], bool]] = {
    "webdataset": _is_webdataset,
    "parquet": _is_parquet,
    "npz": _is_npz,
}


def _existing(place: Path) -> Path:
    """The nearest folder above a place that is there."""
    return next(p for p in place.absolute().parents if p.exists())


def about(contents: SetContents) -> dict[str, Any]:
    """What goes with the images wherever they go: classes, normalisation, licence, origin.

    Args:
        contents: of the set.
    """
    recipe = contents.recipe
    data, config = recipe.get("data") or {}, recipe.get("config") or {}
    return {
        "classes": list(contents.classes),
        "normalisation": recipe.get("normalisation"),
        "licence": recipe.get("licence"),
        "derived_from": {k: data.get(k) for k in ("name", "source", "digest")},
        "recipe": {k: config.get(k) for k in ("space", "algorithm", "ipc", "size", "seed", "dsa")},
    }


def _samples(contents: SetContents) -> Iterator[_Sample]:
    """The images in order."""
    digits = max(5, len(str(len(contents.labels) - 1)))
    for i, image in enumerate(eight_bits(contents.images)):
        label = int(contents.labels[i])
        known: dict[str, Any] = {"label": label, "class": contents.classes[label]}
        if contents.soft_labels is not None:
            known["soft_label"] = contents.soft_labels[i].tolist()
        yield _Sample(f"{i:0{digits}d}", packed(image, "PNG"), known)


def _webdataset(contents: SetContents) -> bytes:
    """A tar with `KEY.png`, `KEY.cls` (the label, in digits) and `KEY.json` of each image."""
    file = io.BytesIO()
    stated = {"licence": contents.recipe.get("licence")}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, png, known in _samples(contents):
            text = json.dumps(known | stated, sort_keys=True)
            parts = {"png": png, "cls": str(known["label"]).encode(), "json": text.encode()}
            for suffix, data in parts.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size, info.mode = len(data), 0o644  # time, user and group are 0
                tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _npz(contents: SetContents) -> bytes:
    """Arrays `images` (uint8, N x H x W x 3), `labels`, `classes`, `mean`, `std` and `about`."""
    norm = contents.recipe.get("normalisation") or {}
    values: tuple[NDArray[Any], ...] = (
        eight_bits(contents.images).permute(0, 2, 3, 1).contiguous().numpy(),
        contents.labels.numpy(),
        np.array(contents.classes, dtype=np.str_),
        np.array(norm.get("mean", []), dtype=np.float64),
        np.array(norm.get("std", []), dtype=np.float64),
        np.array(json.dumps(about(contents), sort_keys=True)),
    )
    arrays = dict(zip(_ARRAYS, values, strict=True))
    if contents.soft_labels is not None:
        arrays["soft_labels"] = contents.soft_labels.numpy()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            inner = io.BytesIO()
            np.lib.format.write_array(inner, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", _NO_TIME)
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, inner.getvalue())
    return file.getvalue()


def _parquet(contents: SetContents) -> bytes:
    """A table as `datasets` writes it: `image` (bytes and path), `label`, `class`."""
    pyarrow, parquet = (needed(m, "the format parquet") for m in ("pyarrow", "pyarrow.parquet"))
    samples = list(_samples(contents))
    picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = [
        ("image", picture, [{"bytes": s.png, "path": f"{s.key}.png"} for s in samples]),
        ("label", pyarrow.int64(), [s.about["label"] for s in samples]),
        ("class", pyarrow.string(), [s.about["class"] for s in samples]),
    ]
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(contents.classes), "_type": "ClassLabel"},
        "class": {"dtype": "string", "_type": "Value"},
    }
    if contents.soft_labels is not None:
        row = [s.about["soft_label"] for s in samples]
        columns.append(("soft_label", pyarrow.list_(pyarrow.float32()), row))
        inner = {"dtype": "float32", "_type": "Value"}
        features["soft_label"] = {"feature": inner, "_type": "Sequence"}
    notes = {"huggingface": {"info": {"features": features}}, _NOTES: about(contents)}
    schema = pyarrow.schema(
        [(name, kind) for name, kind, _ in columns],
        metadata={k: json.dumps(v, sort_keys=True) for k, v in notes.items()},
    )
    arrays = [pyarrow.array(values, kind) for _, kind, values in columns]
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), sink)
    return sink.getvalue()


FORMATS: dict[str, Callable[[SetContents], bytes]] = {
    "imagefolder": lambda contents: b"",  # a folder: see `export_set`
    "webdataset": _webdataset,
    "parquet": _parquet,
    "npz": _npz,
}
