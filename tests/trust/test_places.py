"""What stands in a run's place is never replaced, and what is wrong is said before the work."""

import os
import re
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from ld3m_min.commands import parsed
from ld3m_min.data.glance import glance
from ld3m_min.errors import InputError
from ld3m_min.io.files import _old
from ld3m_min.io.paths import resolved
from ld3m_min.prior.architecture import build_prior
from ld3m_min.prior.card import called
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.presets import prior_preset
from ld3m_min.prior.training_log import TrainedOn, TrainingLog
from ld3m_min.prior.weights import SHIPPED, find_prior, shipped
from ld3m_min.run import distil
from ld3m_min.run_folder import FOLDERS, PAGES, check_run_folder
from ld3m_min.synthetic import SyntheticSet

from .common import folder_of, load, settings

WORDS = ("--iterations", "2", "--size", "32", "--no-evaluate", "--network.width", "8")


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("images") / "pets")


@pytest.fixture(scope="module")
def finished(pets, tmp_path_factory):
    """A finished run of the command line."""
    out = tmp_path_factory.mktemp("run") / "run"
    parsed(["distil", str(pets), *WORDS, "--out", str(out)])()
    return out


def again(pets, out, *words):
    parsed(["distil", str(pets), *WORDS, "--out", str(out), *words])()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=name):
        check_run_folder(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", PAGES)
def test_a_folder_in_the_place_of_a_page_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_run_folder(tmp_path)


@pytest.mark.parametrize("name", [*PAGES, "snapshots/000001.png"])
def test_pages_of_others_are_not_replaced(pets, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="no run of ours wrote"):
        again(pets, tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_run_goes_into_its_own_folder_again(finished, tmp_path):
    check_run_folder(finished)
    shutil.copy(finished / "preview.html", tmp_path)  # stopped before the first checkpoint
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "000000.png").write_bytes(b"")
    check_run_folder(tmp_path)


def test_what_is_no_folder_is_called_so(pets, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name, said in (("file", "no folder"), ("link", "leads nowhere"), ("x" * 300, "too long")):
        with pytest.raises(OSError, match=said):
            again(pets, tmp_path / name)
        with pytest.raises(OSError, match=said):
            distil(settings(), data=load(pets), out=tmp_path / name, progress=False)


def test_a_circle_of_links_is_a_sentence(pets, tmp_path):
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with pytest.raises((InputError, OSError), match=r"followed|leads nowhere"):
        again(pets, tmp_path / "one")
    if os.name == "posix":
        assert resolved(tmp_path) == tmp_path.resolve()


def test_a_finished_run_started_again_keeps_what_was_noted(pets, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    noted = SyntheticSet.load(out / "set").with_licence("CC-BY-4.0")
    noted = noted.with_evaluation({"ConvNet": [0.5]}, data="pets", split="test")
    noted.save(out / "set")
    again(pets, out)
    recipe = SyntheticSet.load(out / "set").recipe
    assert recipe["licence"] == "CC-BY-4.0" and recipe["evaluation"] == noted.recipe["evaluation"]
    again(pets, out, "--iterations", "3")  # other images: the accuracies were of the old ones
    recipe = SyntheticSet.load(out / "set").recipe
    assert recipe["licence"] == "CC-BY-4.0" and "evaluation" not in recipe


def test_a_card_changed_by_hand_is_not_written_anew(pets, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    card = out / "set" / "README.md"
    card.write_text(card.read_text() + "\n## My notes\n")
    words = ["evaluate", "smoke", str(out / "set"), "--dataset", str(pets), "--to-card"]
    for tried in (
        lambda: again(pets, out, "--licence", "MIT"),
        lambda: parsed([*words, "--architectures", "ConvNet"])(),
        lambda: SyntheticSet.load(finished / "set").save(out / "set"),
    ):
        with pytest.raises(InputError, match="changed by hand"):
            tried()
    assert card.read_text().endswith("## My notes\n")


def test_a_choice_never_replaces_another_set(pets, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    was = (out / "set" / "set.safetensors").read_bytes()
    words = ["select", str(pets), "--size", "32", "--out"]
    with pytest.raises(InputError, match="only copy"):
        parsed([*words, str(out)])()
    assert (out / "set" / "set.safetensors").read_bytes() == was
    for _ in range(2):  # the same once more is no other set
        parsed([*words, str(tmp_path / "chosen")])()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_with_the_suffix_of_an_image_does_not_hang(pets, tmp_path):
    folder = tmp_path / "pets"
    shutil.copytree(pets, folder)
    os.mkfifo(folder / "apple" / "pipe.png")
    assert glance(folder).files == glance(pets).files
    with pytest.raises(InputError, match="no ordinary file"):
        load(folder)


def test_a_prior_that_lacks_a_part_says_which(tmp_path, pets, monkeypatch):
    def ask(*args, **options):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", ask)
    monkeypatch.setattr("diffusers.models.modeling_utils.hf_hub_download", ask, raising=False)
    whole = tmp_path / "prior"
    build_prior(prior_preset("smoke"), ("apple", "bear")).save_pretrained(whole)
    for part in ("unet", "vae", "scheduler"):
        folder = tmp_path / f"without-{part}"
        shutil.copytree(whole, folder)
        shutil.rmtree(folder / part)
        with pytest.raises(FileNotFoundError, match=rf"lacks {part}/"):
            LatentDiffusionPrior.from_pretrained(folder)
        with pytest.raises(FileNotFoundError, match=rf"lacks {part}/"):
            again(pets, tmp_path / "out", "--prior", str(folder))
    (whole / "unet" / "config.json").write_text("[]")
    with pytest.raises(InputError, match="no configuration"):
        LatentDiffusionPrior.from_pretrained(whole)


def test_the_folder_of_a_run_or_training_is_told_from_what_is_in_it(finished, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder of a run, whose set is .*set"):
        SyntheticSet.load(finished)
    build_prior(prior_preset("smoke"), ("a", "b")).save_pretrained(tmp_path / "prior" / "model")
    with pytest.raises(FileNotFoundError, match=r"its prior is .*model"):
        LatentDiffusionPrior.from_pretrained(tmp_path / "prior")


def test_evaluate_asks_for_the_images_of_a_folder(finished, pets):
    with pytest.raises(InputError, match=r"'pets'.*--dataset FOLDER"):
        parsed(["evaluate", "smoke", str(finished / "set")])()
    with pytest.raises(
        InputError, match=r"2 classes \(apple, bear\), the data 'digits' 10 classes"
    ):
        parsed(["evaluate", "smoke", str(finished / "set"), "--dataset", "digits"])()


def test_a_folder_that_is_called_as_a_data_set_is_asked_for(tmp_path):
    root = folder_of(tmp_path / "digits")
    again(root, tmp_path / "run")
    with pytest.raises(InputError, match="--dataset FOLDER"):
        parsed(["evaluate", "smoke", str(tmp_path / "run" / "set")])()


def test_a_licence_is_not_carried_to_other_images(pets, tmp_path):
    other = folder_of(tmp_path / "others", seed=1)
    distil(settings(), data=load(other), progress=False).with_licence("MIT").save(tmp_path / "set")
    made = distil(settings(), data=load(pets), out=tmp_path, progress=False)
    assert "licence" not in made.recipe


@pytest.mark.parametrize("repeats", [1, 2])
def test_an_interval_lies_where_accuracies_do(finished, pets, capsys, repeats):
    words = ["evaluate", "smoke", str(finished / "set"), "--dataset", str(pets)]
    parsed([*words, "--architectures", "MLP", "ConvNet", "--repeats", str(repeats)])()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("MLP")]
    ends = [float(x) for x in re.findall(r"interval (\S+) to (\S+)", lines[0]) for x in x]
    assert ("no interval" in lines[0]) == (repeats == 1) == (not ends)
    assert all(0 <= x <= 100 for x in ends)


@pytest.mark.parametrize(
    "words",
    [("--redraw-noise",), ("--no-learn-z",), ("--experts", "nowhere"), ("--mtt.steps", "3")],
    ids=" ".join,
)
def test_what_has_no_effect_is_said(pets, tmp_path, words):
    with pytest.warns(UserWarning, match="without effect"):
        parsed(["distil", str(pets), *WORDS, "--out", str(tmp_path / "run"), *words])


def test_what_has_an_effect_is_not_called_without(pets, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parsed(["distil", str(pets), *WORDS, "--dc.metric", "mse", "--algorithm", "DC"])


def test_what_lies_beside_the_splits_is_named(pets, tmp_path):
    root = tmp_path / "things"
    for name in ("train", "test", "extra"):
        shutil.copytree(pets, root / name)
    shutil.copy(next((pets / "apple").iterdir()), root / "loose.png")
    with pytest.warns(UserWarning, match=r"not read: extra/, loose.png"):
        load(root)


def test_splits_by_another_name_are_explained(pets, tmp_path):
    for name in ("Training", "Testing"):
        shutil.copytree(pets, tmp_path / name)
    with pytest.raises(InputError, match="call them train, val and test"):
        load(tmp_path)


def test_enlarging_and_having_nothing_to_distil_are_said(tmp_path):
    root = folder_of(tmp_path / "tiny", n=3, size=8)
    assert glance(root).enlarged
    with pytest.warns(UserWarning, match="there is nothing to distil"):
        again(root, tmp_path / "run")


def test_a_folder_beside_a_preset_is_explained():
    with pytest.raises(InputError, match="distil smoke --dataset pets"):
        parsed(["distil", "pets", "--preset", "smoke"])


def test_two_versions_of_a_folder_have_runs_of_their_own(tmp_path, monkeypatch):
    from ld3m_min.commands.distil import DistilOptions
    from ld3m_min.commands.own_folder import own_out

    monkeypatch.chdir(tmp_path)
    for name in ("v1.0", "v1.1"):
        folder_of(tmp_path / name, n=1)
    outs = [own_out(DistilOptions(), {"dataset": name}).name for name in ("v1.0", "v1.1")]
    assert outs == ["v1.0", "v1.1"]


def test_a_licence_gives_no_warning_of_the_library(pets, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = distil(settings(), data=load(pets), progress=False).with_licence("MIT")
    assert made.recipe["licence"] == "MIT" and not torch.isnan(made.images()).any()


def test_a_prior_is_replaced_as_a_whole_and_what_else_lies_there_stays(tmp_path, monkeypatch):
    place, config = tmp_path / "prior", prior_preset("smoke")
    first, second = build_prior(config, ("a", "b")), build_prior(config, ("c", "d"))
    first.save_pretrained(place)
    (place / "mine").mkdir()
    for name in ("README.md", "mine/notes.txt", "vae/notes.txt"):
        (place / name).write_text("mine")
    (place / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    before = {f: f.read_bytes() for f in place.rglob("*") if f.is_file()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(second.denoiser), "save_pretrained", full)
        with pytest.raises(OSError, match="nothing was changed"):
            second.save_pretrained(place)
    assert {f: f.read_bytes() for f in place.rglob("*") if f.is_file()} == before
    second.save_pretrained(place)
    stale = place / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    assert {f for f in place.rglob("*") if f.is_file()} == set(before) - {stale}
    assert (place / "vae" / "notes.txt").read_text() == "mine"
    assert type(second).from_pretrained(place).classes == ("c", "d")


def test_a_path_that_ends_in_a_shipped_name_is_the_path(tmp_path, monkeypatch):
    """What it was trained on is read in the folder of the same prior as its weights."""
    build_prior(prior_preset("smoke"), ("a", "b")).save_pretrained(tmp_path / "letters")
    own = TrainedOn("mine", "0" * 64, 32, ("a", "b"))
    own.save(tmp_path / "letters")
    monkeypatch.chdir(tmp_path)
    for path in ("./letters", Path("letters"), tmp_path / "letters"):
        assert TrainedOn.read(path) == own and shipped(path) is None
        assert find_prior(path).folder.resolve() == tmp_path / "letters"
    assert TrainedOn.read("letters") != own
    assert find_prior("letters").folder == shipped("letters") == SHIPPED / "letters"


def test_a_prior_is_saved_over_links_and_where_its_folder_can_not_be_replaced(
    tmp_path, monkeypatch
):
    """A link is replaced and what it leads to stays; the working directory stays the same one."""
    place, config = tmp_path / "prior", prior_preset("smoke")
    build_prior(config, ("a", "b")).save_pretrained(place)
    TrainedOn("mine", "0" * 64, 32, ("a", "b")).save(place)
    (place / "vae").rename(tmp_path / "shared")
    (place / "vae").symlink_to(tmp_path / "shared")
    before = {f: f.read_bytes() for f in (tmp_path / "shared").iterdir()}
    build_prior(config, ("c", "d")).save_pretrained(place)
    assert not (place / "vae").is_symlink() and before == {f: f.read_bytes() for f in before}
    assert LatentDiffusionPrior.from_pretrained(place).classes == ("c", "d")
    assert TrainedOn.read(place) is None  # that was of the other prior
    monkeypatch.chdir(place)
    build_prior(config, ("e", "f")).save_pretrained(Path())
    assert os.path.samefile(os.getcwd(), place)
    assert LatentDiffusionPrior.from_pretrained(place).classes == ("e", "f")


def test_a_linked_prior_is_found_while_it_is_being_replaced(tmp_path):
    """After a kill between two renames the old copy lies beside its place."""
    place = tmp_path / "disk" / "model"
    build_prior(prior_preset("smoke"), ("a", "b")).save_pretrained(place)
    TrainingLog(1, 2, 3).save(place)
    (tmp_path / "link").symlink_to(place)
    place.rename(_old(place))
    assert LatentDiffusionPrior.from_pretrained(tmp_path / "link").classes == ("a", "b")
    assert TrainingLog.of(tmp_path / "link") == TrainingLog(1, 2, 3)
    assert called(tmp_path / "link") == "disk"
