"""What a prior makes of images that it may not know is said before a distillation."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from ld3m_min.config import DistilConfig, NetworkConfig
from ld3m_min.data import load_data
from ld3m_min.prior.class_matching import match_classes
from ld3m_min.prior.loading import load_prior
from ld3m_min.prior.on_images import MUSH, PICTURE, WARN, OnImages, is_of, on_images
from ld3m_min.prior.quality import FIT_PSNR, decibels
from ld3m_min.prior.training_log import TrainedOn
from ld3m_min.run import distil
from ld3m_min.sampler import SamplerConfig

CONFIG = DistilConfig(
    iterations=1,
    batch_real=2,
    network=NetworkConfig(width=8),
    sampler=SamplerConfig(steps=2),
    checkpoint_every=1,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of two classes of pictures of noise."""
    root = tmp_path_factory.mktemp("photos")
    g = torch.Generator().manual_seed(0)
    for name in ("left", "right"):
        (root / name).mkdir()
        for i in range(6):
            pixels = torch.randint(256, (32, 32, 3), generator=g, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def noise(photos):
    return load_data(photos, size=32, cache=False, progress=False)


def test_decibels_by_hand():
    x = torch.zeros(3, 3, 4, 4)
    y = x.clone()
    y[0] += 0.1  # mean squared error 0.01
    y[1] += 1
    assert decibels(x, y).tolist() == pytest.approx([20, 0, 100], abs=1e-4)


def test_digits_through_their_own_prior_and_noise_through_it(digits, noise):
    prior = load_prior("digits")
    good, bad = on_images(prior, digits), on_images(prior, noise)
    assert good.mean > 33 and good.warning is None
    assert good.real.shape == good.rebuilt.shape == (10, 3, 32, 32) and len(good.psnr) == 10
    assert bad.mean < MUSH and "train a prior on your own folder" in bad.warning
    assert len(bad.psnr) == len(noise.train) < 10  # all that there are
    assert f"{bad.mean:.1f} dB" in bad.line and MUSH < WARN < FIT_PSNR
    wanted = decibels(bad.real, bad.rebuilt)
    assert bad.psnr == pytest.approx(wanted.tolist(), abs=0.01)


def test_ten_of_many_classes(digits, tiny_prior):
    many = replace(digits.train, classes=digits.classes)
    found = on_images(tiny_prior, replace(digits, train=many), n=4)
    assert len(found.psnr) == 4


def test_whose_prior_it_is(digits, noise, tmp_path):
    prior = load_prior("digits")
    assert is_of(prior, digits) and not is_of(prior, noise)
    matching = match_classes(prior, digits)
    assert is_of(prior.for_classes(matching.rows, digits.classes), digits, matching)
    assert not is_of(prior, load_data("digits", size=16))  # another size
    names = tuple("abcdefghij")  # other classes
    splits = {s: replace(digits.split(s), classes=names) for s in ("train", "validation", "test")}
    assert not is_of(prior, replace(digits, **splits))
    prior.save_pretrained(tmp_path)
    TrainedOn.of(noise).save(tmp_path)
    of_noise = load_prior(tmp_path)
    assert is_of(of_noise, noise) and not is_of(of_noise, digits)
    (tmp_path / "trained_on.json").write_text('{"name": 3}')
    with pytest.raises(ValueError, match="trained_on"):
        is_of(of_noise, noise)


def test_the_picture_has_a_row_of_each(tmp_path):
    x = torch.rand(3, 3, 8, 8)
    OnImages((20.0, 21.0, 22.0), x, 1 - x).save(tmp_path / "a" / "x.png")
    with Image.open(tmp_path / "a" / "x.png") as picture:
        assert picture.size == (24, 16)
        first = picture.getpixel((0, 0))
        assert list(first) == (x[0, :, 0, 0] * 255).round().int().tolist()


def test_it_is_said_once_where_a_distillation_begins(noise, tmp_path, capsys):
    config = replace(CONFIG, prior="digits", space="autoencoder")
    with pytest.warns(UserWarning, match="blurs your images"):
        distil(config, data=noise, out=tmp_path)
    assert capsys.readouterr().err.count("of your training images: ") == 1
    with Image.open(tmp_path / PICTURE) as picture:
        assert picture.size == (32 * len(noise.train), 64)
    (tmp_path / PICTURE).unlink()
    distil(replace(config, iterations=2), data=noise, out=tmp_path)  # it goes on
    assert not (tmp_path / PICTURE).exists() and "training images" not in capsys.readouterr().err


def test_nothing_is_said_of_the_priors_own_images(digits, tmp_path, capsys):
    distil(replace(CONFIG, space="autoencoder"), data=digits, out=tmp_path)
    assert not (tmp_path / PICTURE).exists() and "training images" not in capsys.readouterr().err
