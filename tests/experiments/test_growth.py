"""Snapshots of a distillation: those of the run itself, and what is kept of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ld3m_min.experiments.growth import accuracies_after, grow, measure, picture_of
from ld3m_min.io.files import read_json
from ld3m_min.presets import eval_preset, preset
from ld3m_min.run import distil


@pytest.fixture(scope="module")
def config():
    return preset("smoke", algorithm="DM", space="pixel")


def test_snapshots_are_the_set_after_so_many_iterations(config, digits):
    grown = grow(config, digits, None, (0, 1, 2))
    assert list(grown.sets) == [0, 1, 2] and len(grown.loss) == config.iterations == 2
    for n, found in grown.sets.items():
        alone = distil(replace(config, iterations=n), data=digits, progress=False)
        torch.testing.assert_close(found.images(), alone.images())
        assert torch.equal(found.labels, alone.labels)


def test_a_training_that_diverged_counts_as_chance():
    entry = {"accuracies": {"0": {"ViT": [0.3, None]}, "4": {"ViT": [0.5, 0.7], "MLP": [0.9, 0.9]}}}
    assert accuracies_after(entry, chance=0.1) == pytest.approx({0: 0.2, 4: 0.75})


def test_a_record_has_each_system_once(config, digits, tmp_path):
    file, protocol = tmp_path / "growth.json", eval_preset("smoke", epochs=1, repeats=1)
    asked = {"runs": tmp_path / "runs", "frames": (0, 2), "trained_on": (1, 2)}
    first = measure(file, {"pixel": config}, digits, None, protocol, **asked)
    both = {"pixel": config, "other": config}
    entries = measure(file, both, digits, None, protocol, **asked)
    assert entries[0] == first[0] and [e["system"] for e in entries] == ["pixel", "other"]
    assert read_json(file)["systems"] == entries
    assert set(entries[0]["accuracies"]) == {"1", "2"}
    assert "ConvNet" not in entries[0]["accuracies"]["1"]
    picture = np.asarray(Image.open(picture_of(file, "pixel")))
    assert picture.shape == (2 * 32, 10 * 32, 3)
    start = distil(replace(config, iterations=0), data=digits, progress=False).images()
    wanted = (255 * start[3]).round().byte().permute(1, 2, 0).numpy()
    assert (picture[:32, 96:128] == wanted).all()
