"""Values that users really pass: right, or one sentence before the work."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ld3m_min.evaluate import evaluate
from ld3m_min.run import distil

from .common import eval_preset, folder_of, load, settings


@pytest.fixture
def made(tmp_path):
    data = load(folder_of(tmp_path / "pets", n=20))
    return distil(settings(iterations=0), data=data, progress=False), data


def _accuracies(synthetic, data):
    return evaluate(synthetic, data, ("ConvNet",), config=eval_preset("smoke")).accuracies


def test_images_of_bytes_are_scaled_or_refused(made):
    """A set built in memory from uint8 pictures.

    As good as the same in [0, 1], or an error; never silently taken at 255 times.
    """
    synthetic, data = made
    as_bytes = replace(synthetic, pixels=(synthetic.pixels * 255).round().to(torch.uint8))
    try:
        got = _accuracies(as_bytes, data)
    except (ValueError, TypeError):
        return
    want = _accuracies(replace(synthetic, pixels=as_bytes.pixels.float() / 255), data)
    assert got == want


def test_images_that_are_not_finite_are_refused(made):
    """NaN among the pixels trains nothing: an error that says so."""
    synthetic, data = made
    pixels = synthetic.pixels.clone()
    pixels[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError):
        _accuracies(replace(synthetic, pixels=pixels), data)


def test_numpy_numbers_in_a_configuration_can_be_saved(tmp_path):
    """A rate from a numpy grid works to the end, checkpoints and set included."""
    data = load(folder_of(tmp_path / "pets"))
    distil(settings(lr=np.float32(0.5)), data=data, out=tmp_path / "run", progress=False)


def test_a_path_as_prior_can_be_saved(tmp_path):
    """`prior=Path(...)` works as its string does."""
    from ld3m_min.prior import LatentDiffusionPrior

    data = load(folder_of(tmp_path / "pets"))
    LatentDiffusionPrior.from_pretrained("digits").for_classes(
        [0, 1], data.classes
    ).save_pretrained(tmp_path / "prior")
    config = settings(space="autoencoder", prior=Path(tmp_path / "prior"))
    distil(config, data=data, out=tmp_path / "run", progress=False).save(tmp_path / "set")


def test_a_class_called_train(tmp_path):
    """A folder of tools of transport has a class `train`: it is a class, not a split."""
    data = load(folder_of(tmp_path / "transport", classes=("boat", "train")))
    assert data.classes == ("boat", "train")


def test_a_picture_that_is_wholly_transparent(tmp_path):
    """Pictures of alpha 0 show nothing: named, not taken as black."""
    from PIL import Image

    folder = folder_of(tmp_path / "pets")
    Image.new("RGBA", (32, 32), (200, 30, 30, 0)).save(folder / "apple" / "clear.png")
    with pytest.raises(ValueError):
        load(folder)
