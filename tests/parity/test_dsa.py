"""Each operation of DSA, from its draw, against the public code's output."""

import pytest
import torch

from ld3m_min import augment

from ._data import load_json, load_tensors

SPEC = load_json("dsa")
TENSORS = load_tensors("dsa")
TOLERANCE = {
    name: SPEC["tolerance"][group]["suggested_abs"]
    for group in ("exact_ops", "color_ops", "geometric_ops")
    for name in SPEC["tolerance"][group]["ops"].split(", ")
}


def largest_deviation(case, dtype=torch.float32):
    name = case.split(".")[0]
    draw = {key: TENSORS[f"{case}.{key}"] for key in SPEC["cases"][case]}
    x = TENSORS["input"].to(dtype)
    y = (
        augment.DSA().apply(x, augment.Draw("color", draw))
        if name == "color"
        else getattr(augment, name)(x, draw)
    )
    assert y.dtype == dtype
    return float((y - TENSORS[f"{case}.output"]).abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", SPEC["cases"])
def test_output_from_draw(case, dtype):
    assert largest_deviation(case, dtype) <= TOLERANCE[case.split(".")[0]]


def test_every_operation_is_covered():
    assert {case.split(".")[0] for case in SPEC["cases"]} == set(TOLERANCE)


@pytest.mark.parametrize("case", [case for case in SPEC["cases"] if case.endswith("siamese")])
def test_one_shared_value_is_the_siamese_mode(case):
    name = case.split(".")[0]
    family = "color" if name in ("brightness", "saturation", "contrast") else name
    draw = {key: TENSORS[f"{case}.{key}"][:1] for key in SPEC["cases"][case]}
    output = (
        augment.DSA().apply(TENSORS["input"], augment.Draw(family, draw))
        if family == name
        else getattr(augment, name)(TENSORS["input"], draw)
    )
    assert float((output - TENSORS[f"{case}.output"]).abs().max()) <= TOLERANCE[name]
