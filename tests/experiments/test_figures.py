"""The figures' style: colours that can be read on white and told apart in grey."""

import itertools

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgb

from ld3m_min.experiments import figures


def luminance(colour):
    """Relative luminance, in [0, 1]."""
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(colour)]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colour", figures.COLOURS)
def test_colours_can_be_read_on_white(colour):
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_lines_differ_in_more_than_colour():
    looks = list(figures.STYLE["axes.prop_cycle"])
    for a, b in itertools.combinations(looks, 2):
        assert a["color"] != b["color"] and a["linestyle"] != b["linestyle"]


def test_the_style_is_used():
    with plt.rc_context():
        figures.use_style()
        figure, axis = plt.subplots()
        assert tuple(figure.get_size_inches()) == figures.STYLE["figure.figsize"]
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
