"""Files that are whole or not there, and generators that need no replay."""
import pytest
import torch

from ld3m_min import storage
from ld3m_min.storage import config_difference, load_checkpoint, locked, save_checkpoint, seeded, write_bytes, write_json


def test_seeded_belongs_to_its_purpose_alone():
    def draw(*key):
        return torch.randn(3, generator=seeded(*key))

    assert torch.equal(draw(0, "a", 1), draw(0, "a", 1))
    assert len({tuple(draw(*k).tolist()) for k in ((0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1))}) == 4


def tensors(step):
    return {"Z": torch.full((3,), float(step)), "n": torch.tensor(step)}


def test_newest_whole_checkpoint_wins(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, tensors(step), config={"a": 1}, notes={"h": [step]})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    found = load_checkpoint(tmp_path, config={"a": 1})
    assert found.step == 3 and found.notes == {"h": [3]} and torch.equal(found.tensors["Z"], tensors(3)["Z"])
    state = tmp_path / "step-00000003" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"\xff")
    assert load_checkpoint(tmp_path, config={"a": 1}).step == 2
    (tmp_path / "step-00000002" / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"no checkpoint .* is whole"):
        load_checkpoint(tmp_path, config={"a": 1})
    assert load_checkpoint(tmp_path / "nothing", config={}) is None


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    save_checkpoint(tmp_path, 1, tensors(1), config={"ipc": 1, "sampler": {"steps": 10}})
    with pytest.raises(ValueError, match=r"sampler\.steps: 10 -> 20"):
        load_checkpoint(tmp_path, config={"ipc": 1, "sampler": {"steps": 20}})
    assert config_difference({"a": 1}, {"a": 1}) == []


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    write_json(tmp_path / "x.json", {"a": 1})
    save_checkpoint(tmp_path / "c", 1, tensors(1), config={})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "x.json", b"{}")
    with pytest.raises(OSError, match="earlier checkpoints are intact"):
        save_checkpoint(tmp_path / "c", 2, tensors(2), config={})
    monkeypatch.undo()
    assert storage.read_json(tmp_path / "x.json") == {"a": 1}
    assert load_checkpoint(tmp_path / "c", config={}).step == 1
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_second_process_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(RuntimeError, match="another process"), locked(tmp_path):
        raise AssertionError("both hold the lock")
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()
