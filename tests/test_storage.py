"""The bytes of a set are those of the files that hold it."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ld3m_min.compressed import Compression
from ld3m_min.coresets import select
from ld3m_min.errors import InputError
from ld3m_min.generated import sampled
from ld3m_min.io.packing import eight_bits, packed, unpacked
from ld3m_min.io.pictures import save_strip
from ld3m_min.presets import preset
from ld3m_min.prior import StyleGenerator
from ld3m_min.run import distil
from ld3m_min.set_index import check_index
from ld3m_min.spaces.build import SPACES
from ld3m_min.spaces.ld3m import forward_noise
from ld3m_min.storage import Kept, Storage
from ld3m_min.synthetic import SyntheticSet
from tests.style import tiny_style


@pytest.fixture
def made(digits, tiny_prior):
    """The undistilled set of a space, of two images a class."""

    def make(space):
        config = preset("smoke", space=space, ipc=2, iterations=0)
        style = SPACES[space].prior_kind is StyleGenerator
        prior = tiny_style() if style else tiny_prior
        return distil(config, data=digits, prior=prior, progress=False)

    return make


def tensors_on_disk(file):
    """Bytes of each tensor, from the header of a safetensors file."""
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    offsets = {k: v["data_offsets"] for k, v in header.items() if k != "__metadata__"}
    return {k: end - start for k, (start, end) in offsets.items()}


@pytest.mark.parametrize("space", SPACES)
def test_sizes_are_those_of_the_files(made, space, tmp_path):
    one = made(space)
    one.save(tmp_path / "set")
    storage = one.storage()
    pictures = sorted((tmp_path / "set" / "images").rglob("*.png"))
    assert (storage.classes, storage.count) == (10, len(one.labels))
    assert len(pictures) == len(one.labels) == 10 * one.ipc
    assert storage.images["PNG"] == sum(f.stat().st_size for f in pictures)
    again = tmp_path / "again"
    again.mkdir()
    for f in pictures:
        Image.open(f).save(again / f"{f.stem}.webp", lossless=True)
    assert storage.images["WebP"] == sum(f.stat().st_size for f in again.iterdir())
    sizes = tensors_on_disk(tmp_path / "set" / "set.safetensors")
    assert sizes.pop("labels") == storage.labels
    del sizes["images"]  # the pixels as they were trained on; a copy of what codes make
    assert {f"state.{k}": n for k, n in (storage.codes | storage.drawn).items()} == sizes
    assert list(storage.drawn) == (["noise"] if space == "ld3m" else [])
    assert SyntheticSet.load(tmp_path / "set").storage() == storage


def test_what_the_seed_draws_again_is_the_noise(made):
    noise = made("ld3m").state["noise"]
    assert torch.equal(forward_noise(noise.shape, 0), noise)


# what is shared


def poisoned(weights, images):
    """The images when one weight after the other is no number."""
    for w in weights:
        kept = w.detach().clone()
        w.data.fill_(float("nan"))
        yield images()
        w.data.copy_(kept)


@torch.no_grad()
def test_an_autoencoders_shared_weights_are_those_that_its_images_depend_on(made, tiny_prior):
    one = made("autoencoder")
    space = SPACES["autoencoder"].restore(preset("smoke"), {"Z": one.state["Z"][:1]}, tiny_prior)
    plain, shared = space.images(), space.shared_weights(preset("smoke"), tiny_prior)
    for found in poisoned(shared, space.images):
        assert not torch.equal(found, plain)
    named = {id(w) for w in shared}
    others = [w for m in tiny_prior.modules for w in m.parameters() if id(w) not in named]
    assert others
    for w in others:
        w.data.fill_(float("nan"))
    assert torch.equal(space.images(), plain)
    assert one.recipe["prior"]["bytes"] == 4 * sum(w.numel() for w in shared)
    assert one.storage().shared == one.recipe["prior"]["bytes"]


@torch.no_grad()
def test_ld3m_shares_decoder_denoiser_and_the_null_class(made, tiny_prior):
    one = made("ld3m")
    first = {k: v[:1] for k, v in one.state.items()}
    space = SPACES["ld3m"].restore(preset("smoke"), first, tiny_prior)
    plain = space.images()
    encoder = [tiny_prior.autoencoder.encoder, tiny_prior.autoencoder.quant_conv]
    unused = [w for m in encoder for w in m.parameters()]
    table = tiny_prior.class_embedding.weight
    whole = sum(w.numel() for m in tiny_prior.modules for w in m.parameters())
    rest = sum(w.numel() for w in unused) + table[:-1].numel()
    assert tiny_prior.has_null and one.storage().shared == 4 * (whole - rest)
    for w in (*unused, table[:-1]):
        w.data.fill_(float("nan"))
    assert torch.equal(space.images(), plain)
    table.data[-1] = float("nan")
    assert not torch.equal(space.images(), plain)


def test_samples_of_a_prior_share_what_ld3m_shares(made, digits, tiny_prior):
    drawn = sampled(preset("smoke", ipc=2), digits, tiny_prior)
    assert drawn.storage().shared == made("ld3m").storage().shared


def test_half_the_precision_is_counted_as_float32(made, tiny_prior):
    whole = made("autoencoder").storage().shared
    half = SPACES["autoencoder"].shared_weights(
        preset("smoke"), tiny_prior.to(dtype=torch.bfloat16)
    )
    assert 4 * sum(w.numel() for w in half) == whole


def test_pixels_share_nothing_and_an_older_set_does_not_say(made):
    assert made("pixel").storage().shared == 0
    one = made("ld3m")
    old = replace(one, recipe=one.recipe | {"prior": {"source": "digits"}}).storage()
    assert old.shared is None and "an unknown number" in old.in_words
    assert [kept.form for kept in old.ways] == ["lossless PNG", "lossless WebP"]
    assert replace(one, recipe={}).storage().shared == 0


# the smallest way


def test_the_smallest_way_by_hand():
    plain = Storage(classes=2, count=6, images={"PNG": 100, "WebP": 90})
    assert plain.images_per_class == 3 and plain.smallest == Kept("lossless WebP", 45, 0)
    codes = replace(plain, codes={"Z": 60, "c": 20}, drawn={"noise": 500}, shared=7)
    assert codes.smallest == Kept("codes", 40, 7)
    assert replace(codes, codes={"Z": 90}).smallest == Kept("lossless WebP", 45, 0)  # shares less
    assert replace(codes, shared=None).smallest == plain.smallest
    files = replace(plain, files={"WebP 50": 30}, codes={"pixels": 900})
    assert files.smallest == Kept("WebP 50", 15, 0)


def test_the_card_says_it(made, tmp_path):
    one = made("ld3m")
    one.save(tmp_path / "set")
    text = (tmp_path / "set" / "README.md").read_text()
    storage = one.storage()
    numbers = [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?= )|\d+(?=\.\n)", text)]
    wanted = (*storage.images.values(), sum(storage.codes.values()), storage.shared)
    assert set(wanted) <= set(numbers)
    assert "20 images (2 per class) of 32 px" in text and "the tensors Z and c" in text


@pytest.mark.parametrize(
    "change",
    [
        {"prior": {"source": "digits", "bytes": "many"}},
        {"selection": "random"},
        {"selection": {"method": 3}},
        {"selection": {"method": "webp", "bytes": "12", "format": "WebP", "quality": 50}},
        {"selection": {"method": "webp", "bytes": [1.5], "format": "WebP", "quality": 50}},
        {"selection": {"method": "webp", "bytes": [12], "format": 3, "quality": 50}},
        {"selection": {"method": "webp", "bytes": [12], "format": "WebP"}},
    ],
)
def test_a_recipe_that_counts_wrongly_is_no_whole_set(digits, change, tmp_path):
    one = select(digits, 1, "random")
    index = {"classes": list(digits.classes), "history": [], "sha256": ""}
    with pytest.raises(InputError, match="it is no whole set"):
        check_index(tmp_path, index | {"recipe": one.recipe | change})


# files in memory


@pytest.mark.parametrize("kind", ["PNG", "WebP"])
def test_lossless_files_give_the_image_back(kind):
    image = torch.randint(256, (3, 20, 20), dtype=torch.uint8, generator=torch.Generator())
    assert torch.equal(unpacked(packed(image, kind)), image)


@pytest.mark.parametrize("n, size", [(3, (12, 4)), (10, (40, 4)), (13, (40, 8))])
def test_a_strip_has_whole_rows(n, size, tmp_path):
    save_strip(torch.full((n, 3, 4, 4), 0.2), tmp_path / "strip.png")
    found = np.asarray(Image.open(tmp_path / "strip.png"))
    assert found.shape == (size[1], size[0], 3)
    assert (found == 51).sum() == n * 3 * 16 and ((found == 51) | (found == 255)).all()


def test_eight_bits_are_rounded():
    values = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0]).view(1, 1, 1, 5)
    assert eight_bits(values.expand(1, 3, 1, 5))[0, 0, 0].tolist() == [0, 0, 1, 255, 255]


def test_a_compressed_selection_is_kept_as_its_files(digits):
    made = select(digits, 1, "webp", compression=Compression(quality=30))
    storage = made.storage()
    assert storage.files == {"WebP 30": sum(made.recipe["selection"]["bytes"])}
    assert storage.smallest.form == "WebP 30" and storage.smallest.per_class <= 3 * 32 * 32
