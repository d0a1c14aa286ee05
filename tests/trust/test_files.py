"""Nothing of the user's is deleted, emptied or silently believed."""

import contextlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from ld3m_min.run import distil

from .common import command, folder_of, load, settings, synthetic_set


def test_a_file_where_the_set_goes_is_kept(tmp_path):
    """`out/set` is somebody's file: refused before the work, and the file as it was."""
    data = load(folder_of(tmp_path / "pets"))
    out = tmp_path / "run"
    out.mkdir()
    (out / "set").write_text("my notes")
    with pytest.raises((ValueError, OSError)):
        distil(settings(), data=data, out=out, progress=False)
    assert (out / "set").read_text() == "my notes"


def test_a_foreign_file_in_a_set_is_kept(tmp_path):
    """Someone put a file of their own beside the pictures.

    A new set doesn't take it away without a word.
    """
    data = load(folder_of(tmp_path / "pets"))
    made = distil(settings(), data=data, progress=False)
    made.save(tmp_path / "set")
    mine = tmp_path / "set" / "images" / "selection.txt"
    mine.write_text("00000.png is the best")
    with contextlib.suppress(ValueError, OSError):
        made.save(tmp_path / "set")
    assert mine.exists()


def test_a_lock_never_writes_through_a_link(tmp_path):
    """A link with the lock's name leads to another file: that file is not emptied."""
    data = load(folder_of(tmp_path / "pets"))
    victim = tmp_path / "thesis.tex"
    victim.write_text("chapter 1")
    out = tmp_path / "run"
    out.mkdir()
    (out / ".lock").symlink_to(victim)
    with contextlib.suppress(ValueError, OSError):
        distil(settings(), data=data, out=out, progress=False)
    assert victim.read_text() == "chapter 1"


def test_a_damaged_cache_is_not_believed(tmp_path):
    """Bytes of the cached pictures changed on the disk: noticed, and decoded again (or refused)."""
    folder, cache = folder_of(tmp_path / "pets"), tmp_path / "cache"
    before = load(folder, cache=cache).train.images.clone()
    for file in cache.rglob("*.npy"):
        content = bytearray(file.read_bytes())
        # past the header, within the pictures
        content[200:6000] = bytes(255 - b for b in content[200:6000])
        times = file.stat()
        file.write_bytes(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    try:
        after = load(folder, cache=cache).train.images
    except (ValueError, OSError):
        return
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index["recipe"]["config"].update(ipc="many"),
        lambda index: index["recipe"].update(normalisation=None),
    ],
    ids=["ipc", "normalisation"],
)
def test_a_set_with_nonsense_fields_is_refused_when_loaded(tmp_path, change):
    """set.json was edited (its own checksum made to fit).

    A sentence at load, not an error of another kind later.
    """
    import json

    from ld3m_min.io.files import signed

    folder = tmp_path / "set"
    distil(settings(), data=load(folder_of(tmp_path / "pets")), progress=False).save(folder)
    file = folder / "set.json" if (folder / "set.json").exists() else next(folder.rglob("set.json"))
    index = json.loads(file.read_text())
    change(index)
    index.pop("checksum", None)
    file.write_text(json.dumps(signed(index)))
    with pytest.raises(ValueError):
        synthetic_set().load(folder)


@pytest.mark.parametrize(
    "change",
    [{"num_train_timesteps": 300_000_000}, {"beta_end": float("nan")}],
    ids=["long", "nan"],
)
def test_a_prior_with_an_impossible_schedule_is_refused(tmp_path, change):
    """A schedule of 3e8 steps takes gigabytes, one of NaN gives NaN pictures.

    A sentence when the prior is loaded.
    """
    import json

    from ld3m_min.prior import LatentDiffusionPrior

    LatentDiffusionPrior.from_pretrained("digits").save_pretrained(tmp_path / "prior")
    file = next(f for f in (tmp_path / "prior").rglob("scheduler_config.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30,) * 2)\n"
        "from ld3m_min.prior import LatentDiffusionPrior\n"
        "try: LatentDiffusionPrior.from_pretrained({!r})\n"
        "except ValueError: print('refused')"
    ).format(str(tmp_path / "prior"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "refused" in done.stdout, done.stderr[-500:]


def test_a_control_character_in_a_file_name_does_not_reach_the_terminal(tmp_path):
    """The name of a broken picture has an escape sequence: it is shown harmlessly."""
    folder = folder_of(tmp_path / "pets")
    (folder / "apple" / "\x1b[2Jx.png").write_bytes(b"no picture")
    done = command(
        "distil",
        "--preset",
        "smoke",
        "--space",
        "pixel",
        "--dataset",
        folder,
        "--out",
        tmp_path / "run",
    )
    assert "\x1b[2J" not in done.stdout + done.stderr


def test_clutter_of_file_managers_is_no_picture_anywhere(tmp_path, monkeypatch):
    """Thumbs.db lies first in an ImageNet class folder.

    What a record says of the files is read from a picture.
    """
    from dataclasses import replace

    from ld3m_min.io.environment import files_of

    folder = folder_of(tmp_path / "data", classes=("n01440764", "n02102040"))
    (folder / "n01440764" / "..Thumbs.db").write_bytes(np.zeros(64, np.uint8).tobytes())
    data = replace(load(folder), ids=(0, 217))
    monkeypatch.setenv("LD3M_DATA", str(tmp_path / "data"))
    assert "PNG" in files_of(data)
