"""The distillers' steps.

All classes at once, on the draws of each by itself; no graph and no waiting where none is needed.
"""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ld3m_min.augment import DSA
from ld3m_min.data.dataset import ImageDataset
from ld3m_min.data.splits import DataSplits
from ld3m_min.distillers import (
    DC,
    DM,
    base,
    dc,
    distribution_matching_loss,
    gradient_matching_distance,
    student,
)
from ld3m_min.distillers.student import inner_batches, train_student
from ld3m_min.io.seeds import seeded
from ld3m_min.networks import build_network, flat_parameters
from ld3m_min.planner.counter import Counter
from ld3m_min.presets import preset


@pytest.fixture(scope="module")
def learned(digits):
    """Two images of classes 3 and 7, one of class 5, not in order; (images, labels)."""
    labels = torch.tensor([7, 3, 5, 3, 7])
    return torch.cat(
        [digits.train.sample_class(k, 1, seeded(0, i)) for i, k in enumerate(labels.tolist())]
    ), labels


def by_class(distiller, images, labels, iteration):
    """The step as sections 2.1 states it: each class drawn, augmented and passed by itself."""
    leaf, total = images.clone().requires_grad_(), 0.0
    network = distiller.network(iteration)
    for label in (3, 5, 7):
        real, synthetic = distiller.pair(leaf[labels == label], label, iteration)
        if isinstance(distiller, DM):
            loss = distribution_matching_loss(network.requires_grad_(False), real, synthetic)
        else:

            def gradients(x, label=label, **kwargs):
                loss = torch.nn.functional.cross_entropy(network(x), torch.full((len(x),), label))
                return torch.autograd.grad(loss, list(network.parameters()), **kwargs)

            grads_real = gradients(real)
            loss = gradient_matching_distance(gradients(synthetic, create_graph=True), grads_real)
        total = total + loss.detach()
        loss.backward(inputs=[leaf])
    return total, leaf.grad


@pytest.mark.parametrize(
    "network", [{}, {"norm": "batch"}, {"name": "ViT"}], ids=["instance", "batch", "dropout"]
)
@pytest.mark.parametrize("kind", [DC, DM])
def test_the_step_is_that_of_each_class_by_itself(kind, network, digits, learned):
    """Loss and gradient of three iterations, unequal classes: 1e-4 of their size or better."""
    config = preset("smoke", algorithm=kind.__name__)
    distiller = kind(replace(config, network=replace(config.network, **network)), digits)
    for iteration in range(3):
        leaf = learned[0].clone().requires_grad_()
        loss = distiller.step(leaf, learned[1], iteration)
        expected, gradient = by_class(distiller, *learned, iteration)
        assert torch.allclose(loss, expected, rtol=1e-4)
        assert (leaf.grad - gradient).norm() <= 1e-4 * gradient.norm() and gradient.norm() > 0


def test_pairs_are_each_classs_pair(digits, learned):
    distiller = DM(preset("smoke"), digits)
    for iteration in range(6):  # the families differ
        for label, real, synthetic in distiller.pairs(*learned, iteration).by_class():
            expected = distiller.pair(learned[0][learned[1] == label], label, iteration)
            assert torch.equal(real, expected[0]) and torch.equal(synthetic, expected[1])


def test_a_class_with_fewer_images_than_asked_for(digits, learned):
    distiller = DM(replace(preset("smoke"), batch_real=10_000), digits)
    pairs = distiller.pairs(*learned, 0)
    assert pairs.real_counts == [
        len(digits.train.class_positions(k)) for k in (3, 5, 7)
    ] and pairs.synthetic_counts == [2, 1, 2]


def test_dcs_real_side_has_no_graph(digits, learned, monkeypatch):
    seen = []

    def watch(synthetic, real, metric):
        seen.append((any(g.requires_grad for g in real), all(g.requires_grad for g in synthetic)))
        return gradient_matching_distance(synthetic, real, metric)

    monkeypatch.setattr(dc, "gradient_matching_distance", watch)
    DC(preset("smoke", algorithm="DC"), digits).step(
        learned[0].clone().requires_grad_(), learned[1], 0
    )
    assert seen == [(False, True)] * 3


class Waits(TorchDispatchMode):
    """Counts what would make a GPU's host wait.

    Numbers read from tensors, and shapes that depend on values.
    """

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.nonzero,
            torch.ops.aten.masked_select,
        )
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("steps", [2, 7])
def test_mtts_inner_steps_never_wait(steps):
    """Forward and backward of N steps with batches and augmentation drawn before."""
    network, g, dsa = (
        build_network("ConvNet", classes=3, size=16, depth=2, width=4, generator=seeded(0)),
        seeded(1),
        DSA(),
    )
    x = torch.randn(6, 3, 16, 16, generator=g).requires_grad_()
    lr, batches = torch.tensor(0.1, requires_grad=True), inner_batches(6, steps, 2, g)
    draws = [dsa.draw(2, 16, g).to("cpu") for _ in batches]
    with Waits() as waits:
        theta = train_student(
            network,
            flat_parameters(network),
            x,
            torch.tensor([0, 0, 1, 1, 2, 2]),
            lr,
            batches,
            dsa,
            draws,
        )
        theta.square().sum().backward()
    assert waits.count == 0 and x.grad.norm() > 0


@pytest.mark.parametrize("kind", [DC, DM])
def test_waits_of_a_step_are_its_draws_alone(kind, digits, learned):
    """One family a class, drawn on the CPU.

    The labels' classes are read once for a run, not at every step.
    """
    distiller = kind(preset("smoke", algorithm=kind.__name__), digits)
    distiller.step(learned[0].clone().requires_grad_(), learned[1], 0)
    with Waits() as waits:
        distiller.step(learned[0].clone().requires_grad_(), learned[1], 1)
    assert waits.count == 3


# -- many classes


@pytest.mark.parametrize("family", ["none", "crop", "flip"])
def test_an_inner_step_in_parts_is_the_whole_step(family, monkeypatch):
    """7 images in parts of 3, 3 and 1: the same parameters and gradients."""
    network, dsa = (
        build_network(
            "ConvNet", classes=3, size=16, depth=2, width=4, generator=seeded(0)
        ).double(),
        DSA(family),
    )
    images = torch.randn(7, 3, 16, 16, generator=seeded(1), dtype=torch.float64)
    labels, batches = torch.tensor([0, 0, 1, 1, 2, 2, 2]), [torch.arange(7)] * 3
    draws = [dsa.draw(7, 16, seeded(2, i)) for i in range(3)]
    found, seen = [], []
    network.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    for most in (7, 3):
        monkeypatch.setattr(student, "MOST_PIXELS", most * 16**2)
        x, lr = images.clone().requires_grad_(), torch.tensor(0.1).double().requires_grad_()
        theta = train_student(network, flat_parameters(network), x, labels, lr, batches, dsa, draws)
        theta.square().sum().backward()
        found.append((theta.detach(), x.grad, lr.grad))
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-13)
    assert seen == [7] * 6 + [3, 3, 1] * 6


@pytest.mark.parametrize("kind", [DC, DM])
def test_groups_of_classes_give_the_same_step(kind, digits, learned, monkeypatch):
    distiller = kind(preset("smoke", algorithm=kind.__name__), digits)
    found = []
    for at_once in (10, 2, 1):
        monkeypatch.setattr(base, "AT_ONCE", at_once)
        leaf = learned[0].clone().requires_grad_()
        found.append((distiller.step(leaf, learned[1], 1), leaf.grad))
    (loss, gradient), *others = found
    for other, its in others:
        assert torch.allclose(other, loss, rtol=1e-4)
        assert (its - gradient).norm() <= 1e-4 * gradient.norm()


@pytest.mark.parametrize("kind", [DC, DM])
def test_memory_does_not_grow_with_the_classes(kind):
    """Ten times the classes take more for their images and these gradients, and no more."""
    config = preset("smoke", algorithm=kind.__name__, size=16)
    peaks = {}
    for classes in (10, 100):
        labels = torch.arange(classes).repeat_interleave(8)
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (len(labels), 3, 16, 16), generator=generator)
        names = tuple(map(str, range(classes)))
        split = ImageDataset(pixels.byte(), labels, names, "train")
        data = DataSplits("noise", split, split, split, mean=(0.5,) * 3, std=(0.5,) * 3)
        distiller = kind(replace(config, batch_real=8), data)
        images, own = torch.rand(classes, 3, 16, 16).requires_grad_(), torch.arange(classes)
        with Counter([images]) as counted:
            distiller.step(images, own, 0)
        peaks[classes] = counted.peak
    image = 12 * 16**2
    assert peaks[100] < 1.3 * peaks[10] + 3 * 90 * image
