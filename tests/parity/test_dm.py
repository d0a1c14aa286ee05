"""Distribution matching against the public code's."""

import pytest
import torch

from ld3m_min.distillers import distribution_matching_loss

from ._data import convnet, largest, load_json, load_tensors, relative

SPEC = load_json("dm")
T = load_tensors("dm")
KEPT = len(T["per_class"])  # classes


def results(dtype):
    network = convnet(T).to(dtype).requires_grad_(False)
    real, synthetic = (T[f"{k}_images"].to(dtype, copy=True) for k in ("real", "syn"))
    synthetic.requires_grad_()
    pairs = zip(real.view(KEPT, -1, 3, 32, 32), synthetic.view(KEPT, -1, 3, 32, 32), strict=True)
    values = torch.stack([distribution_matching_loss(network, r, s) for r, s in pairs])
    values.sum().backward()
    with torch.no_grad():
        embeddings = network.embed(real), network.embed(synthetic)
    return values.detach(), synthetic.grad, embeddings


def test_in_float64():
    values, gradient, (real, synthetic) = results(torch.float64)
    tolerance = SPEC["tolerance"]["float64"]["suggested_abs"]
    for ours, name in (
        (values, "per_class"),
        (gradient, "grad_syn"),
        (real, "embed_real"),
        (synthetic, "embed_syn"),
    ):
        assert largest(ours, T[name]) <= tolerance
    assert T["per_class"].tolist() == SPEC["results"]["per_class"][:KEPT]


def test_in_float32():
    values, gradient, (real, synthetic) = results(torch.float32)
    tolerance = SPEC["tolerance"]["float32"]
    assert (
        max(largest(real, T["embed_real"]), largest(synthetic, T["embed_syn"]))
        <= tolerance["suggested_embed_abs"]
    )
    assert float(values.sum()) == pytest.approx(
        float(T["per_class"].sum()), rel=tolerance["suggested_total_rel"]
    )
    assert relative(gradient, T["grad_syn"]) <= tolerance["suggested_grad_rel_l2"]
