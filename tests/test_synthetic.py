"""A synthetic set refuses what it cannot hold, in a sentence."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ld3m_min.errors import Mistake
from ld3m_min.synthetic import SyntheticSet

WHOLE = {
    "pixels": torch.zeros(2, 3, 4, 4),
    "labels": torch.arange(2),
    "classes": ("a", "b"),
    "state": {"pixels": torch.zeros(2, 3, 4, 4)},
    "recipe": {},
    "history": ({},),
}


@pytest.mark.parametrize(
    "name, value, says",
    [
        ("pixels", np.zeros((2, 3, 4, 4)), "a set's pixels must be a tensor, not ndarray"),
        ("pixels", torch.zeros(2, 1, 4, 4), r"expected \(B, 3, H, W\)"),
        ("pixels", torch.full((2, 3, 4, 4), 1.5), r"must lie in \[0, 1\]"),
        ("labels", [0, 1], "a set's labels must be a tensor, not list of int"),
        ("labels", torch.zeros(2), "int64"),
        ("labels", torch.arange(3), "int64"),
        ("classes", 2, "a set's classes must be a tuple of names, not int"),
        ("classes", (1, 2), "class names must be text"),
        ("state", [torch.zeros(2)], "a set's state must be a dict of tensors by name, not list"),
        ("state", {"Z": [0.0]}, "not dict of list"),
        ("state", {"Z": torch.zeros(3)}, "state.Z is"),
        ("recipe", "r", "a set's recipe must be a dict, not str"),
        ("history", 3, "a set's history must be a tuple of dicts, not int"),
        ("history", (1, 2), "not tuple of int"),
        ("prior", "digits", "a set's prior must be a prior or None, not str"),
        ("home", 3, "a set's home must be a path or None, not int"),
    ],
)
def test_what_cannot_be_held_is_refused(name, value, says):
    with pytest.raises(Mistake, match=says):
        SyntheticSet(**(WHOLE | {name: value}))
    with pytest.raises(Mistake, match=says):
        replace(SyntheticSet(**WHOLE), **{name: value})


def test_bytes_and_lists_are_taken():
    made = SyntheticSet(
        torch.full((2, 3, 4, 4), 255, dtype=torch.uint8), torch.arange(2), ["a", "b"]
    )
    assert made.classes == ("a", "b") and made.ipc == 1 and made.pixels.dtype == torch.uint8
    assert made.images().dtype == torch.float32 and bool((made.images() == 1).all())
    assert made.state == {} and made.recipe == {} and made.history == () and made.home is None
