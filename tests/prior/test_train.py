"""A training that goes on from another prior, and what is noted of both."""

from dataclasses import asdict, replace

import pytest
import torch

from ld3m_min.io.files import read_json
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.card import finish_prior
from ld3m_min.prior.presets import prior_preset
from ld3m_min.prior.train import train_prior
from ld3m_min.prior.training_log import TrainingLog


@pytest.fixture(scope="module")
def first(digits, tmp_path_factory):
    """A prior of four steps and four, in a folder."""
    out = tmp_path_factory.mktemp("first")
    config = prior_preset("smoke")
    prior = train_prior(config, digits, out, progress=False)
    finish_prior(config, digits, prior, out, records=out)
    return out / "model"


def test_it_keeps_the_autoencoder_and_trains_the_denoiser(first, digits, tmp_path):
    start = LatentDiffusionPrior.from_pretrained(first)
    config = prior_preset("smoke", unet_steps=3)
    prior = train_prior(config, digits, tmp_path, start=start, progress=False)
    kept, changed = prior.autoencoder.state_dict(), prior.denoiser.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in start.autoencoder.state_dict().items())
    assert not all(torch.equal(v, changed[k]) for k, v in start.denoiser.state_dict().items())
    assert prior.scale == pytest.approx(start.scale, rel=1e-6)
    finish_prior(config, digits, prior, tmp_path, records=tmp_path, start=first)
    one, both = TrainingLog.of(first), TrainingLog.of(tmp_path / "model")
    assert (one.autoencoder_steps, one.denoiser_steps) == (4, 4)
    assert (both.autoencoder_steps, both.denoiser_steps) == (4, 7) and both.seconds > one.seconds
    assert read_json(tmp_path / "prior-smoke-seed0.json")["training"] == asdict(both)


def test_an_autoencoder_alone_gets_a_denoiser(first, digits, tmp_path):
    whole = LatentDiffusionPrior.from_pretrained(first)
    LatentDiffusionPrior(whole.autoencoder, None, None).save_pretrained(tmp_path / "alone")
    start = LatentDiffusionPrior.from_pretrained(tmp_path / "alone")
    prior = train_prior(prior_preset("smoke"), digits, tmp_path, start=start, progress=False)
    kept = prior.autoencoder.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in start.autoencoder.state_dict().items())
    assert prior.classes == digits.classes and prior.denoiser is not None
    assert not (tmp_path / "autoencoder").exists()  # nothing of it was trained


def test_a_checkpoint_of_another_start_is_refused(first, digits, tmp_path):
    start = LatentDiffusionPrior.from_pretrained(first)
    config = prior_preset("smoke")
    train_prior(config, digits, tmp_path, start=start, progress=False)
    with pytest.raises(ValueError, match="another configuration"):
        train_prior(config, digits, tmp_path, progress=False)


def test_what_does_not_fit_is_one_sentence(first, digits, tmp_path):
    start = LatentDiffusionPrior.from_pretrained(first)
    wider = prior_preset("smoke", unet_widths=(32, 32))
    with pytest.raises(ValueError, match="another architecture than UNet2DConditionModel"):
        train_prior(wider, digits, tmp_path, start=start, progress=False)


def test_classes_in_another_order_take_their_rows_along(first, digits, tmp_path):
    start = LatentDiffusionPrior.from_pretrained(first)
    others = replace(
        digits, **{s: replace(digits.split(s), classes=digits.classes[::-1]) for s in SPLITS}
    )
    config = prior_preset("smoke", unet_steps=1, unet_lr=1e-9)
    prior = train_prior(config, others, tmp_path, start=start, progress=False)
    assert prior.classes == digits.classes[::-1] and prior.scale == start.scale
    weight = start.class_embedding.weight
    assert torch.allclose(prior.class_embedding.weight[:10], weight[:10].flip(0), atol=1e-6)


def test_a_folder_that_says_nothing_and_one_that_says_nonsense(tmp_path):
    assert TrainingLog.of(tmp_path) == TrainingLog.of(None) == TrainingLog()
    (tmp_path / "training.json").write_text('{"steps": 3}')
    with pytest.raises(ValueError, match="unknown field steps"):
        TrainingLog.of(tmp_path)


SPLITS = ("train", "validation", "test")
