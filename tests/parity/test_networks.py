"""Parameter lists and logits of the five networks against the public code's.

Under two deterministic fillings.
"""

import numpy as np
import pytest
import torch

from ld3m_min.networks import build_network

from ._data import load_json

SPEC = load_json("networks")
CASES = {
    f"{n['arch']}-{n['im_size'][0]}" + (f"-D{n['depth']}" if "depth" in n else ""): n
    for n in SPEC["networks"]
}


def hashed(index, stream):
    """Formula B's w_s[i]: an integer hash brought to mean 0 and variance 1."""
    m = SPEC["formulas"]["B"]["constants"]
    mask = np.uint64(2**32 - 1)
    h = (index + np.uint64(m["s"] * stream + 1)) * np.uint64(m["m1"]) & mask
    h ^= h >> np.uint64(m["r1"])
    h = h * np.uint64(m["m2"]) & mask
    h ^= h >> np.uint64(m["r2"])
    return np.sqrt(3.0) * (2 * h.astype(np.float64) / 2**32 - 1)


def filling(formula, k, name, shape, gain):
    """Values of the k-th parameter; `gain` scales formula B's matrices and kernels."""
    index = np.arange(np.prod(shape), dtype=np.uint64)
    if formula == "A":
        return torch.from_numpy(0.05 * np.cos(0.7 * k + 0.013 * index)).reshape(shape)
    w = torch.from_numpy(hashed(index, k)).reshape(shape)
    if len(shape) in (2, 4):
        return gain * w / w[0].numel() ** 0.5
    if len(shape) == 3:
        return 0.5 * w
    return 1 + 0.1 * w if name.endswith("weight") else 0.1 * w


def inputs(formula, size, channels=3):
    shape = (SPEC["n_inputs"], channels, size, size)
    index = np.arange(np.prod(shape), dtype=np.uint64)
    x = (
        np.sin(0.01 * index)
        if formula == "A"
        else hashed(index, SPEC["formulas"]["B"]["constants"]["xs"])
    )
    return torch.from_numpy(x).reshape(shape)


def network_of(case):
    return build_network(
        case["arch"],
        classes=case["num_classes"],
        size=case["im_size"][0],
        depth=case.get("depth"),
        width=case.get("width", 128),
    ).eval()


@torch.no_grad()
def fill(network, formula, gain):
    for k, (name, p) in enumerate(network.named_parameters()):
        p.copy_(filling(formula, k, name, p.shape, gain))


@pytest.mark.parametrize("key", CASES)
def test_parameters_in_definition_order(key):
    case, network = CASES[key], network_of(CASES[key])
    found = [[name, list(p.shape)] for name, p in network.named_parameters()]
    assert [shape for _, shape in found] == [shape for _, shape in case["parameters"]]
    assert sum(p.numel() for p in network.parameters()) == case["parameter_count"]
    if case["arch"] in ("ConvNet", "VGG11", "ResNet18"):
        assert found == case["parameters"]


@torch.no_grad()
def deviations(case, formula):
    """Largest deviation of the logits in float64 and in float32."""
    network = network_of(case).double()
    fill(network, formula, case["logits"][formula].get("gain"))
    # at 256 px the weak formula A takes the first image only (an image's logits don't depend on the
    # others), for time
    n = 1 if formula == "A" and case["im_size"][0] > 128 else SPEC["n_inputs"]
    x = inputs(formula, case["im_size"][0])[:n]
    expected = torch.tensor(case["logits"][formula]["float64"], dtype=torch.float64)[:n]
    return tuple(
        float((network.to(dtype)(x.to(dtype)) - expected).abs().max())
        for dtype in (torch.float64, torch.float32)
    )


@pytest.mark.parametrize("formula", ["A", "B"])
@pytest.mark.parametrize("key", CASES)
def test_logits(key, formula):
    case = CASES[key]
    double, single = deviations(case, formula)
    assert double <= SPEC["tolerance"]["float64"]["suggested_abs"][formula]
    assert single <= 10 * case["logits"][formula]["float32_run_max_abs_deviation"] + 1e-5
