"""The whole way on real photographs at 128 px: one iteration of each algorithm in LD3M's space, one evaluation step."""
import os
from dataclasses import replace

import pytest
import torch

from ld3m_min.config import ALGORITHMS, NetworkConfig, eval_preset, preset
from ld3m_min.data import load_data
from ld3m_min.evaluate import evaluate
from ld3m_min.run import distil
from ld3m_min.train_prior import build_prior, prior_preset

pytestmark = pytest.mark.skipif("LD3M_DATA" not in os.environ, reason="LD3M_DATA names no folder of ImageNette")


@pytest.fixture(scope="module")
def nette():
    return load_data("imagenette", size=128, progress=False)


@pytest.fixture(scope="module")
def prior(nette):
    return build_prior(replace(prior_preset("smoke"), size=128), nette.classes)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_iteration_at_128_px(nette, prior, algorithm):
    """The paper's preset, but for what takes hours on a CPU: width, batch, experts, and an untrained small prior."""
    config = preset("paper", algorithm=algorithm, iterations=1, batch_real=4, network=NetworkConfig(width=16))
    config = replace(config, mtt=replace(config.mtt, experts=1, train_epochs=1, expert_epochs=1, max_start_epoch=0, steps=2))
    few = replace(nette.train, images=nette.train.images[::100], labels=nette.train.labels[::100])
    before = distil(replace(config, iterations=0), data=nette, prior=prior, progress=False)
    made = distil(config, data=replace(nette, train=few), prior=prior, progress=False)
    assert made.images().shape == (10, 3, 128, 128) and torch.isfinite(made.images()).all()
    (step,) = made.history
    assert step["grad_Z"] > 0 and step["grad_c"] > 0 and len(before.labels) == 10


def test_one_evaluation_step_at_128_px(nette):
    real = distil(preset("paper", space="pixel", iterations=0), data=nette, progress=False)
    result = evaluate(real, nette, config=eval_preset("paper", epochs=1, repeats=1, width=8))
    assert all(0 <= v[0] <= 1 for v in result.accuracies.values()) and result.split == "test"
