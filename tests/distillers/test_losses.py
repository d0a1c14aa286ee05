"""The three losses as pure functions: by hand, by autograd, and falling on a toy."""

import weakref

import pytest
import torch
import torch.nn.functional as F

from ld3m_min.augment import DSA
from ld3m_min.distillers import (
    distribution_matching_loss,
    gradient_matching_distance,
    trajectory_matching_loss,
)
from ld3m_min.distillers.mtt import approximate_trajectory_gradient
from ld3m_min.distillers.student import inner_batches
from ld3m_min.networks import build_network, flat_parameters, functional


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, size=16, dtype=torch.float64):
    return torch.randn(n, 3, size, size, generator=generator(1), dtype=dtype)


@pytest.fixture
def network():
    return build_network(
        "ConvNet", classes=3, size=16, depth=2, width=4, generator=generator()
    ).double()


def test_gradient_matching_by_hand():
    a = [torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([5.0])]
    b = [torch.tensor([[0.0, 1.0], [0.0, 3.0]]), torch.tensor([1.0])]
    # the vector is left out
    assert gradient_matching_distance(a, b, "ours").item() == pytest.approx(1 + 0, abs=1e-5)
    assert gradient_matching_distance(a, b, "mse").item() == pytest.approx(1 + 1 + 1 + 16)
    cosine = (0 + 6 + 5) / ((1 + 4 + 25) ** 0.5 * (1 + 9 + 1) ** 0.5)
    assert gradient_matching_distance(a, b, "cos").item() == pytest.approx(1 - cosine, abs=1e-5)
    assert gradient_matching_distance(a, a, "mse").item() == 0


def test_gradient_matching_refuses_what_does_not_match():
    with pytest.raises(ValueError, match="same network"):
        gradient_matching_distance([torch.zeros(2)], [torch.zeros(3)])
    with pytest.raises(ValueError, match="choose ours"):
        gradient_matching_distance([torch.zeros(2)], [torch.zeros(2)], "l1")


def test_distribution_matching_by_hand(network):
    real, synthetic = images(4), images(6)[4:]
    expected = (network.embed(real).mean(0) - network.embed(synthetic).mean(0)).square().sum()
    assert torch.allclose(distribution_matching_loss(network, real, synthetic), expected)
    assert distribution_matching_loss(network, real, real).item() == 0


def unrolled(network, start, target, x, y, lr, batches, augment=None, draws=None):
    """Plain autograd through every inner step, nothing recomputed."""
    theta = start.clone().requires_grad_()
    for i, index in enumerate(batches):
        xb = x[index] if augment is None else augment.apply(x[index], draws[i])
        loss = F.cross_entropy(functional(network, theta)(xb), y[index])
        theta = theta - lr * torch.autograd.grad(loss, theta, create_graph=True)[0]
    return (theta - target).square().sum() / (start - target).square().sum()


@pytest.mark.parametrize(
    "steps, batch_size, augmented",
    [(1, None, False), (5, None, False), (7, 2, False), (4, 4, True)],
)
def test_exact_mtt_gradient_is_autograd_through_the_unrolled_steps(
    network, steps, batch_size, augmented
):
    start = flat_parameters(network)
    target = start + 0.1 * torch.randn(start.shape, generator=generator(2), dtype=start.dtype)
    y, augment = torch.tensor([0, 0, 1, 1, 2, 2]), DSA() if augmented else None
    results = []
    for exact in (True, False):
        x, lr = (
            images().requires_grad_(),
            torch.tensor(0.3, dtype=torch.float64, requires_grad=True),
        )
        if exact:
            loss = trajectory_matching_loss(
                network,
                start,
                target,
                x,
                y,
                lr,
                steps,
                batch_size=batch_size,
                augment=augment,
                generator=generator(5),
            )
        else:
            g = generator(5)
            batches = inner_batches(len(x), steps, batch_size, g)
            draws = [augment.draw(len(b), 16, g) for b in batches] if augmented else None
            loss = unrolled(network, start, target, x, y, lr, batches, augment, draws)
        loss.backward()
        results.append((loss.detach(), x.grad, lr.grad))
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= 1e-10 * max(1, theirs.abs().max().item())
    assert results[0][1].abs().max() > 0


class Held:
    """A tensor that autograd keeps."""

    def __init__(self, tensor):
        self.tensor = tensor


def test_exact_mtt_memory_does_not_grow_with_steps(network):
    """What autograd keeps beside parameter vectors: one step's activations, whatever N."""
    start = flat_parameters(network)
    y, kept = torch.tensor([0, 0, 1, 1, 2, 2]), {}
    for steps in (2, 8):
        x, live = images().requires_grad_(), weakref.WeakSet()

        def pack(tensor, live=live):
            live.add(held := Held(tensor))
            return held

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
            loss = trajectory_matching_loss(
                network, start, start + 1, x, y, torch.tensor(0.1).double(), steps
            )
        # the N parameter vectors themselves are allowed
        kept[steps] = sum(
            {
                h.tensor.data_ptr(): h.tensor.nbytes
                for h in live
                if h.tensor.numel() != start.numel()
            }.values()
        )
        loss.backward()
    assert 0 < kept[8] <= kept[2] + 6 * 8 * 16  # a few scalars a step


def test_approximate_gradient_is_exact_for_one_step_only(network):
    start = flat_parameters(network)
    target = start + 0.1 * torch.randn(start.shape, generator=generator(2), dtype=start.dtype)
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    for steps, equal in ((1, True), (6, False)):
        grads = []
        for function in (trajectory_matching_loss, approximate_trajectory_gradient):
            x, lr = (
                images().requires_grad_(),
                torch.tensor(0.3, dtype=torch.float64, requires_grad=True),
            )
            loss = function(network, start, target, x, y, lr, steps)
            if loss.requires_grad:
                loss.backward()
            grads.append((loss.detach(), x.grad, lr.grad))
        (a, gx, glr), (b, hx, hlr) = grads
        assert torch.allclose(a, b, rtol=1e-12)
        assert (torch.allclose(gx, hx, rtol=1e-8) and torch.allclose(glr, hlr)) == equal


@pytest.mark.parametrize("name", ["DC", "DM", "MTT"])
def test_each_loss_falls_when_its_images_are_learned(network, name):
    real, y = images(6), torch.tensor([0, 0, 1, 1, 2, 2])
    target = flat_parameters(network)
    start = target.clone()
    for _ in range(5):  # an "expert": a few steps on the real images
        theta = target.requires_grad_()
        g = torch.autograd.grad(F.cross_entropy(functional(network, theta)(real), y), theta)[0]
        target = (theta - 0.1 * g).detach()
    x = torch.randn(3, 3, 16, 16, generator=generator(9), dtype=torch.float64).requires_grad_()
    labels, params = torch.arange(3), list(network.parameters())

    def loss():
        if name == "DM":
            return sum(
                distribution_matching_loss(network, real[y == c], x[labels == c]) for c in range(3)
            )
        if name == "MTT":
            return trajectory_matching_loss(
                network, start, target, x, labels, torch.tensor(0.1).double(), 5
            )
        real_grads = torch.autograd.grad(F.cross_entropy(network(real), y), params)
        grads = torch.autograd.grad(F.cross_entropy(network(x), labels), params, create_graph=True)
        return gradient_matching_distance(grads, real_grads)

    adam, values = torch.optim.Adam([x], lr=0.03), []
    for _ in range(30):
        value = loss()
        values.append(value.item())
        adam.zero_grad()
        value.backward()
        adam.step()
    assert min(values[-3:]) < 0.8 * values[0]
