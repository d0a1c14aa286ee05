"""Drawn letters: what they must be like, not their bits, which come from matplotlib's outlines."""

import math
from dataclasses import asdict
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.svm import SVC

from ld3m_min.data import load_data, load_letters
from ld3m_min.data.letters import FACES, LETTERS, _outline, drawn_outline
from ld3m_min.errors import InputError
from ld3m_min.prior.architecture import build_prior
from ld3m_min.prior.class_matching import match_classes
from ld3m_min.prior.presets import prior_preset

SQUARE = np.array([[(x0, y0), (x1, y1)] for (x0, y0), (x1, y1) in [
    ((0.25, 0.25), (0.75, 0.25)), ((0.75, 0.25), (0.75, 0.75)),
    ((0.75, 0.75), (0.25, 0.75)), ((0.25, 0.75), (0.25, 0.25)),
]])  # fmt: skip


@pytest.fixture(scope="module")
def letters():
    return load_data("letters", size=16)


def test_counts_classes_and_statistics(letters):
    splits = letters.train, letters.validation, letters.test
    assert [len(s) for s in splits] == [1000, 200, 300]
    assert letters.classes == tuple(LETTERS) and len(letters.classes) == 10
    assert not any(name.isdigit() for name in letters.classes)
    for split in splits:
        assert len(set(torch.bincount(split.labels).tolist())) == 1  # as many of each class
        x = split.images
        assert x.shape[1:] == (3, 16, 16) and bool((x[:, 0] == x[:, 1]).all())
        assert bool((x[:, 0] == x[:, 2]).all())
    flat = [x.numpy().tobytes() for s in splits for x in s.images]
    assert len(set(flat)) > 0.99 * len(flat)  # no image twice, but for chance at 16 pixels
    x = letters.normalise(letters.train.float())
    assert x.mean().abs() < 1e-5 and abs(x.std() - 1) < 1e-3


def test_the_same_call_draws_the_same_and_leaves_the_global_draws_alone(letters, monkeypatch):
    """An image is the same however many are drawn, and whatever was drawn before."""
    monkeypatch.setattr("ld3m_min.data.letters.COUNTS", {"train": 30, "validation": 10, "test": 20})
    torch.rand(3)
    state = torch.random.get_rng_state()
    again = load_letters(16)
    assert torch.equal(state, torch.random.get_rng_state())
    for split in ("train", "validation", "test"):
        few = getattr(again, split).images
        assert torch.equal(few, getattr(letters, split).images[: len(few)])


def test_letters_are_told_apart_by_what_was_seen(letters):
    """A plain classifier reads held-out letters, and letters of one class differ."""
    x, y = (s.images[:, 0].flatten(1).double() / 255 for s in (letters.train, letters.test))
    found = SVC(C=10.0).fit(x.numpy(), letters.train.labels.numpy()).predict(y.numpy())
    assert np.mean(found == letters.test.labels.numpy()) > 0.9
    for label in range(10):
        one = x[letters.train.labels == label]
        assert torch.cdist(one, one).median() > 2


def test_images_are_white_ink_on_black_inside_the_frame(letters):
    x = letters.train.images[:, 0].double() / 255
    ink = x.mean((1, 2))
    assert ink.min() > 0.03 and ink.max() < 0.6
    assert x[:, 0].mean() < 0.02 and x[:, :, 0].mean() < 0.02  # hardly any is cut off
    assert (x.amax((1, 2)) > 0.5).double().mean() > 0.99


@pytest.mark.parametrize("name", LETTERS)
@pytest.mark.parametrize("face", [FACES[0], FACES[-1]])
def test_outlines_are_those_of_the_font(name, face):
    """Against Pillow's own rasteriser of the same file, at a size where details show."""
    side = 200
    ours = drawn_outline(_outline(name, face) + 0.5, side)
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    picture = Image.new("L", (800, 800))
    font = ImageFont.truetype(str(file), 400)
    ImageDraw.Draw(picture).text((100, 100), LETTERS[name], 255, font=font)
    picture = picture.crop(picture.getbbox())
    scale = 0.72 * side / max(picture.size)
    width, height = (round(v * scale) for v in picture.size)
    theirs = Image.new("L", (side, side))
    theirs.paste(
        picture.resize((width, height), Image.Resampling.BOX),
        ((side - width) // 2, (side - height) // 2),
    )
    found, expected = ours > 0.5, np.asarray(theirs) > 127
    # where both have ink, of where either has; another letter has less than 0.7
    assert (found & expected).sum() / (found | expected).sum() > 0.85
    assert abs(found.mean() / expected.mean() - 1) < 0.1


def test_a_square_by_hand():
    ink = drawn_outline(SQUARE, 8)
    expected = np.zeros((8, 8))
    expected[2:6, 2:6] = 1  # its edges lie between pixels
    assert np.abs(ink - expected).max() < 1e-12
    # moved outwards by half a pixel, the pixels beside it have half: their centres lie on the edge
    wider = drawn_outline(SQUARE, 8, 0.5 / 8)
    assert np.abs(wider[1, 2:6] - 0.5).max() < 1e-12 and np.abs(wider[2:6, 6] - 0.5).max() < 1e-12
    # of a corner's pixel the centre is half a diagonal away, so it has 1 - sqrt(1/2) of ink
    assert abs(wider[1, 1] - (1 - math.sqrt(0.5))) < 1e-12
    assert np.abs(drawn_outline(SQUARE, 8, -0.5 / 8)[2, 2:6] - 0.5).max() < 1e-12


def test_a_hole_is_a_second_outline_the_other_way_round():
    small = (SQUARE - 0.5) / 2 + 0.5
    reverse = small[:, ::-1]
    ring = drawn_outline(np.concatenate([SQUARE, reverse]), 8)
    assert ring[3:5, 3:5].max() < 1e-12 and ring[2, 2:6].min() > 1 - 1e-12
    # the same way round it is no hole, as in every font
    whole = drawn_outline(np.concatenate([SQUARE, small]), 16)
    assert (whole > 0.5)[4:12, 4:12].all()


def test_area_of_a_turned_square_stays():
    a = 0.3
    turn = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    ink = drawn_outline((SQUARE - 0.5) @ turn.T + 0.5, 64)
    assert abs(ink.mean() - 0.25) < 0.002


def test_too_small_is_refused():
    with pytest.raises(InputError, match="from 16 pixels on, not at 15"):
        load_data("letters", size=15)


def test_prior_of_letters_is_the_digits_prior_but_for_its_data():
    ours, theirs = (asdict(prior_preset(name)) for name in ("letters", "digits"))
    assert {k for k in ours if ours[k] != theirs[k]} == {"name", "dataset", "about"}


def test_digits_are_matched_with_letters_by_position_and_it_is_said(digits):
    prior = build_prior(prior_preset("letters"), tuple(LETTERS))
    with pytest.warns(UserWarning, match=r"other classes \(A, H, K, \.\.\.\).*matched by position"):
        found = match_classes(prior, digits)
    assert found.by == "position" and found.rows == tuple(range(10))
    assert "'0' -> 0 ('A')" in found.table()
