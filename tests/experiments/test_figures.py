"""The figures' style: colours that can be read on white and told apart in grey."""

import itertools
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ld3m_min.experiments import figures, style

BOOK = Path(__file__).parents[2] / "book"


def luminance(colour):
    """Relative luminance, in [0, 1]."""
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(colour)]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colour", style.COLOURS)
def test_colours_can_be_read_on_white(colour):
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_lines_differ_in_more_than_colour():
    looks = list(style.STYLE["axes.prop_cycle"])
    for a, b in itertools.combinations(looks, 2):
        assert a["color"] != b["color"] and a["linestyle"] != b["linestyle"]


def test_the_style_is_used():
    with plt.rc_context():
        figures.use_style()
        figure, axis = plt.subplots()
        assert tuple(figure.get_size_inches()) == style.STYLE["figure.figsize"]
        assert not axis.spines["top"].get_visible()
        plt.close(figure)


def test_sliders_draw_again_when_one_moves_and_once_without_a_kernel():
    drawn = []
    assert (
        figures.with_sliders(lambda T, name: drawn.append((T, name)), False, T=(10, 2), name="ab")
        is None
    )
    assert drawn == [(10, "a")]
    live = figures.with_sliders(
        lambda T, name: drawn.append((T, name)), True, T=(10, 2, 5), name=("one", "two")
    )
    steps, names, _ = live.children
    assert steps.options == (2, 5, 10) and steps.value == 10 and names.value == "one"
    steps.value = 5
    names.value = "two"
    assert drawn[-1] == (5, "two")


def test_a_set_of_several_rows_is_shown_by_one_image_of_each_class(tmp_path):
    """Of 13 images in two rows, white after the last, the middle ones of ten parts."""
    tile = np.ones((4, 4), dtype=np.float32)
    images = [tile * (i + 1) / 20 for i in range(13)] + [tile] * 7
    picture = np.concatenate([np.concatenate(images[k : k + 10], 1) for k in (0, 10)])
    plt.imsave(tmp_path / "many.png", picture, cmap="gray", vmin=0, vmax=1)
    plt.imsave(tmp_path / "one.png", picture[:4], cmap="gray", vmin=0, vmax=1)
    figure = figures.strips({"many": tmp_path / "many.png", "one": tmp_path / "one.png"}, "both")
    many, one = figure.axes
    assert [x.get_title("left") for x in (many, one)] == ["many, 10 of 13", "one"]
    assert figure.get_figwidth() <= style.WIDTH
    shown = many.images[0].get_array()[0, ::4, 0]
    assert np.round(20 * shown - 1).astype(int).tolist() == [0, 1, 3, 4, 5, 7, 8, 9, 11, 12]
    assert many.images[0].get_array().shape == one.images[0].get_array().shape
    plt.close(figure)


def test_pages_draw_by_the_one_style_sheet():
    """No page sets matplotlib's parameters or names a colour of its own."""
    for page in BOOK.glob("*/*.md"):
        text = page.read_text()
        cells = re.findall(r"^```\{code-cell\}.*?^```$", text, re.DOTALL | re.MULTILINE)
        code = "\n".join(cells)
        if "plt.subplots" in code or "plt.figure" in code:
            assert "style.use_style()" in code, page
        assert not re.findall(r"rcParams|color=\"#", code), page
