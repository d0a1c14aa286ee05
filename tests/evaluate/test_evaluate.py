"""The protocol: schedule, averaging, statistics, and that it tells sets apart."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ld3m_min.config import ARCHITECTURES, EvalConfig
from ld3m_min.evaluate import EvalResult, evaluate
from ld3m_min.evaluate.protocol import ema_decay, lr_factor
from ld3m_min.presets import eval_preset, preset
from ld3m_min.run import random_real


@pytest.fixture(scope="module")
def real(digits):
    return random_real(preset("smoke", ipc=5), data=digits)


def test_schedule_is_pytorchs():
    for epochs in (10, 101):
        weight = torch.nn.Parameter(torch.zeros(()))
        sgd = torch.optim.SGD([weight], lr=1.0)
        warm = torch.optim.lr_scheduler.LinearLR(sgd, 1e-7, 1.0, epochs // 2)
        rates = []
        for _ in range(epochs // 2 + 1):
            rates.append(sgd.param_groups[0]["lr"])
            sgd.step()
            warm.step()
        assert rates == pytest.approx([lr_factor(e, epochs) for e in range(epochs // 2 + 1)])
    assert lr_factor(6, 10) == 1 and lr_factor(9, 10) == pytest.approx(
        (1 + math.cos(0.6 * math.pi)) / 2
    )
    assert lr_factor(0, 1) == 1


def test_average_starts_as_a_copy():
    assert ema_decay(0) == 0 and ema_decay(1) == 0.5 and ema_decay(10_000) == 0.995


def test_training_on_real_images_beats_chance_and_repeats_differ(digits, real):
    config = EvalConfig(epochs=40, width=16, lr={"default": 0.05}, ema=0.9, repeats=2)
    result = evaluate(real, digits, ("ConvNet",), config=config)
    assert (
        result.mean() > 0.5
        and result.split == "test"
        and len(set(result.accuracies["ConvNet"])) == 2
    )
    again = evaluate(real, digits, ("ConvNet",), config=config)
    assert again == result
    assert evaluate(real, digits, ("ConvNet",), config=config, seed=1) != result


def test_the_package_is_called_like_its_function(digits, real):
    from ld3m_min import evaluate as package

    config = EvalConfig(epochs=1, width=16, repeats=1)
    assert package(real, digits, ("ConvNet",), config=config) == evaluate(
        real, digits, ("ConvNet",), config=config
    )


def test_all_five_and_the_validation_split(digits, real):
    result = evaluate(
        real, digits, config=eval_preset("smoke", split="validation", epochs=1, repeats=1)
    )
    assert tuple(result.accuracies) == ARCHITECTURES and result.unseen == ARCHITECTURES[1:]
    assert result.split == "validation"
    assert all(round(297 * v[0]) == pytest.approx(297 * v[0]) for v in result.accuracies.values())


def test_statistics():
    result = EvalResult(
        {"ConvNet": (0.9, 0.9, 0.9), "ViT": (0.1, 0.2, 0.6), "VGG11": (0.3, 0.2, 0.4)}, "test"
    )
    assert result.mean() == pytest.approx(0.3) and result.mean("ConvNet") == pytest.approx(0.9)
    assert result.values() == pytest.approx([0.2, 0.2, 0.5])
    low, high = result.confidence_interval()
    expected = stats.t.interval(0.95, 2, loc=0.3, scale=stats.sem([0.2, 0.2, 0.5]))
    assert expected[0] < 0  # where no accuracy lies
    assert (low, high) == pytest.approx((0.0, expected[1]))
    assert result.std() == pytest.approx(np.std([0.2, 0.2, 0.5]))
    for none in ((0.5,), (0.5, math.nan)):  # a single training, and one that diverged
        ends = EvalResult({"ViT": none}, "test").confidence_interval()
        assert all(math.isnan(v) for v in ends)


def test_mistakes(digits, real):
    with pytest.raises(ValueError, match="unknown architecture LeNet; choose ConvNet"):
        evaluate(real, digits, ("LeNet",))
    small = type(real)(real.images()[:, :, :16, :16], real.labels, real.classes)
    with pytest.raises(ValueError, match="16 px"):
        evaluate(small, digits)
    renamed = type(real)(real.images(), real.labels, tuple("abcdefghij"))
    with pytest.raises(ValueError, match=r"the set has 10 classes \(a, b"):
        evaluate(renamed, digits)


def test_the_network_that_distilled_is_not_unseen(digits, real):
    real.recipe["config"]["network"]["name"] = "AlexNet"
    result = evaluate(
        real, digits, ("ConvNet", "AlexNet"), config=eval_preset("smoke", epochs=1, repeats=1)
    )
    assert result.unseen == ("ConvNet",)
