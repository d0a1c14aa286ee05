"""Files that are whole or not there, and generators that need no replay."""

import pytest
import torch

from ld3m_min.io import checkpoints as storage
from ld3m_min.io import files
from ld3m_min.io.checkpoints import Checkpointer, config_difference
from ld3m_min.io.files import write_bytes, write_json
from ld3m_min.io.lock import locked
from ld3m_min.io.seeds import seeded


def test_seeded_belongs_to_its_purpose_alone():
    def draw(*key):
        return torch.randn(3, generator=seeded(*key))

    assert torch.equal(draw(0, "a", 1), draw(0, "a", 1))
    assert (
        len(
            {tuple(draw(*k).tolist()) for k in ((0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1))}
        )
        == 4
    )


def tensors(step):
    return {"Z": torch.full((3,), float(step)), "n": torch.tensor(step)}


def test_newest_whole_checkpoint_wins(tmp_path):
    for step in (1, 2, 3):
        Checkpointer(tmp_path, {"a": 1}).save(step, tensors(step), {"h": [step]})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    found = Checkpointer(tmp_path, {"a": 1}).load()
    assert (
        found.step == 3
        and found.notes["h"] == [3]
        and torch.equal(found.tensors["Z"], tensors(3)["Z"])
    )
    state = tmp_path / "step-00000003" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"\xff")
    assert Checkpointer(tmp_path, {"a": 1}).load().step == 2
    (tmp_path / "step-00000002" / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"no checkpoint .* is whole"):
        Checkpointer(tmp_path, {"a": 1}).load()
    assert Checkpointer(tmp_path / "nothing", {}).load() is None


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    Checkpointer(tmp_path, {"ipc": 1, "sampler": {"steps": 10}}).save(1, tensors(1))
    with pytest.raises(ValueError, match=r"sampler\.steps: 10 -> 20"):
        Checkpointer(tmp_path, {"ipc": 1, "sampler": {"steps": 20}}).load()
    assert config_difference({"a": 1}, {"a": 1}) == []


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    write_json(tmp_path / "x.json", {"a": 1})
    Checkpointer(tmp_path / "c", {}).save(1, tensors(1))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "x.json", b"{}")
    with pytest.raises(OSError, match="earlier checkpoints are intact"):
        Checkpointer(tmp_path / "c", {}).save(2, tensors(2))
    monkeypatch.undo()
    assert files.read_json(tmp_path / "x.json") == {"a": 1}
    assert Checkpointer(tmp_path / "c", {}).load().step == 1
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_second_process_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(RuntimeError, match="another process"), locked(tmp_path):
        raise AssertionError("both hold the lock")
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_what_a_kill_left_between_writing_and_tidying_goes_at_the_next_start(tmp_path):
    for step in (1, 2, 3):
        Checkpointer(tmp_path, {}, keep=None).save(step, tensors(step))
    (tmp_path / f".tmp-{'0' * 32}").mkdir()
    assert Checkpointer(tmp_path, None).load().step == 3  # somebody looks: nothing is touched
    assert len(list(tmp_path.iterdir())) == 4
    assert Checkpointer(tmp_path, {}).load().step == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
