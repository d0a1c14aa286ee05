"""The evaluation's learning rates, schedule and weight averaging against the public code's."""

import math

import pytest
import torch

from ld3m_min.evaluate import protocol
from ld3m_min.presets import eval_preset

from ._data import largest, load_json

SPEC = load_json("eval_protocol")
# the older release copies the weights at the second update too; the traces merge
EMA_PYTORCH = "0.8.3"


@pytest.mark.parametrize("epochs", SPEC["runs"])
def test_learning_rate_of_every_epoch(epochs):
    ours = [protocol.lr_factor(e, int(epochs)) for e in range(int(epochs))]
    assert (
        largest(ours, SPEC["runs"][epochs]["lr_factor"])
        <= SPEC["tolerance"]["lr_factor"]["suggested_abs"]
    )


def trace(epochs):
    value, values = 0.0, []
    for n in range(epochs):
        d, weight = protocol.ema_decay(n), math.sin(0.05 * (n + 1) * math.sqrt(n + 1))
        value = d * value + (1 - d) * weight
        values.append(value)
    return values


def test_average_of_one_weight():
    found = SPEC["runs"]["1000"]["ema"]
    tolerance = SPEC["tolerance"]["ema_trace"]["suggested_abs"]
    assert largest(trace(1000), found[EMA_PYTORCH]["trace"]) <= tolerance
    decays = [d or 0.0 for d in found[EMA_PYTORCH]["decay"]]  # None there: the first update copies
    assert largest([protocol.ema_decay(n) for n in range(len(decays))], decays) <= tolerance
    assert abs(trace(1000)[-1] - found["0.2.3"]["trace"][-1]) < 1e-5


def test_training_applies_schedule_and_average():
    """`train_network` itself.

    One weight, constant gradient, so that SGD is known in closed form.
    """
    config = eval_preset("paper", epochs=10, dsa="none", momentum=0.0, weight_decay=0.0)
    network = torch.nn.Linear(1, 2, bias=False).double()
    torch.nn.init.zeros_(network.weight)
    expected, average = torch.zeros(2, 1).double(), None
    x, y = torch.ones(4, 1).double(), torch.zeros(4, dtype=torch.long)
    for n in range(10):
        p = torch.softmax(expected[:, 0], 0)
        expected = (
            expected
            - 0.5
            * SPEC["runs"]["10"]["lr_factor"][n]
            * (p - torch.tensor([1.0, 0.0]).double())[:, None]
        )
        d = SPEC["runs"]["1000"]["ema"][EMA_PYTORCH]["decay"][n] or 0.0
        average = expected if n == 0 else d * average + (1 - d) * expected
    protocol.train_network(network, x, y, config, 0.5, torch.Generator().manual_seed(0))
    assert largest(network.weight.detach(), average) <= 1e-6


def test_settings_of_the_paper_preset():
    config = eval_preset("paper")
    for name in ("ConvNet", "AlexNet", "VGG11", "ResNet18", "ViT"):
        assert config.lr.get(name, config.lr["default"]) == SPEC["learning_rates"][name]
    optimizer = SPEC["optimizer"]
    assert (config.momentum, config.weight_decay) == (
        optimizer["momentum"],
        optimizer["weight_decay"],
    )
    assert (config.batch, config.epochs, config.ema) == (
        SPEC["batch_size"],
        SPEC["epochs_default"],
        SPEC["ema"]["beta"],
    )
    assert config.dsa in SPEC["augmentation"]
