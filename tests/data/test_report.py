"""What can't be used is named and counted; a few files of many are left out, and that is said."""

import os
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from ld3m_min.data import cache as cache_module
from ld3m_min.data.folders import load_folder
from ld3m_min.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LD3M_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(folder, n, seed=0):
    folder.mkdir(parents=True)
    random = np.random.default_rng([seed, *folder.name.encode()])
    for i in range(n):
        pixels = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture
def many(tmp_path):
    """Two classes of forty pictures: two of each may be left out."""
    for name in ("cat", "dog"):
        fill(tmp_path / "pets" / name, 40)
    return tmp_path / "pets"


def load(folder, **options):
    return load_folder(folder, size=8, progress=False, **options)


def spoil(folder):
    """A picture of no bytes, and a note, among forty."""
    (folder / "07.png").write_bytes(b"")
    (folder / "note.txt").write_text("hi")


@pytest.mark.parametrize("keep", [True, False])
def test_a_few_of_many_are_left_out_and_said(many, keep):
    whole = load(many, cache=keep)
    assert whole.report.text == "" and whole.report.used == 80
    spoil(many / "cat")
    with pytest.warns(UserWarning) as said:
        data = load(many, cache=keep)
    (text,) = [str(w.message) for w in said]
    assert text.startswith(
        "about these images: 2 file(s) are left out, 79 images are used:\n  cat/07.png: "
    )
    assert "\n  cat/note.txt: not an image suffix" in text
    assert [x.file for x in data.report.left_out] == ["cat/07.png", "cat/note.txt"]
    assert sum(map(len, (data.train, data.validation, data.test))) == 79
    dogs = [s.images[s.labels == 1] for s in (whole.test, data.test)]
    assert torch.equal(*dogs)  # no other file moves


def test_what_is_known_to_be_bad_is_not_decoded_again(many, cache, monkeypatch):
    spoil(many / "cat")
    with pytest.warns(UserWarning):
        first = load(many)
    monkeypatch.setattr(cache_module, "read_image", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="cat/07.png"):
        again = load(many)
    assert torch.equal(first.train.images, again.train.images)
    (note,) = cache.glob("*.unusable.json")
    note.write_text("[]")  # a damaged note is none
    with pytest.raises(ZeroDivisionError):
        load(many)


def test_more_than_a_few_are_refused_and_all_named(many):
    for i in range(3):
        (many / "dog" / f"{i:02d}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"3 file\(s\) cannot be used(.*\n)*  dog/02.png"):
        load(many)
    for i in range(3):
        (many / "dog" / f"{i:02d}.png").rename(many / "dog" / f"{i:02d}.txt")
    with pytest.raises(InputError, match=r"3 file\(s\) in class folders are no image files"):
        load(many)


def test_images_to_test_on_are_never_left_out(many, tmp_path):
    shutil.copytree(many, tmp_path / "split" / "train")
    shutil.copytree(many, tmp_path / "split" / "val")
    for p in (tmp_path / "split" / "val").rglob("*.png"):  # other pictures than in train/
        Image.open(p).rotate(90).save(p)
    spoil(tmp_path / "split" / "train" / "cat")
    with pytest.warns(UserWarning, match="159 images are used"):
        assert len(load(tmp_path / "split").test) == 80
    (tmp_path / "split" / "val" / "dog" / "03.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"dog/03\.png"):
        load(tmp_path / "split")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no such permissions there")
def test_a_file_that_may_not_be_read_is_named_and_tried_again(many, cache, monkeypatch):
    secret = many / "cat" / "05.png"
    opened = cache_module.Path.read_bytes

    def read_bytes(self):
        if self.name == secret.name and self.parent.name == "cat":
            raise PermissionError(13, "Permission denied")
        return opened(self)

    def read_image(file, size):
        if file == secret:
            raise InputError("cat/05.png: [Errno 13] Permission denied: it")
        return real(file, size)

    real = cache_module.read_image
    with monkeypatch.context() as m:
        m.setattr(cache_module.Path, "read_bytes", read_bytes)
        m.setattr(cache_module, "read_image", read_image)
        m.setattr(cache_module.os, "access", lambda *_: False)
        with pytest.warns(UserWarning, match=r"cat/05.png: .*Permission denied"):
            assert load(many).report.used == 79
    assert load(many).report.used == 80 and not list(cache.glob("*.unusable.json"))


def test_a_folder_that_may_not_be_looked_into(many, monkeypatch):
    listed = os.listdir

    def iterdir(self):
        if self.name == "dog":
            raise PermissionError(13, "Permission denied")
        return (self / name for name in listed(self))

    monkeypatch.setattr("pathlib.Path.iterdir", iterdir)
    with pytest.raises(InputError, match=r"the folder 'dog' can't be listed: Permission denied"):
        load(many)


def test_one_picture_in_two_classes_is_said(many):
    shutil.copy(many / "cat" / "01.png", many / "dog" / "copy.png")
    with pytest.warns(UserWarning, match=r"1 image\(s\) are in two classes, e.g. "):
        data = load(many)
    assert len(data.report.notes) == 1 and data.report.left_out == ()


def test_pictures_that_are_all_alike(many):
    for file in (many / "cat").iterdir():
        Image.new("RGB", (8, 8), "red").save(file)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = load(many)
    assert any("all 40 images of class 'cat' show the same picture" in str(w.message) for w in said)
    assert len(data.report.notes) == 1
    for file in (many / "dog").iterdir():
        Image.new("RGB", (8, 8), "red").save(file)
    with pytest.raises(InputError, match=r"all 80 images show the same picture, e\.g\. cat/"):
        load(many)


def test_folders_that_hold_no_classes(tmp_path):
    fill(tmp_path / "one" / "cat", 6)
    with pytest.raises(InputError, match="'one' holds one class alone, 'cat'"):
        load(tmp_path / "one")
    fill(tmp_path / "deep" / "pets" / "cat", 6)
    fill(tmp_path / "deep" / "pets" / "dog", 6)
    with pytest.raises(InputError, match=r"folders of folders, e.g. pets/cat.*give '.*deep/pets'"):
        load(tmp_path / "deep")
    fill(tmp_path / "deep" / "toys" / "car", 6)
    with pytest.raises(InputError, match="give the folder that holds the classes"):
        load(tmp_path / "deep")


def test_memory_is_looked_at_before_the_first_image(many, monkeypatch):
    monkeypatch.setattr(cache_module, "device_bytes", lambda device: 1000)
    monkeypatch.setattr(cache_module, "read_image", lambda *_: 1 / 0)
    with pytest.raises(MemoryError, match="80 images of 8 px take"):
        load(many, cache=False)
