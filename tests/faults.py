"""Faults made on purpose, shared by the tests and by `make soak`.

Damaged checkpoints, hostile files, broken pictures.
"""

import io
import json
import stat
import struct
import tarfile
import unicodedata
import warnings
import zipfile

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from ld3m_min.data.archives import unpack
from ld3m_min.data.images import read_image
from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.io.files import signed, write_json

# FileNotFoundError is one; anything else that comes out of a reader is a failure
REFUSALS = (ValueError, OSError)
STATE = {"space.Z": torch.arange(12.0).reshape(3, 4), "momentum.space.Z": torch.ones(3, 4)}
CONFIG = {"ipc": 1, "sampler": {"steps": 10}, "lr": 0.1}


def same(a, b):
    """Whether two checkpoints say the same."""
    return (a.step, a.notes, list(a.tensors)) == (b.step, b.notes, list(b.tensors)) and all(
        torch.equal(v, b.tensors[k]) for k, v in a.tensors.items()
    )


def damage_checkpoint(folder, *, step=1):
    """Flip each `step`-th byte of the newer of two checkpoints, and cut its files at such places.

    Returns:
        region -> (tried, refused); where it isn't refused, what was read is the same as without the
        damage (a blank of the manifest that became another).

    Raises:
        AssertionError: damage was read as if it were whole.
    """
    history = [{"iteration": i, "loss": 0.5 + i} for i in range(2)]
    for at in (1, 2):
        Checkpointer(folder, CONFIG).save(
            at, {k: v + at for k, v in STATE.items()}, {"history": history[:at]}
        )
    good, place = Checkpointer(folder, CONFIG).load(), folder / "step-00000002"
    tally = {}
    for file in ("state.safetensors", "manifest.json"):
        data = (place / file).read_bytes()
        header = 8 + struct.unpack("<Q", data[:8])[0] if file == "state.safetensors" else 0
        changes = [
            (_region(file, i, header), data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :])
            for i in range(0, len(data), step)
        ]
        changes += [
            (f"{_region(file, i, header)}, cut", data[:i]) for i in range(0, len(data), step)
        ]
        changes += [(f"{file} gone", None), (f"{file} longer", data + b"\0")]
        for region, changed in changes:
            if changed is None:
                (place / file).unlink()
            else:
                (place / file).write_bytes(changed)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found = Checkpointer(folder, CONFIG).load()
            refused = found.step == 1
            assert same(found, good) or (
                refused and any("step-00000002" in str(w.message) for w in said)
            ), region
            tried, count = tally.get(region, (0, 0))
            tally[region] = (tried + 1, count + refused)
        (place / file).write_bytes(data)
    return tally


def _region(file, position, header):
    if file == "manifest.json":
        return "manifest"
    return "length" if position < 8 else "header" if position < header else "data"


def forged(folder, data, **changes):
    """A checkpoint whose checksums are right and whose content is what a forger wants."""
    import hashlib

    place = folder / "step-00000001"
    place.mkdir(parents=True)
    (place / "state.safetensors").write_bytes(data)
    manifest = {
        "schema": 2,
        "step": 1,
        "config": CONFIG,
        "notes": {"history": [{}]},
        "sha256": {"state.safetensors": hashlib.sha256(data).hexdigest()},
    } | changes
    write_json(place / "manifest.json", signed(manifest))


def _container(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def malformed_safetensors(tensors):
    """Files that are not what a reader of `tensors` expects: name -> bytes."""
    good = save(tensors)
    first = next(iter(tensors))
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "nothing": b"",
        "four bytes": b"\1\0\0\0",
        "half": good[: len(good) // 2],
        "one byte less": good[:-1],
        "one byte more": good + b"\0",
        "header of 2**63 bytes": struct.pack("<Q", 2**63) + good[8:],
        "header of 2**64 - 1 bytes": b"\xff" * 8 + good[8:],
        "header of 99 MB": struct.pack("<Q", 99_000_000) + good[8:],
        "header that is no JSON": _container(b"{" * 40),
        "header that is a list": _container([1, 2]),
        "header that is not UTF-8": _container(b'{"\xff": {}}'),
        "deeply nested header": _container(b"[" * 100_000 + b"]" * 100_000),
        "offsets that overlap": _container({first: entry, "b": entry}, b"\0" * 8),
        "offsets past the end": _container({first: entry | {"data_offsets": [0, 800]}}, b"\0" * 8),
        "offsets backwards": _container({first: entry | {"data_offsets": [8, 0]}}, b"\0" * 8),
        "negative shape": _container({first: entry | {"shape": [-2]}}, b"\0" * 8),
        "shape of 2**62 values": _container({first: entry | {"shape": [2**62]}}, b"\0" * 8),
        "shape that overflows": _container({first: entry | {"shape": [2**33, 2**33]}}, b"\0" * 8),
        "unknown dtype": _container({first: entry | {"dtype": "F31"}}, b"\0" * 8),
        "a hole between tensors": _container(
            {first: entry | {"data_offsets": [8, 16]}}, b"\0" * 16
        ),
        "a pickle": b"\x80\x04\x95" + b"cposix\nsystem\n(S'true'\ntR.",
        "no tensors": save({}),
        "one tensor less": save({k: v for k, v in tensors.items() if k != first}),
        "one tensor more": save({**tensors, "more": torch.zeros(1)}),
        "another name": save({(k if k != first else f"{k}x"): v for k, v in tensors.items()}),
        "another dtype": save({**tensors, first: tensors[first].double()}),
        "integers": save({**tensors, first: tensors[first].int()}),
        "another shape": save({**tensors, first: tensors[first][None].clone()}),
        "one row less": save({**tensors, first: tensors[first][1:].clone()}),
        "not a number": save({**tensors, first: tensors[first] * float("nan")}),
        "infinite": save({**tensors, first: tensors[first] + float("inf")}),
    }


# -- pictures --------------------------------------------------------------------------------------


def pictures():
    """A small picture in each format that is read: name -> bytes."""
    rng = np.random.default_rng(0)
    image, found = Image.fromarray(rng.integers(0, 255, (24, 20, 3), dtype=np.uint8)), {}
    for suffix, kind in (
        ("png", "PNG"),
        ("jpg", "JPEG"),
        ("webp", "WEBP"),
        ("bmp", "BMP"),
        ("ppm", "PPM"),
        ("tiff", "TIFF"),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        found[f"x.{suffix}"] = buffer.getvalue()
    return found


def broken_pictures(folder, draws, count):
    """Read `count` pictures with random bytes changed, cut out or doubled.

    Returns:
        (tried, refused): the others gave a picture of the right shape. Anything but a ValueError is
        a failure.
    """
    originals, refused = list(pictures().items()), 0
    for i in range(count):
        name, data = originals[i % len(originals)]
        changed = mutate(data, draws)
        file = folder / name
        file.write_bytes(changed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read_image(file, 16).shape == (3, 16, 16)
            except ValueError as error:
                assert name in str(error)
                refused += 1
    return count, refused


def mutate(data, draws):
    """Bytes with something wrong: flipped, cut, repeated, or with a field of ones."""
    data, kind = bytearray(data), draws.randrange(4)
    at = draws.randrange(len(data))
    if kind == 0:
        for _ in range(draws.randrange(1, 9)):
            data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data[at:at] = data[at : at + draws.randrange(1, 64)]
    else:
        data[at : at + 4] = b"\xff" * 4
    return bytes(data)


# -- archives --------------------------------------------------------------------------------------


def _zip(path, members, *, links=(), compression=zipfile.ZIP_DEFLATED):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in members:
                archive.writestr(name, data)
            for name, target in links:
                info = zipfile.ZipInfo(name)
                info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                archive.writestr(info, target)
    return path


def _tar(path, members, *, links=(), kind=tarfile.SYMTYPE):
    with tarfile.open(path, "w:gz" if str(path).endswith("gz") else "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return path


def hostile_archives(folder):
    """Archives that must not be unpacked: what it is -> (path, what the message says)."""
    png, folder = pictures()["x.png"], folder / "hostile"
    folder.mkdir()
    accent = "a/é.png"
    names = {
        "up": ("../x.png", "a path out of its folder"),
        "up from within": ("a/../../x.png", "a path out of its folder"),
        "absolute": ("/tmp/x.png", "an absolute path"),
        "a drive": ("C:/x.png", "an absolute path"),
        "a share": ("\\\\host\\x.png", "an absolute path"),
        "backslashes": ("a\\..\\x.png", "a backslash"),
        "a line break": ("a/x\n.png", "control characters"),
        "deep": ("d/" * 40 + "x.png", "too deep or too long"),
        "long": ("a/" + "x" * 300 + ".png", "too deep or too long"),
    }
    found = {}
    for what, (name, message) in names.items():
        for make, suffix in ((_zip, "zip"), (_tar, "tar"), (_tar, "tar.gz")):
            found[f"{what}, {suffix}"] = (
                make(folder / f"{what}.{suffix}", [("a/good.png", png), (name, png)]),
                message,
            )
    pairs = {
        "case": ([("a/x.png", png), ("a/X.png", png)], "are one on some disks"),
        "case of a folder": ([("cat/x.png", png), ("Cat/y.png", png)], "are one on some disks"),
        "accents": (
            [(accent, png), (unicodedata.normalize("NFD", accent), png)],
            "are one on some disks",
        ),
        "twice": ([("a/x.png", png), ("a/x.png", b"other")], "twice"),
        "a file as a folder": ([("a", png), ("a/x.png", png)], "are one on some disks"),
    }
    for what, (members, message) in pairs.items():
        for make, suffix in ((_zip, "zip"), (_tar, "tgz")):
            found[f"{what}, {suffix}"] = make(folder / f"{what}.{suffix}", members), message
    found["link out, zip"] = (
        _zip(folder / "link.zip", [], links=[("a", "/etc")]),
        "a link or device",
    )
    found["link out, tar"] = (
        _tar(folder / "link.tar", [], links=[("a", "../..")]),
        "a link or device",
    )
    found["through a link, tar"] = (
        _tar(folder / "through.tar", [], links=[("a", "/tmp"), ("a/x", "y")]),
        "a link or device",
    )
    found["hard link, tar"] = (
        _tar(folder / "hard.tar", [], links=[("a", "x")], kind=tarfile.LNKTYPE),
        "a link or device",
    )
    found["device, tar"] = (
        _tar(folder / "device.tar", [], links=[("a", "")], kind=tarfile.CHRTYPE),
        "a link or device",
    )
    found["pipe, tar"] = (
        _tar(folder / "pipe.tar", [], links=[("a", "")], kind=tarfile.FIFOTYPE),
        "a link or device",
    )
    zeros = bytes(70 * 2**20)
    found["bomb, zip"] = _zip(folder / "bomb.zip", [("a/x.png", zeros)]), "a mistake or a bomb"
    found["bomb, tar.gz"] = (
        _tar(folder / "bomb.tar.gz", [("a/x.png", zeros)]),
        "a mistake or a bomb",
    )
    whole = _zip(folder / "whole.zip", [("a/x.png", png)]).read_bytes()
    damaged = (
        whole.replace(png[40:60], bytes(20)) if png[40:60] in whole else whole[:60] + whole[80:]
    )
    for what, data in {
        "empty, zip": b"",
        "cut, zip": whole[:-10],
        "text, zip": b"<html>",
        "text, tar": b"<html>" * 200,
        "empty, tar.gz": b"",
        "cut, tar.gz": (folder / "up.tar.gz").read_bytes()[:90],
        "damaged, zip": damaged,
    }.items():
        suffix = what.split(", ")[1]
        (folder / f"{what.split(',')[0]}-bytes.{suffix}").write_bytes(data)
        found[what] = folder / f"{what.split(',')[0]}-bytes.{suffix}", "damaged"
    encrypted = bytearray(whole)
    for magic, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        encrypted[encrypted.index(magic) + offset] |= 1
    (folder / "locked.zip").write_bytes(encrypted)
    found["encrypted, zip"] = folder / "locked.zip", "encrypted"
    return found


def try_archives(folder):
    """Unpack every hostile archive; returns how many were tried.

    AssertionError: one was taken, or left something.
    """
    archives, place = hostile_archives(folder), folder / "place" / "in" / "here"
    outside = sorted(p.name for p in folder.iterdir())
    for what, (archive, message) in archives.items():
        try:
            unpack(archive, place)
        except REFUSALS as error:
            assert message in str(error), (what, error)
            assert archive.name in str(error), (what, error)
        else:
            raise AssertionError(f"{what} was unpacked")
        assert not [p for p in place.rglob("*") if p.is_file()], what
    assert sorted(set(p.name for p in folder.iterdir()) - {"place"}) == sorted(
        set(outside) - {"place"}
    )
    return len(archives)
