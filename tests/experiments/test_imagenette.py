"""Natural images: the prior's training, its classifier, and every cell of the paper's column.

Fast tests use digits and made image folders. The long form (marked slow) runs the real thing for
two iterations at 128 px; it needs the photographs, in
LD3M_DATA.
"""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ld3m_min.data import load_data
from ld3m_min.data.subsets import subset
from ld3m_min.experiments import grids, running, tables
from ld3m_min.experiments import records as results
from ld3m_min.io import stop as signals
from ld3m_min.io.files import read_json
from ld3m_min.presets import preset
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.architecture import build_prior
from ld3m_min.prior.card import finish_prior
from ld3m_min.prior.classifier import ClassifierConfig, some_of_each, train_classifier
from ld3m_min.prior.presets import prior_preset
from ld3m_min.prior.quality import ImageQuality, measure_images
from ld3m_min.prior.train import train_prior

SMALL = replace(
    prior_preset("smoke"), loss="sharp", crop=16, flip=True, latents=20, vae_steps=3, unet_steps=3
)


def weights(prior):
    return [v for m in prior.modules for v in m.state_dict().values()]


def train_in_pieces(config, data, out):
    """Stop after every single step, and go on; returns the prior and how often it was stopped."""
    for stops in range(100):
        signals.stop_after(0)
        try:
            return train_prior(config, data, out, progress=False), stops
        except signals.Interrupted as stopped:
            assert stopped.code == 75
        finally:
            signals.stop_after(None)
    raise AssertionError("no end")


@pytest.mark.parametrize(
    "config", [SMALL, replace(SMALL, latents=None, crop=None)], ids=["crops", "whole"]
)
def test_a_stopped_training_is_the_one_that_was_not(digits, tmp_path, config):
    whole = train_prior(config, digits, tmp_path / "whole", progress=False)
    pieces, stops = train_in_pieces(config, digits, tmp_path / "pieces")
    assert stops >= config.vae_steps + config.unet_steps
    assert pieces.scale == whole.scale
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(pieces), strict=True))


def test_flips_and_crops_enter_the_training(digits, tmp_path):
    one = train_prior(SMALL, digits, tmp_path / "a", progress=False)
    for i, other in enumerate(
        (replace(SMALL, flip=False), replace(SMALL, crop=None), replace(SMALL, loss="mse"))
    ):
        changed = train_prior(other, digits, tmp_path / str(i), progress=False)
        assert not all(
            torch.equal(a, b) for a, b in zip(weights(one), weights(changed), strict=True)
        )


def test_bfloat16_trains_float32_weights_and_does_not_mix_with_float32(digits, tmp_path):
    prior = train_prior(SMALL, digits, tmp_path, dtype=torch.bfloat16, progress=False)
    assert all(v.dtype == torch.float32 and torch.isfinite(v).all() for v in weights(prior))
    with pytest.raises(ValueError, match=r"dtype: 'torch\.bfloat16' -> 'torch\.float32'"):
        train_prior(SMALL, digits, tmp_path, progress=False)


def test_a_wrong_size_or_loss_is_refused_at_once():
    with pytest.raises(ValueError, match="crop 30 must be a multiple"):
        replace(SMALL, crop=30)
    with pytest.raises(ValueError, match="choose mse, sharp"):
        replace(SMALL, loss="lpips")


def test_the_preset_keeps_its_size():
    """At most 24 MB in bfloat16, factor 4 and three channels at 128 px."""
    config = prior_preset("imagenette-128")
    prior = build_prior(config, tuple("abcdefghij"))
    assert 2 * sum(v.numel() for v in weights(prior)) < 24e6
    assert prior.factor == 4 and prior.latent_channels == 3 and prior.has_null


def test_the_classifier_learns_is_kept_and_classifies(digits, tmp_path):
    config = ClassifierConfig(
        network="ConvNet", width=16, size=16, epochs=3, lr=5e-3, held_out=50, per_class=2, steps=10
    )
    classifier = train_classifier(digits, config, folder=tmp_path, progress=False)
    again = train_classifier(digits, config, folder=tmp_path, progress=False)
    assert all(
        torch.equal(a, b)
        for a, b in zip(classifier.state_dict().values(), again.state_dict().values(), strict=True)
    )
    measured = measure_images(
        LatentDiffusionPrior.from_pretrained("digits"), digits, classifier, config
    )
    quality, samples = measured.quality, measured.samples
    assert (
        quality.classifier_accuracy > 0.7 and quality.agreement > 0.9 and quality.recognised > 0.5
    )
    assert (
        quality.psnr > 30
        and quality.ssim > 0.9
        and quality.feature_distance < 0.2
        and 0.1 < quality.diversity < 2
    )
    assert samples.shape == (20, 3, 32, 32) and quality.held_out == 50
    assert not torch.equal(samples, measured.unguided) and quality.recognised_unguided > 0.2
    assert 0.3 < quality.novelty < 2, "the samples are neither copies nor far from all images"
    assert measured.nearest.shape == samples.shape and measured.held.shape == (2, 10, 3, 32, 32)
    assert "wanted" not in " ".join(
        replace(quality, recognised=1.0, recognised_unguided=1.0, diversity=0.8).shortcomings
    )


def test_what_a_prior_lacks_is_said():
    figures = dict(
        psnr=26.0, ssim=0.8, classifier_accuracy=0.6, reconstructed_accuracy=0.58, agreement=0.7,
        feature_distance=0.3, recognised=0.7, recognised_unguided=0.46, diversity=0.7, novelty=1.0,
        samples=20, held_out=20,
    )  # fmt: skip
    assert not ImageQuality(**figures).shortcomings
    worse = ImageQuality(**figures | {"psnr": 20.04, "recognised": 0.6})
    assert worse.shortcomings == (
        "reconstruction of 20.0 dB, wanted 26.0",
        "samples with guidance recognised at 60.0%, wanted 69.0%",
    )


def test_a_prior_that_copies_its_training_images_has_no_novelty(digits):
    """A prior whose samples are training images, whatever they are drawn from."""
    config = ClassifierConfig(
        network="ConvNet", width=8, size=32, epochs=1, held_out=20, per_class=2, steps=2
    )
    classifier = train_classifier(digits, config, progress=False)
    prior = LatentDiffusionPrior.from_pretrained("digits")
    copies = digits.train.take(torch.arange(20))
    prior.decode = lambda z: copies[: len(z)]
    prior.encode = lambda x: torch.zeros(len(x), 3, 8, 8)
    measured = measure_images(prior, digits, classifier, config)
    assert measured.quality.novelty < 0.01  # rounding of the distances
    assert torch.equal(measured.nearest, measured.samples)
    assert (
        digits.validation.labels[some_of_each(digits.validation, 30)].bincount().tolist()
        == [3] * 10
    )


def made_folder(root, per_class=4, official=2, side=24):
    """A folder laid out as ImageNette, of made pictures: each class a colour, with noise."""
    draws = np.random.default_rng(0)
    for label, wnid in enumerate(subset("imagenette").wnids):
        for top, stem, n in (
            ("train", f"{wnid}_", per_class),
            ("val", "ILSVRC2012_val_0000", official),
        ):
            (root / top / wnid).mkdir(parents=True)
            for i in range(n):
                x = draws.integers(0, 60, (side, side, 3)) + np.array(
                    [20 * label, 200 - 20 * label, 90]
                )
                Image.fromarray(x.astype(np.uint8)).save(
                    root / top / wnid / f"{stem}{label}{i}.png"
                )
    return root


@pytest.fixture
def made(tmp_path, monkeypatch):
    root = made_folder(tmp_path / "images")
    monkeypatch.setenv("LD3M_DATA", str(root))
    monkeypatch.setenv("LD3M_CACHE", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="do not compare with the paper's"):
        return load_data("imagenette", size=32, progress=False)


def test_a_finished_prior_has_card_record_samples_and_loads_as_float32(made, tmp_path):
    asked = ClassifierConfig(
        network="ConvNet", width=8, size=16, epochs=1, held_out=10, per_class=2, steps=2
    )
    config = replace(SMALL, name="tiny", dataset="imagenette", classifier=asked, about="a test")
    prior = train_prior(config, made, tmp_path / "out", progress=False)
    quality = finish_prior(config, made, prior, tmp_path / "out", records=tmp_path / "records")
    record = read_json(tmp_path / "records" / "prior-tiny-seed0.json")
    assert (
        record["quality"]["psnr"] == quality.psnr
        and record["files"] == "PNG, 24 x 24 px"
        and record["seconds"] >= 0
    )
    for end in ("", "-unguided"):
        picture = Image.open(tmp_path / "records" / f"prior-tiny-seed0{end}.png")
        assert picture.size == (10 * 32, 2 * 32)
    # real images stay with the training
    assert Image.open(tmp_path / "out" / "beside-real-images.png").size == (10 * 32, 4 * 32)
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert (
        "non-commercial" in card
        and "PNG, 24 x 24 px" in card
        and f"{quality.psnr:.1f} dB" in card
        and "**Lacking**: reconstruction of" in card
    )
    files = sum(f.stat().st_size for f in (tmp_path / "out" / "model").rglob("*.safetensors"))
    loaded = LatentDiffusionPrior.from_pretrained(tmp_path / "out" / "model")
    assert files < 3 * sum(v.numel() for v in weights(loaded)) and loaded.scale == pytest.approx(
        prior.scale
    )
    assert all(v.dtype == torch.float32 for v in weights(loaded))
    # measured is what is kept
    assert all(torch.equal(a, b) for a, b in zip(weights(prior), weights(loaded), strict=True))


def test_a_cell_of_images_becomes_a_record(made, tmp_path, monkeypatch):
    """LD3M with DM on made images.

    Time, gradient norm, prior and files are in the record; a random prior generates too.
    """
    cell = grids.Cell("imagenette", "nette-smoke", "ld3m-code", "DM", 1, variant="random-prior")
    prior = build_prior(replace(prior_preset("smoke"), size=32), made.classes)
    monkeypatch.setattr(
        grids.Cell,
        "config",
        lambda self: preset("nette-smoke", algorithm="DM", dataset="imagenette", size=32),
    )
    record = running.make_record(
        cell,
        made,
        records=tmp_path / "r",
        runs=tmp_path,
        prior=prior,
        progress=False,
        architectures=("ConvNet",),
    )
    assert (
        record["seconds_per_iteration"] >= 0
        and record["peak_memory_bytes"] > 0
        and record["prior"]["source"]
    )
    for code in ("Z", "c"):
        norms = record[f"grad_{code}"]
        assert len(norms) == 2 and all(g > 0 for g in norms)
    assert (tmp_path / "r" / f"{cell.name}.png").exists()
    snapshots = Image.open(
        tmp_path / "r" / f"{cell.name}-snapshots.png"
    )  # drawn by the prior throughout
    assert snapshots.size == (2 * 32, 32)
    assert (
        record["data"]["files"] == "PNG, 24 x 24 px" and record["cell"]["variant"] == "random-prior"
    )
    frame = tables.table(results.load_records(tmp_path / "r"), "imagenette", "nette-smoke")
    assert frame.index[0][2].endswith("random-prior") and frame["95 % interval"].iloc[0] == "–"


PHOTOS = [
    cell
    for name in ("photos", "photos-ablation", "photos-steps", "photos-priors")
    for cell in grids.grid(f"{name}-smoke")
    if cell.seed == 0
    and cell.algorithm in ("none", "DM")
    and cell.variant not in ("T20", "T40")  # which are T5 with more steps
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        root = made_folder(tmp_path_factory.mktemp("photos"), per_class=6)
        patch.setenv("LD3M_DATA", str(root))
        patch.setenv("LD3M_CACHE", str(root.parent / "cache"))
        with pytest.warns(UserWarning, match="do not compare with the paper's"):
            data = load_data("imagenette", size=64, progress=False)
    return data, build_prior(prior_preset("imagenette-64-smoke"), data.classes)


@pytest.mark.parametrize("cell", PHOTOS, ids=lambda c: c.name.removeprefix("imagenette-photos-"))
def test_every_system_at_64_px_becomes_a_record(photos, tmp_path, cell):
    data, prior = photos
    record = running.make_record(
        cell,
        data,
        records=tmp_path / "r",
        runs=tmp_path,
        prior=prior if grids.SPACES[cell.system.space].needs_prior else None,
        progress=False,
        architectures=("ConvNet",),
    )
    learned = cell.system.how == "learned"
    assert len(record["loss"]) == 2 * learned and 0 <= record["accuracies"]["ConvNet"][0] <= 1
    assert (record["prior"] is None) == (cell.system.space == "pixel")
    published = {f.name for f in (tmp_path / "r").glob("*.png")}
    wanted = [f"{cell.name}.png"] * (cell.system.how != "chosen")
    # the first snapshots in other spaces nearly are real photographs
    wanted += [f"{cell.name}-snapshots.png"] * (learned and cell.system.space == "ld3m")
    assert published == {*wanted}
    frame = tables.table(results.load_records(tmp_path / "r"), "imagenette", "photos-smoke")
    assert frame.index[0][2].startswith(cell.system.label)


def test_real_photographs_never_stand_beside_the_records(made, tmp_path, monkeypatch):
    cell = grids.Cell("imagenette", "nette-smoke", "random", "none", 1)
    monkeypatch.setattr(
        grids.Cell,
        "config",
        lambda self: preset(
            "nette-smoke", space="pixel", dataset="imagenette", size=32, iterations=0
        ),
    )
    record = running.make_record(
        cell,
        made,
        records=tmp_path / "r",
        runs=tmp_path,
        progress=False,
        architectures=("ConvNet",),
    )
    assert not list((tmp_path / "r").glob("*.png")) and record["seconds_per_iteration"] is None


def test_the_command_line_says_that_there_is_more_to_do(tmp_path):
    words = [
        sys.executable,
        "-m",
        "ld3m_min",
        "train-prior",
        "--preset",
        "smoke",
        "--max-seconds",
        "0",
    ]
    for done in (1, 2):
        run = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert (
            run.returncode == 75 and f"{done} of 4 steps of the autoencoder are saved" in run.stderr
        ), run.stderr
    assert (tmp_path / "runs" / "prior-smoke" / "autoencoder" / "step-00000002").is_dir()


# -- the long form, on the photographs -------------------------------------------------------------

photographs = pytest.mark.skipif(
    "LD3M_DATA" not in os.environ, reason="LD3M_DATA names no folder of ImageNette"
)
CELLS = [
    c
    for g, cells in grids.GRIDS.items()
    if g.startswith("imagenette") and g.endswith("-smoke")
    for c in cells
]


@pytest.fixture(scope="module")
def nette():
    return load_data("imagenette", size=128, progress=False)


@photographs
@pytest.mark.slow
def test_the_prior_at_128_px_stops_and_resumes_exactly(nette, tmp_path):
    config = prior_preset("imagenette-128-smoke")
    whole = train_prior(config, nette, tmp_path / "whole", progress=False)
    pieces, stops = train_in_pieces(config, nette, tmp_path / "pieces")
    assert stops >= 4 and all(
        torch.equal(a, b) for a, b in zip(weights(whole), weights(pieces), strict=True)
    )
    quality = finish_prior(config, nette, pieces, tmp_path / "pieces", records=tmp_path)
    assert quality.held_out == 20 and quality.samples == 20


@photographs
@pytest.mark.slow
@pytest.mark.parametrize(
    "cell", CELLS, ids=lambda c: c.name.removeprefix("imagenette-nette-smoke-")
)
def test_every_kind_of_cell_at_128_px(nette, tmp_path_factory, cell):
    """Two iterations and one epoch of the evaluation's first network.

    Experts and a stopped cell are shared by folder.
    """
    runs, data = tmp_path_factory.getbasetemp() / "runs", nette
    few = replace(nette.train, images=nette.train.images[::50], labels=nette.train.labels[::50])
    if cell.variant == "256px":
        data = load_data("imagenette", size=256, progress=False, cache=False)
        few = replace(data.train, images=data.train.images[::50], labels=data.train.labels[::50])
    prior = None
    if grids.SPACES[cell.system.space].needs_prior:  # as `train-prior` makes it, but untrained
        prior = build_prior(prior_preset("imagenette-128-smoke"), nette.classes)
    record = running.make_record(
        cell,
        replace(data, train=few),
        records=runs,
        runs=runs,
        prior=prior,
        progress=False,
        architectures=("ConvNet",),
    )
    assert record["split"] == "test" and record["data"]["splits"]["test"] == 500
    if cell.system.how == "learned":
        assert (
            len(record["loss"]) == 2
            and all(np.isfinite(record["loss"]))
            and record["seconds_per_iteration"] > 0
        )
    if cell.system.space == "ld3m" and cell.variant != "c-only":
        assert all(g > 0 for g in record["grad_Z"])
