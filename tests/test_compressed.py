"""Real images, compressed until as many as can be take the bytes of a few."""

import numpy as np
import pytest
import torch
from PIL import Image

from ld3m_min import compressed
from ld3m_min.compressed import FORMATS, Compression
from ld3m_min.coresets import select
from ld3m_min.data import DataSplits, ImageDataset
from ld3m_min.errors import InputError
from ld3m_min.evaluate import evaluate
from ld3m_min.io.digests import digest
from ld3m_min.io.packing import packed, unpacked
from ld3m_min.presets import eval_preset
from ld3m_min.storage import Storage
from ld3m_min.synthetic import SyntheticSet

OPTIONS = {"webp": {"method": 6}, "jpeg": {"optimize": True}}  # of Pillow, for the smallest files


def saved(image, method, quality, folder):
    """An image of a data set as a file on the disk."""
    array = image.permute(1, 2, 0).numpy()
    grey = method == "jpeg" and (array == array[..., :1]).all()
    file = folder / f"x.{method}"
    Image.fromarray(array[..., 0].copy() if grey else array).save(
        file, quality=quality, **OPTIONS[method]
    )
    return file


def colourful(counts=(8, 5), size=24):
    """Smooth images in colour, class after class, so many of each."""
    labels = torch.tensor([c for c, n in enumerate(counts) for _ in range(n)])
    noise = torch.rand(len(labels), 3, 6, 6, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(noise, size=size, mode="bilinear")
    images = (images * 255).round().to(torch.uint8)
    parts = [ImageDataset(images, labels, ("a", "b"), s) for s in ("train", "validation", "test")]
    return DataSplits("colours", *parts, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.mark.parametrize("method", FORMATS)
@pytest.mark.parametrize("ipc, budget", [(1, None), (2, None), (1, 1700)])
def test_the_bytes_hold_what_fits_and_not_one_more(digits, method, ipc, budget, tmp_path):
    made = select(digits, ipc, method, seed=3, compression=Compression(budget=budget))
    said, bound = made.recipe["selection"], budget or ipc * 3 * 32 * 32
    assert said["budget"] == bound and sum(said["images"]) == len(made.labels)
    start = 0
    for label, (n, used) in enumerate(zip(said["images"], said["bytes"], strict=True)):
        whole = digits.train.class_positions(label)
        longer = select(digits, n + 1, "random", seed=3).recipe["selection"]["positions"]
        order = longer[
            label * (n + 1) : (label + 1) * (n + 1)
        ]  # those that are drawn, and one more
        assert said["positions"][start : start + n] == order[:n] and set(order) <= set(
            whole.tolist()
        )
        sizes = []
        for k, position in enumerate(order):
            file = saved(digits.train.images[position], method, 50, tmp_path)
            sizes.append(file.stat().st_size)
            if k < n:
                seen = np.asarray(Image.open(file).convert("RGB"))
                ours = (made.pixels[start + k] * 255).round().to(torch.uint8)
                assert np.array_equal(ours.permute(1, 2, 0).numpy(), seen)
        assert sum(sizes[:n]) == used <= bound < sum(sizes)
        assert made.labels[start : start + n].tolist() == [label] * n
        start += n


@pytest.mark.parametrize("method", FORMATS)
def test_better_files_are_larger_and_fewer(method):
    data, sets = colourful(), {}
    for quality in (5, 30, 60, 90):
        how = Compression(quality, budget=10**6)
        sets[quality] = select(data, 1, method, compression=how)
    sizes = [sum(s.recipe["selection"]["bytes"]) for s in sets.values()]
    assert sizes == sorted(sizes) and len(set(sizes)) == 4
    errors = []
    for made in sets.values():
        positions = torch.tensor(made.recipe["selection"]["positions"])
        errors.append(float((made.pixels - data.train.take(positions)).abs().mean()))
    assert errors == sorted(errors, reverse=True) and 0 < errors[-1] < 0.05
    few = [
        len(select(data, 1, method, compression=Compression(q, budget=2000)).labels)
        for q in (5, 90)
    ]
    assert few[0] > few[1]


@pytest.mark.parametrize("method", FORMATS)
def test_it_stops_where_the_class_ends(method):
    made = select(colourful(), 1, method, compression=Compression(budget=10**6))
    assert made.recipe["selection"]["images"] == [8, 5]
    assert made.labels.tolist() == [0] * 8 + [1] * 5


@pytest.mark.parametrize("method", FORMATS)
def test_the_same_call_gives_the_same_bits_and_another_seed_others(digits, method):
    a, b, c = (select(digits, 1, method, seed=s) for s in (0, 0, 1))
    assert torch.equal(a.pixels, b.pixels)
    assert a.recipe["selection"] == b.recipe["selection"]
    assert a.recipe["selection"]["positions"] != c.recipe["selection"]["positions"]


def test_by_herding_the_images_are_herdings(digits):
    features = digits.train.images.flatten(1).double() ** 0.5
    how = Compression(order="herding", budget=900)
    made = select(digits, 1, "webp", features=features, compression=how)
    said, start = made.recipe["selection"], 0
    assert said["order"] == "herding" and said["features"] == digest(features)
    most = max(said["images"])
    herded = select(digits, most, features=features).recipe["selection"]["positions"]
    for label, n in enumerate(said["images"]):
        assert said["positions"][start : start + n] == herded[label * most : label * most + n]
        start += n
    plain = select(digits, 1, "webp", features=features)
    assert plain.recipe["selection"]["features"] == "pixels"  # at random nothing is compared


def test_grey_is_written_as_grey_where_that_is_less(digits):
    grey = digits.train.images[0]
    red = grey * torch.tensor([1, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    assert len(packed(grey, "JPEG", 50)) < len(packed(red, "JPEG", 50))
    back = unpacked(packed(grey, "JPEG", 50))
    assert back.shape == grey.shape and bool((back == back[:1]).all())


@pytest.mark.parametrize("method", FORMATS)
def test_a_set_of_unequal_classes_is_saved_loaded_and_evaluated(digits, method, tmp_path):
    made = select(digits, 1, method)
    made.save(tmp_path / "set")
    found = SyntheticSet.load(tmp_path / "set")
    assert torch.equal(found.pixels, made.pixels) and found.recipe == made.recipe
    assert torch.equal(found.regenerate(), made.pixels) and found.storage() == made.storage()
    said = found.recipe["selection"]
    assert {"format", "codec", "quality", "order", "budget", "bytes", "images"} <= said.keys()
    assert said["format"] == FORMATS[method] and said["quality"] == 50
    text = (tmp_path / "set" / "README.md").read_text()
    least, most = min(said["images"]), max(said["images"])
    assert least < most and f"({least} to {most} per class)" in text
    assert f"{sum(said['bytes']):,} as {FORMATS[method]} 50" in text
    protocol = eval_preset("smoke", epochs=1, repeats=1)
    assert 0 <= evaluate(found, digits, ("ConvNet",), config=protocol).mean("ConvNet") <= 1


def test_more_images_fit_than_the_bytes_are_counted_for(digits):
    """Ten times as many digits as raw images, which is why the row is in the tables."""
    storage: Storage = select(digits, 1, "webp").storage()
    assert storage.images_per_class > 10 and storage.smallest.per_class <= 3 * 32 * 32


@pytest.mark.parametrize(
    "method, how, says",
    [
        ("webp", {"budget": 20}, "takes .* bytes as WebP of quality 50, and 20 are all"),
        ("jpeg", {"budget": 20}, "takes .* bytes as JPEG of quality 50, and 20 are all"),
        ("random", {}, "random takes images as they are; compression is for webp and jpeg"),
        ("class-mean", {}, "class-mean takes images as they are"),
    ],
)
def test_what_cannot_be_compressed_is_refused(digits, method, how, says):
    with pytest.raises(InputError, match=says):
        select(digits, 1, method, compression=Compression(**how))


@pytest.mark.parametrize(
    "how, says",
    [
        ({"quality": 0}, r"quality must be in \[1, 100\], not 0"),
        ({"quality": 101}, "quality must be in"),
        ({"quality": 50.5}, "quality must be a whole number"),
        ({"budget": 0}, "budget must be at least 1"),
        ({"order": "k-center"}, "order='k-center' is unknown; choose random, herding"),
    ],
)
def test_settings_out_of_range_are_refused(how, says):
    with pytest.raises(InputError, match=says):
        Compression(**how)


def test_a_format_that_is_not_there_is_said(digits, monkeypatch):
    monkeypatch.setattr(compressed, "available", lambda kind: False)
    with pytest.raises(InputError, match="cannot write WebP"):
        select(digits, 1, "webp")
