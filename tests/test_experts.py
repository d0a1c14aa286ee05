"""Expert trajectories: trained once, read by rows, refused when they do not fit."""
from dataclasses import replace

import pytest
import torch

from ld3m_min.config import preset
from ld3m_min.distillers import MTT
from ld3m_min.experts import ExpertBuffer, experts_name, train_expert, train_experts


@pytest.fixture(scope="module")
def config():
    return preset("smoke", algorithm="MTT")


@pytest.fixture
def buffer(config, digits, tmp_path):
    return train_experts(config, digits, tmp_path / "experts", progress=False)


def test_experts_are_trained_and_read(config, digits, buffer):
    assert len(buffer) == 2
    theta = train_expert(config, digits, 1)
    assert theta.shape[0] == config.mtt.train_epochs + 1
    assert torch.equal(buffer.read(1, (0, 2)), theta[[0, 2]])  # the same whichever way, epochs apart
    assert not torch.equal(theta[0], theta[1]) and not torch.equal(theta[1], theta[2])
    assert not torch.equal(buffer.read(0, (0,)), buffer.read(1, (0,)))


def test_missing_ones_are_trained_again(config, digits, buffer):
    file = buffer.folder / "expert-00001.safetensors"
    before = file.read_bytes()
    file.unlink()
    with pytest.raises(ValueError, match=r"lacks 1 expert.*number 1"):
        MTT(config, digits, experts=buffer)
    train_experts(config, digits, buffer.folder, progress=False)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "change, message",
    [({"network": {"width": 32}}, r"network\.width: 16 -> 32"), ({"dsa": "flip"}, "dsa"), ({"seed": 1}, "seed: 0 -> 1")],
)
def test_others_experts_are_refused(config, digits, buffer, change, message):
    if "network" in change:
        change = {"network": replace(config.network, **change["network"])}
    other = replace(config, **change)
    with pytest.raises(ValueError, match=message):
        MTT(other, digits, experts=buffer)
    with pytest.raises(ValueError, match=message):
        train_experts(other, digits, buffer.folder, progress=False)
    assert experts_name(other, digits) != experts_name(config, digits)


def test_what_was_begun_is_not_finished_as_something_else(config, digits, buffer):
    (buffer.folder / "expert-00001.safetensors").unlink()
    faster = replace(config, mtt=replace(config.mtt, expert_lr=1.0))
    with pytest.raises(ValueError, match=r"lr: 0\.1 -> 1\.0"):
        train_experts(faster, digits, buffer.folder, progress=False)


def test_too_few_epochs(config, digits, buffer):
    longer = replace(config, mtt=replace(config.mtt, train_epochs=9, max_start_epoch=8))
    with pytest.raises(ValueError, match=r"have 2 epochs; 8 \+ 1 are needed"):
        MTT(longer, digits, experts=buffer)


def test_damaged_and_absent(config, digits, buffer, tmp_path):
    (buffer.folder / "expert-00000.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=r"expert-00000\.safetensors cannot be read"):
        buffer.read(0, (0,))
    with pytest.raises(FileNotFoundError, match=r"experts\.json does not exist"):
        ExpertBuffer.open(tmp_path / "nothing")
    with pytest.raises(ValueError, match="MTT needs expert trajectories"):
        MTT(config, digits)
