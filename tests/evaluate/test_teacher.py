"""Soft labels: a teacher's probabilities, and trainings on them."""

import pytest
import torch
import torch.nn.functional as F

from ld3m_min.config import EvalConfig
from ld3m_min.errors import InputError
from ld3m_min.evaluate import evaluate
from ld3m_min.evaluate.protocol import train_network
from ld3m_min.evaluate.teacher import teacher_labels
from ld3m_min.networks import build_network
from ld3m_min.presets import preset
from ld3m_min.run import random_real
from ld3m_min.training import Group

TAUGHT = EvalConfig(epochs=6, batch=64, width=16, lr={"default": 0.05}, ema=0.5, repeats=1)
SHORT = EvalConfig(epochs=3, width=16, lr={"default": 0.05}, repeats=2)


@pytest.fixture(scope="module")
def real(digits):
    return random_real(preset("smoke"), data=digits)


def test_a_teacher_knows_the_digits_and_warmth_levels_what_it_says(digits, real):
    held = digits.validation.float()
    said = teacher_labels(held, digits, TAUGHT)
    assert said.shape == (len(held), 10) and torch.allclose(said.sum(1), torch.ones(len(held)))
    assert (said.argmax(1) == digits.validation.labels).float().mean() > 0.8
    warm = teacher_labels(held, digits, TAUGHT, temperature=10.0)
    assert torch.equal(warm.argmax(1), said.argmax(1))
    assert bool((warm.max(1).values < said.max(1).values).all())
    # softmax(l / 10) is softmax(l) to the power of 1 / 10, scaled to sum to one
    assert torch.allclose(warm, F.normalize(said.double() ** 0.1, p=1, dim=1).float(), atol=1e-4)


def test_what_a_teacher_cannot_label_is_refused(digits, real):
    with pytest.raises(InputError, match="temperature must be above 0, not 0"):
        teacher_labels(real.images(), digits, TAUGHT, temperature=0.0)
    with pytest.raises(InputError, match=r"16 px and the teacher's 32"):
        teacher_labels(real.images()[..., ::2, ::2], digits, TAUGHT)


def test_certain_probabilities_train_as_the_labels_do(digits, real):
    certain = F.one_hot(real.labels, 10).float()
    hard, soft = (
        evaluate(real, digits, ("ConvNet", "ViT"), config=SHORT, labels=labels)
        for labels in (None, certain)
    )
    for name, values in hard.accuracies.items():  # only rounding differs
        assert soft.accuracies[name] == pytest.approx(values, abs=0.02)
    level = torch.full_like(certain, 0.1)
    assert evaluate(real, digits, ("ConvNet",), config=SHORT, labels=level) != hard


@pytest.mark.parametrize("stacked", [False, True])
def test_a_step_on_probabilities_is_the_loops(digits, stacked):
    x, generator = digits.train.float()[:6], torch.Generator().manual_seed(0)
    soft = torch.rand((2, 6, 10), generator=generator, dtype=torch.float64).softmax(2)

    def networks():
        made = (
            build_network(
                "ConvNet", classes=10, size=32, width=8, generator=torch.Generator().manual_seed(s)
            )
            for s in range(2)
        )
        return [n.double().train() for n in made]

    group = Group(networks(), stacked=stacked)
    group.step(torch.stack([x, x.flip(0)]).double(), soft, 0.1)
    for network, images, y, flat in zip(
        networks(), (x, x.flip(0)), soft, group.flat(), strict=True
    ):
        F.cross_entropy(network(images.double()), y).backward()
        expected = torch.cat([(p - 0.1 * p.grad).flatten() for p in network.parameters()])
        assert torch.allclose(flat, expected, atol=1e-10)


def test_labels_that_are_no_probabilities_are_refused(digits, real):
    with pytest.raises(InputError, match=r"must be \(10, 10\) float32"):
        evaluate(real, digits, ("ConvNet",), config=SHORT, labels=torch.ones(10, 3) / 3)
    with pytest.raises(InputError, match=r"must be \(10, 10\) float32"):
        evaluate(real, digits, ("ConvNet",), config=SHORT, labels=torch.ones(10, 10))


def test_another_sets_labels_are_another_evaluation(digits, real, tmp_path):
    level = torch.full((10, 10), 0.1)
    evaluate(real, digits, ("ConvNet",), config=SHORT, out=tmp_path, labels=level)
    with pytest.raises(InputError, match="another"):
        evaluate(real, digits, ("ConvNet",), config=SHORT, out=tmp_path)


def test_the_plain_loop_takes_probabilities(digits, real):
    network = build_network(
        "ConvNet", classes=10, size=32, width=8, generator=torch.Generator().manual_seed(0)
    )
    level = torch.full((10, 10), 0.1)
    before = [p.clone() for p in network.parameters()]
    train_network(network, real.images(), level, SHORT, 0.1, torch.Generator().manual_seed(0))
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
