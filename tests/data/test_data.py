"""Real data.

The fixed split of the digits, image folders, ImageNet trees, and files that are not what they seem.
"""

import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ld3m_min.data import cache as cache_module
from ld3m_min.data import load_data
from ld3m_min.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from ld3m_min.data.folders import load_folder, load_subset
from ld3m_min.data.images import read_image
from ld3m_min.data.subsets import SUBSETS
from ld3m_min.io.seeds import seeded
from ld3m_min.spaces import draw_initial_images


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No test leaves anything in the user's cache."""
    monkeypatch.setenv("LD3M_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(folder, names, seed=0):
    """Small pictures of noise, one per name; returns the folder."""
    folder.mkdir(parents=True)
    g = np.random.default_rng([seed, *os.fsencode(folder.name)])
    for name in names:
        Image.fromarray(g.integers(0, 255, (12, 16, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Two classes of six small pictures."""
    for c in ("cat", "dog"):
        fill(tmp_path / "data" / c, [f"{i}.png" for i in range(6)])
    return tmp_path / "data"


def load(path, **options):
    return load_folder(path, size=16, progress=False, **options)


# -- digits ----------------------------------------------------------------------------------------


def test_digits_split_is_fixed_and_disjoint(digits):
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1000, 297, 500)
    assert digits.classes == tuple("0123456789") and digits.size == 32 and digits.ids == ()
    sums = [int(s.images.long().sum()) for s in (digits.train, digits.validation, digits.test)]
    # the very split of every record
    assert sums == pytest.approx([244_208_469, 72_875_604, 122_317_716], rel=1e-5)
    flat = [{x.numpy().tobytes() for x in s.images} for s in (digits.train, digits.test)]
    assert not flat[0] & flat[1]
    assert all(int(n) >= 48 for n in torch.bincount(digits.test.labels))


def test_normalise_is_the_training_statistics(digits):
    x = digits.normalise(digits.train.float())
    assert x.mean().abs() < 1e-5 and abs(x.std() - 1) < 1e-3


def test_sample_class(digits):
    x = digits.train.sample_class(3, 8, seeded(0, "t"))
    assert x.shape == (8, 3, 32, 32) and x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1
    assert torch.equal(x, digits.train.sample_class(3, 8, seeded(0, "t")))
    assert not torch.equal(x, digits.train.sample_class(3, 8, seeded(1, "t")))
    index = digits.train.draw_positions(3, 8, seeded(0, "t"))
    assert len(index.unique()) == 8 and (digits.train.labels[index] == 3).all()
    everything = digits.train.sample_class(3, 10_000, seeded(0, "t"))
    assert len(everything) == int((digits.train.labels == 3).sum())


# -- any folder ------------------------------------------------------------------------------------


def test_folder(folder):
    data = load(folder)
    assert data.classes == ("cat", "dog") and data.size == 16 and data.name == "data"
    assert [len(s) for s in (data.train, data.validation, data.test)] == [8, 2, 2]
    again = load_data(str(folder), size=16, progress=False)
    assert torch.equal(data.train.images, again.train.images)
    assert (data.mean, data.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert "held out" in data.source and str(folder) not in repr(data.source)


def test_what_is_held_out_depends_on_names_alone(folder, tmp_path):
    held = load(folder).test.images
    for i in range(6):  # another format, another place, one file less in the other class
        for c in ("cat", "dog"):
            (tmp_path / "again" / c).mkdir(parents=True, exist_ok=True)
            Image.open(folder / c / f"{i}.png").save(tmp_path / "again" / c / f"{i}.bmp")
    (tmp_path / "again" / "dog" / "3.bmp").unlink()
    again = load(tmp_path / "again").test
    assert torch.equal(again.images[:1], held[:1])


def test_folder_with_train_and_val_and_test(folder, tmp_path):
    root = tmp_path / "split"
    shutil.copytree(folder, root / "train")
    with pytest.raises(ValueError, match="no val/ or test/"):
        load(root)
    shutil.copytree(folder, root / "val")
    data = load(root)
    assert len(data.test) == 12 and len(data.train) == 10 and len(data.validation) == 2
    shutil.copytree(folder, root / "test")
    assert [len(load(root).split(s)) for s in ("train", "validation", "test")] == [12, 12, 12]
    shutil.rmtree(root / "val" / "dog")
    with pytest.raises(ValueError, match="different classes: dog"):
        load(root)
    shutil.copytree(folder, root / "validation")
    with pytest.raises(ValueError, match="val, validation, test"):
        load(root)


def test_names_are_looked_up_in_ld3m_data(folder, monkeypatch, tmp_path):
    monkeypatch.chdir("/")
    for home in (tmp_path, folder):  # the folder that holds it, or the data set itself
        monkeypatch.setenv("LD3M_DATA", str(home))
        assert load_data("data", size=16, progress=False).classes == ("cat", "dog")
    with pytest.raises(FileNotFoundError, match=r"no data set called 'digitz'.*imagenet-a"):
        load_data("digitz")
    with pytest.raises(ValueError, match=r"split= belong to the ImageNet subsets"):
        load_data("digits", split="paper")


def test_too_few_images_for_ipc_is_said_before_anything_runs(folder):
    with pytest.raises(ValueError, match=r"'cat' has 4 training images, fewer than the 5"):
        draw_initial_images(load(folder), 5, seed=0)


# -- ImageNet trees --------------------------------------------------------------------------------

NETTE = SUBSETS["imagenette"]


@pytest.fixture
def fastai(tmp_path):
    """The layout of fastai: official validation images lie in both folders, training images too."""
    for i, w in enumerate(NETTE.wnids):
        fill(
            tmp_path / "nette" / "train" / w,
            [f"{w}_{k}.png" for k in range(4)] + [f"ILSVRC2012_val_{i:08d}.png"],
        )
        fill(
            tmp_path / "nette" / "val" / w,
            [f"{w}_9.png", f"ILSVRC2012_val_{i + 50:08d}.png"],
            seed=1,
        )
    (tmp_path / "nette" / "noisy_imagenette.csv").write_text("path\n")
    return tmp_path / "nette"


@pytest.fixture
def imagenet(fastai, tmp_path):
    """The same images in ImageNet's own layout, among classes that no subset needs."""
    root = tmp_path / "imagenet"
    for f in fastai.glob("*/*/*.png"):
        top = "val" if f.name.startswith("ILSVRC") else "train"
        (root / top / f.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(f, root / top / f.parent.name)
    for top in ("train", "val"):
        (root / top / "n99999999").mkdir()
        (root / top / "n99999999" / "broken.JPEG").write_bytes(b"")  # never looked at
    return root


@pytest.mark.filterwarnings("ignore:imagenette. not 50 official")
def test_the_papers_split_is_the_same_in_every_layout(fastai, imagenet):
    a, b = (load_data("ImageNette", path=p, size=16, progress=False) for p in (fastai, imagenet))
    assert a.classes == NETTE.classes and a.ids == NETTE.ids and a.name == b.name == "imagenette"
    assert "paper split" in a.source
    for s in ("train", "validation", "test"):
        assert torch.equal(a.split(s).images, b.split(s).images) and torch.equal(
            a.split(s).labels, b.split(s).labels
        )
    assert [len(a.split(s)) for s in ("train", "validation", "test")] == [40, 10, 20]


def test_fastais_split_is_its_folders_and_named(fastai, imagenet, monkeypatch):
    data = load_data("imagenette", path=fastai, split="fastai", size=16, progress=False)
    assert data.name == "imagenette-fastai" and "fastai split" in data.source
    assert [len(data.split(s)) for s in ("train", "validation", "test")] == [40, 10, 20]
    monkeypatch.setenv("LD3M_DATA", str(fastai))
    again = load_data(data.name, size=16, progress=False)  # the name in a record suffices
    assert torch.equal(again.test.images, data.test.images)
    with pytest.raises(ValueError, match="not fastai's partition"):
        load_subset("imagenette", imagenet, split="fastai")
    with pytest.raises(ValueError, match="fastai made no split of imagenet-a"):
        load_subset("imagenet-a", imagenet, split="fastai")
    with pytest.raises(ValueError, match="by its name, not 'paper'"):
        load_data("imagenette-fastai", split="paper")


def test_too_few_official_images_are_said(fastai):
    with pytest.warns(UserWarning, match=r"not 50 official validation images.*n01440764: 2"):
        load_subset("imagenette", fastai, size=16, progress=False)


@pytest.mark.filterwarnings("ignore:imagewoof. not 50 official")
def test_label_order_is_the_papers_not_the_folders(tmp_path):
    woof = SUBSETS["imagewoof"]
    for i, w in enumerate(woof.wnids):
        f = fill(tmp_path / "imagewoof" / w, [f"{w}_0.png", f"{w}_1.png"])
        Image.new("RGB", (16, 16), (20 * i, 0, 0)).save(f / f"ILSVRC2012_val_{i:08d}.png")
    # a flat tree, one folder down
    data = load_subset("imagewoof", tmp_path, size=16, progress=False)
    assert data.test.images[:, 0, 0, 0].tolist() == [
        20 * i for i in range(10)
    ] and data.test.labels.tolist() == list(range(10))


def test_trees_that_do_not_hold_the_subset(fastai, tmp_path, monkeypatch):
    monkeypatch.delenv("LD3M_DATA", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"imagenet-a needs its images: give path=, or set LD3M_DATA"
    ):
        load_data("imagenet-a")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_subset("imagenette", tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"holds no class of imagewoof.*n02096294 \(Australian terrier\)"
    ):
        load_subset("imagewoof", fastai)
    with pytest.raises(ValueError, match="unknown split 'half'"):
        load_subset("imagenette", fastai, split="half")
    twin = fastai / "val" / NETTE.wnids[0] / f"{NETTE.wnids[0]}_0.bmp"
    Image.new("RGB", (16, 16)).save(twin)
    with pytest.raises(
        ValueError, match=r"1 image\(s\) of imagenette are there twice, e.g. n01440764/n01440764_0"
    ):
        load_subset("imagenette", fastai)
    twin.unlink()
    for f in fastai.glob(f"*/{NETTE.wnids[1]}/ILSVRC*"):
        f.unlink()
    with pytest.raises(
        ValueError, match=r"no official validation image.*of n02102040 \(English springer\)"
    ):
        load_subset("imagenette", fastai)
    shutil.rmtree(fastai / "val" / NETTE.wnids[2])
    with pytest.raises(FileNotFoundError, match="lacks the class folder n02979186"):
        load_subset("imagenette", fastai)
    shutil.rmtree(fastai / "val")
    fill(fastai / "val", ["ILSVRC2012_val_00000001.png"])
    with pytest.raises(FileNotFoundError, match="sort them into folders"):
        load_subset("imagenette", fastai)


def test_normalisation_of_the_public_code_only_when_named(digits):
    x = torch.full((1, 3, 1, 1), 0.5)
    assert torch.equal(digits.normalise(x), digits.normalise(x, synthetic=True))
    odd = digits.with_normalisation("reference-mismatch")
    assert torch.equal(odd.normalise(x), digits.normalise(x))
    expected = (0.5 - torch.tensor([0.4377, 0.4438, 0.4728])) / torch.tensor(digits.std)
    torch.testing.assert_close(odd.normalise(x, synthetic=True).flatten(), expected)
    back = odd.with_normalisation("shared")
    assert torch.equal(back.normalise(x, synthetic=True), digits.normalise(x))
    with pytest.raises(ValueError, match="choose shared, reference-mismatch"):
        digits.with_normalisation("zca")


# -- the cache -------------------------------------------------------------------------------------


def refuse(*_):
    raise AssertionError("decoded again")


def test_images_are_decoded_once(folder, cache, monkeypatch):
    first = load(folder)
    (file,) = cache.iterdir()
    assert file.suffix == ".npy" and not list(folder.rglob("*.npy"))
    monkeypatch.setattr(cache_module, "read_image", refuse)
    again = load(folder)
    assert torch.equal(first.train.images, again.train.images) and torch.equal(
        first.test.images, again.test.images
    )
    before = file.read_bytes()
    again.train.images.zero_()  # the tensor may be written to; the file stays
    assert file.read_bytes() == before
    with pytest.raises(AssertionError):
        load(folder, cache=False)


def test_the_cache_notices_changed_files_and_another_size(folder, cache):
    first = load(folder)
    Image.new("RGB", (16, 16), "red").save(folder / "cat" / "0.png")
    assert not torch.equal(
        torch.cat([first.train.images, first.validation.images, first.test.images]),
        torch.cat([load(folder).split(s).images for s in ("train", "validation", "test")]),
    )
    load_folder(folder, size=8, progress=False)
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"not an array", "cut"])
def test_a_damaged_cache_is_made_anew(folder, cache, damage):
    first = load(folder)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.unlink()  # `first` still reads the old file: one that is in use must not shrink
    file.write_bytes(whole[:-5] if damage == "cut" else damage)
    with pytest.warns(UserWarning, match="damaged"):
        again = load(folder)
    assert torch.equal(first.train.images, again.train.images) and file.read_bytes() == whole


def test_no_cache_and_no_room(folder, cache, monkeypatch):
    first = load(folder, cache=False)
    assert not cache.exists()
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="kept in memory"):
        assert torch.equal(load(folder).train.images, first.train.images)
    cache.unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "fsync", full)
    with pytest.raises(OSError, match=r"decoded images.*No space left.*LD3M_CACHE"):
        load(folder)
    assert not list(cache.iterdir())


def test_bad_files_leave_nothing_in_the_cache(folder, cache):
    (folder / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cat/0\.png"):
        load(folder)
    assert not list(cache.iterdir())


# -- files that are not what they seem -------------------------------------------------------------

RAMP = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1))
GREY = Image.fromarray(RAMP)


def coded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    """A PNG that claims a size it need not have."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + png_chunk(b"IEND", b"")
    )


PNG, JPG, WEBP = (
    coded(GREY, "PNG"),
    coded(GREY.convert("RGB"), "JPEG"),
    coded(GREY.convert("RGB"), "WEBP"),
)
MOVING = {"save_all": True, "append_images": [GREY.convert("RGB").rotate(90)]}
MALFORMED = {
    "zero bytes.png": b"",
    "zero bytes.jpg": b"",
    "truncated.jpg": JPG[: len(JPG) // 2],
    "truncated.png": PNG[: len(PNG) // 2],
    "truncated.webp": WEBP[: len(WEBP) // 2],
    "header only.png": PNG[:8],
    "header only.jpg": JPG[:4],
    "flipped byte.png": PNG[:60] + bytes([PNG[60] ^ 0xFF]) + PNG[61:],
    "text.jpg": b"not an image\n" * 50,
    "page.png": b"<!DOCTYPE html><title>404</title>",
    "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "fits.png": b"SIMPLE  =                    T" + b" " * 4000,
    "gif.png": coded(GREY, "GIF"),
    "moving gif.jpg": coded(GREY.convert("RGB"), "GIF", **MOVING),
    "moving.webp": coded(GREY.convert("RGB"), "WEBP", **MOVING),
    "moving.png": coded(GREY.convert("RGB"), "PNG", **MOVING),
    "pages.tif": coded(GREY.convert("RGB"), "TIFF", **MOVING),
    "bomb.png": bomb(30_000, 30_000),
    "bigger bomb.png": bomb(2**31 - 1, 2**31 - 1),
    "large.png": bomb(9_000, 9_000),
    "no pixels.png": bomb(0, 0),
    "float.tif": coded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    "32 bit.tif": coded(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
    "archive.png": b"PK\x03\x04" + b"\0" * 100,
    "pickle.png": b"\x80\x04\x95" + b"\0" * 100,
    "noise.bmp": bytes(range(256)),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_file_is_named(tmp_path, name):
    (tmp_path / "emu").mkdir()
    (tmp_path / "emu" / name).write_bytes(MALFORMED[name])
    with pytest.raises(ValueError, match=rf"^emu/{name}: ") as error:
        read_image(tmp_path / "emu" / name, 16)
    assert str(tmp_path) not in str(error.value)


def test_every_broken_file_is_named_at_once(folder):
    (folder / "cat" / "0.png").write_bytes(b"")
    whole = (folder / "dog" / "1.png").read_bytes()
    (folder / "dog" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"2 file\(s\) cannot be used.*\n  cat/0.png: .*\n  dog/1.png: "
    ):
        load(folder)
    for i in range(20):
        (folder / "cat" / f"{i}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"21 file\(s\)(.*\n){11}  and 11 more"):
        load(folder)


ODD_FOLDERS = {
    "an empty class": (
        lambda r: (r / "emu").mkdir(),
        r"class folder 'emu' of 'data' holds no image",
    ),
    "one image": (
        lambda r: fill(r / "emu", ["0.png"]),
        r"'emu' has 1 image\(s\) to split; 3 splits need 3",
    ),
    "two images": (lambda r: fill(r / "emu", ["0.png", "1.png"]), r"'emu' has 2 image\(s\)"),
    "names that differ in case": (lambda r: fill(r / "Cat", ["0.png"]), "differ in case alone"),
    "a class linked twice": (lambda r: (r / "emu").symlink_to(r / "cat"), "one and the same"),
    "a link to itself": (
        lambda r: (r / "emu").symlink_to(r / "emu"),
        r"(?s)1 file\(s\) in 'data'.*emu",
    ),
    "a loop of links": (lambda r: (r / "emu").symlink_to(r), r"emu/cat: a folder"),
    "a dead link": (
        lambda r: (r / "cat" / "x.png").symlink_to(r / "gone"),
        r"cat/x.png: a link that leads nowhere",
    ),
    "a file linked to itself": (
        lambda r: (r / "cat" / "x.png").symlink_to(r / "cat" / "x.png"),
        r"cat/x.png: a link",
    ),
    "a pipe": (lambda r: os.mkfifo(r / "cat" / "x.png"), r"cat/x.png: no ordinary file"),
    "folders in a class": (lambda r: fill(r / "cat" / "more", ["0.png"]), r"cat/more: a folder"),
    "a folder called x.png": (lambda r: (r / "cat" / "x.png").mkdir(), r"cat/x.png: a folder"),
    "a moving gif": (
        lambda r: (r / "cat" / "x.gif").write_bytes(coded(GREY, "GIF")),
        r"cat/x.gif: not an image suffix",
    ),
    "a photo of an unknown kind": (
        lambda r: (r / "cat" / "x.heic").write_bytes(b"ftyp"),
        r"cat/x.heic: not",
    ),
    "a note": (lambda r: (r / "cat" / "README.txt").write_text("hi"), r"cat/README.txt: not"),
    "no suffix": (lambda r: (r / "cat" / "x").write_bytes(PNG), r"cat/x: not"),
    "an image beside the classes": (
        lambda r: (r / "x.png").write_bytes(PNG),
        r"(?s)in 'data' lie in no class folder.*x.png",
    ),
    "a class that is no text": (
        lambda r: fill(Path(os.fsdecode(os.fsencode(r) + b"/caf\xe9")), ["0.png"]),
        r"the class folder 'caf\\udce9' of 'data' is not UTF-8 text; rename it$",
    ),
    "a name that is no text": (
        lambda r: Path(os.fsdecode(os.fsencode(r / "cat") + b"/\xff.txt")).write_text("x"),
        r"cat/\\udcff.txt: not",
    ),
}


@pytest.mark.parametrize("case", ODD_FOLDERS)
def test_odd_folder_is_named(folder, case):
    spoil, message = ODD_FOLDERS[case]
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_paths_that_are_no_folder_of_classes(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no class folder"):
        load(tmp_path / "empty")
    (tmp_path / "empty" / "note.txt").write_text("x")
    with pytest.raises(FileNotFoundError, match="is a file"):
        load(tmp_path / "empty" / "note.txt")


def test_what_file_managers_leave_is_passed_over(folder):
    expected = load(folder).train.images
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
        (folder / "cat" / name).write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / "list.csv").write_text("x")  # beside the classes, and no image
    assert torch.equal(load(folder).train.images, expected)


def saved(path, data):
    path.write_bytes(data)
    return read_image(path, 16)


def exif(orientation):
    e = Image.Exif()
    e[0x0112] = orientation
    return e


PLAIN = GREY.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC)
HANDLED = {  # file: bytes, most that a pixel may differ from the plain picture
    "grey.png": (PNG, 0),
    "upper case.PNG": (PNG, 0),
    "jpeg that is a png.jpeg": (PNG, 0),
    "colour.webp": (coded(GREY.convert("RGB"), "WEBP", lossless=True), 0),
    "grey.bmp": (coded(GREY, "BMP"), 0),
    "grey.ppm": (coded(GREY, "PPM"), 0),
    "grey.tif": (coded(GREY, "TIFF"), 0),
    "palette.png": (coded(GREY.convert("P"), "PNG"), 2),
    "16 bit.png": (coded(Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG"), 1),
    "16 bit.tif": (coded(Image.fromarray(RAMP.astype(np.uint16) * 257), "TIFF"), 1),
    "cmyk.jpg": (coded(GREY.convert("RGB").convert("CMYK"), "JPEG", quality=98), 12),
    "grey and alpha.png": (
        coded(Image.merge("LA", [GREY, Image.new("L", GREY.size, 255)]), "PNG"),
        0,
    ),
    "colour and alpha.png": (coded(GREY.convert("RGBA"), "PNG"), 0),
    "broken exif.jpg": (
        coded(GREY.convert("RGB"), "JPEG", quality=98, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"),
        8,
    ),
    "nonsense orientation.jpg": (coded(GREY.convert("RGB"), "JPEG", quality=98, exif=exif(77)), 8),
    "trailing bytes.png": (PNG + b"rubbish", 0),
    "mirrored.jpg": (
        coded(
            GREY.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            "JPEG",
            quality=98,
            exif=exif(2),
        ),
        8,
    ),
    "turned.jpg": (
        coded(
            GREY.convert("RGB").transpose(Image.Transpose.ROTATE_90),
            "JPEG",
            quality=98,
            exif=exif(6),
        ),
        8,
    ),
    "turned.tif": (
        coded(GREY.convert("RGB").transpose(Image.Transpose.ROTATE_90), "TIFF", exif=exif(6)),
        0,
    ),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("name", HANDLED)
def test_every_kind_of_image_gives_the_same_picture(tmp_path, name):
    data, most = HANDLED[name]
    x = saved(tmp_path / name, data)
    assert x.shape == (3, 16, 16) and x.dtype == torch.uint8
    assert (x.int() - torch.from_numpy(np.array(PLAIN)).permute(2, 0, 1).int()).abs().max() <= most


def test_dark_16_bit_pictures_stay_dark(tmp_path):
    assert (
        saved(tmp_path / "a.png", coded(Image.fromarray(RAMP.astype(np.uint16)), "PNG")).max() <= 1
    )


def test_transparency_is_laid_on_white(tmp_path):
    alpha = Image.new("L", GREY.size, 0)
    alpha.putpixel((0, 0), 1)
    seen = saved(tmp_path / "a.png", coded(Image.merge("RGBA", [GREY, GREY, GREY, alpha]), "PNG"))
    assert seen.min() >= 253 and seen.float().mean() > 254.9


@pytest.mark.parametrize(
    "image, options",
    [
        (Image.merge("RGBA", [GREY, GREY, GREY, Image.new("L", GREY.size, 0)]), {}),
        (Image.new("P", (9, 9), 0), {"transparency": 0}),
        (Image.merge("LA", [GREY, Image.new("L", GREY.size, 0)]), {}),
    ],
)
def test_what_is_wholly_transparent_shows_nothing(tmp_path, image, options):
    with pytest.raises(ValueError, match=r"clear\.png: wholly transparent"):
        saved(tmp_path / "clear.png", coded(image, "PNG", **options))


def test_sizes(tmp_path):
    dot = saved(tmp_path / "dot.png", coded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"))
    assert (dot == torch.tensor([9, 8, 7], dtype=torch.uint8).view(3, 1, 1)).all()
    strip = np.zeros((1, 30_000, 3), dtype=np.uint8)
    strip[0, 14_000:16_000] = 200
    assert (saved(tmp_path / "strip.png", coded(Image.fromarray(strip), "PNG")) == 200).all()
    wide = np.zeros((20, 40, 3), dtype=np.uint8)
    wide[:, 10:30] = 200  # the central square
    x = saved(tmp_path / "wide.png", coded(Image.fromarray(wide), "PNG"))
    assert (x[:, :, 2:-2] == 200).all()


def test_shrinking_is_antialiased(tmp_path):
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    x = saved(tmp_path / "board.png", coded(Image.fromarray(board), "PNG"))
    assert (x.int() - 128).abs().max() <= 2


# -- the real images, where there are any ----------------------------------------------------------


@pytest.fixture
def imagenette():
    root = Path(os.environ.get("LD3M_DATA") or "nowhere")
    if not any((root / top / NETTE.wnids[0]).is_dir() for top in ("train", "imagenette/train")):
        pytest.skip("LD3M_DATA is not set to a folder with ImageNette's images")


@pytest.mark.parametrize(
    ("split", "train", "test"), [("paper", 12_894, 500), ("fastai", 9_469, 3_925)]
)
def test_counts_of_imagenette(imagenette, split, train, test, monkeypatch):
    blank = torch.zeros(3, 1, 1, dtype=torch.uint8)
    monkeypatch.setattr(cache_module, "read_image", lambda file, size: blank)
    data = load_data("imagenette", split=split, size=1, progress=False)
    assert len(data.train) + len(data.validation) == train and len(data.test) == test
    held, rest = torch.bincount(data.validation.labels), torch.bincount(data.train.labels)
    assert torch.equal(held, (held + rest) // 10)
    assert split == "fastai" or (torch.bincount(data.test.labels) == 50).all()


def test_imagenette_at_128_px(imagenette, monkeypatch):
    data = load_data("imagenette", size=128, progress=False)
    assert data.train.images.shape == (11_605, 3, 128, 128) and data.classes[0] == "tench"
    mean = data.train.take(torch.arange(0, 11_605, 50)).mean((0, 2, 3))
    torch.testing.assert_close(mean, torch.tensor(IMAGENET_MEAN), atol=0.05, rtol=0)
    monkeypatch.setattr(cache_module, "read_image", refuse)
    again = load_data("imagenette", size=128, progress=False)
    assert torch.equal(again.test.images, data.test.images)
