"""Paths as they are typed: `~`, users that there aren't, and words that are names of data too."""

from pathlib import Path

import pytest

from ld3m_min.data import load_data
from ld3m_min.data.glance import glance
from ld3m_min.data.loading import check_outside
from ld3m_min.errors import InputError
from ld3m_min.evaluate import evaluate
from ld3m_min.experts import train_experts
from ld3m_min.io.paths import expanded, folder_text
from ld3m_min.prior.class_map import ClassMap
from ld3m_min.prior.loading import load_prior
from ld3m_min.prior.training_log import TrainedOn
from ld3m_min.run import distil
from tests.trust.common import eval_preset, folder_of, load, preset, settings

NOBODY = "~nobody-of-that-name/photos"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of one's own, and another folder to work in."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_a_home_is_put_in_once(home):
    assert expanded("~") == home and expanded("~/a/b") == expanded(Path("~/a/b")) == home / "a/b"
    for plain in ("a", "./a", "/a/~", "a/~b"):
        assert expanded(plain) == Path(plain)
    literal = expanded("./~")  # such as a program makes that knows nothing of homes
    assert literal == Path.cwd() / "~" and expanded(literal) == literal


def test_a_folder_is_never_a_name(home):
    assert [folder_text(t) for t in ("digits", "./digits", "digits/", Path("digits"))] == [
        "./digits"
    ] * 4
    for path in ("a/b", "/a/b", "../a", "."):
        assert folder_text(path) == path
    assert folder_text("~/a") == str(home / "a")
    assert folder_text(folder_text("smoke")) == "./smoke"


@pytest.mark.parametrize("name", ["digits", "letters"])
def test_a_path_that_is_called_as_a_data_set_is_a_path(name, home):
    folder_of(name, n=8)
    own = load_data(Path(name), size=16, cache=False, progress=False)
    assert own.classes == load(f"./{name}").classes == ("apple", "bear")
    assert len(load_data(name).classes) >= 10


@pytest.mark.parametrize(
    "use",
    [
        load_data,
        lambda path: load_data(Path(path)),
        lambda path: load_data("imagenette", path=path),
        glance,
        load_prior,
        ClassMap.read,
        TrainedOn.read,
    ],
)
def test_a_user_that_there_is_not_is_a_sentence(use):
    with pytest.raises(InputError, match="begins with ~nobody-of-that-name, for which no home"):
        use(NOBODY)


def test_nothing_is_written_among_the_images_of_ones_home(home, tmp_path):
    data = load(folder_of(home / "photos", n=8))
    out, config = "~/photos/run", settings()
    before = set(tmp_path.rglob("*"))
    real = distil(settings(iterations=0), data=data, progress=False)
    for use in (
        lambda: check_outside(out, data),
        lambda: distil(config, data=data, out=out, progress=False),
        lambda: evaluate(real, data, ("MLP",), config=eval_preset("smoke"), out=out),
        lambda: train_experts(preset("smoke", algorithm="MTT"), data, out, progress=False),
    ):
        with pytest.raises(InputError, match="lies in the data's own folder"):
            use()
    assert set(tmp_path.rglob("*")) == before


def test_what_is_checked_is_what_is_written_to(home):
    data = load(folder_of(home / "photos", n=8))
    made = distil(settings(), data=data, out="~/run", progress=False)
    quick = eval_preset("smoke", epochs=1, repeats=1, width=8)
    evaluate(made, data, ("MLP",), config=quick, out=Path("~/judged"))
    assert (home / "run" / "set").is_dir() and any((home / "judged").iterdir())
    assert not list(Path.cwd().iterdir())
