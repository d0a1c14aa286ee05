"""A training that goes on: from another prior, and with what an earlier start of it had kept."""

import shutil
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from ld3m_min.commands import train_prior as command
from ld3m_min.io.files import read_json
from ld3m_min.prior import LatentDiffusionPrior, card
from ld3m_min.prior.autoencoder_training import _features
from ld3m_min.prior.card import finish_prior
from ld3m_min.prior.classifier import ClassifierConfig, train_classifier
from ld3m_min.prior.presets import prior_preset
from ld3m_min.prior.quality import measure_prior
from ld3m_min.prior.train import train_prior
from ld3m_min.prior.training_log import TrainingLog


@pytest.fixture(scope="module", autouse=True)
def few_samples():
    """Cards of twenty samples, drawn in one step: how good they are is asked elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "measure_prior", partial(measure_prior, per_class=2, steps=1))
        yield


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


SEEING = ClassifierConfig(network="ConvNet", width=8, size=32, epochs=1, images=200)


def test_a_decoder_alone_is_trained_by_what_a_classifier_sees(first, digits, tmp_path):
    """Encoder and denoiser stay, and the features of a reconstruction come nearer."""
    start = LatentDiffusionPrior.from_pretrained(first)
    changes = {"decoder_steps": 60, "decoder_lr": 5e-3, "seen_by": SEEING, "checkpoint_every": 60}
    config = prior_preset("smoke", unet_steps=1, **changes)
    prior = train_prior(config, digits, tmp_path, start=start, progress=False)
    was, now = (p.autoencoder.state_dict() for p in (start, prior))
    moved = {k.split(".")[0] for k in was if not torch.equal(was[k], now[k])}
    assert moved == {"decoder", "post_quant_conv"}
    images = digits.test.float()[:64]
    assert torch.equal(prior.encode(images), start.encode(images))
    seen_by = train_classifier(digits, SEEING, folder=tmp_path, progress=False)
    with torch.no_grad():
        wanted, before, after = (
            torch.cat([f.flatten() for f in _features(seen_by, digits, x)])
            for x in (images, *(p.decode(start.encode(images)) for p in (start, prior)))
        )
    assert (after - wanted).norm() < 0.9 * (before - wanted).norm()
    found = TrainingLog.of(first) + TrainingLog.read(tmp_path)
    assert (found.autoencoder_steps, found.decoder_steps, found.denoiser_steps) == (4, 60, 5)


def test_a_decoder_that_had_its_steps_gets_none_again(first, tmp_path, capsys):
    TrainingLog(4, 5, 1.0, 60).save(shutil.copytree(first, tmp_path / "had"))
    yaml = tmp_path / "decoder.yaml"
    yaml.write_text(
        "decoder_steps: 3\nunet_steps: 1\nseen_by: {network: ConvNet, width: 8, epochs: 1}"
    )
    words = ["smoke", "--config", yaml, "--start", tmp_path / "had", "--out", tmp_path / "out"]
    command.COMMAND.parse([*map(str, words), "--records", str(tmp_path)])()
    assert "has had its own 60 steps; none are added" in capsys.readouterr().out
    assert not (tmp_path / "out" / "decoder").exists()
    assert TrainingLog.of(tmp_path / "out" / "model").decoder_steps == 60


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"decoder_steps": 5}, "needs a ConvNet as seen_by"),
        ({"decoder_steps": 5, "seen_by": replace(SEEING, network="ViT")}, "needs a ConvNet"),
        (
            {"decoder_steps": 5, "seen_by": SEEING, "classifier": SEEING},
            "would praise what it has taught",
        ),
    ],
)
def test_a_decoder_has_a_classifier_of_its_own(changes, said):
    with pytest.raises(ValueError, match=said):
        prior_preset("smoke", **changes)


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


# -- what is kept to save time ---------------------------------------------------------------------

FEW = prior_preset("smoke", latents=20)


def latents_of(out):
    return load_file(out / "latents.safetensors")["latents"]


@pytest.mark.parametrize("change", [{"latents": 40}, {"latents": 10}, {"seed": 1}], ids=str)
def test_latents_of_another_choice_are_made_anew(digits, tmp_path, change, monkeypatch):
    """Killed before the denoiser's first checkpoint: the next words choose other images."""
    out, other = stopped(digits, FEW, tmp_path / "out", monkeypatch), replace(FEW, **change)
    if "seed" in change:
        shutil.rmtree(out / "autoencoder")  # or its checkpoint would refuse the other training
    again = train_prior(other, digits, out, progress=False)
    whole = train_prior(other, digits, tmp_path / "whole", progress=False)
    assert again.digest == whole.digest
    assert torch.equal(latents_of(out), latents_of(tmp_path / "whole"))


def stopped(digits, config, out, monkeypatch, **options):
    """The folder of a training that was killed when its latents were there and no more."""
    with monkeypatch.context() as patch, pytest.raises(KeyError, match="killed"):
        patch.setattr("ld3m_min.prior.train.denoiser_loss", lambda *a: {}["killed"])
        train_prior(config, digits, out, progress=False, **options)
    assert not list((out / "unet").glob("step-*"))
    return out


def test_other_images_have_other_latents(digits, tmp_path, monkeypatch):
    start = train_prior(prior_preset("smoke"), digits, tmp_path / "start", progress=False)
    pixels = digits.train.images.flip(3).contiguous()
    mirrored = replace(digits, train=replace(digits.train, images=pixels))
    out = stopped(digits, FEW, tmp_path / "out", monkeypatch, start=start)
    before = latents_of(out)
    train_prior(FEW, mirrored, out, start=start, progress=False)
    assert not torch.equal(latents_of(out), before)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "older version"])
def test_latents_that_can_not_be_believed_are_made_anew(digits, tmp_path, damage, monkeypatch):
    whole = train_prior(FEW, digits, tmp_path / "whole", progress=False)
    out = stopped(digits, FEW, tmp_path / "out", monkeypatch)
    spoil(out / "latents.safetensors", damage)
    assert train_prior(FEW, digits, out, progress=False).digest == whole.digest
    assert torch.equal(latents_of(out), latents_of(tmp_path / "whole"))


def spoil(file, damage):
    data = file.read_bytes()
    if damage == "older version":  # without a digest, and of who knows which images
        save_file({k: v.flip(0).contiguous() for k, v in load_file(file).items()}, file)
    else:
        flipped = data[:-5] + bytes([data[-5] ^ 64]) + data[-4:]
        file.write_bytes({"cut": data[:-7], "flipped": flipped, "empty": b""}[damage])


def test_latents_that_fit_are_not_made_twice(digits, tmp_path, monkeypatch):
    out = stopped(digits, FEW, tmp_path / "out", monkeypatch)
    monkeypatch.setattr("ld3m_min.prior.train.encoded", lambda *a, **k: pytest.fail("made twice"))
    assert train_prior(FEW, digits, out, progress=False).classes == digits.classes


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_classifier_that_is_damaged_is_trained_anew(digits, tmp_path, damage):
    config = ClassifierConfig(network="ConvNet", width=8, size=16, epochs=1, images=40)
    whole = train_classifier(digits, config, folder=tmp_path, progress=False).state_dict()
    (file,) = tmp_path.glob("classifier-*.safetensors")
    spoil(file, damage)
    again = train_classifier(digits, config, folder=tmp_path, progress=False).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in whole.items())
    assert all(torch.equal(v, whole[k]) for k, v in load_file(file).items())


SPLITS = ("train", "validation", "test")
