"""Gradient matching, its three metrics, against the public code's."""

import pytest
import torch
import torch.nn.functional as F

from ld3m_min.distillers import gradient_matching_distance

from ._data import convnet, load_json, load_tensors, relative

SPEC = load_json("dc")
T = load_tensors("dc")
KEPT = len(T["ours.per_class"])  # classes


def losses_and_gradient(metric, dtype):
    network = convnet(T).to(dtype)
    real, synthetic = (
        T[f"{k}_images"].to(dtype, copy=True).view(KEPT, -1, 3, 32, 32) for k in ("real", "syn")
    )
    synthetic.requires_grad_()
    values = []
    for label in range(KEPT):

        def gradients(x, label=label, **kwargs):
            loss = F.cross_entropy(network(x), torch.full((len(x),), label))
            return torch.autograd.grad(loss, list(network.parameters()), **kwargs)

        grads_real = gradients(real[label])
        values.append(
            gradient_matching_distance(
                gradients(synthetic[label], create_graph=True), grads_real, metric
            )
        )
    sum(values).backward()
    return torch.stack(values).detach(), synthetic.grad.flatten(0, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("metric", ["ours", "mse", "cos"])
def test_loss_and_gradient(metric, dtype):
    values, gradient = losses_and_gradient(metric, dtype)
    tolerance = SPEC["tolerance"][metric][str(dtype).removeprefix("torch.")]
    expected = T[f"{metric}.per_class"]
    assert expected.tolist() == SPEC["results"][metric]["per_class"][:KEPT]
    assert float(((values - expected) / expected).abs().max()) <= tolerance["suggested_value_rel"]
    assert relative(gradient, T[f"{metric}.grad_syn"]) <= tolerance["suggested_grad_rel_l2"]


def test_parameters_are_in_the_reference_order():
    assert [[n, list(p.shape)] for n, p in convnet().named_parameters()] == SPEC["param_order"]
