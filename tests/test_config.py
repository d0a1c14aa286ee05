"""Presets against the paper's supplement; mistakes are errors that list the choices."""

import json
from dataclasses import replace
from typing import get_args

import pytest

from ld3m_min import config
from ld3m_min.config import (
    ALGORITHMS,
    SPACES,
    DistilConfig,
    EvalConfig,
    MTTConfig,
    NetworkConfig,
    to_dict,
)
from ld3m_min.data.dataset import NORMALISATIONS
from ld3m_min.distillers import DISTILLERS
from ld3m_min.io.values import from_dict
from ld3m_min.networks import NETWORKS, NORMS
from ld3m_min.presets import PRESETS, eval_preset, preset, preset_with


def test_paper_preset_is_the_supplement():
    rates = {"DC": 1e-3, "DM": 1e-2, "MTT": 10.0}
    for algorithm in ALGORITHMS:
        c = preset("paper", algorithm=algorithm)
        assert (c.size, c.iterations, c.momentum, c.batch_real, c.lr) == (
            128,
            5000,
            0.5,
            256,
            rates[algorithm],
        )
        assert (c.sampler.steps, c.sampler.guidance_scale) == (10, 3.0)
    m = preset("paper", algorithm="MTT").mtt
    assert (m.experts, m.train_epochs, m.expert_epochs, m.max_start_epoch, m.steps) == (
        5000,
        15,
        3,
        5,
        20,
    )
    large = preset("paper", algorithm="DC", size=256)
    assert (large.iterations, large.sampler.steps, large.lr) == (10000, 20, 1e-3)
    e = eval_preset("paper")
    assert (e.repeats, e.batch, e.epochs) == (5, 256, 1000)


def test_reference_preset_is_the_public_code():
    c = preset("reference", algorithm="MTT")
    assert (c.lr, c.iterations, c.redraw_noise, c.mtt.gradient) == (
        1000.0,
        10000,
        True,
        "approximate",
    )
    assert (c.mtt.expert_epochs, c.mtt.max_start_epoch, c.mtt.steps) == (2, 2, 10)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_whole_and_survives_json(name):
    for algorithm in ALGORITHMS:
        for space in SPACES:
            config = preset(name, algorithm=algorithm, space=space)
            assert from_dict(DistilConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert from_dict(EvalConfig, json.loads(json.dumps(to_dict(eval_preset(name))))) == eval_preset(
        name
    )


def test_choices_are_what_there_is():
    assert get_args(config.Architecture) == tuple(NETWORKS)
    assert set(get_args(config.Norm)) == {*NORMS, "none"}
    assert get_args(config.Normalisation) == tuple(NORMALISATIONS)
    assert set(ALGORITHMS) == set(DISTILLERS)


def test_a_changed_preset_is_one_while_it_is_needed():
    changes = {"sampler": {"eta": 1.0}, "size": 256, "momentum": 0.1}
    with preset_with("paper", changes) as name:
        made = preset(name, algorithm="MTT", space="pixel", lr=3.0)
        plain = preset("paper", algorithm="MTT", space="pixel", size=256, lr=3.0)
        assert made == replace(plain, momentum=0.1, sampler=replace(plain.sampler, eta=1.0))
        assert preset(name, momentum=0.2).momentum == 0.2
        assert eval_preset(name) == eval_preset("paper")
    assert name not in PRESETS
    with preset_with("paper", {}) as same, preset_with("cpu", changes) as other:
        assert same == "paper" and other != name and other.startswith("cpu-")


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: preset("big"), "unknown preset 'big'; choose smoke"),
        (lambda: preset("cpu", stepz=3), "unknown setting stepz"),
        (lambda: preset("cpu", algorithm="GAN"), "algorithm='GAN' is unknown; choose DC, DM, MTT"),
        (lambda: preset("cpu", space="gan"), "space='gan' is unknown"),
        (lambda: preset("cpu", ipc=0), "DistilConfig.ipc must be at least 1, not 0"),
        (lambda: preset("cpu", lr=-1.0), "DistilConfig.lr must be above 0"),
        (lambda: preset("cpu", dsa="color_zoom"), "zoom"),
        (lambda: eval_preset("cpu", split="train"), "split='train'"),
        (lambda: eval_preset("cpu", epoch=1), "unknown setting epoch"),
        (lambda: MTTConfig(max_start_epoch=14), "reach past the experts' 15 epochs"),
        (lambda: replace(preset("cpu"), learn_z=False, learn_c=False), "nothing would be learned"),
        (lambda: from_dict(DistilConfig, {"ipc": "two"}), "config.ipc must be a whole number"),
        (
            lambda: from_dict(DistilConfig, {"sampler": {"T": 3}}),
            "config.sampler has unknown field T",
        ),
        (lambda: from_dict(DistilConfig, [1]), "must be a mapping"),
        (lambda: DistilConfig(algorithm=None), "DistilConfig.algorithm must be text, not None"),
        (lambda: NetworkConfig(name="LeNet"), "NetworkConfig.name='LeNet' is unknown; choose Conv"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        call()
