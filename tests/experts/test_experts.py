"""Expert trajectories: trained once, read by rows, refused when they do not fit."""

import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ld3m_min.data import ImageDataset
from ld3m_min.distillers import MTT
from ld3m_min.experts import ExpertBuffer, train_experts
from ld3m_min.experts import train as module
from ld3m_min.experts.buffer import describe_experts, experts_name
from ld3m_min.experts.train import train_expert
from ld3m_min.io import stop as signals
from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.io.checkpoints import _read as read_checkpoint
from ld3m_min.io.stop import Interrupted
from ld3m_min.presets import preset
from ld3m_min.run import distil


@pytest.fixture(scope="module")
def config():
    return preset("smoke", algorithm="MTT")


@pytest.fixture(scope="module")
def digits(digits):
    """A fifth of the training images: how well an expert reads is not asked here."""
    few = ImageDataset(digits.train.images[::5], digits.train.labels[::5], digits.classes, "train")
    return replace(digits, train=few)


@pytest.fixture(autouse=True)
def two_threads():
    """Experts are trained in as many threads at a time as PyTorch has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def buffer(config, digits, tmp_path):
    return train_experts(config, digits, tmp_path / "experts", progress=False)


def test_experts_are_trained_and_read(config, digits, tmp_path):
    """The same whichever way, but for roundings.

    At a rate at which training does not multiply them, on any processor.
    """
    config = replace(config, mtt=replace(config.mtt, expert_lr=0.001))
    buffer = train_experts(config, digits, tmp_path / "experts", progress=False)
    assert len(buffer) == 2
    theta = train_expert(config, digits, 1)
    assert theta.shape[0] == config.mtt.max_start_epoch + config.mtt.expert_epochs + 1
    found = buffer.read(1, (0, 2))  # epochs apart
    assert (
        torch.equal(found[0], theta[0])
        and (found[1] - theta[2]).norm() < 1e-3 * (theta[2] - theta[0]).norm()
    )
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
    [
        ({"network": {"width": 32}}, r"network\.width: 16 -> 32"),
        ({"dsa": "flip"}, "dsa"),
        ({"seed": 1}, "seed: 0 -> 1"),
    ],
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


def test_epochs_that_nobody_reads_are_neither_trained_nor_stored(config, digits, buffer, tmp_path):
    long = replace(config, mtt=replace(config.mtt, train_epochs=9))
    assert describe_experts(long, digits) == describe_experts(config, digits)
    assert load_file(buffer.file(0))["theta"].shape[0] == 3
    with pytest.raises(ValueError, match="epochs 0 to 2, not 3"):
        buffer.read(0, (3,))
    # reads less: what is there is taken, and finished
    short = replace(config, mtt=replace(config.mtt, max_start_epoch=0))
    before = buffer.file(1).read_bytes()
    buffer.file(1).unlink()
    train_experts(short, digits, buffer.folder, progress=False).check(short, digits)
    assert buffer.file(1).read_bytes() == before


def test_stopped_after_every_epoch_the_files_are_the_same(config, digits, tmp_path, monkeypatch):
    """Of ViTs, trained stacked, with dropout. One epoch's file is torn, another one lost."""
    longer = replace(config.mtt, max_start_epoch=3, train_epochs=4, expert_lr=0.001)
    config = replace(config, network=replace(config.network, name="ViT"), mtt=longer)
    whole = train_experts(config, digits, tmp_path / "whole", progress=False)
    written, save = [], Checkpointer.save
    monkeypatch.setattr(
        Checkpointer, "save", lambda self, *args: written.append(args) or save(self, *args)
    )
    # the signal comes with the first epoch written since the start, whichever thread wrote it
    monkeypatch.setattr(
        signals.Stop, "reason", property(lambda stop: "SIGTERM" if written else None)
    )
    torn = lost = False
    for stops in range(30):
        written.clear()
        try:
            parts = train_experts(config, digits, tmp_path / "parts", progress=False)
        except Interrupted as stop:
            assert "of 2 experts are finished and saved" in str(stop)
        if all((tmp_path / "parts" / f"expert-0000{i}.safetensors").exists() for i in range(2)):
            break
        epochs = sorted((tmp_path / "parts" / "parts").glob("*/step-*"))
        if epochs and stops >= 1 and not torn:
            file = epochs[-1] / "state.safetensors"
            torn = bool(file.write_bytes(file.read_bytes()[:-7]))
        elif epochs and stops >= 3 and not lost:
            lost = not shutil.rmtree(epochs[0])
    assert stops >= 4 and torn and lost
    parts = ExpertBuffer.open(tmp_path / "parts")
    assert [parts.file(i).read_bytes() for i in range(2)] == [
        whole.file(i).read_bytes() for i in range(2)
    ]
    assert not list((tmp_path / "parts" / "parts").glob("*"))


def test_stacked_experts_are_the_same_to_rounding(config, digits, tmp_path, monkeypatch):
    """At a rate at which training does not multiply roundings."""
    config = replace(config, mtt=replace(config.mtt, expert_lr=0.001))
    single = train_experts(config, digits, tmp_path / "single", progress=False)
    monkeypatch.setattr(module, "stacks", lambda name, device: True)
    stacked = train_experts(config, digits, tmp_path / "stacked", progress=False)
    for i in range(2):
        ours, theirs = stacked.read(i, (0, 1, 2)), single.read(i, (0, 1, 2))
        assert torch.equal(ours[0], theirs[0])
        assert (ours - theirs).norm() < 0.001 * (theirs[2] - theirs[0]).norm()


def test_files_of_earlier_versions_are_read(buffer):
    theta = load_file(buffer.file(0))["theta"]
    save_file({"theta": theta}, buffer.file(0))  # without a checksum
    assert torch.equal(buffer.read(0, (1,)), theta[[1]])


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"theta": torch.zeros(3, 7)}, r"holds \(3, 7\) values"),
        ({"weights": torch.zeros(3)}, "holds weights, not"),
        ({"theta": torch.zeros(3, 7, dtype=torch.float16)}, "not the float32 tensor"),
        (
            {"theta": torch.zeros(3, 7), "more": torch.zeros(1)},
            "not the float32 tensor theta alone",
        ),
    ],
)
def test_what_is_not_an_expert_is_refused(buffer, tensors, message):
    save_file(tensors, buffer.file(0))
    with pytest.raises(ValueError, match=message):
        buffer.read(0, (0,))


def test_values_that_are_not_finite_are_refused(buffer):
    theta = load_file(buffer.file(0))["theta"]
    theta[1, 5] = float("nan")
    save_file({"theta": theta}, buffer.file(0))
    with pytest.raises(ValueError, match="not finite; remove it"):
        buffer.read(0, (0, 1))


@pytest.fixture(scope="module")
def shared(config, digits, tmp_path_factory):
    return train_experts(config, digits, tmp_path_factory.mktemp("experts"), progress=False)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_a_flipped_or_missing_byte_is_always_named(shared, data):
    """Anywhere in the file, header and data.

    The error names file and remedy, or what is read is what was written.
    """
    whole = shared.file(0).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    at = data.draw(st.integers(0, header - 1) | st.integers(header, len(whole) - 1))
    cut = data.draw(st.booleans())
    broken = (
        whole[:at]
        if cut
        else whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    )
    expected = ExpertBuffer.open(shared.folder).read(0, (0, 1, 2))
    try:
        shared.file(0).write_bytes(broken)
        found = ExpertBuffer.open(shared.folder).read(0, (0, 1, 2))
        assert not cut and at < header and torch.equal(found, expected)  # e.g. the checksum's name
    except ValueError as error:
        assert "expert-00000.safetensors" in str(error) and "remove it" in str(error)
    finally:
        shared.file(0).write_bytes(whole)


def test_parts_that_a_kill_left_beside_finished_experts_go(config, digits, tmp_path):
    whole = train_experts(config, digits, tmp_path, progress=False)
    theta = {"theta": whole.read(0, (1,))}
    Checkpointer(tmp_path / "parts" / "experts-00000-00000", {}, keep=None).save(1, theta)
    before = [whole.file(i).read_bytes() for i in range(2)]
    again = train_experts(config, digits, tmp_path, progress=False)
    assert not list((tmp_path / "parts").iterdir())
    assert [again.file(i).read_bytes() for i in range(2)] == before


def test_exactly_as_many_as_asked_for_are_followed(config, digits, tmp_path):
    """Of more the first; to fewer the others are added, and those that are there stay."""

    def asked(count):
        return replace(config, mtt=replace(config.mtt, experts=count))

    def trained(count, place):
        return train_experts(asked(count), digits, tmp_path / place, progress=False)

    one, two = trained(1, "few"), trained(2, "many")
    again = trained(1, "many")
    assert len(again) == 1 and len(trained(2, "many")) == 2
    with pytest.raises(ValueError, match=r"holds 1 expert.*mtt\.experts = 2"):
        MTT(asked(2), digits, experts=one)
    few, many = (
        distil(replace(asked(1), space="pixel"), data=digits, experts=e, progress=False)
        for e in (again, two)
    )
    assert few.history == many.history and torch.equal(few.images(), many.images())
    before = one.file(0).read_bytes()
    assert len(trained(2, "few")) == 2 and one.file(0).read_bytes() == before
    assert torch.equal(one.read(1, (0,)), two.read(1, (0,)))


def test_the_experts_are_part_of_what_a_run_is(config, digits, buffer, tmp_path):
    """A run of a version that didn't note them is refused in a sentence."""
    config = replace(config, space="pixel", iterations=1)
    options = {"data": digits, "out": tmp_path / "run", "progress": False}
    distil(config, experts=buffer, **options)
    checkpoints = Checkpointer(tmp_path / "run" / "checkpoints", None)
    (place,) = checkpoints._places()
    found, known = read_checkpoint(place)
    assert known["experts"]
    distil(config, experts=buffer, **options)  # finished, and taken as it is
    earlier = {k: v for k, v in known.items() if k != "experts"}
    Checkpointer(checkpoints.folder, earlier).save(found.step, found.tensors, found.notes)
    with pytest.raises(ValueError, match="didn't note which experts a run is of"):
        distil(config, experts=buffer, **options)
    other = replace(config, algorithm="DM")
    with pytest.raises(ValueError, match="algorithm: 'MTT' -> 'DM'"):
        distil(other, **options)
