"""A prior from a folder of one's own images: sizes, plan, training, card, bad input."""

import re
import shlex
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ld3m_min.commands import parsed
from ld3m_min.commands import train_prior as command
from ld3m_min.commands.own_prior import Wish, plan_of, slug
from ld3m_min.commands.train_prior import COMMAND
from ld3m_min.data import load_data
from ld3m_min.data.sides import look_at_folder
from ld3m_min.errors import Busy
from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.io.files import read_json
from ld3m_min.io.lock import locked
from ld3m_min.io.stop import Interrupted, stop_after
from ld3m_min.planner.training_speed import training_speeds
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior import own_images as own
from ld3m_min.prior import training_time as time
from ld3m_min.prior.card import called
from ld3m_min.prior.class_map import ClassMap
from ld3m_min.prior.image_card import image_card, verdict
from ld3m_min.prior.loading import load_prior
from ld3m_min.prior.presets import prior_preset
from ld3m_min.prior.quality import ImageQuality
from ld3m_min.prior.start import check_start, class_rows, like_start, started
from ld3m_min.prior.train import train_prior
from ld3m_min.prior.training_log import TrainedOn
from ld3m_min.prior.training_plan import TrainingPlan, clock, gib
from tests import tiny_pipelines

SPEEDS = time.Speeds(0.2, 0.1, 0.01, 0.002, 0.05, 2**30, 400_000, 2_000_000)
IMAGES = time.Images(1000, 5)


def drawn(folder, counts, side=32, grey=False):
    """A folder of classes of drawn pictures: each class another colour, with noise."""
    g = torch.Generator().manual_seed(0)
    for k, (name, n) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            noise = torch.randint(80, (side, side, 3), generator=g, dtype=torch.uint8).numpy()
            noise[..., k % 3] += np.uint8(120)
            picture = Image.fromarray(noise)
            (picture.convert("L") if grey else picture).save(folder / name / f"{i}.png")
    return folder


# -- sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sides, found",
    [
        ((500, 375, 64), (256, 128, 64, 32)),
        ((128, 128, 20), (128, 64, 32)),
        ((64, 100, 127), (64, 32)),
        ((20, 24), (32,)),
        ((), (32,)),
    ],
)
def test_the_sides_that_most_images_reach(sides, found):
    assert own.reached(sides) == found


@pytest.mark.parametrize("size", [32, 48, 64, 96, 128, 224, 256])
@pytest.mark.parametrize("scale", [0, 1, 2])
def test_every_size_can_be_built(size, scale):
    config = own.sized(size, scale, "x")
    latent = size // 2 ** (len(config.vae_widths) - 1)
    assert latent % 2 ** (len(config.unet_widths) - 1) == 0  # it halves as often as the U-Net does
    assert len(config.attention) == len(config.unet_widths)
    side = config.classifier.size
    assert size % side == 0 and side % 16 == 0 and 32 <= side <= 96 + 16 * 2
    assert all(w % 8 == 0 for w in (*config.vae_widths, *config.unet_widths))


@pytest.mark.parametrize("size", [0, 16, 33, 40, 512])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"--size {size} is no side"):
        own.sized(size, 0, "x")


@pytest.mark.parametrize("images, scale", [(10, 0), (499, 0), (500, 1), (4999, 1), (5000, 2)])
def test_more_images_fill_larger_networks(images, scale):
    assert own.largest_scale(images) == scale


@pytest.mark.parametrize("hours", [0.2, 1, 3, 8])
def test_the_time_is_used_and_not_overdrawn(hours):
    config = time.with_steps(own.sized(64, 0, "x"), SPEEDS, IMAGES, hours)
    found = time.times(config, SPEEDS, IMAGES, 3600 * hours)
    full = (config.vae_steps, config.unet_steps) == time.FULL
    assert found.total <= 3600 * hours and (found.total > 3400 * hours or full)
    capped = config.unet_steps == time.FULL[1]
    assert 0.3 < found.autoencoder / (found.autoencoder + found.denoiser) < 0.4 or capped
    assert found.classifier + found.samples < 0.17 * 3600 * hours
    assert 2 <= time.pictures(SPEEDS, IMAGES, 3600 * hours) <= time.PICTURES


def test_given_steps_stay_and_the_rest_is_for_the_other():
    config = replace(own.sized(64, 0, "x"), vae_steps=100)
    found = time.with_steps(config, SPEEDS, IMAGES, 1, {"vae_steps"})
    plain = time.with_steps(config, SPEEDS, IMAGES, 1)
    assert found.vae_steps == 100 and plain.vae_steps > 1000
    assert found.unet_steps > plain.unet_steps
    alone = time.with_steps(config, replace(SPEEDS, autoencoder=0.0), IMAGES, 1)
    assert alone.unet_steps > found.unet_steps  # a start's autoencoder costs nothing


def test_too_little_time_is_said_with_the_hours_that_would_do():
    with pytest.raises(ValueError, match="not a step can be trained here"):
        time.with_steps(own.sized(64, 0, "x"), SPEEDS, IMAGES, 1e-5)
    few = time.with_steps(own.sized(64, 0, "x"), SPEEDS, IMAGES, 0.03)
    said = time.too_short(few, SPEEDS, IMAGES)
    hours = float(re.search(r"give --hours ([\d.]+)", said)[1])
    better = time.with_steps(own.sized(64, 0, "x"), SPEEDS, IMAGES, hours)
    assert time.too_short(better, SPEEDS, IMAGES) is None
    plan = TrainingPlan(few, 0.03, IMAGES, SPEEDS, "digits", goes_on=True)
    assert plan.warning is None
    assert "hardly change" in replace(plan, config=replace(few, unet_steps=3)).warning
    assert better.vae_steps >= time.LEAST[0] and better.unet_steps >= time.LEAST[1]
    for hours in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="--hours must be"):
            time.checked_hours(hours)


def test_a_plan_is_read_as_it_was_written(tmp_path):
    config = time.with_steps(own.sized(64, 1, "cats"), SPEEDS, IMAGES, 2)
    plan = TrainingPlan(config, 2, IMAGES, SPEEDS, "", ("a note",))
    plan.save(tmp_path)
    assert TrainingPlan.read(tmp_path) == plan and TrainingPlan.read(tmp_path / "no") is None
    table = plan.table()
    assert f"{config.unet_steps:,}" in table and "- a note" in table and "1.0 GiB" in table
    assert plan.disk_bytes == 2 * 16 * 2_400_000 + 2 * 2_400_000
    further = replace(plan, start="digits", speeds=replace(SPEEDS, autoencoder=0.0))
    assert "kept as digits has it" in further.table()
    (tmp_path / "plan.json").write_text('{"hours": 2}')
    with pytest.raises(ValueError, match="holds no plan that can be read"):
        TrainingPlan.read(tmp_path)


@pytest.mark.parametrize(
    "hours, size, widths, why",
    [
        (0.3, 32, 0, "most images reach 128, but the hours"),
        (1.5, 64, 0, "most images reach 128, but the hours"),
        (3, 128, 0, "the largest of 32, 64, 128 and 256"),
        (40, 128, 1, "the largest of 32, 64, 128 and 256"),
    ],
)
def test_the_hours_choose_the_size_and_the_widths(tmp_path, monkeypatch, hours, size, widths, why):
    def speeds(config, classes, **options):
        seconds = (config.size / 32) ** 2 * (config.unet_widths[0] / 32) ** 2 / 20
        return replace(SPEEDS, autoencoder=seconds, denoiser=seconds, drawing=seconds / 100)

    monkeypatch.setattr("ld3m_min.commands.own_prior.training_speeds", speeds)
    root = drawn(tmp_path / "x", {"a": 10, "b": 10}, side=130)
    look = replace(look_at_folder(root), trained_on=600)  # enough for the middle widths
    monkeypatch.setattr("ld3m_min.commands.own_prior.look_at_folder", lambda path: look)
    plan = plan_of(root, Wish(hours))
    assert plan.config.size == size
    assert plan.config.unet_widths == own.FRAMES[size].networks[widths].unet
    assert any(why in note for note in plan.notes) and f"{size} px" in " ".join(plan.notes)


def test_times_and_bytes_in_words():
    assert [clock(s) for s in (0.2, 40, 300, 9000)] == ["1 s", "40 s", "5 min", "2.5 h"]
    assert [gib(b) for b in (3 * 2**20, 3 * 2**29)] == ["3 MiB", "1.5 GiB"]


@pytest.mark.parametrize(
    "name, found",
    [("cats", "cats"), ("my cats & dogs", "my-cats-dogs"), ("猫", "own"), ("..", "own")],
)
def test_a_folders_name_becomes_a_file_name(name, found):
    assert slug(name) == found


def test_a_look_at_a_folder(tmp_path):
    drawn(tmp_path / "flat", {"a": 10, "b & c": 4}, side=40)
    look = look_at_folder(tmp_path / "flat")
    assert (look.name, look.classes, look.counts) == ("flat", ("a", "b & c"), (10, 4))
    assert set(look.short_sides) == {40}
    data = load_data(tmp_path / "flat", size=32, cache=False, progress=False)
    assert look.trained_on == len(data.train)
    for part in ("train", "val"):
        shutil.copytree(tmp_path / "flat", tmp_path / "split" / part)
    with pytest.warns(UserWarning, match="among the training images too"):
        data = load_data(tmp_path / "split", size=32, cache=False, progress=False)
    assert look_at_folder(tmp_path / "split").trained_on == len(data.train)


@pytest.mark.parametrize("top", ["", "train"])
def test_a_note_among_many_images_is_not_counted(tmp_path, top):
    drawn(tmp_path / "pets" / top, {"a": 40, "b": 8})
    if top:
        shutil.copytree(tmp_path / "pets" / top, tmp_path / "pets" / "val")
    (tmp_path / "pets" / top / "a" / "notes.txt").write_text("two of them are shy")
    look = look_at_folder(tmp_path / "pets")
    assert look.counts == (40, 8)
    with pytest.warns(UserWarning, match="are left out"):
        data = load_data(tmp_path / "pets", size=32, cache=False, progress=False)
    assert look.trained_on == len(data.train)
    (tmp_path / "pets" / top / "b" / "notes.txt").write_text("one in nine is a mistake")
    with pytest.raises(ValueError, match="are no image files"):
        look_at_folder(tmp_path / "pets")


def test_speeds_are_measured():
    config = prior_preset("imagenette-64-smoke", size=32)
    found = training_speeds(config, 3)
    whole = started(config, ["a", "b", "c"]).prior
    assert found.denoiser_weights == sum(p.numel() for p in whole.denoiser.parameters())
    timed = (found.autoencoder, found.denoiser, found.encoding, found.drawing, found.classifier)
    assert all(0 < s < 60 for s in timed)
    both = 4 * (found.autoencoder_weights + found.denoiser_weights)
    assert found.peak_bytes > 2 * both  # at least weights, averages and moments of the larger one
    assert training_speeds(config, 3, start=whole).autoencoder == 0


# -- what it starts from ---------------------------------------------------------------------------


def test_other_classes_start_from_rows_of_their_name(digits):
    start = load_prior("digits")
    rows = class_rows(start, ("7", "cat", "dog"), ClassMap({"dog": "3"}))
    weight = start.class_embedding.weight
    assert torch.equal(rows, torch.stack([weight[7], weight[10], weight[3], weight[10]]))
    config = like_start(prior_preset("smoke"), start)
    begun = started(config, ("7", "cat"), start)
    assert begun.keeps_scale and begun.prior.scale == start.scale
    assert begun.prior.classes == ("7", "cat") and begun.prior.class_count == 2
    kept = begun.prior.denoiser.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in start.denoiser.state_dict().items())


def test_a_denoiser_of_another_kind_leaves_the_autoencoder(tmp_path):
    start = LatentDiffusionPrior.from_diffusers(tiny_pipelines.pipeline("transformer", tmp_path))
    config = like_start(prior_preset("smoke", unet_widths=(16, 16)), start)
    with pytest.warns(UserWarning, match="only the autoencoder of the prior to start from is kept"):
        begun = started(config, ("a", "b"), start)
    assert type(begun.prior.denoiser).__name__ == "UNet2DConditionModel" and not begun.keeps_scale
    same = begun.prior.autoencoder.state_dict()
    assert all(torch.equal(v, same[k]) for k, v in start.autoencoder.state_dict().items())


def test_latents_of_a_codebook_are_scaled_to_one(digits, tmp_path):
    start = LatentDiffusionPrior(
        tiny_pipelines.autoencoder("VQModel", scaling_factor=3.0), None, None
    )
    config = like_start(prior_preset("smoke", unet_steps=1), start)
    prior = train_prior(config, digits, tmp_path, start=start, progress=False)
    z = prior.encode(digits.train.float()[:500])
    assert z.std().item() == pytest.approx(1, rel=0.05)
    assert prior.autoencoder.config.scaling_factor == prior.scale != 3


@pytest.mark.parametrize(
    "vae, size, message",
    [
        ({"in_channels": 1, "out_channels": 1}, 32, "takes images of 1 channel"),
        ({}, 33, "whose factor is 2; give a --size that is a multiple"),
    ],
)
def test_an_autoencoder_that_does_not_fit(vae, size, message):
    start = LatentDiffusionPrior(tiny_pipelines.autoencoder("AutoencoderKL", **vae), None, None)
    with pytest.raises(ValueError, match=message):
        check_start(start, size)


def test_a_whole_prior_has_a_size_of_its_own():
    with pytest.raises(ValueError, match="makes images of 32 px, not 64; give --size 32"):
        like_start(prior_preset("smoke", size=64), load_prior("digits"))


def test_pictures_change_nothing_of_the_training(digits, tmp_path):
    config = prior_preset("smoke")
    plain = train_prior(config, digits, tmp_path / "a", progress=False)
    shown = train_prior(config, digits, tmp_path / "b", progress=False, pictures=2)
    assert plain.digest == shown.digest
    names = sorted(p.name for p in (tmp_path / "b" / "samples").iterdir())
    assert names == [
        "autoencoder-000002.png", "autoencoder-000004.png", "step-000002.png", "step-000004.png"
    ]  # fmt: skip
    with Image.open(tmp_path / "b" / "samples" / names[-1]) as picture:
        assert picture.size == (320, 64)  # a column for each of ten classes
    assert not (tmp_path / "a" / "samples").exists()


# -- the card --------------------------------------------------------------------------------------

GOOD = ImageQuality(30, 0.9, 0.8, 0.8, 0.9, 0.1, 1.0, 0.8, 0.9, 0.9, 100, 100)


@pytest.mark.parametrize(
    "novelty, words",
    [
        (0.1, "memorised: samples are"),
        (0.6, "partly memorised"),
        (0.9, "not memorised"),
        (None, "cannot be told"),
    ],
)
def test_memorised_in_words(novelty, words):
    assert words in replace(GOOD, novelty=novelty).memorised


def test_the_verdict_is_as_sure_as_the_classifier():
    assert verdict(GOOD, 4) == "**Fit for distillation**, by all of these figures."
    weak = replace(GOOD, classifier_accuracy=0.5, held_out=5, diversity=None)
    said = verdict(weak, 4)
    assert "as far as can be told" in said and "right in 50% of real images (chance 25%)" in said
    assert "only 5 held-out images" in said and "diversity cannot be measured" in said
    assert "**Lacking**: reconstruction of 20.0 dB" in verdict(replace(GOOD, psnr=20.0), 4)


def test_the_card_is_true_of_any_folder(tmp_path):
    root = drawn(tmp_path / "my *pets*", {"cat|s": 12, "dogs": 6})
    data = load_data(root, size=32, cache=False, progress=False)
    config = own.sized(32, 0, "my-pets")
    record = {
        "training": {"autoencoder_steps": 3, "decoder_steps": 0, "denoiser_steps": 4},
        "seconds": 60,
        "environment": {"device": "CPU"},
        "files": data.files,
    }
    prior = started(config, data.classes).prior
    card = image_card(config, config.classifier, data, prior, GOOD, record, made_by="train-prior F")
    assert "ImageNet" not in card and "my \\*pets\\*" in card and "cat\\|s" in card
    assert "It is yours to state" in card and "train-prior F`" in card
    cats = [int((s.labels == 0).sum()) for s in (data.train, data.validation, data.test)]
    assert f"| {cats[0]} | {cats[1]} | {cats[2]} |" in card and sum(cats) == 12
    said = image_card(config, config.classifier, data, prior, GOOD, record, licence="CC BY 4.0")
    (tmp_path / "run" / "model").mkdir(parents=True)
    assert [called(p) for p in (tmp_path / "run" / "model", "org/name")] == ["run", "org/name"]
    assert "**Licence**: CC BY 4.0." in said


# -- the command -----------------------------------------------------------------------------------

TINY = shlex.split(
    "--size 32 --vae-widths 8 8 --unet-widths 16 16 --attention False True --vae-steps 3 "
    "--unet-steps 3 --vae-batch 2 --unet-batch 2 --condition-width 16 --classifier.width 8 "
    "--classifier.epochs 1 --classifier.per-class 1 --classifier.steps 2 --classifier.size 32 "
    "--classifier.held-out 4"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("given") / "pets", {"cats": 9, "dögs & co": 5, "wasps": 5})


def test_the_whole_way_stopped_and_gone_on(folder, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["train-prior", str(folder), "--out", str(out), *TINY]
    try:
        with pytest.warns(UserWarning, match="too little time"), pytest.raises(Interrupted):
            parsed([*words, "--hours", "0.5", "--max-seconds", "0"])()
    finally:
        stop_after(None)
    plan = read_json(out / "plan.json")
    assert not (out / "model").exists() and plan["hours"] == 0.5
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"has a training of 0.5 hours, not 2; give the same"):
        parsed([*words, "--hours", "2"])
    with pytest.warns(UserWarning, match="too little time"):
        parsed([*words, "--licence", "mine"])()  # the hours of before
    said = capsys.readouterr().out
    assert "the plan of before" in said and "19 images of 3 classes, 5 to 9 a class" in said
    assert "Lacking" in said and "Beware" in said and "distil with it" in said
    assert read_json(out / "plan.json") == plan
    prior = load_prior(out / "model")
    assert prior.classes == ("cats", "dögs & co", "wasps")
    card = (out / "model" / "README.md").read_text(encoding="utf-8")
    assert "dögs &amp; co" in card and "mine" in card and "ImageNet" not in card
    data = load_data(folder, size=32, progress=False)
    assert TrainedOn.read(out / "model") == TrainedOn.of(data)
    assert (out / "beside-real-images.png").exists() and (out / "record").is_dir()
    assert (out / "samples" / "step-000003.png").exists()


def test_a_slip_beside_a_kept_plan_changes_nothing_of_it(folder, tmp_path, monkeypatch):
    """Another training's words are refused, and those of before go on."""
    out = tmp_path / "out"
    words = ["train-prior", str(folder), "--out", str(out), *TINY]
    first = Checkpointer.save

    def stops(self, step, *args, **kwargs):
        first(self, step, *args, **kwargs)
        if self.folder.name == "unet":
            raise Interrupted("Ctrl-C", "a step is saved")

    monkeypatch.setattr(Checkpointer, "save", stops)
    with pytest.warns(UserWarning, match="too little time"), pytest.raises(Interrupted):
        parsed([*words, "--hours", "0.5"])()
    monkeypatch.setattr(Checkpointer, "save", first)
    plan = (out / "plan.json").read_bytes()
    with (
        pytest.warns(UserWarning, match="too little time"),
        pytest.raises(ValueError, match="unet_steps: 3 -> 99"),
    ):
        parsed([*words, "--unet-steps", "99"])()
    assert (out / "plan.json").read_bytes() == plan
    assert call(*words[1:]).config.unet_steps == 3
    with locked(out), pytest.raises(Busy), pytest.warns(UserWarning, match="too little time"):
        parsed(words)()
    with pytest.warns(UserWarning, match="too little time"):
        parsed(words)()
    assert load_prior(out / "model").classes == ("cats", "dögs & co", "wasps")


def test_a_plan_is_kept_where_its_training_may_work(folder, tmp_path):
    """Neither in a folder that another process holds, nor in one of another training."""
    out = tmp_path / "out"
    words = ["train-prior", str(folder), "--out", str(out), *TINY]
    with locked(out), pytest.raises(Busy), pytest.warns(UserWarning, match="too little time"):
        parsed(words)()
    assert not (out / "plan.json").exists()
    Checkpointer(out / "unet", {"content": "of another"}).save(1, {"x": torch.zeros(1)})
    with (
        pytest.warns(UserWarning, match="too little time"),
        pytest.raises(ValueError, match="another configuration"),
    ):
        parsed(words)()
    assert not (out / "plan.json").exists() and not (out / "autoencoder").exists()


def call(*words):
    return COMMAND.resolved(words)


def test_a_dry_run_writes_nothing(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parsed(["train-prior", str(folder), *TINY, "--dry-run"])()
    said = capsys.readouterr().out
    assert "# autoencoder" in said and "# too little time" in said and "unet_steps: 3" in said
    assert not list(tmp_path.iterdir())


def test_words_that_cannot_be(folder, tmp_path):
    out = ("--out", str(tmp_path / "out"))
    cases = {
        "--hours must be above 0": (str(folder), "--hours", "0"),
        "must be a number above 0": (str(folder), "--hours", "nan"),
        "size 33 must be a multiple": (str(folder), "--size", "33"),
        "--size 40 is no side": (str(folder), "--size", "40"),
        "is for a folder of one's own": ("smoke", "--hours", "2"),
        "needs the folder of the images": ("own",),
        "unknown preset .*nowhere": (str(folder / "nowhere"),),
    }
    for message, words in cases.items():
        with pytest.raises(ValueError, match=message):
            call(*words, *out)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        call("own", "--dataset", str(folder / "nowhere"), *out)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_called_as_a_data_set_is_still_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("imagenette", "letters"):  # the second is a preset too
        drawn(tmp_path / name, {"a": 9, "b": 5})
    for words in (("imagenette",), ("./letters",), ("own", "--dataset", "letters")):
        found = call(*words, *TINY).config.dataset
        data = load_data(found, size=32, cache=False, progress=False)
        assert (data.name, data.classes) == (words[-1].removeprefix("./"), ("a", "b"))


def test_folders_that_cannot_be(tmp_path):
    (tmp_path / "none").mkdir()
    one = drawn(tmp_path / "one", {"a": 5})
    few = drawn(tmp_path / "few", {"a": 5, "b": 2})
    alike = drawn(tmp_path / "alike", {"a": 4, "b": 4})
    for file in alike.rglob("*.png"):
        Image.new("RGB", (32, 32), "red").save(file)
    with pytest.raises(FileNotFoundError, match="holds no class folder"):
        call(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="has one class, 'a'; a prior is of 2 classes or more"):
        call(str(one))
    with pytest.raises(ValueError, match="'b' has 2 image"):
        parsed(["train-prior", str(few), "--out", str(tmp_path / "x"), *TINY])()
    with (
        pytest.warns(UserWarning, match="among the training images too"),
        pytest.raises(ValueError, match="images show the same picture"),
    ):
        parsed(["train-prior", str(alike), "--out", str(tmp_path / "x"), *TINY])()
    inside = drawn(tmp_path / "in", {"a": 4, "b": 4})
    words = ["train-prior", str(inside), "--out", str(tmp_path / "x"), *TINY]
    with pytest.MonkeyPatch.context() as patch:  # said before the minute that a plan takes
        patch.setattr(command, "plan_of", lambda *_: pytest.fail("a plan is made"))
        with pytest.raises(ValueError, match="lies in the data's own folder"):
            parsed(["train-prior", str(inside), "--out", str(inside / "out"), *TINY])
        with pytest.raises(ValueError, match="lies in the data's own folder"):
            parsed([*words, "--records", str(inside / "records")])
    assert not (tmp_path / "x").exists() and not (tmp_path / "in" / "out").exists()


@pytest.mark.parametrize("preset", ["fine-tune minimax-smoke", "train-prior style-smoke"])
@pytest.mark.parametrize("option", ["--out", "--records"])
def test_no_training_writes_among_its_images(tmp_path, monkeypatch, preset, option):
    monkeypatch.chdir(tmp_path)
    pets = drawn(tmp_path / "pets", {"a": 4, "b": 4})
    words = [*preset.split(), "--dataset", str(pets), option, str(pets / "tuned")]
    with pytest.raises(ValueError, match="lies in the data's own folder"):
        parsed(words)()
    assert sorted(p.name for p in pets.iterdir()) == ["a", "b"]
    assert [p.name for p in tmp_path.iterdir()] == ["pets"]


def test_grey_images_and_a_start_from_the_digits(tmp_path, capsys):
    root = drawn(tmp_path / "grey", {"7": 4, "x": 4}, grey=True)
    words = ["train-prior", str(root), "--start", "digits", "--hours", "1", "--unet-steps", "2"]
    words += ["--unet-batch", "2", "--out", str(tmp_path / "out"), *TINY[-12:]]
    with pytest.warns(UserWarning, match="hardly change the denoiser of digits"):
        parsed(words)()
    said = capsys.readouterr().out
    assert "32 px, as the prior to start from has them" in said and "kept as digits has it" in said
    made, start = load_prior(tmp_path / "out" / "model"), load_prior("digits")
    assert made.classes == ("7", "x") and not (tmp_path / "out" / "autoencoder").exists()
    first, seven = (p.class_conditioning(torch.tensor([k]))[0] for p, k in ((made, 0), (start, 7)))
    assert (first - seven).abs().max() < 0.1
    log = read_json(tmp_path / "out" / "model" / "training.json")
    assert log["denoiser_steps"] == 2 and log["autoencoder_steps"] == 0
    card = (tmp_path / "out" / "model" / "README.md").read_text(encoding="utf-8")
    assert "It went on from digits" in card and "Digits, trained further" in card
    assert asdict(TrainedOn.read(tmp_path / "out" / "model"))["name"] == "grey"
    assert load_file(tmp_path / "out" / "model" / "class_embedding" / "model.safetensors")
