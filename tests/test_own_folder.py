"""From a folder of one's own images to a distilled set, its page and its report."""

import json
import math
import re
import shlex
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from ld3m_min.commands import parsed
from ld3m_min.commands.distil import COMMAND
from ld3m_min.commands.own_folder import changes, command_line, own_out
from ld3m_min.config import NetworkConfig
from ld3m_min.data import load_data
from ld3m_min.data.dataset import ImageDataset
from ld3m_min.data.glance import glance
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.evaluate.cross_architecture import EvalResult
from ld3m_min.io.stop import Interrupted, stop_after
from ld3m_min.own_folder import choose
from ld3m_min.presets import PRESETS
from ld3m_min.prior.architecture import build_prior
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.loading import load_prior
from ld3m_min.prior.presets import prior_preset
from ld3m_min.report import preview as preview_module
from ld3m_min.report.accuracy import ALL, DISTILLED, NETWORKS, RANDOM, Judged
from ld3m_min.report.advice import next_steps, trend
from ld3m_min.report.html import plain
from ld3m_min.report.plots import running_mean
from ld3m_min.report.preview import Preview
from ld3m_min.report.report import Run, trust, verdict, write_report
from ld3m_min.report.snapshots import moments
from ld3m_min.report.words import duration, size_of
from ld3m_min.run import Progress
from ld3m_min.spaces.base import Space
from ld3m_min.synthetic import SyntheticSet

from .parity._data import load_json, load_tensors
from .trust.common import folder_of, picture

HOSTILE = ('<b>x & "q', "عربي", "long " * 40)
VOID = {"img", "meta", "br", "link", "input", "hr"}


@pytest.fixture(autouse=True, scope="module")
def small():
    """The preset of one's own folder, as small as it goes: its numbers mean nothing."""
    was = PRESETS["own"]
    PRESETS["own"] = replace(
        was,
        distil=replace(
            was.distil,
            iterations=3,
            batch_real=4,
            checkpoint_every=1,
            network=NetworkConfig(width=8),
            sampler=replace(was.distil.sampler, steps=2),
        ),
        evaluation=replace(was.evaluation, epochs=2, repeats=2, width=8),
    )
    yield
    PRESETS["own"] = was
    stop_after(None)


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("own") / "pets", HOSTILE, n=8)


def run(*words):
    parsed(["distil", *map(str, words)])()


class Page(HTMLParser):
    """What a page holds: its tags and attributes, its text, the cells of its tables."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.open, self.text, self.cells = [], [], "", []
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def refreshes(self):
        return any(m.get("http-equiv") == "refresh" for m in self.of("meta"))

    def check(self):
        """Nothing is asked of any other file or address, and nothing is only to be seen."""
        assert {name for name, _ in self.tags}.isdisjoint({"script", "iframe", "link", "object"})
        for _, attrs in self.tags:
            assert not any(k.startswith("on") for k in attrs)
            for key in ("src", "href", "xlink:href"):
                assert attrs.get(key, "#").startswith(("data:", "#")), attrs[key][:60]
        assert "@import" not in self.source
        assert re.findall(r"url\((?!#)", self.source) == []
        assert all(attrs.get("alt") for attrs in self.of("img"))
        assert all(attrs.get("aria-label") for attrs in self.of("svg"))
        ids = [attrs["id"] for _, attrs in self.tags if "id" in attrs]
        assert len(ids) == len(set(ids))


# -- what is chosen


@pytest.mark.parametrize("sides, size", [([20], 32), ([40], 32), ([64], 64), ([300], 128)])
def test_the_size_is_the_images_own(sides, size, tmp_path):
    (tmp_path / "a").mkdir()
    for i, side in enumerate(sides):
        picture(i, side).save(tmp_path / "a" / f"{i}.png")
    assert glance(tmp_path).size == size


def test_the_size_is_what_most_images_reach_with_their_short_side(tmp_path):
    (tmp_path / "a").mkdir()
    for i, (w, h) in enumerate([(640, 66), (66, 640), (80, 80), (40, 400)]):
        Image.new("RGB", (w, h)).save(tmp_path / "a" / f"{i}.png")
    (tmp_path / "a" / "broken.png").write_bytes(b"no picture")
    found = glance(tmp_path)
    assert (found.size, found.files, found.classes) == (64, 5, ("a",))


def prior_of(folder, classes=(), *, denoiser=True, size=16):
    """A folder that says what a prior is; it has no weights, for none are read."""
    (folder / "vae").mkdir(parents=True)
    index = {"_class_name": "LatentDiffusionPrior", "classes": list(classes)}
    index |= {"conditional": denoiser, "vae": "AutoencoderKL"}
    index |= {"unet": "UNet2DConditionModel"} if denoiser else {}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "vae" / "config.json").write_text(json.dumps({"sample_size": size}))
    if denoiser:
        (folder / "unet").mkdir()
        (folder / "unet" / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "classes, denoiser, space",
    [
        (("bear", "Apple", "cat"), True, "ld3m"),
        (("bear", "cat"), True, "autoencoder"),  # knows one of the two
        (("x", "y"), True, "autoencoder"),
        ((), True, "autoencoder"),
        ((), False, "autoencoder"),
    ],
)
def test_the_space_is_what_the_prior_allows(classes, denoiser, space, tmp_path):
    found = glance(folder_of(tmp_path / "pets", n=1))
    prior = prior_of(tmp_path / "prior", classes, denoiser=denoiser)
    chosen = choose(found, {"prior": str(prior)})
    assert (chosen.space, chosen.size) == (space, 16) and "prior" in chosen.why


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, "does not know every class"),
        ({"cond_stage_config": "__is_unconditional__"}, "knows no classes"),
    ],
)
def test_a_released_checkpoint_with_its_yaml_is_a_prior(changes, words, tmp_path):
    values = load_json("compvis_tiny")
    values["model"]["params"] |= changes
    (tmp_path / "m.safetensors").write_bytes(b"the weights are not read")
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(values))
    found = glance(folder_of(tmp_path / "pets", n=1))
    given = {"prior": str(tmp_path / "m.safetensors")}
    chosen = choose(found, given)
    assert (chosen.space, chosen.size) == ("autoencoder", 32) and words in chosen.why
    assert choose(found, given | {"space": "ld3m"}).space == "ld3m"
    (tmp_path / "m.yaml").unlink()
    with pytest.raises(InputError, match="with its yaml beside it"):
        choose(found, given)


def test_an_autoencoder_in_a_checkpoint_cannot_denoise(tmp_path):
    first = load_json("compvis_tiny")["model"]["params"]["first_stage_config"]
    (tmp_path / "vae.ckpt").write_bytes(b"the weights are not read")
    (tmp_path / "vae.yaml").write_text(
        yaml.safe_dump({"model": first | {"target": "ldm.models.autoencoder.VQModel"}})
    )
    found = glance(folder_of(tmp_path / "pets", n=1))
    given = {"prior": str(tmp_path / "vae.ckpt")}
    assert "is an autoencoder alone" in choose(found, given).why
    with pytest.raises(InputError, match="is an autoencoder alone and cannot denoise"):
        choose(found, given | {"space": "ld3m"})


def test_without_a_prior_pixels_are_learned(tmp_path):
    chosen = choose(glance(folder_of(tmp_path / "pets", n=1)), {})
    assert (chosen.space, chosen.size) == ("pixel", 32) and "no prior" in chosen.why


def test_the_shipped_prior_is_for_digits_alone(tmp_path):
    digits = glance(folder_of(tmp_path / "digits", tuple("0123456789"), n=1))
    assert choose(digits, {"prior": "digits"}).space == "ld3m"
    pets = glance(folder_of(tmp_path / "pets", n=1))
    for given in ({}, {"space": "autoencoder"}):
        with pytest.raises(InputError, match="trained on other images than these"):
            choose(pets, {"prior": "digits"} | given)


def test_options_win(pets):
    made = COMMAND.resolved([str(pets), "--space", "fred", "--size", "64", "--ipc", "2"])
    assert (made.config.space, made.config.size, made.config.ipc) == ("fred", 64, 2)
    assert made.preset == "own" and made.config.dataset == str(pets)


def test_the_rate_of_dm_rises_with_the_images_per_class(pets):
    """Each of n images of a class gets an n-th of the gradient of a mean."""
    for ipc in (1, 3, 10):
        made = COMMAND.resolved([str(pets), "--ipc", str(ipc)]).config
        assert made.lr == pytest.approx(0.1 * ipc) and "--lr" not in changes(made)
    assert COMMAND.resolved([str(pets), "--ipc", "3", "--lr", "0.2"]).config.lr == 0.2
    assert COMMAND.resolved([str(pets), "--ipc", "3", "--algorithm", "DC"]).config.lr == 1.0


# -- mistakes


def test_mistakes_are_sentences_before_any_work(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = folder_of(tmp_path / "one", ("a",), n=4)
    alone = prior_of(tmp_path / "alone", denoiser=False)
    cases = {
        "choose smoke, .*There is no folder of that name": ["pest"],
        "lies in the folder of the images": [pets, "--out", pets / "runs"],
        "holds one class, 'a'": [one],
        "--space ld3m needs a prior of these images": [pets, "--space", "ld3m"],
        "--space glad-w needs a prior": [pets, "--space", "glad-w"],
        "is an autoencoder alone": [pets, "--space", "ld3m", "--prior", alone],
        "no such folder": [pets, "--prior", "./nowhere"],
        "is for a folder of images; give it": ["own"],
        r"there is none called '\./digits'": ["own", "--dataset", "digits"],
        "training images, fewer than the 9": [pets, "--ipc", "9"],
        "two data sets": [pets, "--dataset", "digits"],
    }
    before = set(tmp_path.rglob("*"))
    for message, words in cases.items():
        with pytest.raises((InputError, FileNotFoundError), match=message) as refused:
            run(*words)
        assert "\n" not in str(refused.value)
    made = {p.relative_to(tmp_path).parts[0] for p in set(tmp_path.rglob("*")) - before}
    assert made <= {"runs"}
    assert not list(tmp_path.rglob("preview.html"))


def test_a_folder_called_like_a_preset_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "smoke", n=1)
    with pytest.warns(UserWarning, match="taken for the preset"):
        assert COMMAND.resolved(["smoke"]).preset == "smoke"
    assert COMMAND.resolved(["./smoke"]).preset == "own"


@pytest.mark.parametrize("name", ["digits", "letters", "imagenette", "ImageNette-fastai", "smoke"])
def test_a_folder_called_like_a_data_set_is_still_the_folder(name, tmp_path, monkeypatch):
    """Its images are distilled, and the command that is noted asks for them again."""
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / name, n=4)
    (tmp_path / "mine.yml").write_text(f"dataset: {name}")
    ways = [
        [f"./{name}"],
        [f"{name}/"],
        ["own", "--dataset", name],
        ["own", "--config", "mine.yml"],
    ]
    for words in [*ways, *([[name]] * (name not in PRESETS))]:
        call = COMMAND.resolved(words)
        assert call.preset == "own" and call.config.dataset == f"./{name}"
        data = load_data(call.config.dataset, size=16, cache=False, progress=False)
        assert (data.name, data.classes) == (name, ("apple", "bear"))
        again = COMMAND.resolved(shlex.split(command_line(call))[4:])
        assert (again.preset, again.config) == ("own", call.config)
        assert own_out(call.options, call.given).as_posix() == f"runs/{name}"


def test_a_home_is_put_into_every_path_before_it_is_checked(tmp_path, monkeypatch):
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LD3M_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "here")
    folder_of(tmp_path / "home" / "photos", n=4)
    before = set((tmp_path / "home").rglob("*"))
    with pytest.raises(InputError, match="lies in the folder of the images"):
        run("~/photos", "--out=~/photos/run")
    with pytest.raises(InputError, match="lies in the data's own folder"):
        parsed(["select", "~/photos", "--out=~/photos/run"])()
    assert set((tmp_path / "home").rglob("*")) == before
    run("~/photos", "--out=~/run", "--no-evaluate")
    made = {p.name for p in (tmp_path / "home" / "run").iterdir()}
    assert {"set", "preview.html", "report.html"} <= made
    assert not list((tmp_path / "here").iterdir())


# -- the whole way


@pytest.fixture(scope="module")
def done(pets, tmp_path_factory):
    """A run from beginning to end, and what it printed."""
    out = tmp_path_factory.mktemp("run") / "run"
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ld3m_min.commands.own_folder.say", lines.append)
        run(pets, "--out", out, "--momentum", "0.4")
    return SimpleNamespace(out=out, said="\n".join(lines))


def test_the_plan_is_printed(done):
    for words in (
        "15 to learn from; 3 held out to choose by, 6 to test on",
        '3: <b>x & "q, long long',
        "32 px (the largest of",
        "pixel (no prior was given",
        "3 iterations of DM, 1 per class",
        "an iteration",
        "memory so far",
        "report.html",
    ):
        assert words in done.said, done.said


def test_the_report_says_all_and_needs_nothing(done):
    page = Page(done.out / "report.html")
    page.check()
    assert "viewport" in page.source and "prefers-color-scheme: dark" in page.source
    assert "<b>" not in page.source and "&lt;b&gt;x &amp; &quot;q" in page.source
    assert all(name.strip() in page.text for name in HOSTILE)
    images = [attrs["alt"] for attrs in page.of("img")]
    assert sum(alt.startswith("learned image") for alt in images) == 3
    assert sum(alt.startswith("real image") for alt in images) == 3 * 4
    assert sum("iterations, downwards" in alt for alt in images) == 3
    assert len(page.of("svg")) == 3  # loss, gradient norms, accuracies
    for words in (
        "6 test images, 2 of the smallest class",
        "That is rough",
        "--momentum: 0.4 (the preset has 0.5)",
        "18 trainings",
        "SyntheticSet.load",
        "lossless PNG",
    ):
        assert words in page.text, words
    assert "2 and MLP" not in page.text and "mean of VGG11 and MLP" in page.text


def test_the_set_is_that_of_the_page(done):
    made = SyntheticSet.load(done.out / "set")
    assert len(made.labels) == 3 and len(made.history) == 3 and made.config.momentum == 0.4
    measured = made.recipe["evaluation"]
    assert {*measured["accuracies"]} == {*NETWORKS} and measured["split"] == "test"
    numbers = json.loads((done.out / "report.json").read_text())
    found = numbers["evaluation"]["accuracies"]
    assert found[DISTILLED] == measured["accuracies"] and {*found} == {DISTILLED, RANDOM, ALL}
    assert numbers["images"] == 3 and "distil" in numbers["command"]
    assert "| MLP |" in (done.out / "set" / "README.md").read_text(encoding="utf-8")


def test_the_last_preview_is_read_no_more(done):
    page = Page(done.out / "preview.html")
    page.check()
    assert not page.refreshes and "The run is finished" in page.text
    assert "iteration 3 of 3" in page.text and len(page.of("img")) == 3


def test_stopped_and_gone_on_with_the_numbers_are_the_same(done, pets, tmp_path, monkeypatch):
    monkeypatch.setattr(preview_module, "SECONDS", 0.0)
    seen = []
    write = preview_module.write_bytes
    monkeypatch.setattr(
        preview_module,
        "write_bytes",
        lambda file, data: (write(file, data), seen.append(Page(file))),
    )
    out = tmp_path / "run"
    words = [pets, "--out", out, "--momentum", "0.4"]
    reasons = []
    for _ in range(60):
        try:
            run(*words, "--max-seconds", "0")
            break
        except Interrupted as stopped:
            assert stopped.code == 75
            reasons.append(str(stopped))
            assert not (out / "report.html").exists()
            page = Page(out / "preview.html")
            assert not page.refreshes and "goes on from there" in page.text
        if len(reasons) == 4:  # the trainings stop after every epoch: enough was seen
            stop_after(None)
            run(*words)
            break
    assert any("1 of 3 iterations" in r for r in reasons), reasons
    assert any("trainings are finished" in r for r in reasons), reasons
    assert any(page.refreshes and "It runs" in page.text for page in seen)
    assert any(page.refreshes and "the networks are trained on" in page.text for page in seen)
    ended = [page for page in seen if not page.refreshes]  # a browser reads all others again
    assert len(ended) == len(reasons) + 1 and seen[-1] is ended[-1]
    tables = [
        [c for c in Page(folder / "report.html").cells if re.fullmatch(r"\d+\.\d( \(.*\))?", c)]
        for folder in (out, done.out)
    ]
    assert tables[0] == tables[1] and len(tables[0]) == 12
    a, b = (SyntheticSet.load(folder / "set") for folder in (out, done.out))
    assert torch.equal(a.pixels, b.pixels)


def test_a_prior_of_ones_own(pets, tmp_path, capsys):
    """An autoencoder alone, then one with a denoiser that knows the classes."""
    whole = build_prior(prior_preset("smoke"), tuple(sorted(HOSTILE)))
    LatentDiffusionPrior(whole.autoencoder, None, None, None).save_pretrained(tmp_path / "alone")
    whole.save_pretrained(tmp_path / "whole")
    out = tmp_path / "a"
    run(pets, "--prior", tmp_path / "alone", "--iterations", "2", "--no-evaluate", "--out", out)
    assert "autoencoder (the prior is an autoencoder alone)" in capsys.readouterr().out
    page = Page(out / "report.html")
    page.check()
    assert "It was not measured (--no-evaluate)" in page.text and not (out / "evaluation").exists()
    Image.new("RGB", (40, 20)).save(tmp_path / "strip.png")
    out = tmp_path / "b"
    out.mkdir()
    (tmp_path / "strip.png").rename(out / "prior-on-your-images.png")
    run(pets, "--prior", tmp_path / "whole", "--iterations", "2", "--no-evaluate", "--out", out)
    assert "ld3m (the prior has a denoiser" in capsys.readouterr().out
    assert "What the prior makes of your images" in Page(out / "report.html").text
    assert SyntheticSet.load(out / "set").config.space == "ld3m"
    with pytest.raises(InputError, match="is a distilled set, not images"):
        run(out / "set")
    with pytest.raises(InputError, match="holds a distilled set, not images"):
        run(out)


def test_a_page_that_cannot_be_written_breaks_nothing(pets, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    out = tmp_path / "run"
    monkeypatch.setattr(preview_module, "write_bytes", full)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(pets, "--out", out, "--no-evaluate")
    told = [w for w in caught if "cannot be written" in str(w.message)]
    assert len(told) == 1
    assert (out / "set" / "set.json").exists() and (out / "report.html").exists()


def test_another_runs_page_stays(done, pets):
    """A command that is refused has nothing to say on the page of the run that is there."""
    before = (done.out / "preview.html").read_bytes()
    with pytest.raises(InputError, match="another configuration"):
        run(pets, "--out", done.out, "--lr", "7")
    assert (done.out / "preview.html").read_bytes() == before


# -- pieces


def test_the_page_takes_a_small_part_of_the_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(preview_module.time, "monotonic", lambda: now[0])
    page = Preview(tmp_path / "p.html", "t", 100, ("a",))
    spent = []

    class Slow(Space):
        def images(self):
            spent.append(now[0])
            now[0] += 1.0  # a second for one page
            return torch.rand(1, 3, 8, 8)

    for i in range(200):
        now[0] += 0.5
        page.show(Progress(i, 1.0, {}, Slow({})), None)
    assert len(spent) > 2 and len(spent) * 1.0 / now[0] <= 0.05


def test_the_trend_of_a_loss():
    noise = [0.1 * (-1) ** i for i in range(40)]

    def losses(slope):
        return [{"loss": 10 + slope * i + noise[i]} for i in range(40)]

    falling, level, rising = (trend(losses(s)) for s in (-0.1, 0.0, 0.1))
    assert falling.sure and falling.change == pytest.approx(-1 / 7.55, rel=0.01)
    assert not level.sure and rising.sure and rising.change > 0
    assert trend(losses(0)[:19]) is None
    config = PRESETS["own"].distil
    assert "--iterations 6" in next_steps(config, losses(-0.1), None)[0]
    assert "--lr" in next_steps(config, losses(0.1), None)[0]
    assert "no longer fell" in next_steps(config, losses(0), None)[0]
    assert "skipped" in next_steps(config, [*losses(0), {"skipped": True}], None)[0]


def judged(distilled, random, every=(0.9, 0.92)):
    def result(values):
        return EvalResult({"ConvNet": (0.1,) * len(values), "VGG11": values}, "test")

    results = {DISTILLED: result(distilled), RANDOM: result(random), ALL: result(every)}
    return Judged(results, {DISTILLED: 3, RANDOM: 3, ALL: 300}, 400, 100, 0.3, len(distilled))


def test_a_difference_is_told_with_its_interval():
    from scipy import stats

    found = judged((0.5, 0.52, 0.54), (0.4, 0.42, 0.41))
    gain = found.gain()
    wanted = stats.ttest_ind([0.5, 0.52, 0.54], [0.4, 0.42, 0.41], equal_var=False)
    assert gain.mean == pytest.approx(0.11)
    assert gain.low == pytest.approx(wanted.confidence_interval().low)
    assert "+11.0 points" in verdict(found) and "all 300 give 91.0 %" in verdict(found)
    near = judged((0.5, 0.4, 0.6), (0.45, 0.5, 0.55))
    assert any("do not tell" in s for s in next_steps(PRESETS["own"].distil, [], near))
    assert math.isnan(judged((0.5, 0.5), (0.5, 0.5)).gain().low)
    assert math.isnan(judged((0.5, math.nan), (0.5, 0.5)).gain().low)


def test_how_far_an_accuracy_is_to_be_trusted():
    found = judged((0.5, 0.5), (0.5, 0.5))
    # Wilson's interval of 200 of 400
    assert found.uncertain == pytest.approx(0.0488, abs=1e-4)
    assert "rough" not in trust(found)
    assert "rough" in trust(replace(found, tested=30)) and "rough" in trust(
        replace(found, fewest=3)
    )


def test_a_page_of_a_hundred_classes_is_small(tmp_path):
    classes = tuple(f"class {k}" for k in range(100))
    pixels = torch.rand(100, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(100)
    split = ImageDataset((255 * pixels).byte(), labels, classes, "train")
    data = DataSplits("many", split, split, split, mean=(0.5,) * 3, std=(0.5,) * 3)
    config = {"algorithm": "DM", "space": "pixel", "size": 64, "ipc": 1, "dataset": "many"}
    recipe = {"config": config | {"seed": 0}, "seconds": 1.0}
    made = SyntheticSet(pixels, labels, classes, {"pixels": pixels}, recipe)
    known = {"made": made, "data": data, "out": tmp_path, "command": "c", "changed": {}}
    known |= {"space": "pixel", "size": "64", "judged": None, "snapshots": ()}
    known |= {"environment": {}, "memory": None, "seconds": 0.0}
    write_report(Run(**known), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    page.check()
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
    shown = int(re.search(r"The first (\d+) of 100 classes", page.text)[1])
    assert 10 < shown <= 100 and f"class {shown - 1}" in page.text


def test_words():
    assert [duration(s) for s in (0.04, 35, 200, 7500)] == [
        "0.0 s",
        "35 s",
        "3 min 20 s",
        "2 h 5 min",
    ]
    assert [size_of(n) for n in (512, 3400, 1.2e6, 2e9)] == [
        "512 bytes",
        "3.4 kB",
        "1.2 MB",
        "2.0 GB",
    ]


def test_moments_and_running_mean():
    assert moments(1) == [1] and moments(200)[-1] == 200 and len(moments(200)) == 9
    assert moments(0) == [1]
    import numpy as np

    y = np.array([1.0, np.nan, 3.0, 5.0])
    assert running_mean(y, 0.75)[1:3].tolist() == [2.0, 4.0]


def test_text_of_others_is_no_markup():
    assert plain("a<b>&\"'") == "a&lt;b&gt;&amp;&quot;&#x27;"
    assert "\u202e" not in plain("x\u202egnp.exe") and plain("می‌خواهم") == "می‌خواهم"


def test_the_command_is_given_back(pets):
    made = COMMAND.resolved(
        [str(pets), "--sampler.steps", "3", "--no-learn-c", "--no-evaluate", "--seed", "4"]
    )
    words = shlex.split(command_line(made))
    assert words[:5] == ["python", "-m", "ld3m_min", "distil", str(pets)]
    assert COMMAND.resolved(words[4:]) == made
    assert changes(made.config) == {
        "--sampler.steps": ("2", "3"),
        "--learn-c": ("True", "False"),
        "--seed": ("0", "4"),
    }


@pytest.mark.filterwarnings("ignore:the prior blurs your images")
def test_a_released_checkpoint_or_an_autoencoder_alone_distils(pets, tmp_path, capsys):
    """As the early check takes them, so does the run."""
    checkpoint, alone = tmp_path / "m.safetensors", tmp_path / "alone"
    save_file(load_tensors("compvis_tiny"), checkpoint)
    checkpoint.with_suffix(".yaml").write_text(yaml.safe_dump(load_json("compvis_tiny")))
    load_prior(checkpoint).autoencoder.save_pretrained(alone)
    whys = {checkpoint: "'s denoiser does not know every class", alone: " is an autoencoder alone"}
    for prior, why in whys.items():
        out = tmp_path / f"out-{prior.stem}"
        run(pets, "--prior", prior, "--iterations", "2", "--no-evaluate", "--out", out)
        assert f"autoencoder (the prior{why}" in capsys.readouterr().out
        assert (out / "set" / "set.json").is_file()
