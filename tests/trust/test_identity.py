"""What a run, an evaluation or a set of experts belongs to is decided by content, not by a name."""

import shutil
from dataclasses import asdict, replace

import pytest
import torch

from ld3m_min.backprop import Plan
from ld3m_min.data import ImageDataset
from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.io.checkpoints import _read_manifest as read_manifest
from ld3m_min.io.digests import versions
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.run import distil

from .common import eval_preset, folder_of, load, settings


def _same(a, b):
    return torch.equal(a.images(), b.images())


@pytest.mark.parametrize("step", [2, 5])
def test_a_view_with_gaps_is_known_by_its_values(step):
    """As of every fifth image of a set: the digest is that of a copy, and sees a change."""
    images = torch.arange(20 * 3 * 16, dtype=torch.uint8).view(20, 3, 4, 4)
    labels = torch.arange(20) // 2 % 2
    view, copy = (
        ImageDataset(f(images), f(labels), ("a", "b"), "train")
        for f in (lambda x: x[::step], lambda x: x[::step].clone())
    )
    before = view.digest
    assert before == copy.digest
    labels[step] = 1 - labels[step]
    assert view.digest != before


def test_a_run_is_not_taken_up_with_other_images_of_the_same_names(tmp_path):
    """A folder was replaced by other photographs under the same names.

    The old run's set must not come back as the new one's.
    """
    first = load(folder_of(tmp_path / "pets", seed=1))
    made = distil(settings(), data=first, out=tmp_path / "run", progress=False)
    shutil.rmtree(tmp_path / "pets")
    second = load(folder_of(tmp_path / "pets", seed=2))
    try:
        again = distil(settings(), data=second, out=tmp_path / "run", progress=False)
    except ValueError:
        return  # refused: fine
    assert not _same(again, made)


def test_a_run_is_not_taken_up_with_another_prior_in_the_same_folder(tmp_path):
    """A prior was trained again into the same folder.

    Codes learned under the old weights are not those of the new.
    """
    from ld3m_min.prior import LatentDiffusionPrior

    data = load(folder_of(tmp_path / "pets"))
    prior = LatentDiffusionPrior.from_pretrained("digits").for_classes([0, 1], data.classes)
    prior.save_pretrained(tmp_path / "prior")
    config = settings(space="autoencoder", prior=str(tmp_path / "prior"), size=data.size)
    distil(config, data=data, out=tmp_path / "run", progress=False)
    shutil.rmtree(tmp_path / "prior")
    with torch.no_grad():
        for p in prior.autoencoder.parameters():
            p.mul_(1.05)
    prior.save_pretrained(tmp_path / "prior")
    try:
        again = distil(config, data=data, out=tmp_path / "run", progress=False)
    except ValueError:
        return
    fresh = distil(config, data=data, out=tmp_path / "elsewhere", progress=False)
    assert _same(again, fresh)


def test_experts_of_other_images_are_refused(tmp_path):
    """Experts trained on one folder don't serve another one.

    Not even one of the same name, classes and number of images.
    """
    from ld3m_min.experts import train_experts

    config = settings(algorithm="MTT")
    train_experts(
        config, load(folder_of(tmp_path / "pets", seed=1)), tmp_path / "experts", progress=False
    )
    shutil.rmtree(tmp_path / "pets")
    other = load(folder_of(tmp_path / "pets", seed=2))
    with pytest.raises(ValueError):
        train_experts(config, other, tmp_path / "experts", progress=False)


def test_an_evaluation_is_not_taken_up_with_other_held_out_images(tmp_path):
    """Accuracies on one set of test images are not those on another."""
    from ld3m_min.evaluate import evaluate

    data = load(folder_of(tmp_path / "pets", seed=1, n=20))
    made = distil(settings(iterations=0), data=data, progress=False)
    config = eval_preset("smoke")
    evaluate(made, data, ("ConvNet",), config=config, out=tmp_path / "evaluation")
    shutil.rmtree(tmp_path / "pets")
    other = load(folder_of(tmp_path / "pets", seed=2, n=20))
    with pytest.raises(ValueError):
        evaluate(made, other, ("ConvNet",), config=config, out=tmp_path / "evaluation")


def test_what_a_run_does_not_look_at_makes_no_other_run(tmp_path):
    """Nor does it where an earlier version has noted it: those checkpoints are gone on from."""
    data, config = load(folder_of(tmp_path / "pets")), settings(space="pixel")
    changed = replace(
        config,
        mtt=replace(config.mtt, lr=0.5),
        dc=replace(config.dc, metric="mse"),
        sampler=replace(config.sampler, steps=7),
        redraw_noise=True,
        plan=Plan(precision="bfloat16"),
    )
    made = distil(config, data=data, out=tmp_path / "run", progress=False)
    assert _same(distil(changed, data=data, out=tmp_path / "run", progress=False), made)
    kept = Checkpointer(tmp_path / "run" / "checkpoints", None)
    found = kept.load()
    noted = read_manifest(kept.folder / f"step-{found.step:08d}")["config"]
    assert not noted.keys() & {"mtt", "dc", "sampler", "redraw_noise", "plan"}
    earlier = {k: asdict(config)[k] for k in ("mtt", "dc", "sampler", "redraw_noise")}
    earlier |= {"plan": config.plan.backend}
    Checkpointer(kept.folder, noted | earlier).save(found.step, found.tensors, found.notes)
    assert _same(distil(changed, data=data, out=tmp_path / "run", progress=False), made)
    with pytest.raises(ValueError, match="another configuration"):
        distil(replace(config, lr=0.5), data=data, out=tmp_path / "run", progress=False)


def test_weights_that_were_cast_or_written_through_data_are_other_weights(tmp_path):
    def prior(dtype=torch.float32):
        return LatentDiffusionPrior.from_pretrained("digits", dtype=dtype)

    cast = prior()
    before = cast.networks_digest
    assert cast.to(dtype=torch.bfloat16).networks_digest == prior(torch.bfloat16).networks_digest
    assert cast.to(dtype=torch.float32).networks_digest not in (before, prior().digest)
    written = prior()
    assert written.networks_digest == before
    written.denoiser.conv_in.bias.data[0] += 1
    changed = written.networks_digest
    assert changed != before
    written.class_embedding.weight.data[-1] += 1  # the null class
    assert written.networks_digest not in (before, changed)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.int64])
def test_versions_see_one_value_of_any_tensor(dtype):
    whole = torch.arange(60, dtype=dtype).reshape(3, 4, 5)
    parts = whole, whole[1:], whole[:, 1:, 1:], whole.permute(2, 0, 1), whole[0, 0, 1], whole[:0]
    for part in parts:
        before = versions([part])
        assert versions([part]) == before
        if part.numel():
            part.data[(-1,) * part.dim()] += 1
            assert versions([part]) != before
